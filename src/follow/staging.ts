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

/** Staging tables that a session may have; beyond, all are dropped, because each commit visits each of them. */
const MOST_STAGES = 40;
const staged = new WeakMap<Connection, Map<number, string>>();

/** Creates those that the session lacks. */
export async function ensureStages(target: Connection, shapes: readonly Shape[]): Promise<void> {
  const known = staged.get(target) ?? new Map<number, string>();
  staged.set(target, known);
  const wanted = shapes.map((shape) => ({ shape, sql: createStageSql(shape) }));
  const missing = wanted.filter(({ shape, sql }) => known.get(shape.capture.id) !== sql);
  if (missing.length === 0) return;
  const stale =
    known.size + missing.length > MOST_STAGES
      ? [...known.keys()]
      : missing.map(({ shape }) => shape.capture.id);
  const drops = stale.filter((id) => known.has(id)).map((id) => `drop table if exists pg_temp.stage_${id}`);
  for (const id of stale) known.delete(id);
  const creates = wanted.filter(({ shape }) => !known.has(shape.capture.id));
  await target.script([...drops, ...creates.map(({ sql }) => sql)].join(";\n"));
  for (const { shape, sql } of creates) known.set(shape.capture.id, sql);
}

/** For a session whose temporary tables were dropped. */
export function forgetStages(target: Connection): void {
  staged.delete(target);
}
