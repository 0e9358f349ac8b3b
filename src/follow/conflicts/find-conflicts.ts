/** Statements that find the conflicts of a batch, keep their rows as they are, and write them into the log. */
import { fromSql, tableLabel } from "../../catalog/table.ts";
import { ident, literal } from "../../postgres/sql.ts";
import { blockedSql, type UniqueIndex } from "../apply/blocking-rows.ts";
import type { Shape } from "../shape.ts";
import { stagedColumns, stagedValue, stageName } from "../apply/staging.ts";
import {
  match,
  matchRow,
  meeting,
  batchSide,
  rowTexts,
  stagedTexts,
  reverseChanges,
  reverseKeys,
  reverseSide,
  type Met,
  type Sides,
  type TrackedPair,
} from "./sides.ts";

/**
 * Where several syncs bring changes to a table, they do so one after the other, each up to its commit: where there is no
 * row, nothing else would make one that deletes it wait for another that is just inserting it, and neither would see what
 * the other has noted. One order for all.
 */
export function takeTurnsSql(shapes: readonly TrackedPair[], { base }: Sides): string {
  const captures = shapes.map(({ reverse }) => reverse.capture.id).join(", ");
  const others = `select distinct capture_id from replicate.subscription where capture_id in (${captures})
      and pg_catalog.split_part(sync, '.', 1) <> ${literal(base)}`;
  return `insert into replicate.turn (capture_id) select o.capture_id from (${others}) as o
      where not exists (select 1 from replicate.turn t where t.capture_id = o.capture_id)
      order by o.capture_id on conflict (capture_id) do nothing;
    select 1 from replicate.turn t where t.capture_id in (${others}) order by t.capture_id for update`;
}

/**
 * Whether any staged key was changed by them too. Counted: for a first row alone, as `exists` wants it, the planner would
 * compare each staged key with each reverse change, and in most batches there is no such row.
 */
export function meetSql(shape: TrackedPair, sides: Sides): string {
  return `select replicate.meet_conflicts(0 < (
    select pg_catalog.count(*) from ${stageName(shape)} as s join (${reverseKeys(shape, sides)}) as d on ${match(shape)}))`;
}

/**
 * Keeps rows that have met, or that hold a unique value of the batch, as they are until the batch is committed: what
 * applications made of them while it is settled would be lost without a word.
 */
export function lockRowsSql(shape: TrackedPair, sides: Sides, indexes: readonly UniqueIndex[]): string[] {
  const met = `${fromSql(shape.target)} as t where exists (
    select 1 from ${stageName(shape)} as s join (${reverseKeys(shape, sides)}) as d on ${match(shape)}
    where ${matchRow(shape, "s")})`;
  return [met, ...indexes.map((index) => blockedSql(shape, index))].map(
    (from) => `select pg_catalog.count(*) from (select 1 from ${from} for update of t) as l`,
  );
}

type Meeting = Pick<Met, "shape" | "sides">;

/** Records the keys that both sides have changed. */
export function recordConflictsSql(met: Met, policy: string): string {
  const kind = `case when not s.present then 'delete_origin_differs' when t.tableoid is null then 'update_missing'
    when s.op = 'I' then 'insert_exists' else 'update_origin_differs' end`;
  return recordSql(met, policy, kind, noOther, meeting(met.shape, met.sides));
}

/** Records keys that both sides have deleted: there is nothing to decide. The later one counts as the winner. */
export function recordDeletedSql(met: Meeting, policy: string): string {
  const both = `not s.present and t.tableoid is null and s.op is distinct from 'I' and d.op is distinct from 'I'
    and s.changed_at is not null and d.changed_at is not null`;
  const winner = `case when d.changed_at > s.changed_at then ${literal(reverseSide(met.sides))} else ${literal(batchSide(met.sides))} end`;
  const from = `${meeting(met.shape, met.sides)} where ${both}`;
  return recordSql(met, policy, "'delete_missing'", noOther, from, winner);
}

