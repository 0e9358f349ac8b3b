/** What a batch that has read a whole table lacks where conflicts may be met. */
import { emptiedSql } from "../../catalog/delta.ts";
import { ownConditions } from "../../catalog/rows.ts";
import { fromSql } from "../../catalog/table.ts";
import { ident, literal } from "../../postgres/sql.ts";
import { stageName } from "../apply/staging.ts";
import { isReread, type TableMode } from "./table-mode.ts";
import { match, matchRow, reverseChanges, type Sides, type TrackedPair } from "../conflicts/sides.ts";

/** When the source's table was emptied, as far as the batch brings it. */
export function emptiedAtSql(shape: TrackedPair, window: string): string {
  return `select pg_catalog.max(changed_at)::text as at from (${emptiedSql(shape.capture.id, window)}) as x`;
}

/**
 * Completes what a re-read has staged by the rows here that we do not have, so that they go key by key, as conflicts where
 * they have to: all but those that they have made. Where no change can have been missed, as with a TRUNCATE, which was
 * made at `emptiedAt`, rows that we have not touched are left out where they have changed them.
 */
export function completeRereadSql(
  shape: TrackedPair,
  sides: Sides,
  mode: TableMode,
  emptiedAt: string | null,
): string[] {
  if (!isReread(shape, mode)) return [];
  const stage = stageName(shape);
  const keys = shape.targetKey.map((_, n) => `k${n + 1}`).join(", ");
  const rowKeys = shape.targetKey
    .map(({ column }) => `(t.${ident(column.name)})::${column.baseType}`)
    .join(", ");
  const changes = reverseChanges(shape, sides);
  const conditions = [
    ...ownConditions(shape.target, "t"),
    `not exists (select 1 from ${stage} as s where ${matchRow(shape, "s")})`,
    `not exists (select 1 from (${changes}) as d where d.op = 'I' and ${matchRow(shape, "d")})`,
  ];
  const at = emptiedAt === null ? "null" : literal(emptiedAt);
  const gone = `insert into ${stage} (${keys}, present, op, changed_at)
    select ${rowKeys}, false, 'D', ${at}::timestamptz from ${fromSql(shape.target)} as t where ${conditions.join(" and ")}`;
  if (mode.kind === "reread" && mode.keepsReverse !== true) return [gone];
  return [gone, `delete from ${stage} as s using (${changes}) as d where s.op is null and ${match(shape)}`];
}
