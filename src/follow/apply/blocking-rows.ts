/** Rows on the target, outside of a batch, that keep a row of the batch out by a unique constraint. */
import { asApplication } from "../../catalog/search-path.ts";
import type { Connection } from "../../postgres/connect.ts";
import { rowsSql } from "../../catalog/rows.ts";
import { toText } from "../../catalog/text-form.ts";
import { ident, literal } from "../../postgres/sql.ts";
import type { Shape } from "../shape.ts";
import { stagedColumns, stagedValue, stageName } from "./staging.ts";

/** A target row, outside of the batch, that keeps a batch's row out by a unique constraint. */
export interface BlockingRows {
  readonly shape: Shape;
  /** Keys as text, one array per row, in the capture's order. */
  readonly keys: readonly (readonly (string | null)[])[];
}

/** Thrown when the target has rows of its own making that block the batch; they have to be read again. */
export class BlockingRowsSignal extends Error {
  override readonly name = "BlockingRowsSignal";
  readonly blocking: BlockingRows;
  constructor(blocking: BlockingRows) {
    super(`the target's ${blocking.shape.label} has rows that block the batch`);
    this.blocking = blocking;
  }
}

/** A unique constraint or index. */
export interface UniqueIndex {
  readonly name: string;
  readonly expressions: readonly string[];
  /** `operator(schema.=)` of each. */
  readonly equals: readonly string[];
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
  const relid = `${shape.target.oid}::pg_catalog.oid`;
  // Under the search path under which its expressions are used, so that they are written with that in mind.
  const results = await target.script(
    asApplication(shape.target, [
      `select c.relname::pg_catalog.text as name,
              (select pg_catalog.array_agg(pg_catalog.pg_get_indexdef(i.indexrelid, n, true) order by n)
               from pg_catalog.generate_series(1, i.keys) as n) as expressions,
              (select pg_catalog.array_agg(coalesce((
                  select pg_catalog.format('operator(%I.%s)', s.nspname, o.oprname)
                  from pg_catalog.pg_opclass oc
                  join pg_catalog.pg_amop am on am.amopfamily operator(pg_catalog.=) oc.opcfamily and am.amopstrategy operator(pg_catalog.=) 3::pg_catalog.int2
                    and am.amoplefttype operator(pg_catalog.=) oc.opcintype and am.amoprighttype operator(pg_catalog.=) oc.opcintype
                  join pg_catalog.pg_operator o on o.oid operator(pg_catalog.=) am.amopopr
                  join pg_catalog.pg_namespace s on s.oid operator(pg_catalog.=) o.oprnamespace
                  where oc.oid operator(pg_catalog.=) i.indclass[n - 1]), 'operator(pg_catalog.=)') order by n)
               from pg_catalog.generate_series(1, i.keys) as n) as equals,
              pg_catalog.pg_get_expr(i.indpred, i.indrelid) as predicate,
              i."areNullsEqual"
       from (
         select x.*, coalesce((pg_catalog.to_jsonb(x) operator(pg_catalog.->>) 'indnkeyatts'::pg_catalog.text)::int, x.indnatts::int) as keys,
                coalesce((pg_catalog.to_jsonb(x) operator(pg_catalog.->>) 'indnullsnotdistinct'::pg_catalog.text)::boolean, false) as "areNullsEqual"
         from pg_catalog.pg_index x where x.indisunique) as i
       join pg_catalog.pg_class c on c.oid operator(pg_catalog.=) i.indexrelid
       where c.relname operator(pg_catalog.=) ${literal(name ?? "")}::pg_catalog.name
         and (i.indrelid operator(pg_catalog.=) ${relid}
              or i.indrelid operator(pg_catalog.=) any (select inhrelid from pg_catalog.pg_inherits where inhparent operator(pg_catalog.=) ${relid}))`,
    ]).join(";\n"),
  );
  return results[1]?.rows[0] as UniqueIndex | undefined;
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
    join ${stageName(shape)} as o on s.present and o.present and s.ctid operator(pg_catalog.<>) o.ctid
    join lateral ${valuesSql(index, stagedSql(shape, "o"))} as oe on ${sameSql(index, "oe")}`;
}

/** The values e1, e2 … of a row. The index's expressions name columns without a table, so `row` has just those names. */
function valuesSql({ expressions, predicate }: UniqueIndex, row: string): string {
  const values = expressions.map((expression, n) => `(${expression}) as e${n + 1}`).join(", ");
  return `(select ${values} from (select ${row}) as r${predicate === null ? "" : ` where ${predicate}`})`;
}

function sameSql({ equals, areNullsEqual }: UniqueIndex, other: string): string {
  return equals
    .map((operator, n) => {
      const [here, there] = [`se.e${n + 1}`, `${other}.e${n + 1}`];
      const isSame = `${there} ${operator} ${here}`;
      return areNullsEqual ? `(${isSame} or (${there} is null and ${here} is null))` : isSame;
    })
    .join(" and ");
}

function stagedSql(shape: Shape, alias: string): string {
  return [
    ...shape.targetKey.map(({ column }, n) => `${alias}.k${n + 1} as ${ident(column.name)}`),
    ...stagedColumns(shape).map(
      (column) => `(${stagedValue(column, alias)})::${column.target.type} as ${ident(column.target.name)}`,
    ),
  ].join(", ");
}

/** Finds the rows that hold the batch's unique values under other keys. Undefined: there are none. */
export async function blockingRows(
  target: Connection,
  shape: Shape,
  index: UniqueIndex,
): Promise<BlockingRowsSignal | undefined> {
  const keys = shape.targetKey.map(({ column }) => toText(`t.${ident(column.name)}`, column.baseType));
  const results = await target.script(
    asApplication(shape.target, [
      `select array[${keys.join(", ")}] as key from ${blockedSql(shape, index)}`,
    ]).join(";\n"),
  );
  const rows = (results[1]?.rows ?? []) as { key: (string | null)[] }[];
  return rows.length === 0 ? undefined : new BlockingRowsSignal({ shape, keys: rows.map((row) => row.key) });
}
