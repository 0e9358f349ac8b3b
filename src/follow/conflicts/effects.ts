/** Statements that carry out what became of the conflicts of a batch: in staging, and in the deltas of the reverse changes. */
import { fromSql, tableSql } from "../../catalog/table.ts";
import { fromText } from "../../catalog/text-form.ts";
import { ident, literal } from "../../postgres/sql.ts";
import { blockedSql, rivalsSql, type UniqueIndex } from "../apply/blocking-rows.ts";
import { assignStaged, stagedColumns, stagedValue, stageName } from "../apply/staging.ts";
import { forgetReverseSql, postponeReverseSql } from "./other-deltas.ts";
import {
  entries,
  match,
  meeting,
  batchSide,
  rowTexts,
  stagedTexts,
  reverseSide,
  reverseKeys,
  type Met,
  type TrackedPair,
} from "./sides.ts";

/**
 * What looks like a conflict and is none: both sides did the same; or one of them made a row and deleted it again, unless
 * the later change has to win (`isTimed`). Their deltas are settled then, or ours are left out: the later of two that did
 * the same has to be known everywhere, to win over what others have changed before it.
 */
export function agreeSql(met: Met, isTimed: boolean): string[] {
  const { shape, sides } = met;
  const keys = shape.targetKey.map((_, n) => `s.k${n + 1}`).join(", ");
  const agreed = (condition: string): string[] =>
    forgetReverseSql(met, `select ${keys} from ${meeting(shape, sides)} where ${condition}`);
  if (isTimed) {
    const isTheirsLater = "d.changed_at > coalesce(s.changed_at, '-infinity')";
    return [
      `delete from ${stageName(shape)} as x using (
         select s.ctid from ${meeting(shape, sides)} where ${isSame(shape)} and ${isTheirsLater}) as g where x.ctid = g.ctid`,
      ...agreed(isSame(shape)),
    ];
  }
  return [
    ...agreed(`${isSame(shape)} or (d.op = 'I' and t.tableoid is null)`),
    `delete from ${stageName(shape)} as s
     using (${reverseKeys(shape, sides)}) as d
     where ${match(shape)} and s.op = 'I' and not s.present`,
  ];
}

/** True where both sides have the same row, or none. */
export function isSame(shape: TrackedPair): string {
  const pairs = stagedColumns(shape);
  const there = pairs.map((pair) => `(t.${ident(pair.target.name)})::${pair.target.baseType}`).join(", ");
  const here = pairs.map((column) => stagedValue(column, "s")).join(", ");
  const image =
    pairs.length === 0 ? "true" : `row(${there})::record operator(pg_catalog.*=) row(${here})::record`;
  return `(case when s.present and t.tableoid is not null then ${image} else s.present = (t.tableoid is not null) end)`;
}

/**
 * Makes staging what has been decided, and removes the deltas of the reverse changes that nobody shall bring over any more. `indexes`:
 * unique ones that rows of the batch have met.
 */
export function effectSql(met: Met, indexes: readonly UniqueIndex[]): string[] {
  const { shape, sides } = met;
  const [ours, reverseNode] = [batchSide(sides), reverseSide(sides)];
  const keysOf = (column: string, condition: string): string =>
    `select ${shape.targetKey.map(({ column: { baseType } }, n) => fromText(`c.${column}[${n + 1}]`, baseType)).join(", ")}
     from replicate.conflict as c where ${condition}`;
  return [
    `delete from ${fromSql(shape.target)} as t using replicate.conflict as c
     where ${entries(met, ours)} and c.other_key_texts is not null and ${rowTexts(shape)} operator(pg_catalog.=) c.other_key_texts`,
    leaveOutSql(met, reverseNode, "skip"),
    ...mergeSql(met),
    ...indexes.flatMap((index) => [unmergeSql(met, index), leaveOutSql(met, "skip")]),
    // Neither the log nor the deltas need have statistics, and neither has an index that would help.
    "set local enable_nestloop = off",
    ...forgetReverseSql(met, keysOf("key_texts", `${entries(met, ours, "merged")} and c.other_key is null`)),
    ...forgetReverseSql(met, keysOf("other_key_texts", `${entries(met, ours)} and c.other_key is not null`)),
    ...postponeReverseSql(met, keysOf("key_texts", `${entries(met, "skip")} and c.other_key is null`)),
    ...postponeReverseSql(
      met,
      keysOf("other_key_texts", `${entries(met, "skip")} and c.other_key is not null`),
    ),
    "set local enable_nestloop to default",
  ];
}

function leaveOutSql(met: Met, ...winners: string[]): string {
  return `delete from ${stageName(met.shape)} as s using replicate.conflict as c
    where ${entries(met, ...winners)} and ${stagedTexts(met.shape)} operator(pg_catalog.=) c.key_texts`;
}

/** A merged row with a unique value that another row has cannot be had: its conflict is skipped, and the log says why. */
function unmergeSql(met: Met, index: UniqueIndex): string {
  const { shape } = met;
  const isTaken = [rivalsSql(shape, index), blockedSql(shape, index)].map(
    (from) => `select ${stagedTexts(shape)} from ${from}`,
  );
  return `update replicate.conflict as c set winner = 'skip', resolved_at = null, constraint_name = ${literal(index.name)}
    where ${entries(met, "merged")} and c.key_texts operator(pg_catalog.=) any (${isTaken.join(" union all ")})`;
}

/** Gives staged rows the values of merged images. */
function mergeSql(met: Met): string[] {
  const { shape, sides } = met;
  const others = stagedColumns(shape);
  if (others.length === 0) return [];
  const named = others.map((pair) => {
    const name = sides.way === "forward" ? pair.source.name : pair.target.name;
    return `c.merged_image operator(pg_catalog.->) ${literal(name)}::pg_catalog.text as ${ident(pair.target.name)}`;
  });
  const sets = others.map((column) =>
    assignStaged(column, `(r.${ident(column.target.name)})::${column.target.baseType}`),
  );
  return [
    `update ${stageName(shape)} as s set present = true, ${sets.join(", ")}
     from replicate.conflict as c
     cross join lateral pg_catalog.jsonb_populate_record(null::${tableSql(shape.target)},
       (select pg_catalog.to_jsonb(i) from (select ${named.join(", ")}) as i)) as r
     where ${entries(met, "merged")} and ${stagedTexts(shape)} operator(pg_catalog.=) c.key_texts`,
  ];
}
