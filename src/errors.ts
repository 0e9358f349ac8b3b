/**
 * Every failure a user can meet has a code, a remedy, a retry rule and an exit code, all in this one table.
 * Code that fails throws `new ReplicateError(code, message)`; nobody else decides exit codes or retries.
 */

import type { Side } from "./events.ts";

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
    "The program reconnects by itself. If it ends, check the network and the server's log, and start the command again.",
  ),
  /** The server's disk or memory is full. What was begun is rolled back, and tried again for a while. */
  OUT_OF_RESOURCES: rule(
    3,
    "now",
    "Make room on that server. A command that still runs goes on by itself; else start it again.",
  ),
  /** The server's table of locks is full. The batch is not begun, or is rolled back, and is tried again, with long pauses, for a while. */
  OUT_OF_LOCKS: rule(
    3,
    "now",
    "Raise max_locks_per_transaction on that server and restart it: `replicate preflight` says to how much.",
  ),
  /** The server is older than 10. */
  SERVER_TOO_OLD: rule(3, "never", "PostgreSQL 10 is the oldest version supported."),
  /** The server is a hot standby: nothing can be installed there. */
  SERVER_IS_STANDBY: rule(3, "never", "Connect to the primary server instead."),
  /** The address leads to a pool in transaction or statement mode, whose sessions other clients use too. Nothing was changed in them. */
  POOLER_IN_BETWEEN: rule(
    3,
    "never",
    "Give the address of the server itself, which providers list beside that of the pool, often with another port; or that of a pool in session mode.",
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
  /** Other roles have objects in schema replicate, or may create some there, whose code would run with the rights of this role. */
  STATE_NOT_OURS: rule(
    3,
    "never",
    "Find out who made these objects, then run the statements given; or connect as the role that owns the schema.",
  ),
  /** The sync exists already with another source, target or settings. */
  SYNC_MISMATCH: rule(2, "never", "Use another --name, or `replicate drop` the old sync first."),
  /** Another process runs `follow` on this sync. */
  RUNNER_ACTIVE: rule(
    4,
    "later",
    "`replicate status` says where the other runner is. Stop it, or wait for its end.",
  ),
  /** The target's table has rows already, and no option says what to do with them. */
  TARGET_NOT_EMPTY: rule(
    1,
    "never",
    "Use --overwrite to replace the rows, or --adopt to take them for a finished copy.",
  ),
  /** `follow` or `verify` before the data are there. */
  COPY_UNFINISHED: rule(1, "never", "Run `replicate copy` until it says that it is done."),
  /** The columns of a table changed on one side, and the table does not fit the other side any more. */
  TABLE_SHAPE_CHANGED: rule(
    1,
    "never",
    "Run the statements on the target, in their order, then start again: it goes on from where it stopped.",
  ),
  /** The target does not take a schema change now: something depends on what it changes, rows do not fit, or a lock is held. */
  SCHEMA_CHANGE_REFUSED: rule(
    1,
    "later",
    "Settle what stands in the way on the target, then start again: nothing was applied meanwhile, and it goes on from where it stopped.",
  ),
  /** The capture of a table is missing or was disabled: changes may have been missed. */
  CAPTURE_BROKEN: rule(1, "never", "Run the given statement on the source, then start again."),
  /** The program got no lock on a table within its tries. Nothing queues behind it meanwhile. */
  LOCK_NOT_AVAILABLE: rule(
    3,
    "later",
    "End the transaction that holds the lock, or run the command again later.",
  ),
  /** The source is not the one this sync knows: restored, replaced, or failed over with loss. */
  SOURCE_LOST: rule(
    3,
    "never",
    "Changes may be missing. Bring the right source back, or have the tables copied anew: `replicate drop`, then `replicate init` and `replicate copy --overwrite`.",
  ),
  /** The target is older than what the source knows of it: its database was restored from an older copy, or is one. */
  TARGET_RESTORED: rule(
    3,
    "never",
    "Its tables have to be copied anew: `replicate drop`, then `replicate init` and `replicate copy --overwrite`. Is this database a mere copy of the target, which is still followed elsewhere? Then `replicate drop --target-only`, and nothing else.",
  ),
  /** Somebody dropped the sync on the source while its target was away. Changes that the target lacks may be lost. */
  SYNC_EXPELLED: rule(
    3,
    "never",
    "Its tables have to be copied anew: run `replicate drop --target-only`, then `replicate init` and `replicate copy --overwrite`.",
  ),
  /** The numbers of sequences cannot be shared out between the databases. Each sequence is named with the reason. */
  SEQUENCES_UNFIT: rule(
    1,
    "never",
    "Settle what is listed for each sequence, then run the same command again.",
  ),
  /** The target rejected a row. */
  ROW_REFUSED: rule(
    3,
    "never",
    "Repair the target's constraint or the row on the source, or park such rows with --on-refusal park. Then start the command again.",
  ),
  /** Rows that the target has rejected are parked, and nobody said that it may do without them. */
  ROWS_PARKED: rule(
    1,
    "never",
    "See the rows with `replicate parked`, repair what rejects them, and try again with `replicate parked --retry`; or go on without the rows with --accept-parked.",
  ),
  /** The application has created tables that the sync does not replicate. The new side of the switch would lack them. */
  TABLE_NOT_REPLICATED: rule(
    1,
    "never",
    "Take the tables in with `replicate init` and `replicate copy`, or go on without them with --accept-unreplicated.",
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
  /** A row was changed on both sides, and its table has the policy `error`. Nothing of the batch is written. */
  CONFLICT: rule(
    1,
    "never",
    "Choose another policy for the table (--conflict, or conflict in the configuration file) and start again.",
  ),
  /** The resolver of policy `custom` failed, or returned something that is no decision. Nothing of the batch is written. */
  CONFLICT_RESOLVER_FAILED: rule(
    3,
    "never",
    "Correct the resolver, or choose another policy for the table, and start again.",
  ),
  /** No conflict has this id, or the conflict is resolved already. */
  CONFLICT_UNKNOWN: rule(2, "never", "See `replicate conflicts` for those that are still to be resolved."),
  /** `verify` found differences. */
  VERIFY_DIFFERENT: rule(
    1,
    "never",
    "Run `replicate verify --repair`, then `replicate follow`, to bring the rows again.",
  ),
  /** The sync is not in a state in which this cutover, rollback, undo or finish is possible. */
  CUTOVER_STATE: rule(
    2,
    "never",
    "See with `replicate status` how far the switch has come, and what is possible now.",
  ),
  /** The fence would have kept applications from writing for longer than --timeout. */
  CUTOVER_TIMEOUT: rule(
    1,
    "later",
    "See with --rehearse what takes long, try at a quieter time, or allow more with --timeout.",
  ),
  /** A cutover failed, and the old side may still be fenced. */
  CUTOVER_FENCED: rule(
    3,
    "now",
    "The old side may still refuse writes. Run `replicate cutover --undo` (or `replicate rollback --undo`) as soon as the servers can be reached.",
  ),
  /** The new side is open, but the command of --on-open failed; or a hook has thrown an error. */
  HOOK_FAILED: rule(
    3,
    "later",
    "The new side is open. Repair the command and run the same cutover again, which only does the rest.",
  ),
  /** The command was stopped by a signal, or by the caller's AbortSignal. */
  ABORTED: rule(3, "later", "Run the same command again: it resumes where it stopped."),
  /** The server answered a statement of this program with an error that no other code describes. */
  STATEMENT_FAILED: rule(
    3,
    "later",
    "The message is the server's own. The log of the server has the context.",
  ),
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
  readonly sqlstate?: string | undefined;
  /** The server that it is about, where it is about one. */
  readonly side?: Side | undefined;
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
  /** The server that it is about; undefined where it is about neither, or both. */
  readonly side: Side | undefined;

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
    this.side = options.side;
  }
}
