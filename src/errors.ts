/**
 * Every failure a user can meet has a code, a remedy, a retry rule and an exit code, all in this one table.
 * Code that fails throws `new ReplicateError(code, message)`; nobody else decides exit codes or retries.
 */

/** `now`: reconnect and carry on; `later`: the same command may work later; `never`: a person must act first. */
export type Retry = "now" | "later" | "never";

interface ErrorRule {
  readonly exitCode: 1 | 2 | 3 | 4;
  readonly retry: Retry;
  /** What to do, when the place that throws knows nothing better. */
  readonly hint: string;
}

const rule = (exitCode: ErrorRule["exitCode"], retry: Retry, hint: string): ErrorRule => ({
  exitCode,
  retry,
  hint,
});

/** The code table. Exit codes: 1 the answer is no, 2 usage or configuration, 3 failed, 4 another runner. */
export const errorRules = {
  /** One or more options, variables or lines of the configuration file are wrong; all are listed. */
  CONFIG_INVALID: rule(2, "never", "Correct the listed settings and run the command again."),
  /** The command line cannot be understood. */
  USAGE_INVALID: rule(2, "never", "Run the command with --help."),
  /** A table pattern selects nothing. */
  PATTERN_MATCHES_NOTHING: rule(
    2,
    "never",
    "Check the spelling, and quote names with capitals: 'public.\"Users\"'.",
  ),
  /** No connection to a server: wrong host or port, firewall, server down. */
  SERVER_UNREACHABLE: rule(3, "now", "Check host, port and firewall, and that the server runs."),
  /** The server refused user, password, database or the encryption asked for. */
  LOGIN_REFUSED: rule(3, "never", "Check user, password, database name and sslmode of this connection."),
  /** Too many connections on the server or for the role. */
  TOO_MANY_CONNECTIONS: rule(
    3,
    "now",
    "Use fewer --jobs, or raise the connection limit of the role or server.",
  ),
  /** An established connection broke. */
  CONNECTION_LOST: rule(
    3,
    "now",
    "It reconnects by itself; if it does not, check the network and the server's log.",
  ),
  /** The server's disk or memory is full. What was begun is rolled back, and tried again for a while. */
  OUT_OF_RESOURCES: rule(
    3,
    "now",
    "Make room on that server. A command that still runs goes on by itself; else start it again.",
  ),
  /** The server has no room for more locks. A batch is not begun then, what was begun is rolled back, and it is tried again, with long pauses, for a while. */
  OUT_OF_LOCKS: rule(
    3,
    "now",
    "Raise max_locks_per_transaction on that server and restart it: `replicate preflight` says to how much.",
  ),
  /** The server is older than 10. */
  SERVER_TOO_OLD: rule(3, "never", "PostgreSQL 10 is the oldest version supported."),
  /** The server is a hot standby: nothing can be installed there. */
  SERVER_IS_STANDBY: rule(3, "never", "Connect to the primary server instead."),
  /** A pool in transaction or statement mode sits in between: sessions are not ours alone, so nothing is done in them. */
  POOLER_IN_BETWEEN: rule(
    3,
    "never",
    "Give the address of the server itself, which providers list beside that of the pool, often with another port; or a pool in session mode.",
  ),
  /** Source and target are the same database and no table is mapped to another name. */
  SAME_DATABASE: rule(
    2,
    "never",
    "Give another target, or map the tables to other names or schemas (overrides: target; schemas).",
  ),
  /** Something blocks the start; every finding is listed with its remedy. */
  PREFLIGHT_BLOCKED: rule(1, "never", "Run the statement given with each finding, then this command again."),
  /** A privilege is missing. */
  PERMISSION_DENIED: rule(
    3,
    "never",
    "Grant the role the named privilege, or connect as the owner of the tables.",
  ),
  /** Row security would hide rows of a table from the role: the statement was refused, and nothing was skipped. */
  ROWS_HIDDEN: rule(
    3,
    "never",
    "Let the role see all rows of the named table, then start again: as its owner, `alter table … no force row level security`, or as an administrator, `alter role … bypassrls`.",
  ),
  /** `init` has not been run for this sync, or the sync was dropped. */
  SYNC_UNKNOWN: rule(2, "never", "Run `replicate init` first, with the same --name."),
  /** The state was written by a newer version of this program. */
  STATE_TOO_NEW: rule(3, "never", "Upgrade this program to the version that wrote the state."),
  /** Others have objects in schema replicate, or may create some, which would act with the rights of this role. */
  STATE_NOT_OURS: rule(
    3,
    "never",
    "Find out who did that, then run the statements given; or connect as the role whose schema it is.",
  ),
  /** The sync exists already with another source, target or settings. */
  SYNC_MISMATCH: rule(2, "never", "Use another --name, or `replicate drop` the old sync first."),
  /** Another process runs `follow` on this sync. */
  RUNNER_ACTIVE: rule(4, "later", "Stop the other runner, or look at `replicate status`."),
  /** The target's table holds rows and nothing said what to do with them. */
  TARGET_NOT_EMPTY: rule(
    1,
    "never",
    "Use --overwrite to replace the rows, or --adopt to keep them as already copied.",
  ),
  /** `follow` or `verify` before the data are there. */
  COPY_UNFINISHED: rule(1, "never", "Run `replicate copy` until it says that it is done."),
  /** A table's shape changed on the source, and the target does not fit any more. */
  TABLE_SHAPE_CHANGED: rule(
    1,
    "never",
    "Run the statements on the target, in their order, then start again: it goes on from where it stopped.",
  ),
  /** The capture of a table is missing or was disabled: changes may have been missed. */
  CAPTURE_BROKEN: rule(1, "never", "Run the given statement on the source, then start again."),
  /** A lock could not be had within the retries; nothing waits behind us meanwhile. */
  LOCK_NOT_AVAILABLE: rule(
    3,
    "later",
    "End the transaction that holds the table, or run the command again later.",
  ),
  /** The source is not the one this sync knows: restored, replaced, or failed over with loss. */
  SOURCE_LOST: rule(
    3,
    "never",
    "Changes may be missing. Bring the right source back, or have the tables copied anew: `replicate drop`, then `replicate init` and `replicate copy --overwrite`.",
  ),
  /** The target is behind what it had told the source: its database was restored from an older copy, or is one. */
  TARGET_RESTORED: rule(
    3,
    "never",
    "Its tables have to be copied anew: `replicate drop`, then `replicate init` and `replicate copy --overwrite`. Is this database a mere copy of the target, which is still followed elsewhere? Then `replicate drop --target-only`, and nothing else.",
  ),
  /** The sync was given up on the source while its target was away; what the target lacks may be gone. */
  SYNC_EXPELLED: rule(
    3,
    "never",
    "Its tables have to be copied anew: run `replicate drop --target-only`, then `replicate init` and `replicate copy --overwrite`.",
  ),
  /** The numbers of sequences cannot be shared out; each is named with what stands in the way. */
  SEQUENCES_UNFIT: rule(1, "never", "Settle what is listed, then run the same command again."),
  /** The target rejected a row. */
  ROW_REFUSED: rule(
    3,
    "never",
    "Repair the target's constraint or the row on the source, or have such rows put aside with --on-refusal park, then start again.",
  ),
  /** Rows that the target has rejected are parked, and nobody said that it may do without them. */
  ROWS_PARKED: rule(
    1,
    "never",
    "See them with `replicate parked`, repair, and try them again with --retry; or go on without them with --accept-parked.",
  ),
  /** Tables were created that the sync is meant to replicate and does not: the new side of a switch would lack them. */
  TABLE_NOT_REPLICATED: rule(
    1,
    "never",
    "Take them in with `replicate init` and `replicate copy`, or go on without them with --accept-unreplicated.",
  ),
  /** No pg_dump and pg_restore that fit the servers. */
  CLIENT_MISSING: rule(
    3,
    "never",
    "Install PostgreSQL's client programs, or go on with a schema made by hand: `init` needs the tables and their keys.",
  ),
  /** Some objects of the schema could not be created; each is named with the server's reason. */
  SCHEMA_INCOMPLETE: rule(
    1,
    "later",
    "Settle what is listed, then run the same command again: what is there already is passed over.",
  ),
  /** A row was changed on both sides, and the policy `error` stops there. Nothing of the batch is written. */
  CONFLICT: rule(
    1,
    "never",
    "Choose another policy for the table (--conflict, or conflict in the configuration file) and start again.",
  ),
  /** The resolver of policy `custom` failed, or decided what cannot be. Nothing of the batch is written. */
  CONFLICT_RESOLVER_FAILED: rule(
    3,
    "never",
    "Correct the resolver, or choose another policy for the table, and start again.",
  ),
  /** A logged conflict that does not exist, or is resolved already. */
  CONFLICT_UNKNOWN: rule(2, "never", "See `replicate conflicts` for those that are still to be resolved."),
  /** `verify` found differences. */
  VERIFY_DIFFERENT: rule(
    1,
    "never",
    "Run `replicate verify --repair`, then `replicate follow`, to bring the rows again.",
  ),
  /** The sync is in no state for this cutover, rollback, undo or finish. */
  CUTOVER_STATE: rule(2, "never", "Look at `replicate status`."),
  /** Applications would have been kept from writing for too long. */
  CUTOVER_TIMEOUT: rule(
    1,
    "later",
    "See with --rehearse what takes long, try at a quieter time, or allow more with --timeout.",
  ),
  /** A cutover failed, and the old side may still be fenced. */
  CUTOVER_FENCED: rule(
    3,
    "now",
    "The old side may still refuse writes. Run `replicate cutover --undo` as soon as the servers can be reached.",
  ),
  /** The new side is open, but the command that switches the application failed; or a function of the user's has thrown. */
  HOOK_FAILED: rule(
    3,
    "later",
    "The new side is open. Repair the command and run the same cutover again, which only does the rest.",
  ),
  /** The caller's AbortSignal fired. */
  ABORTED: rule(3, "later", "The same command resumes where it stopped."),
  /** The server answered a statement of ours with an error that nothing above describes. */
  STATEMENT_FAILED: rule(3, "later", "The message is the server's own; its log has the context."),
  /** A defect of this program. */
  INTERNAL: rule(3, "never", "This is a defect: please report it with the message and the log."),
} as const satisfies Record<string, ErrorRule>;

