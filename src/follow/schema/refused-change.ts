/** The target does not take a change of its schema: what it was, why, and who is in the way. */
import { ReplicateError } from "../../errors.ts";
import type { Connection } from "../../postgres/connect.ts";
import { saidBy, withoutValues } from "../../postgres/server-words.ts";
import { load } from "../../postgres/sql.ts";
import { DEADLOCK, LOCK_NOT_AVAILABLE, sqlstateOf } from "../../postgres/sqlstate.ts";

/** Thrown when the batch is to be rolled back and tried again later. */
export class RefusedChange extends Error {
  override readonly name = "RefusedChange";
  readonly captureId: number;
  readonly label: string;
  readonly statement: string;
  readonly isLock: boolean;

  constructor(of: { captureId: number; label: string }, statement: string, cause: unknown) {
    super(saidBy(cause), { cause: withoutValues(cause) });
    this.captureId = of.captureId;
    this.label = of.label;
    this.statement = statement;
    this.isLock = isLock(cause);
  }

  /** For who does not wait. */
  asError(reason: string): ReplicateError {
    const { label: subject, statement } = this;
    return new ReplicateError(
      "SCHEMA_CHANGE_REFUSED",
      `the target does not take a schema change of ${subject}: ${reason}`,
      {
        problems: [{ subject, message: reason, remedy: `${statement};` }],
        cause: this.cause,
      },
    );
  }
}

/** Somebody holds a lock on the table. */
function isLock(error: unknown): boolean {
  return [LOCK_NOT_AVAILABLE, DEADLOCK].includes(sqlstateOf(error) ?? "");
}

/** Why the change is not taken, in words; of a lock who has it. In a session that is in no transaction. */
export async function reasonOf(target: Connection, rejected: RefusedChange, relid: number): Promise<string> {
  if (!rejected.isLock) return rejected.message;
  const holders = await target.rows<{ pid: number; user: string; state: string; seconds: number | null }>(
    load("follow/lock-holders"),
    [relid],
  );
  if (holders.length === 0) return "its table was locked a moment ago";
  const each = holders.map(({ pid, user, state, seconds }) =>
    pid === 0
      ? "a prepared transaction"
      : `pid ${pid} of ${user}, ${state}${seconds === null ? "" : `, open for ${seconds} s`}`,
  );
  return `its table is locked by ${each.join("; ")}`;
}
