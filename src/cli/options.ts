/**
 * The command line in one table. The parser, the help texts and the reference in the README are made from it, so
 * that none of them can say anything else.
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
    choices: ["debug", "info", "warn", "error", "silent"],
    help: "how much is said on stderr while it works; info by default",
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
    help: "a row that the target refuses: stop, which is the default, or park it with its error and go on",
  },
  retry: { type: "flag", help: "try them again with the next batches of follow" },
  ids: { type: "list", value: "ID…", help: "only these rows" },
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
  repair: { type: "flag", help: "bring the differing rows again with the next batches of follow" },
  "check-foreign-keys": {
    type: "flag",
    help: "look for rows of the source whose foreign key leads nowhere; reads whole tables",
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

interface Verb {
  readonly summary: string;
  /** More about it, one paragraph per entry. */
  readonly details: readonly string[];
  /** What may follow the verb, apart from options. Without it, nothing may. */
  readonly operands?: string;
  /** Its own options; those for every verb come with it. */
  readonly options: readonly OptionName[];
  readonly examples: readonly { readonly command: string; readonly says: string }[];
}

/** Title of the options that the help of a single verb leaves out. */
export const partsTitle = "The source or the target in parts, instead of as a whole";

/** Options that every verb takes. */
export const commonOptions = {
  "Which sync": ["name", "source", "target", "config"],
  [partsTitle]: [
    "source-host", "source-port", "source-user", "source-dbname", "source-sslmode",
    "target-host", "target-port", "target-user", "target-dbname", "target-sslmode",
  ],
  Output: ["json", "log-level", "log-format", "help", "version"],
} as const satisfies Record<string, readonly OptionName[]>; // prettier-ignore

const copyOptions = ["jobs", "index-jobs", "part-size", "index-memory", "overwrite", "adopt"] as const;