export type ErrorCode = keyof typeof errorRules;

/** One problem among several that are reported together. */
export interface Problem {
  /** What it is about: a flag, a table, a role. */
  readonly subject: string;
  readonly message: string;
  /** The exact statement or change that repairs it, if one exists. */
  readonly remedy?: string;
}

export interface ReplicateErrorOptions {
  readonly hint?: string;
  readonly problems?: readonly Problem[];
  /** The message without the problems, where it repeats them. */
  readonly summary?: string;
  readonly cause?: unknown;
  /** SQLSTATE, if a server said it. */
  readonly sqlstate?: string;
}

/** The error for several problems: its message holds them all, for those who see no more of it than that. */
export function problemsError(
  code: ErrorCode,
  summary: string,
  problems: readonly Problem[],
): ReplicateError {
  const all = problems.map(({ subject, message }) => `${subject}: ${message}`).join("; ");
  return new ReplicateError(code, `${summary}: ${all}`, { problems, summary });
}

/** The only error class that leaves the library. `message` never holds a secret. */
export class ReplicateError extends Error {
  override readonly name = "ReplicateError";
  readonly code: ErrorCode;
  readonly hint: string;
  readonly retry: Retry;
  readonly exitCode: 1 | 2 | 3 | 4;
  readonly problems: readonly Problem[];
  /** The message, without the problems where it repeats them: for who lists them. */
  readonly summary: string;
  readonly sqlstate: string | undefined;

  constructor(code: ErrorCode, message: string, options: ReplicateErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    const { exitCode, retry, hint } = errorRules[code];
    this.code = code;
    this.exitCode = exitCode;
    this.retry = retry;
    this.hint = options.hint ?? hint;
    this.problems = options.problems ?? [];
    this.summary = options.summary ?? message;
    this.sqlstate = options.sqlstate;
  }
}
