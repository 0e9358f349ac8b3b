/** Rows on the target, outside of a batch, that keep a row of the batch out by a unique constraint. */
import type { Connection } from "../postgres/connect.ts";
import { rowsSql } from "../catalog/rows.ts";
import { ident } from "../postgres/sql.ts";
import { otherColumns, type Shape } from "./shape.ts";
import { stageName } from "./staging.ts";

/** A target row, outside of the batch, that keeps a batch's row out by a unique constraint. */
export interface Drift {
  readonly shape: Shape;
  /** Keys as text, one array per row, in the capture's order. */
  readonly keys: readonly (readonly (string | null)[])[];
}

/** Thrown when the target has rows of its own making that block the batch; they have to be read again. */
export class DriftSignal extends Error {
  override readonly name = "DriftSignal";
  readonly drift: Drift;
  constructor(drift: Drift) {
    super(`the target's ${drift.shape.label} has rows that block the batch`);
    this.drift = drift;
  }
}

/** A unique constraint or index. */
export interface UniqueIndex {
  readonly name: string;
  readonly expressions: readonly string[];
  readonly predicate: string | null;
  /** Nulls are equal there, from version 15 on. */
  readonly areNullsEqual: boolean;
}

/** The unique index of a constraint that was violated, by name; also one of a partition. */
export async function uniqueIndex(
  target: Connection,
  shape: Shape,
  name: string | undefined,
): Promise<UniqueIndex | undefined> {
  const [index] = await target.rows<UniqueIndex>(
    `select c.relname::text as name,
            (select pg_catalog.array_agg(pg_catalog.pg_get_indexdef(i.indexrelid, n, true) order by n)
             from pg_catalog.generate_series(1, coalesce((pg_catalog.to_jsonb(i) ->> 'indnkeyatts')::int, i.indnatts)) as n) as expressions,
            pg_catalog.pg_get_expr(i.indpred, i.indrelid) as predicate,
            coalesce((pg_catalog.to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false) as "areNullsEqual"
     from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = i.indexrelid
     where c.relname = $1 and i.indisunique
       and i.indrelid in (select $2::oid union all select inhrelid from pg_catalog.pg_inherits where inhparent = $2::oid)`,
    [name ?? "", shape.target.oid],
  );
  return index;
}

/** Joins staged rows `s` with rows `t` of other keys, outside of the batch, that have the same unique value. */
export function blockedSql(shape: Shape, index: UniqueIndex): string {
  const there = shape.target.columns.map(({ name }) => `t.${ident(name)} as ${ident(name)}`).join(", ");
  const isStaged = shape.targetKey
    .map(({ column, equals }, n) => `(t.${ident(column.name)})::${column.baseType} ${equals} k.k${n + 1}`)
    .join(" and ");
  return `${stageName(shape)} as s
    cross join lateral ${valuesSql(index, stagedSql(shape, "s"))} as se
    join ${rowsSql(shape.target)} as t on s.present and not exists (select 1 from ${stageName(shape)} as k where ${isStaged})
    join lateral ${valuesSql(index, there)} as te on ${sameSql(index, "te")}`;
}

/** Joins staged rows `s` with other staged rows `o` that have the same unique value. */
export function rivalsSql(shape: Shape, index: UniqueIndex): string {
  return `${stageName(shape)} as s
    cross join lateral ${valuesSql(index, stagedSql(shape, "s"))} as se
    join ${stageName(shape)} as o on s.present and o.present and s.ctid <> o.ctid
    join lateral ${valuesSql(index, stagedSql(shape, "o"))} as oe on ${sameSql(index, "oe")}`;
}

/** The values e1, e2 … of a row. The index's expressions name columns without a table, so `row` has just those names. */
function valuesSql({ expressions, predicate }: UniqueIndex, row: string): string {
  const values = expressions.map((expression, n) => `(${expression}) as e${n + 1}`).join(", ");
  return `(select ${values} from (select ${row}) as r${predicate === null ? "" : ` where ${predicate}`})`;
}

function sameSql({ expressions, areNullsEqual }: UniqueIndex, other: string): string {
  const equals = areNullsEqual ? "is not distinct from" : "=";
  return expressions.map((_, n) => `${other}.e${n + 1} ${equals} se.e${n + 1}`).join(" and ");
}

function stagedSql(shape: Shape, alias: string): string {
  return [
    ...shape.targetKey.map(({ column }, n) => `${alias}.k${n + 1} as ${ident(column.name)}`),
    ...otherColumns(shape).map(
      (pair, n) => `${alias}.c${n + 1}::${pair.target.type} as ${ident(pair.target.name)}`,
    ),
  ].join(", ");
}

/** Finds the rows that hold the batch's unique values under other keys. Undefined: there are none. */
export async function blockingRows(
  target: Connection,
  shape: Shape,
  index: UniqueIndex,
): Promise<DriftSignal | undefined> {
  const keys = shape.targetKey.map(({ column }) => `t.${ident(column.name)}::text`);
  const rows = await target.rows<{ key: (string | null)[] }>(
    `select array[${keys.join(", ")}] as key from ${blockedSql(shape, index)}`,
  );
  return rows.length === 0 ? undefined : new DriftSignal({ shape, keys: rows.map((row) => row.key) });
}
