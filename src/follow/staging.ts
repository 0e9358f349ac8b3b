/** The staging tables of a session on the target: made when a batch first needs them, and kept for those that follow. */
import type { Connection } from "../postgres/connect.ts";
import { otherColumns, type Shape } from "./shape.ts";

export function stageName(shape: Shape): string {
  return `pg_temp.stage_${shape.capture.id}`;
}

/**
 * Staging: key columns k1…, whether the row exists on the source, and its other columns c1…; in base types. Where conflicts
 * are to be found also what was done, when and where, see `toldChangesSql`.
 */
function createStageSql(shape: Shape): string {
  const keys = shape.targetKey.map(({ column }, index) => {
    const collation = column.collation === null ? "" : ` collate ${column.collation}`;
    return `k${index + 1} ${column.baseType}${collation}`;
  });
  const others = otherColumns(shape).map((pair, index) => `c${index + 1} ${pair.target.baseType}`);
  const told = shape.opposite === undefined ? [] : [`did "char"`, "changed_at timestamptz", "origin text"];
  const columns = [...keys, "present boolean", ...others, ...told].join(", ");
  return `create temporary table if not exists ${stageName(shape).slice("pg_temp.".length)} (${columns}) on commit delete rows`;
}

/** Staging tables that a session keeps; of more, only those of the batch, because each commit visits each of them. */
const MOST_STAGES = 40;
/** Created or dropped in one transaction, which locks all of them and what belongs to them. */
const AT_ONCE = 20;
const staged = new WeakMap<Connection, Map<number, string>>();

/** Creates those that the session lacks. */
export async function ensureStages(target: Connection, shapes: readonly Shape[]): Promise<void> {
  const known = staged.get(target) ?? new Map<number, string>();
  staged.set(target, known);
  const wanted = new Map(shapes.map((shape) => [shape.capture.id, createStageSql(shape)]));
  const missing = [...wanted].filter(([id, sql]) => known.get(id) !== sql);
  const isCrowded = known.size + missing.length > MOST_STAGES;
  const stale = [...known].filter(([id, sql]) => (wanted.has(id) ? wanted.get(id) !== sql : isCrowded));
  await inTurns(target, stale, ([id]) => `drop table if exists pg_temp.stage_${id}`, ([id]) => known.delete(id)); // prettier-ignore
  await inTurns(target, missing, ([, sql]) => sql, ([id, sql]) => known.set(id, sql)); // prettier-ignore
}

async function inTurns<T>(
  target: Connection,
  all: readonly T[],
  toSql: (each: T) => string,
  note: (each: T) => unknown,
): Promise<void> {
  for (let at = 0; at < all.length; at += AT_ONCE) {
    const some = all.slice(at, at + AT_ONCE);
    await target.script(some.map(toSql).join(";\n"));
    some.forEach(note);
  }
}

/** For a session whose temporary tables were dropped. */
export function forgetStages(target: Connection): void {
  staged.delete(target);
}
