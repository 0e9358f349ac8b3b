/**
 * The proof that tables were read as they were in the batch's snapshot, without holding all of them for the whole batch:
 * a rewrite or TRUNCATE that commits after a snapshot shows that snapshot an empty table, so what the rows rest on is
 * looked at before the snapshot, after each read, and after the batch. Locks are those of one read at a time.
 */
import { fromSql, tableSql } from "../../catalog/table.ts";
import type { StatementResult } from "../../postgres/script.ts";
import { literal, load } from "../../postgres/sql.ts";
import type { Shape } from "../shape.ts";

/** What the rows of one table rest on, see sql/follow/ground. */
export interface Ground {
  readonly files: string;
  readonly make: string;
  /** How many partitions hold its rows. */
  readonly leaves: number;
}

/** By source oid. */
export type Grounds = ReadonlyMap<number, Ground>;

/** The first version that can be asked for a partition tree. */
const TREES_SINCE = 120_000;

/** Once per session. */
export function prepareGroundSql(version: number): string {
  const ground = `prepare ground (oid[], text[]) as ${load("follow/ground")}`;
  return version < TREES_SINCE
    ? ground
    : `${ground};\nprepare strangers (oid) as ${load("follow/strangers")}`;
}

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
      { files: row["files"] ?? "", make: row["make"] ?? "", leaves: Number(row["leaves"]) },
    ]),
  );
}

/**
 * The statements that look at a table when it was read, under the locks of the reading; `looksIn` reads their results.
 * Where the server cannot be asked for the partitions, it plans to read them.
 */
export function lookSql(shape: Shape, version: number): string[] {
  const { source } = shape;
  if (source.kind !== "p") return [groundSql([shape])];
  const strangers =
    version < TREES_SINCE
      ? `explain (format json, costs off) select 1 from ${fromSql(source)}`
      : `execute strangers(${source.oid})`;
  return [strangers, groundSql([shape])];
}

/** What `lookSql` has found among other results, in order: the grounds, and tables that were read with foreign partitions. */
export function looksIn(results: readonly StatementResult[]): {
  readonly grounds: readonly Grounds[];
  readonly strange: readonly number[];
} {
  const grounds: Grounds[] = [];
  const strange: number[] = [];
  let planned: number | undefined;
  for (const result of results) {
    const [row] = result.rows;
    if (row?.["strangers"] !== undefined && row["strangers"] !== "0") strange.push(Number(row["relid"]));
    const plan = row?.["QUERY PLAN"];
    if (plan != null) planned = plan.split('"Relation Name"').length - 1;
    if (row?.["files"] === undefined) continue;
    const ground = groundsIn(result);
    // One that came for one that went: who went, its making tells.
    for (const [oid, { leaves }] of ground) if (planned !== undefined && planned > leaves) strange.push(oid);
    planned = undefined;
    grounds.push(ground);
  }
  return { grounds, strange };
}

/** The statements that read one table, in a subtransaction that is undone, so that its locks go at once. */
export function aloneSql(statements: readonly string[]): string[] {
  return ["savepoint alone", ...statements, "rollback to savepoint alone", "release savepoint alone"];
}

/**
 * Oids of the tables that were not, when they were read, in the files in which they were before the snapshot, or that are
 * made otherwise since. `reads`: looks while the locks of the reading were held; `after`: when all was read. `locked`: those
 * that nobody can have changed in between, because they were locked before the snapshot until they were read.
 */
export function movedTables(
  before: Grounds,
  reads: readonly Grounds[],
  after: Grounds,
  locked: ReadonlySet<number> = new Set(),
): number[] {
  const read = new Map(reads.flatMap((look) => [...look]));
  return [...after.keys()].filter((oid) => {
    const was = before.get(oid);
    return was?.files !== read.get(oid)?.files || (!locked.has(oid) && was?.make !== after.get(oid)?.make);
  });
}
