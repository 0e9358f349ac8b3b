/**
 * The proof that tables were read as they were in the batch's snapshot, without holding all of them for the whole batch:
 * a rewrite or TRUNCATE that commits after a snapshot shows that snapshot an empty table, so what the rows rest on is
 * looked at before the snapshot, after each read, and after the batch. Locks are those of one read at a time.
 */
import { tableSql } from "../../catalog/table.ts";
import type { StatementResult } from "../../postgres/script.ts";
import { literal, load } from "../../postgres/sql.ts";
import type { Shape } from "../shape.ts";

/** What the rows of one table rest on, see sql/follow/ground. */
export interface Ground {
  readonly files: string;
  readonly make: string;
}

/** By source oid. */
export type Grounds = ReadonlyMap<number, Ground>;

export const prepareGroundSql = `prepare ground (oid[], text[]) as ${load("follow/ground")}`;

/** Statement whose result `groundsIn` reads. */
export function groundSql(shapes: readonly Shape[]): string {
  if (shapes.length === 0) return "select 1 where false";
  const names = shapes.map(({ source }) => literal(tableSql(source))).join(", ");
  return `execute ground('{${shapes.map(({ source }) => source.oid).join(",")}}', array[${names}])`;
}

export function groundsIn(result: StatementResult | undefined): Grounds {
  return new Map(
    (result?.rows ?? []).map((row) => [
      Number(row["relid"]),
      { files: row["files"] ?? "", make: row["make"] ?? "" },
    ]),
  );
}

/** The statements that read one table, in a subtransaction that is undone, so that its locks go at once. */
export function aloneSql(statements: readonly string[]): string[] {
  return ["savepoint alone", ...statements, "rollback to savepoint alone", "release savepoint alone"];
}

/**
 * Oids of the tables that were not, when they were read, in the files in which they were before the snapshot, or that are
 * made otherwise since. `reads`: looks while the locks of the reading were held; `after`: when all was read.
 */
export function movedTables(before: Grounds, reads: readonly Grounds[], after: Grounds): number[] {
  const read = new Map(reads.flatMap((look) => [...look]));
  return [...after.keys()].filter((oid) => {
    const was = before.get(oid);
    return was?.files !== read.get(oid)?.files || was?.make !== after.get(oid)?.make;
  });
}
