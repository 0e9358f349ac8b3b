/** The verbs of the command line in one table, each with the options that it takes, see options.ts. */
import type { OptionName } from "./options.ts";

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

const copyOptions = [
  "jobs",
  "index-jobs",
  "part-size",
  "index-memory",
  "overwrite",
  "overwrite-source",
  "adopt",
] as const;

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
      "show-settings",
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
    options: [
      ...copyOptions,
      "restart",
      "remap",
      "on-refusal",
      "schema-changes",
      "direction",
      "conflict",
      "dry-run",
      "listen",
    ],
    examples: [{ command: "copy --jobs 8 --index-jobs 4", says: "for big servers on both sides" }],
  },
  follow: {
    summary: "applies the changes until it is stopped",
    details: [
      "One batch is one transaction on the target, which so always equals the source at some moment. SIGINT or SIGTERM ends it cleanly with exit code 0, or 3 where --until-caught-up or --once was not reached; started again it goes on. Lost connections are opened again.",
      "A second one ends at once with exit code 4, or waits with --standby: it takes over when the first one ends, dies, or does not answer for ten seconds.",
    ],
    options: [
      "until-caught-up", "once", "standby", "listen", "keyless-limit", "on-refusal", "schema-changes", "direction", "conflict", "delta-limit",
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
      "tables", "exclude-tables", "keyless", "keyless-limit", "on-refusal", "schema-changes", "direction", "conflict", "delta-limit", "schema", ...copyOptions,
      "until-caught-up", "listen",
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
    summary: "lists rows that the target has rejected, and tries them again",
    details: [
      "With --on-refusal park, or onRefusal in the file, a row that the target rejects is parked with its error, and the others go on. The target keeps the row as it was. It is tried again when it changes on the source, when the target's table has changed, every ten minutes, and with --retry.",
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
      "rehearse", "timeout", "margin", "on-open", "no-reverse", "no-verify", "accept-parked", "accept-unreplicated", "on-refusal",
      "undo", "finish", "keep-closed", "yes", "dry-run",
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
      "rehearse", "timeout", "margin", "on-open", "no-verify", "accept-parked", "accept-unreplicated", "on-refusal", "undo", "yes", "dry-run",
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
  serve: {
    summary: "runs the sync, with a page in the browser that shows and steers it",
    details: [
      "One process that copies, follows and switches, and serves a page, metrics and health at --listen (127.0.0.1:8080 by default). All that has to last is in the databases: ended at any moment and started again, also elsewhere, it goes on where it was; a second one stands by.",
      "Without --allow-actions the page only shows. REPLICATE_CONSOLE_PASSWORD is the operator's password, REPLICATE_CONSOLE_VIEWER_PASSWORD that of those who may look; addresses that other machines can reach need one.",
    ],
    options: [
      "listen", "allow-actions", "tables", "exclude-tables", "keyless", "keyless-limit", "on-refusal", "schema-changes", "direction", "conflict",
      "delta-limit", "jobs", "index-jobs", "part-size", "index-memory",
    ], // prettier-ignore
    examples: [{ command: "serve --allow-actions", says: "a whole migration, in the browser" }],
  },
  runbook: {
    summary: "writes instructions for the people on duty",
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
  [3, "failed: a server cannot be reached, the source was lost, an internal error; or stopped halfway"],
  [4, "another runner holds the sync"],
] as const;

export function optionsOf(verb: VerbName): readonly OptionName[] {
  return [...verbs[verb].options, ...Object.values(commonOptions).flat()];
}

/** What may follow a verb, apart from options. */
export function operandsOf(verb: VerbName): string | undefined {
  const { operands }: Verb = verbs[verb];
  return operands;
}
