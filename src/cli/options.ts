/**
 * The options of the command line in one table, as verbs.ts has the verbs. The parser, the help texts and the reference in
 * the README are made from both, so that none of them can say anything else.
 */

interface Option {
  /** flag: no value. list: one or more values. integer: a whole number, checked here; other values are checked with the settings. */
  readonly type: "flag" | "text" | "integer" | "list";
  readonly help: string;
  /** How the value is called in help texts; for all but flags. */
  readonly value?: string;
  readonly choices?: readonly string[];
}

export const options = {
  name: { type: "text", value: "SYNC", help: 'name of the sync, "default" if none is given' },
  source: { type: "text", value: "CONN", help: "the server to read from: a URL or a libpq keyword string" },
  target: { type: "text", value: "CONN", help: "the server to write to" },
  config: { type: "text", value: "FILE", help: "YAML file with settings; flags and variables win over it" },
  "source-host": { type: "text", value: "HOST", help: "its host, or the folder of its socket" },
  "source-port": { type: "text", value: "PORT", help: "its port" },
  "source-user": {
    type: "text",
    value: "USER",
    help: "who logs in; the password comes from REPLICATE_SOURCE_PASSWORD or ~/.pgpass",
  },
  "source-dbname": { type: "text", value: "NAME", help: "its database" },
  "source-sslmode": {
    type: "text",
    value: "MODE",
    help: "how it is encrypted: disable, prefer, require, verify-ca, verify-full",
  },
  "target-host": { type: "text", value: "HOST", help: "its host, or the folder of its socket" },
  "target-port": { type: "text", value: "PORT", help: "its port" },
  "target-user": {
    type: "text",
    value: "USER",
    help: "who logs in; the password comes from REPLICATE_TARGET_PASSWORD or ~/.pgpass",
  },
  "target-dbname": { type: "text", value: "NAME", help: "its database" },
  "target-sslmode": {
    type: "text",
    value: "MODE",
    help: "how it is encrypted: disable, prefer, require, verify-ca, verify-full",
  },
  json: {
    type: "flag",
    help: "the result as JSON on stdout; one line per event where a command runs for long",
  },
  "log-level": {
    type: "text",
    value: "LEVEL",
    choices: ["trace", "debug", "info", "warn", "error", "silent"],
    help: "how much is said on stderr while it works; info by default; trace says every statement, without values",
  },
  "log-format": {
    type: "text",
    value: "FORMAT",
    choices: ["text", "json"],
    help: "form of the lines on stderr; text by default",
  },
  help: { type: "flag", help: "explains the command" },
  version: { type: "flag", help: "the version of this program" },

  tables: {
    type: "list",
    value: "PATTERN…",
    help: `tables by pattern: 'public.*' '*.audit_*' users 'app."Users"'; all if none is given`,
  },
  "exclude-tables": { type: "list", value: "PATTERN…", help: "tables to leave out" },
  keyless: {
    type: "text",
    value: "POLICY",
    choices: ["refuse", "reload"],
    help: "tables without a key: refuse them, which is the default, or reload them as a whole when they have changed",
  },
  "keyless-limit": {
    type: "text",
    value: "SIZE",
    help: "tables without a key that are larger are reloaded at the cutover only, 64MB by default",
  },
  direction: {
    type: "text",
    value: "WAY",
    choices: ["one-way", "both"],
    help: "both: applications write to both sides; one-way by default",
  },
  conflict: {
    type: "text",
    value: "POLICY",
    choices: ["source-wins", "target-wins", "latest", "skip", "error"],
    help: "which side a row is taken from that was changed on both, source-wins by default; the file has more policies, and those of single tables",
  },
  "delta-limit": {
    type: "text",
    value: "SIZE",
    help: "tell when a sync of this source that takes nothing makes it keep more changes than that; 1GB by default",
  },
  "on-refusal": {
    type: "text",
    value: "POLICY",
    choices: ["stop", "park"],
    help: "a row that the target rejects: stop, which is the default, or park it with its error and go on",
  },
  "schema-changes": {
    type: "text",
    value: "POLICY",
    choices: ["apply", "stop"],
    help: "schema changes of the source's tables: apply them to the target too, the default one way, or stop with the statement",
  },
  retry: { type: "flag", help: "try them again with the next batches of follow" },
  ids: { type: "list", value: "ID…", help: "only these rows" },
  "accept-unreplicated": {
    type: "flag",
    help: "go on although tables created after init are not replicated, which the new side lacks",
  },
  "accept-parked": { type: "flag", help: "go on although rows are parked, which the new side lacks" },
  jobs: { type: "text", value: "N", help: "connections that work at the same time, 4 by default" },
  "index-jobs": { type: "text", value: "N", help: "indexes built at the same time, 2 by default" },
  "part-size": {
    type: "text",
    value: "SIZE",
    help: "size of the parts that tables are copied in, 128MB by default",
  },
  "index-memory": {
    type: "text",
    value: "SIZE",
    help: "memory for all index builds together, 1GB by default",
  },
  overwrite: { type: "flag", help: "replace rows that are in the target's tables; refused otherwise" },
  "overwrite-source": {
    type: "flag",
    help: "with --overwrite: also rows of tables that another sync takes from this target, as in a chain; refused otherwise",
  },
  adopt: {
    type: "flag",
    help: "take the rows in the target's tables for a finished copy made by other means",
  },
  restart: { type: "flag", help: "copy everything again from the start" },
  remap: {
    type: "flag",
    help: "copy the tables again that the settings map otherwise than before, and no others",
  },
  "until-caught-up": { type: "flag", help: "end when nothing is left to apply" },
  once: { type: "flag", help: "end after one batch" },
  standby: {
    type: "flag",
    help: "if another runner has the sync, wait for its end and take over within seconds",
  },
  listen: {
    type: "text",
    value: "HOST:PORT",
    help: "show at this address what goes on: a page, /metrics, /healthz, /readyz; other addresses than 127.0.0.1 need REPLICATE_CONSOLE_PASSWORD",
  },
  "allow-actions": {
    type: "flag",
    help: "let the page act too: start, pause, verify, switch and others; only shown without it",
  },
  repair: { type: "flag", help: "bring the differing rows again with the next batches of follow" },
  "check-foreign-keys": {
    type: "flag",
    help: "look for rows of the source whose foreign key leads nowhere; reads whole tables",
  },
  "show-settings": {
    type: "flag",
    help: "print what the settings come to for each table, and which override says so",
  },
  margin: {
    type: "integer",
    value: "N",
    help: "set the target's sequences this many values ahead; 0 by default, 1000 when switching",
  },
  interleave: {
    type: "flag",
    help: "share the numbers out between both sides instead, so that both can insert rows; taken back by drop",
  },
  shares: { type: "integer", value: "N", help: "how many databases share the numbers, 2 by default" },
  "source-share": { type: "integer", value: "I", help: "the source's share of the numbers, 1 by default" },
  "target-share": { type: "integer", value: "I", help: "the target's share of the numbers, 2 by default" },
  rehearse: { type: "flag", help: "predict the time without writes and what would stop it; change nothing" },
  timeout: {
    type: "text",
    value: "TIME",
    help: "longest time without writes, 60s by default; beyond, everything is undone",
  },
  "on-open": {
    type: "text",
    value: "CMD",
    help: "shell command to run once the new side is open, with PGHOST … PGPASSWORD and REPLICATE_TARGET set",
  },
  "no-reverse": { type: "flag", help: "do not keep the source current afterwards: no rollback" },
  "no-verify": { type: "flag", help: "compare only what changes meanwhile, not both sides as a whole" },
  undo: { type: "flag", help: "give up what was begun: the old side takes writes again" },
  finish: { type: "flag", help: "end the time in which it can be switched back" },
  "keep-closed": { type: "flag", help: "with --finish: the old source goes on refusing writes" },
  kind: {
    type: "list",
    value: "KIND…",
    help: "conflicts of these kinds: insert_exists, update_origin_differs, update_missing, delete_origin_differs, delete_missing, multiple_unique_conflicts",
  },
  pending: { type: "flag", help: "only conflicts that are to be resolved" },
  since: {
    type: "text",
    value: "TIME",
    help: "conflicts since then: 2026-05-01T12:00Z, or 2h for the last two hours",
  },
  limit: { type: "integer", value: "N", help: "how many at most, the latest ones; 20 by default" },
  all: { type: "flag", help: "all of them, however many" },
  with: {
    type: "text",
    value: "SIDE",
    choices: ["source", "target"],
    help: "resolve: the side whose row is taken, as it is now",
  },
  "all-pending": {
    type: "flag",
    help: "resolve: all that are to be resolved, or those of --tables, --kind and --since",
  },
  schema: {
    type: "flag",
    help: "the schema too: run creates it first, verify compares it instead of the rows",
  },
  section: {
    type: "text",
    value: "SECTION",
    choices: ["pre-data", "post-data", "all"],
    help: "pre-data: what rows and init need, keys included; post-data: the rest, and fills materialized views; all by default",
  },
  print: { type: "flag", help: "print the SQL, change nothing" },
  owners: { type: "flag", help: "keep owners; the roles have to exist on the target" },
  privileges: { type: "flag", help: "keep privileges; the roles have to exist on the target" },
  shell: { type: "flag", help: "a shell script, one part per call, instead of Markdown" },
  watch: { type: "flag", help: "show it again every two seconds" },
  yes: { type: "flag", help: "do not ask" },
  "source-only": { type: "flag", help: "only the source's side; the target is gone" },
  "target-only": { type: "flag", help: "only the target's side; the source is gone" },
  "dry-run": { type: "flag", help: "say what would be done, change nothing" },
} as const satisfies Record<string, Option>;

export type OptionName = keyof typeof options;

type ValueOf<O extends Option> = O["type"] extends "flag"
  ? boolean
  : O["type"] extends "list"
    ? readonly string[]
    : O["type"] extends "integer"
      ? number
      : string;

/** What was given. A flag that was not given is undefined. */
export type Values = { readonly [N in OptionName]?: ValueOf<(typeof options)[N]> };

/** Variables that stand for flags. */
export const variables = [
  [
    "REPLICATE_NAME, REPLICATE_SOURCE, REPLICATE_TARGET, REPLICATE_CONFIG",
    "stand for the flags of the same names",
  ],
  [
    "REPLICATE_SOURCE_PASSWORD, REPLICATE_TARGET_PASSWORD",
    "for connections that are given without a password",
  ],
  ["PGBIN", "the folder of pg_dump and pg_restore"],
  ["PGHOST, PGPASSWORD, PGSERVICE, PGPASSFILE and others of libpq", "fill in what a connection leaves out"],
] as const;

export function optionSpec(name: OptionName): Option {
  return options[name];
}
