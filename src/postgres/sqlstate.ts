/** What SQLSTATEs and socket errors mean to us. Source: PostgreSQL documentation, appendix A. */
import { ReplicateError, type ErrorCode } from "../errors.ts";
import type { Side } from "../events.ts";
import { saidBy, withoutValues } from "./server-words.ts";
import { qualified } from "./sql.ts";

export const UNIQUE_VIOLATION = "23505";
export const EXCLUSION_VIOLATION = "23P01";
export const FOREIGN_KEY_VIOLATION = "23503";
export const LOCK_NOT_AVAILABLE = "55P03";
export const DEADLOCK = "40P01";
export const UNDEFINED_TABLE = "42P01";
export const UNDEFINED_FUNCTION = "42883";
export const INVALID_SCHEMA = "3F000";
export const INSUFFICIENT_PRIVILEGE = "42501";
export const DUPLICATE_SCHEMA = "42P06";
export const QUERY_CANCELED = "57014";
/** Raised by replicate.advance() and replicate.keep_lease(): another runner moved the position, or has the sync. */
export const POSITION_MOVED = "RE004";
/** Raised by replicate.advance(): a table of the batch is being copied. */
export const TABLE_BEING_COPIED = "RE005";
/** Raised by replicate.meet_conflicts(): keys of the batch were changed on both sides. */
export const CONFLICTS_MET = "RE006";
/** Raised by follow/expect-twins: partitions of the target changed while a batch was applied. */
export const TWINS_CHANGED = "RE008";

/** Raised by replicate.expect_columns(): a table of the target is not what it was when the batch was made. */
export const TARGET_CHANGED = "RE009";

export function sqlstateOf(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === "string" && /^[0-9A-Z]{5}$/.test(code) ? code : undefined;
}

/** Which server an error came from, as the session knows that it came over. */
const sides = new WeakMap<object, Side>();

/** Remembers from which server an error came. Returns the error. */
export function toldBy(side: Side, error: unknown): unknown {
  if (typeof error === "object" && error !== null && sideOf(error) === undefined) sides.set(error, side);
  return error;
}

/** The server that an error came from or is about, also where it is the cause of another; undefined where nobody said so. */
export function sideOf(error: unknown): Side | undefined {
  if (typeof error !== "object" || error === null) return undefined;
  const { side, cause } = error as { side?: Side; cause?: unknown };
  return side ?? sides.get(error) ?? sideOf(cause);
}

/**
 * Errors that a row's data cause, and not the state of a server, as a pattern of SQLSTATEs for both sides of the wire: data exceptions,
 * violated constraints and checks, what a trigger or function raises, and what is too large for an index or a page.
 */
export const REJECTIONS = "^(22|23|44|P000[0-3]|54000)";

export function isRejection(error: unknown): boolean {
  return new RegExp(REJECTIONS).test(sqlstateOf(error) ?? "");
}

const socketErrors = new Set([
  "ECONNREFUSED", "ECONNRESET", "ECONNABORTED", "EPIPE", "ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH", "ENOTFOUND",
  "EAI_AGAIN", "ERR_STREAM_PREMATURE_CLOSE", "ERR_STREAM_DESTROYED", "ERR_STREAM_WRITE_AFTER_END",
]); // prettier-ignore

/** insufficient_resources, disk_full, out_of_memory: the same may work once somebody has made room. */
const OUT_OF_MEMORY = "53200";
const SHORTAGES = ["53000", "53100", OUT_OF_MEMORY];
const TOO_MANY_CONNECTIONS = "53300";

/** True when the connection is gone or the server cannot do its work now, so that connecting anew may help. */
export function isConnectionFailure(error: unknown): boolean {
  if (error instanceof ReplicateError) return error.retry === "now";
  const state = sqlstateOf(error);
  if (state !== undefined)
    return (
      state.startsWith("08") ||
      ["57P01", "57P02", "57P03", "57P05", TOO_MANY_CONNECTIONS, ...SHORTAGES].includes(state)
    );
  const code = (error as { code?: unknown } | null)?.code;
  if (typeof code === "string" && socketErrors.has(code)) return true;
  const message = error instanceof Error ? error.message : "";
  return /Connection terminated|not queryable|Client was closed|connection is closed|timeout expired|Premature close/i.test(
    message,
  );
}