/** The verbs in the order in which they are used. */
export const verbs = {
  preflight: {
    summary: "checks everything and changes nothing",
    details: [
      "Every finding comes with the statement that repairs it, the side to run it on and the role to run it as. blocking: the sync cannot start or cannot end well; warning: something is not replicated, or may surprise; note: good to know. Exit code 1 if something is blocking.",
      "Compares the schemas too, and what the application's roles may do on either side. --jobs and --index-jobs tell how many connections the copy will open.",
    ],
    options: [
      "tables",
      "exclude-tables",
      "keyless",
      "keyless-limit",
      "direction",
      "conflict",
      "delta-limit",
      "check-foreign-keys",
      "jobs",
      "index-jobs",
      "index-memory",
    ],
    examples: [
      { command: "preflight --tables 'public.*'", says: "can these tables be replicated?" },
      { command: "preflight --check-foreign-keys", says: "which rows would leave a foreign key NOT VALID?" },
    ],
  },
  schema: {
    summary: "creates on the target what the tables need",
    details: [
      "Uses pg_dump and pg_restore of the source's version or newer, from PATH, the usual folders, or the folder in PGBIN. Owners, privileges, publications, subscriptions, event triggers, tablespaces and what belongs to a provider are left out, each with its reason. Run again, it adds what is missing. Once the data are there, --section post-data fills the materialized views.",
    ],
    options: ["tables", "exclude-tables", "section", "print", "owners", "privileges", "dry-run"],
    examples: [
      { command: "schema --dry-run", says: "what would be created, what would be left out?" },
      { command: "schema --print --section pre-data", says: "the SQL, to be read or edited" },
    ],
  },
  init: {
    summary: "starts to record changes on the source",
    details: [
      "Runs preflight, creates schema replicate on both sides, and installs the capture on the source, table by table under a short lock timeout. Run again, it adds what is new and leaves the rest alone.",
    ],
    options: ["tables", "exclude-tables", "keyless", "keyless-limit", "direction", "conflict", "dry-run"],
    examples: [
      {
        command: "init --tables 'public.*' --exclude-tables '*.audit_*'",
        says: "all of public but the audit logs",
      },
    ],
  },
  copy: {
    summary: "copies the rows; run again, it resumes",
    details: [
      "Takes the target's indexes and constraints away, copies the tables in parts by several connections, and builds everything again. After an interruption the same command goes on where it stopped; several copies may run at once.",
    ],
    options: [...copyOptions, "restart", "remap", "on-refusal", "direction", "conflict", "dry-run"],
    examples: [{ command: "copy --jobs 8 --index-jobs 4", says: "for big servers on both sides" }],
  },
  follow: {
    summary: "applies the changes until it is stopped",
    details: [
      "One batch is one transaction on the target, which so always equals the source at some moment. SIGINT or SIGTERM ends it cleanly with exit code 0; started again it goes on. Lost connections are opened again.",
      "A second one ends at once with exit code 4, or waits with --standby: it takes over when the first one ends, dies, or does not answer for ten seconds.",
    ],
    options: [
      "until-caught-up", "once", "standby", "keyless-limit", "on-refusal", "direction", "conflict", "delta-limit",
    ], // prettier-ignore
    examples: [
      { command: "follow --until-caught-up", says: "apply what there is, then end" },
      { command: "follow --standby", says: "on another machine: goes on when the first one cannot" },
    ],
  },
  run: {
    summary: "init, copy and follow, one after another",
    details: ["What most people type. It may be stopped and started again at any time."],
    options: [
      "tables", "exclude-tables", "keyless", "keyless-limit", "on-refusal", "direction", "conflict", "delta-limit", "schema", ...copyOptions,
      "until-caught-up",
    ], // prettier-ignore
    examples: [
      {
        command: "run --source postgresql://… --target postgresql://…",
        says: "moves a database and keeps it in step",
      },
    ],
  },
  verify: {
    summary: "compares both sides, also while they are written to",
    details: ["Names every key and column that differs. Exit code 0: equal; 1: different."],
    options: ["tables", "repair", "jobs", "schema", "direction", "conflict"],
    examples: [
      {
        command: "verify --tables public.users --repair",
        says: "compare one table, and bring what differs again",
      },
      { command: "verify --schema", says: "which columns, indexes or constraints differ?" },
    ],
  },
  status: {
    summary: "where the sync stands",
    details: ["Works from any machine, whether a runner is alive or not."],
    options: ["watch", "delta-limit"],
    examples: [{ command: "status --watch", says: "keep an eye on it" }],
  },
  parked: {
    summary: "lists rows that the target has refused, and tries them again",
    details: [
      "With --on-refusal park, or onRefusal in the file, a row that the target refuses is put aside with its error, and the others go on. The target keeps the row as it was. It is tried again when it changes on the source, when the target's table has changed, every ten minutes, and with --retry.",
    ],
    options: ["tables", "ids", "retry"],
    examples: [
      { command: "parked", says: "which rows, and why?" },
      { command: "parked --retry --tables public.users", says: "these may be let in now" },
    ],
  },
  sequences: {
    summary: "carries the values of sequences to the target",
    details: [
      "Needed before applications write to the target. Never sets a sequence of the target back.",
      "With --interleave, for applications that write to both sides: the source goes on with the odd and the target with the even numbers, beyond all that either has given out; or each with every Nth, where --shares N databases write. From then on nothing is carried between these sequences. drop gives them their increments back.",
    ],
    options: ["margin", "interleave", "shares", "source-share", "target-share", "print"],
    examples: [
      { command: "sequences --margin 1000", says: "leave room for numbers still being given out" },
      { command: "sequences --interleave", says: "odd numbers on the source, even ones on the target" },
      {
        command: "sequences --interleave --shares 3 --target-share 3 --print",
        says: "the SQL for the third of three databases",
      },
    ],
  },
  cutover: {
    summary: "switches the applications to the target",
    details: [
      "Refuses writes on the source, applies what is left to the last row, compares what has changed, carries sequences, restores constraints and triggers, and opens the target. While it lasts, writes fail with SQLSTATE 25006 and reads go on. Until the target is open everything is undone when anything fails; interrupted, the same command goes on.",
      "Afterwards follow keeps the source current, which stays closed to applications, until --finish.",
    ],
    options: [
      "rehearse", "timeout", "margin", "on-open", "no-reverse", "no-verify", "accept-parked", "on-refusal",
      "undo", "finish", "yes", "dry-run",
    ], // prettier-ignore
    examples: [
      { command: "cutover --rehearse", says: "how long could applications not write?" },
      { command: "cutover --timeout 30s --on-open './switch-application.sh'", says: "the real thing" },
    ],
  },
  rollback: {
    summary: "switches the applications back to the source",
    details: ["A cutover the other way round: everything that was written to the target since is kept."],
    options: [
      "rehearse", "timeout", "margin", "on-open", "no-verify", "accept-parked", "on-refusal", "undo", "yes", "dry-run",
    ], // prettier-ignore
    examples: [{ command: "rollback --timeout 30s", says: "go back with what was written meanwhile" }],
  },
  conflicts: {
    summary: "lists rows changed on both sides, and resolves skipped ones",
    details: [
      "Every conflict is logged with both rows, when and where they were changed, and what was decided; the latest are shown first, with the columns that differ. Those that the policy skip has left alone wait: neither side gets the other's row until `conflicts resolve` says which one it is. What counts then is the row as it is now, not as it was logged.",
    ],
    operands: "[resolve ID…]",
    options: ["tables", "kind", "pending", "since", "limit", "all", "with", "all-pending", "yes"],
    examples: [
      { command: "conflicts --pending", says: "what is to be resolved?" },
      { command: "conflicts --tables public.users --since 1d --json", says: "for a program" },
      { command: "conflicts resolve 42 44 --with source", says: "the target gets the source's rows" },
    ],
  },
  drop: {
    summary: "removes the sync and leaves no trace",
    details: [
      "Removes the capture where no other sync needs it and schema replicate where nothing is left in it. First restores what the copy took away from the target's tables. The rows stay.",
    ],
    options: ["yes", "source-only", "target-only", "dry-run"],
    examples: [{ command: "drop --dry-run", says: "what would be removed?" }],
  },
  runbook: {
    summary: "writes instructions for whoever is on duty",
    details: [
      "Start, look, cut over, go back, clean up: every command with the names of this sync, what each state means, and what to do. Passwords are left to variables. Works before the sync is set up, too.",
    ],
    options: ["tables", "exclude-tables", "keyless", "timeout", "on-open", "no-reverse", "shell"],
    examples: [
      { command: "runbook --on-open './switch-application.sh'", says: "a document, in Markdown" },
      {
        command: "runbook --shell",
        says: "a script: saved as runbook.sh, its parts are run as sh runbook.sh look",
      },
    ],
  },
} as const satisfies Record<string, Verb>;

export type VerbName = keyof typeof verbs;

export const verbNames = Object.keys(verbs) as readonly VerbName[];

/** The exit codes, for help and reference. */
export const exitCodes = [
  [0, "done"],
  [1, "the answer is no: blocking findings, differences, target tables that are not empty, conflicts"],
  [2, "wrong usage or configuration; all problems are listed"],
  [3, "failed: a server cannot be reached, the source was lost, an internal error"],
  [4, "another runner holds the sync"],
] as const;

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

export function optionsOf(verb: VerbName): readonly OptionName[] {
  return [...verbs[verb].options, ...Object.values(commonOptions).flat()];
}

/** What may follow a verb, apart from options. */
export function operandsOf(verb: VerbName): string | undefined {
  const { operands }: Verb = verbs[verb];
  return operands;
}

export function optionSpec(name: OptionName): Option {
  return options[name];
}