/** Records staged rows whose unique value another row here has. */
export function recordCollisionsSql(met: Met, policy: string, index: UniqueIndex): string {
  const { shape, sides } = met;
  const other = {
    key: keyImage(shape, sides, "t"),
    texts: rowTexts(shape),
    constraint: literal(index.name),
  };
  const from = `${blockedSql(shape, index)}
    left join (${reverseChanges(shape, sides)}) as d on ${matchRow(shape, "d")}`;
  return recordSql(met, policy, "'multiple_unique_conflicts'", other, from);
}

const noOther = { key: "null::jsonb", texts: "null::text[]", constraint: "null" };

/** Writes what meets into the log. Who wins is decided afterwards, `skip` until then, unless `winner` says it. */
function recordSql(
  { shape, sides }: Meeting,
  policy: string,
  kind: string,
  other: { readonly key: string; readonly texts: string; readonly constraint: string },
  from: string,
  winner?: string,
): string {
  const batchValues = [
    change("s.op", "s.present"),
    image(shape, sides, "s"),
    "s.changed_at",
    `coalesce(s.origin, ${literal(sides.node)})`,
  ].join(", ");
  const reverseValues = [
    change("d.op", "t.tableoid is not null"),
    image(shape, sides, "t"),
    "d.changed_at",
    `coalesce(d.origin, ${literal(sides.reverseNode)})`,
  ].join(", ");
  const isForward = sides.way === "forward";
  return `insert into replicate.conflict (sync, way, relid, table_name, key, key_texts, other_key, other_key_texts,
      constraint_name, kind, source_change, source_image, source_at, source_node,
      target_change, target_image, target_at, target_node, policy, winner, resolved_at)
    select ${literal(sides.base)}, ${literal(sides.way)}, ${shape.target.oid},
      ${literal(isForward ? shape.label : tableLabel(shape.target))}, ${keyImage(shape, sides, "s")}, ${stagedTexts(shape)},
      ${other.key}, ${other.texts}, ${other.constraint}, ${kind},
      ${isForward ? batchValues : reverseValues}, ${isForward ? reverseValues : batchValues}, ${literal(policy)},
      ${winner === undefined ? "'skip', null" : `${winner}, pg_catalog.clock_timestamp()`}
    from ${from}`;
}

const change = (op: string, exists: string): string =>
  `case when not (${exists}) then 'delete' when ${op} = 'I' then 'insert' else 'update' end`;

/** Row of one side as JSON, by the names that the sync's source gives its columns; null where there is no row. */
function image(shape: TrackedPair, sides: Sides, from: "s" | "t"): string {
  const name = (pair: Shape["plan"]["columns"][number]): string =>
    ident(sides.way === "forward" ? pair.source.name : pair.target.name);
  const staged = stagedColumns(shape);
  const columns = shape.plan.columns.map((pair) => {
    if (from === "t") return `(t.${ident(pair.target.name)})::${pair.target.baseType} as ${name(pair)}`;
    const key = shape.targetKey.findIndex(({ column }) => column.attnum === pair.target.attnum);
    const other = staged.find(({ target }) => target.attnum === pair.target.attnum);
    return `${other === undefined ? `s.k${key + 1}` : stagedValue(other, "s")} as ${name(pair)}`;
  });
  const exists = from === "s" ? "s.present" : "t.tableoid is not null";
  return `case when ${exists} then (select pg_catalog.to_jsonb(i) from (select ${columns.join(", ")}) as i) end`;
}

/** The key as JSON, by the names that the sync's source gives its columns. */
function keyImage(shape: TrackedPair, sides: Sides, from: "s" | "t"): string {
  const columns = shape.targetKey.map(({ column }, n) => {
    const name = sides.way === "forward" ? shape.capture.keyColumns[n]?.name : column.name;
    const value = from === "s" ? `s.k${n + 1}` : `(t.${ident(column.name)})::${column.baseType}`;
    return `${value} as ${ident(name ?? column.name)}`;
  });
  return `(select pg_catalog.to_jsonb(i) from (select ${columns.join(", ")}) as i)`;
}