/** True when the same transaction may succeed on a second try: deadlock, serialisation, lock timeout. */
export function isRetryableConflict(error: unknown): boolean {
  return ["40001", DEADLOCK, LOCK_NOT_AVAILABLE].includes(sqlstateOf(error) ?? "");
}

/** Row security was in the way. The message is in the server's language, and its code that of any missing privilege. */
export function hidesRows(error: unknown): boolean {
  return (error as { routine?: unknown } | null)?.routine === "check_enable_rls";
}

/** A partitioned table has no partition for a row. The code is that of any check, and the message in the server's language. */
export function lacksPartition(error: unknown): boolean {
  return (error as { routine?: unknown } | null)?.routine === "ExecFindPartition";
}

/** Errors that stay until somebody changes a privilege, a definition or a setting. */
export function isLasting(error: unknown): boolean {
  const state = error instanceof ReplicateError ? error.sqlstate : sqlstateOf(error);
  return /^(0A|2B|42|55000)/.test(state ?? "");
}

/** A publication wants rows to be identified. The message is in the server's language. */
function lacksIdentity(error: unknown): boolean {
  return (error as { routine?: unknown } | null)?.routine === "CheckCmdReplicaIdentity";
}

interface Named {
  readonly schema: string;
  readonly name: string;
}

/** Which of these tables a message names, whatever its language: names are in it as they are. */
function namedIn(said: string, tables: readonly Named[]): Named | undefined {
  const isNamed = ({ name }: Named): boolean => {
    for (let at = said.indexOf(name); at !== -1; at = said.indexOf(name, at + 1)) {
      if (!/\w$/.test(said.slice(0, at)) && !/^\w/.test(said.slice(at + name.length))) return true;
    }
    return false;
  };
  return tables.filter(isNamed).toSorted((a, b) => b.name.length - a.name.length)[0];
}

/** What to do about a lack of rights, and about a publication that wants rows to be identified. */
function hintFor(error: unknown, said: string, tables: readonly Named[]): string | undefined {
  const table = namedIn(said, tables);
  const name = table === undefined ? undefined : qualified(table.schema, table.name);
  if (lacksIdentity(error)) {
    return `A publication wants its rows to be identified: alter table ${name ?? "…"} replica identity full; or take the table out of the publication.`;
  }
  if (sqlstateOf(error) !== INSUFFICIENT_PRIVILEGE || hidesRows(error)) return undefined;
  const grant =
    name === undefined
      ? ""
      : ` This one, as the owner: grant all on table ${name} to the role of this connection.`;
  return `Run \`replicate preflight\`: it names every privilege that is missing, with its GRANT.${grant}`;
}

/**
 * Wraps whatever the driver threw, so that a code, a hint and an exit code come with it. `tables`: those that the statement
 * was about.
 */
export function asReplicateError(
  error: unknown,
  doing: string,
  tables: readonly Named[] = [],
): ReplicateError {
  if (error instanceof ReplicateError) return error;
  const sqlstate = sqlstateOf(error);
  const code = codeOf(error, sqlstate);
  const message = `${doing}: ${saidBy(error)}${sqlstate ? ` [${sqlstate}]` : ""}`;
  const hint = hintFor(error, error instanceof Error ? error.message : "", tables);
  return new ReplicateError(code, message, {
    cause: withoutValues(error),
    sqlstate,
    side: sideOf(error),
    ...(hint === undefined ? {} : { hint }),
  });
}

function codeOf(error: unknown, sqlstate: string | undefined): ErrorCode {
  if (sqlstate === TOO_MANY_CONNECTIONS) return "TOO_MANY_CONNECTIONS";
  // Whatever language it speaks, the server names the setting.
  const { hint } = (error ?? {}) as { hint?: unknown };
  if (sqlstate === OUT_OF_MEMORY && typeof hint === "string" && hint.includes("max_locks_per_transaction"))
    return "OUT_OF_LOCKS";
  if (SHORTAGES.includes(sqlstate ?? "")) return "OUT_OF_RESOURCES";
  if (isConnectionFailure(error)) return "CONNECTION_LOST";
  if (hidesRows(error)) return "ROWS_HIDDEN";
  if (sqlstate === INSUFFICIENT_PRIVILEGE) return "PERMISSION_DENIED";
  if (sqlstate === LOCK_NOT_AVAILABLE) return "LOCK_NOT_AVAILABLE";
  return sqlstate === undefined ? "INTERNAL" : "STATEMENT_FAILED";
}
