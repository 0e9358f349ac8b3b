/**
 * Statements by which a batch changes the deltas of the side that it is applied to: what nobody shall bring over any more
 * goes, and what is to travel is added.
 */
import {
  DISPUTED, REREAD, deltaColumns, deltaTables, emptiedSql, recorded, recordedValue, type CaptureKeyColumn,
} from "../../catalog/delta.ts"; // prettier-ignore
import { fromSql } from "../../catalog/table.ts";
import { fromText } from "../../catalog/text-form.ts";
import { literal } from "../../postgres/sql.ts";
import { stageName } from "../apply/staging.ts";
import {
  entries,
  matchRow,
  reverseSide,
  reverseWindow,
  type Met,
  type Sides,
  type TrackedPair,
} from "./sides.ts";

/** Removes deltas of the reverse changes: `keys` selects them in the order of staging. */
export function forgetReverseSql(met: Met, keys: string): string[] {
  return seenDeltasSql(met, keys, (delta) => `delete from ${delta} as delta using`);
}

/** The same, but only for this sync: others have yet to bring them over. */
export function postponeReverseSql(met: Met, keys: string): string[] {
  const via = literal(met.sides.base);
  return seenDeltasSql(met, keys, (delta) => `update ${delta} as delta set via = ${via} from`);
}

function seenDeltasSql({ shape, sides, seen }: Met, keys: string, head: (delta: string) => string): string[] {
  const { capture } = shape.reverse;
  const columns = deltaColumns(capture);
  const names = shape.targetKey.map((_, n) => `x${n + 1}`).join(", ");
  const same = shape.targetKey
    .map(({ equals }, n) => {
      const k = shape.reverse.key[n] as number;
      return `${recordedValue(capture.keyColumns[k] as CaptureKeyColumn, `delta.${columns[k]}`)} ${equals} g.x${n + 1}`;
    })
    .join(" and ");
  const isSeen = `(txid = pg_catalog.txid_current() or pg_catalog.txid_visible_in_snapshot(txid, ${literal(seen)}::pg_catalog.txid_snapshot))`;
  return deltaTables(capture.id).map(
    (delta) =>
      `${head(delta)} (${keys}) as g (${names})
       where delta.truncated is null and ${reverseWindow(shape, sides)} and ${isSeen} and ${same}`,
  );
}

/**
 * Where they have emptied the table, what we have changed and is not there any more was deleted by them: that is recorded, so
 * that it is a conflict like any other.
 */
export function recordEmptiedSql(shape: TrackedPair, sides: Sides): string[] {
  const emptied = emptiedSql(shape.reverse.capture.id, reverseWindow(shape, sides));
  return intoReverseSql(
    shape,
    (n) => `s.k${n + 1}`,
    `'D', e.changed_at, null, null`,
    `(select pg_catalog.count(*) as n, pg_catalog.max(changed_at) as changed_at from (${emptied}) as x) as e, ${stageName(shape)} as s
     where e.n > 0 and s.present and s.op is distinct from 'I'
       and not exists (select 1 from ${fromSql(shape.target)} as t where ${matchRow(shape, "s")})`,
  );
}

/** What was found to differ is a conflict, whether they have changed it or not: their row is recorded too. */
export function recordDisputedSql(shape: TrackedPair): string[] {
  return intoReverseSql(
    shape,
    (n) => `s.k${n + 1}`,
    `'U', null, null, null`,
    `${stageName(shape)} as s where s.op = '${DISPUTED}'`,
  );
}

/**
 * Deltas that the batch itself makes here: merged rows, and keys of ours that lost to a row with the same unique value,
 * travel back; what other syncs read here travels on, with where it came from.
 */
export function travelOnSql(met: Met): string[] {
  const { shape, sides } = met;
  const entryKey = (n: number): string =>
    fromText(`c.key_texts[${n + 1}]`, shape.targetKey[n]?.column.baseType ?? "text");
  const chosen = (winner: string): string => `replicate.conflict as c where ${entries(met, winner)}`;
  return [
    ...intoReverseSql(shape, entryKey, `'U', pg_catalog.clock_timestamp(), null, null`, chosen("merged")),
    ...intoReverseSql(
      shape,
      entryKey,
      `'U', null, null, null`,
      `${chosen(reverseSide(sides))} and c.other_key is not null`,
    ),
    ...intoReverseSql(
      shape,
      (n) => `s.k${n + 1}`,
      `case when not s.present then 'D'::"char" when s.op = 'I' then 'I'::"char" else 'U'::"char" end,
       s.changed_at, coalesce(s.origin, ${literal(sides.node)}), ${literal(sides.base)}`,
      `${stageName(shape)} as s where ${othersRead(shape, sides)}`,
    ),
    ...tellCopiedSql(shape, sides),
  ];
}

/** Adds deltas to those of the reverse changes. `from` ends in a condition. */
function intoReverseSql(
  shape: TrackedPair,
  value: (n: number) => string,
  told: string,
  from: string,
): string[] {
  const { capture, key } = shape.reverse;
  const columns = [...deltaColumns(capture), "op", "changed_at", "origin", "via"].join(", ");
  const values = capture.keyColumns.map((column, k) => recorded(column, value(key.indexOf(k))));
  return [
    // Against a rotation meanwhile.
    `select 1 from replicate.capture where id = ${capture.id} for share`,
    ...deltaTables(capture.id).map(
      (delta, at) => `insert into ${delta} (${columns}) select ${values.join(", ")}, ${told} from ${from}
        and (select active from replicate.capture where id = ${capture.id}) = '${at === 0 ? "a" : "b"}'`,
    ),
  ];
}

/** Whether other syncs read changes here. */
function othersRead(shape: TrackedPair, { base }: Sides): string {
  return `exists (select 1 from replicate.subscription as o where o.capture_id = ${shape.reverse.capture.id}
    and pg_catalog.split_part(o.sync, '.', 1) <> ${literal(base)})`;
}

/** What a copy has written is in no delta: other syncs read the whole table again once it is complete. */
function tellCopiedSql(shape: TrackedPair, sides: Sides): string[] {
  if (shape.entry.state !== "copied" || shape.entry.sourceFile === null) return [];
  const { id } = shape.reverse.capture;
  return deltaTables(id).map(
    (delta, at) => `insert into ${delta} (truncated, via) select ${REREAD}, ${literal(sides.base)}
      from replicate.capture where id = ${id} and active = '${at === 0 ? "a" : "b"}' and ${othersRead(shape, sides)}`,
  );
}
