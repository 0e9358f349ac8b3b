/**
 * Statements that find and settle conflicts in the transaction that applies a batch. "Ours" is what the batch brings;
 * "theirs" is what applications have changed on the side that it is applied to, and the other way has not brought over
 * yet. A key that both have changed is a conflict.
 */
import {
  DISPUTED, REREAD, deltaColumns, deltaTables, foreignSql, toldChangesSql, changedKeysSql, windowSql,
} from "../catalog/delta.ts"; // prettier-ignore
import { ownConditions, rowsSql } from "../catalog/rows.ts";
import { fromSql, tableLabel, tableSql } from "../catalog/table.ts";
import { ident, literal } from "../postgres/sql.ts";
import { isReread, otherColumns, stageName, type Shape, type TableMode } from "./shape.ts";

/** Class of the advisory locks on captures, taken by who brings changes to their tables. */
const APPLY_LOCK = 1_919_250_541;

/** A shape whose changes on the applying side are captured. */
export type TwoSided = Shape & { readonly opposite: NonNullable<Shape["opposite"]> };

export function isTwoSided(shape: Shape): shape is TwoSided {
  return shape.opposite !== undefined;
}

export interface Sides {
  /** The sync's own name. */
  readonly base: string;
  readonly way: "forward" | "reverse";
  /** Names of the databases. */
  readonly ours: string;
  readonly theirs: string;
  /** How far the other way has brought their changes over; null: not at all. */
  readonly delivered: string | null;
}

/** Entries of the log that this batch has made for a table. */
export interface Met {
  readonly shape: TwoSided;
  readonly sides: Sides;
  /** Id of the newest entry before. */
  readonly after: string;
  /** Their changes that the entries tell of: those of this snapshot. What is committed later has to be met again. */
  readonly seen: string;
}

const window = (shape: TwoSided, sides: Sides): string =>
  `${windowSql(sides.delivered)}${foreignSql(shape.opposite.capture, sides.base)}`;

/** Matches staging `s` with their changes `d`. */
function match(shape: TwoSided): string {
  return shape.targetKey.map(({ equals }, n) => `s.k${n + 1} ${equals} d.k${(shape.opposite.key[n] as number) + 1}`).join(" and "); // prettier-ignore
}

/** Matches the table's rows `t` with staging or their changes. */
function matchRow(shape: TwoSided, alias: "s" | "d"): string {
  return shape.targetKey
    .map(({ column, equals }, n) => {
      const k = alias === "s" ? n : (shape.opposite.key[n] as number);
      return `(t.${ident(column.name)})::${column.baseType} ${equals} ${alias}.k${k + 1}`;
    })
    .join(" and ");
}

const keyTexts = (shape: TwoSided, value: (n: number) => string): string =>
  `array[${shape.targetKey.map((_, n) => `(${value(n)})::text`).join(", ")}]`;

/** Compared as the type does: other databases may write an equal key otherwise, such as 1.0 and 1.00. */
function isStagedKey(shape: TwoSided, logged: string): string {
  return `(${shape.targetKey.map(({ column, equals }, n) => `(${logged}[${n + 1}])::${column.baseType} ${equals} s.k${n + 1}`).join(" and ")})`;
}

const stagedTexts = (shape: TwoSided): string => keyTexts(shape, (n) => `s.k${n + 1}`);
const rowTexts = (shape: TwoSided): string =>
  keyTexts(shape, (n) => {
    const { column } = shape.targetKey[n] as Shape["targetKey"][number];
    return `(t.${ident(column.name)})::${column.baseType}`;
  });

/**
 * Whether any staged key was changed by them too. Counted: for a first row alone, as `exists` wants it, the planner would
 * compare each staged key with each of theirs, and in most batches there is no such row.
 */
export function meetSql(shape: TwoSided, sides: Sides): string {
  return `select replicate.meet_conflicts(0 < (
    select pg_catalog.count(*) from ${stageName(shape)} as s join (${changedKeysSql(shape.opposite.capture, window(shape, sides))}) as d on ${match(shape)}))`;
}

/**
 * Keeps rows that have met, or that hold a unique value of the batch, as they are until the batch is committed: what
 * applications made of them while it is settled would be lost without a word.
 */
export function lockRowsSql(shape: TwoSided, sides: Sides, indexes: readonly UniqueIndex[]): string[] {
  const met = `${fromSql(shape.target)} as t where exists (
    select 1 from ${stageName(shape)} as s join (${changedKeysSql(shape.opposite.capture, window(shape, sides))}) as d on ${match(shape)}
    where ${matchRow(shape, "s")})`;
  return [met, ...indexes.map((index) => blockedSql(shape, index))].map(
    (from) => `select pg_catalog.count(*) from (select 1 from ${from} for update of t) as l`,
  );
}

/**
 * Where several syncs bring changes to a table, they do so one after the other, each up to its commit: where there is no
 * row, nothing else would make one that deletes it wait for another that is just inserting it, and neither would see what
 * the other has noted. One order for all.
 */
export function takeTurnsSql(shapes: readonly TwoSided[], { base }: Sides): string {
  const captures = shapes.map(({ opposite }) => opposite.capture.id).join(", ");
  return `select pg_catalog.pg_advisory_xact_lock(${APPLY_LOCK}, o.capture_id) from (
    select distinct capture_id from replicate.subscription where capture_id in (${captures})
      and pg_catalog.split_part(sync, '.', 1) <> ${literal(base)} order by capture_id) as o`;
}

/**
 * Keys of a skipped conflict stay as they are on both sides until somebody resolves it: they are not applied. `kept`: those
 * that only the source knows of, where its whole table was read.
 */
export function leavePendingSql(shape: TwoSided, sides: Sides, kept: readonly KeyTexts[]): string[] {
  const stage = stageName(shape);
  return [
    `delete from ${stage} as s using replicate.conflict as c
     where ${pending(sides.base, shape.target)} and (${isStagedKey(shape, "c.key_texts")} or ${isStagedKey(shape, "c.other_key_texts")})`,
    ...(kept.length === 0
      ? []
      : [
          `delete from ${stage} as s using (values ${texts(kept)}) as k (key) where ${isStagedKey(shape, "k.key")}`,
        ]),
  ];
}

/** Nor are they read: continues a condition on changes `d` of the source. */
export function exceptPendingSql(shape: TwoSided, base: string): string {
  const columns = shape.capture.keyColumns;
  const isKey = (logged: string): string =>
    `(${pendingOrder(shape)
      .map((n, k) => `(${logged}[${k + 1}])::${columns[n]?.readType} ${columns[n]?.equals} d.k${n + 1}`)
      .join(" and ")})`;
  return `not exists (select 1 from replicate.conflict as c
    where ${open(base, shape.source)} and (${isKey("c.key_texts")} or ${isKey("c.other_key_texts")}))`;
}

/** A key as text, in the order of staging. */
export type KeyTexts = readonly string[];

/** The keys that the source's log keeps, see `leavePendingSql`. */
export function pendingKeysSql(shape: TwoSided, base: string): string {
  const order = shape.targetKey.map((_, n) => `k.key[${pendingOrder(shape).indexOf(n) + 1}]`).join(", ");
  return `select array[${order}] as key from replicate.conflict as c
    cross join lateral (values (c.key_texts), (c.other_key_texts)) as k (key)
    where ${open(base, shape.source)} and k.key is not null`;
}

/** The log holds keys in the order of the capture whose way has met the conflict there, which is the other one. */
function pendingOrder({ opposite }: TwoSided): number[] {
  return opposite.capture.keyColumns.map((_, k) => opposite.key.indexOf(k));
}

const texts = (keys: readonly KeyTexts[]): string =>
  keys.map((key) => `(array[${key.map(literal).join(", ")}]::text[])`).join(", ");

const open = (base: string, { oid }: { readonly oid: number }): string =>
  `c.sync = ${literal(base)} and c.relid = ${oid} and c.resolved_at is null`;

/** One that has a winner but is not resolved yet is applied again, see conflict/resolve. */
const pending = (base: string, table: { readonly oid: number }): string =>
  `${open(base, table)} and c.winner = 'skip'`;

/**
 * Completes what a re-read has staged by the rows here that we do not have, so that they go key by key, as conflicts where
 * they have to: all but those that they have made. Where the re-read was for a TRUNCATE, which was made at `emptiedAt`, rows
 * that we have not touched are left out where they have changed them.
 */
export function completeRereadSql(
  shape: TwoSided,
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
  const told = toldChangesSql(shape.opposite.capture, window(shape, sides));
  const conditions = [
    ...ownConditions(shape.target, "t"),
    `not exists (select 1 from ${stage} as s where ${matchRow(shape, "s")})`,
    `not exists (select 1 from (${told}) as d where d.did = 'I' and ${matchRow(shape, "d")})`,
  ];
  const at = emptiedAt === null ? "null" : literal(emptiedAt);
  const gone = `insert into ${stage} (${keys}, present, did, changed_at)
    select ${rowKeys}, false, 'D', ${at}::timestamptz from ${fromSql(shape.target)} as t where ${conditions.join(" and ")}`;
  if (mode.kind === "reread") return [gone];
  return [gone, `delete from ${stage} as s using (${told}) as d where s.did is null and ${match(shape)}`];
}

/** When the source's table was emptied, as far as the batch brings it. */
export function emptiedAtSql(shape: TwoSided, window: string): string {
  const emptied = deltaTables(shape.capture.id).map((delta) => `select changed_at from ${delta} where truncated is not null and ${window}`); // prettier-ignore
  return `select pg_catalog.max(changed_at)::text as at from (${emptied.join(" union all ")}) as x`;
}

/**
 * Where they have emptied the table, what we have changed and is not there any more was deleted by them: that is noted, so
 * that it is a conflict like any other.
 */
export function noteEmptiedSql(shape: TwoSided, sides: Sides): string[] {
  const emptied = deltaTables(shape.opposite.capture.id)
    .map((delta) => `select changed_at from ${delta} where truncated is not null and ${window(shape, sides)}`)
    .join(" union all ");
  return intoTheirsSql(
    shape,
    (n) => `s.k${n + 1}`,
    `'D', e.changed_at, null, null`,
    `(select pg_catalog.count(*) as n, pg_catalog.max(changed_at) as changed_at from (${emptied}) as x) as e, ${stageName(shape)} as s
     where e.n > 0 and s.present and s.did is distinct from 'I'
       and not exists (select 1 from ${fromSql(shape.target)} as t where ${matchRow(shape, "s")})`,
  );
}

/** What was found to differ is a conflict, whether they have changed it or not: their row is noted too. */
export function noteDisputedSql(shape: TwoSided): string[] {
  return intoTheirsSql(
    shape,
    (n) => `s.k${n + 1}`,
    `'U', null, null, null`,
    `${stageName(shape)} as s where s.did = '${DISPUTED}'`,
  );
}

/** Adds deltas to theirs. `from` ends in a condition. */
function intoTheirsSql(shape: TwoSided, value: (n: number) => string, told: string, from: string): string[] {
  const { capture, key } = shape.opposite;
  const columns = [...deltaColumns(capture), "op", "changed_at", "origin", "via"].join(", ");
  const values = capture.keyColumns.map(({ deltaType }, k) => `(${value(key.indexOf(k))})::${deltaType}`);
  return [
    // Against a rotation meanwhile.
    `select 1 from replicate.capture where id = ${capture.id} for share`,
    ...deltaTables(capture.id).map(
      (delta, at) => `insert into ${delta} (${columns}) select ${values.join(", ")}, ${told} from ${from}
        and (select active from replicate.capture where id = ${capture.id}) = '${at === 0 ? "a" : "b"}'`,
    ),
  ];
}

/** True where both sides have the same row, or none. */
function isSame(shape: TwoSided): string {
  const pairs = otherColumns(shape);
  const there = pairs.map((pair) => `(t.${ident(pair.target.name)})::${pair.target.baseType}`).join(", ");
  const here = pairs.map((_, n) => `s.c${n + 1}`).join(", ");
  const image =
    pairs.length === 0 ? "true" : `row(${there})::record operator(pg_catalog.*=) row(${here})::record`;
  return `(case when s.present and t.tableoid is not null then ${image} else s.present = (t.tableoid is not null) end)`;
}

/** Staging `s`, their changes `d`, and the row `t` here. */
function meeting(shape: TwoSided, sides: Sides): string {
  return `${stageName(shape)} as s
    join (${toldChangesSql(shape.opposite.capture, window(shape, sides))}) as d on ${match(shape)}
    left join ${fromSql(shape.target)} as t on ${matchRow(shape, "s")}`;
}

/**
 * What looks like a conflict and is none: both sides did the same; or one of them made a row and deleted it again, unless
 * the later change has to win (`isTimed`). Their deltas are settled then, or ours are left out.
 */
export function agreeSql(met: Met, isTimed: boolean): string[] {
  const { shape, sides } = met;
  const keys = shape.targetKey.map((_, n) => `s.k${n + 1}`).join(", ");
  const agreed = (condition: string): string[] =>
    forgetTheirsSql(met, `select ${keys} from ${meeting(shape, sides)} where ${condition}`);
  if (isTimed) return agreed(isSame(shape));
  return [
    ...agreed(`${isSame(shape)} or (d.did = 'I' and t.tableoid is null)`),
    `delete from ${stageName(shape)} as s
     using (${changedKeysSql(shape.opposite.capture, window(shape, sides))}) as d
     where ${match(shape)} and s.did = 'I' and not s.present`,
  ];
}

/** Removes deltas of theirs: `keys` selects them in the order of staging. */
function forgetTheirsSql({ shape, sides, seen }: Met, keys: string): string[] {
  const { capture } = shape.opposite;
  const columns = deltaColumns(capture);
  const names = shape.targetKey.map((_, n) => `x${n + 1}`).join(", ");
  const same = shape.targetKey
    .map(({ equals }, n) => {
      const k = shape.opposite.key[n] as number;
      return `(delta.${columns[k]})::${capture.keyColumns[k]?.readType} ${equals} g.x${n + 1}`;
    })
    .join(" and ");
  const isSeen = `(txid = pg_catalog.txid_current() or pg_catalog.txid_visible_in_snapshot(txid, ${literal(seen)}::pg_catalog.txid_snapshot))`;
  return deltaTables(capture.id).map(
    (delta) =>
      `delete from ${delta} as delta using (${keys}) as g (${names})
       where delta.truncated is null and ${window(shape, sides)} and ${isSeen} and ${same}`,
  );
}

const change = (did: string, exists: string): string =>
  `case when not (${exists}) then 'delete' when ${did} = 'I' then 'insert' else 'update' end`;

/** Row of one side as JSON, by the names that the sync's source gives its columns; null where there is no row. */
function image(shape: TwoSided, sides: Sides, from: "s" | "t"): string {
  const name = (pair: Shape["plan"]["columns"][number]): string =>
    ident(sides.way === "forward" ? pair.source.name : pair.target.name);
  const columns = shape.plan.columns.map((pair) => {
    if (from === "t") return `(t.${ident(pair.target.name)})::${pair.target.baseType} as ${name(pair)}`;
    const key = shape.targetKey.findIndex(({ column }) => column.attnum === pair.target.attnum);
    const at = otherColumns(shape).findIndex((other) => other.target.attnum === pair.target.attnum);
    return `${key >= 0 ? `s.k${key + 1}` : `s.c${at + 1}`} as ${name(pair)}`;
  });
  const exists = from === "s" ? "s.present" : "t.tableoid is not null";
  return `case when ${exists} then (select pg_catalog.to_jsonb(i) from (select ${columns.join(", ")}) as i) end`;
}

/** The key as JSON, by the names that the sync's source gives its columns. */
function keyImage(shape: TwoSided, sides: Sides, from: "s" | "t"): string {
  const columns = shape.targetKey.map(({ column }, n) => {
    const name = sides.way === "forward" ? shape.capture.keyColumns[n]?.name : column.name;
    const value = from === "s" ? `s.k${n + 1}` : `(t.${ident(column.name)})::${column.baseType}`;
    return `${value} as ${ident(name ?? column.name)}`;
  });
  return `(select pg_catalog.to_jsonb(i) from (select ${columns.join(", ")}) as i)`;
}

const ourSide = ({ way }: Sides): "source" | "target" => (way === "forward" ? "source" : "target");
const theirSide = ({ way }: Sides): "source" | "target" => (way === "forward" ? "target" : "source");

/** The entries `c`; `winners` chooses by who won. */
function entries({ shape, sides, after }: Met, ...winners: string[]): string {
  const chosen = winners.length === 0 ? "" : ` and c.winner in (${winners.map(literal).join(", ")})`;
  return `c.sync = ${literal(sides.base)} and c.relid = ${shape.target.oid} and c.id > ${after}${chosen}`;
}

/** Writes what meets into the log. Who wins is decided afterwards: `skip` until then. */
function recordSql(
  { shape, sides }: Met,
  policy: string,
  kind: string,
  other: { readonly key: string; readonly texts: string; readonly constraint: string },
  from: string,
): string {
  const ours = [
    change("s.did", "s.present"),
    image(shape, sides, "s"),
    "s.changed_at",
    `coalesce(s.origin, ${literal(sides.ours)})`,
  ].join(", ");
  const theirs = [
    change("d.did", "t.tableoid is not null"),
    image(shape, sides, "t"),
    "d.changed_at",
    `coalesce(d.origin, ${literal(sides.theirs)})`,
  ].join(", ");
  const isForward = sides.way === "forward";
  return `insert into replicate.conflict (sync, way, relid, table_name, key, key_texts, other_key, other_key_texts,
      constraint_name, kind, source_change, source_image, source_at, source_node,
      target_change, target_image, target_at, target_node, policy, winner)
    select ${literal(sides.base)}, ${literal(sides.way)}, ${shape.target.oid},
      ${literal(isForward ? shape.label : tableLabel(shape.target))}, ${keyImage(shape, sides, "s")}, ${stagedTexts(shape)},
      ${other.key}, ${other.texts}, ${other.constraint}, ${kind},
      ${isForward ? ours : theirs}, ${isForward ? theirs : ours}, ${literal(policy)}, 'skip'
    from ${from}`;
}

/** Records the keys that both sides have changed. */
export function recordConflictsSql(met: Met, policy: string): string {
  const kind = `case when not s.present then 'delete_origin_differs' when t.tableoid is null then 'update_missing'
    when s.did = 'I' then 'insert_exists' else 'update_origin_differs' end`;
  const none = { key: "null::jsonb", texts: "null::text[]", constraint: "null" };
  return recordSql(met, policy, kind, none, meeting(met.shape, met.sides));
}

/** A unique constraint or index, see `unique-index.sql`. */
export interface UniqueIndex {
  readonly name: string;
  readonly expressions: readonly string[];
  readonly predicate: string | null;
}

/** Joins staged rows `s` with rows `t` of other keys, outside of the batch, that have the same unique value. */
export function blockedSql(shape: Shape, index: UniqueIndex): string {
  const where = index.predicate === null ? "" : ` where ${index.predicate}`;
  const values = index.expressions.map((expression, n) => `(${expression}) as e${n + 1}`).join(", ");
  // The index's expressions name columns without a table, so each side is wrapped to have just those names.
  const staged = [
    ...shape.targetKey.map(({ column }, n) => `s.k${n + 1} as ${ident(column.name)}`),
    ...otherColumns(shape).map((pair, n) => `s.c${n + 1}::${pair.target.type} as ${ident(pair.target.name)}`),
  ].join(", ");
  const there = shape.target.columns.map(({ name }) => `t.${ident(name)} as ${ident(name)}`).join(", ");
  const same = index.expressions.map((_, n) => `te.e${n + 1} = se.e${n + 1}`).join(" and ");
  const isStaged = shape.targetKey
    .map(({ column, equals }, n) => `(t.${ident(column.name)})::${column.baseType} ${equals} k.k${n + 1}`)
    .join(" and ");
  return `${stageName(shape)} as s
    cross join lateral (select ${values} from (select ${staged}) as r${where}) as se
    join ${rowsSql(shape.target)} as t on s.present and not exists (select 1 from ${stageName(shape)} as k where ${isStaged})
    join lateral (select ${values} from (select ${there}) as r${where}) as te on ${same}`;
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
    left join (${toldChangesSql(shape.opposite.capture, window(shape, sides))}) as d on ${matchRow(shape, "d")}`;
  return recordSql(met, policy, "'multiple_unique_conflicts'", other, from);
}

/** Makes staging what has been decided, and removes the deltas of theirs that nobody shall bring over any more. */
export function effectSql(met: Met): string[] {
  const { shape, sides } = met;
  const stage = stageName(shape);
  const [ours, theirs] = [ourSide(sides), theirSide(sides)];
  const keysOf = (column: string, condition: string): string =>
    `select ${shape.targetKey.map(({ column: { baseType } }, n) => `(c.${column}[${n + 1}])::${baseType}`).join(", ")}
     from replicate.conflict as c where ${condition}`;
  return [
    `delete from ${fromSql(shape.target)} as t using replicate.conflict as c
     where ${entries(met, ours)} and c.other_key_texts is not null and ${rowTexts(shape)} = c.other_key_texts`,
    `delete from ${stage} as s using replicate.conflict as c
     where ${entries(met, theirs, "skip")} and ${stagedTexts(shape)} = c.key_texts`,
    ...mergeSql(met),
    // Neither the log nor the deltas need have statistics, and neither has an index that would help.
    "set local enable_nestloop = off",
    ...forgetTheirsSql(met, keysOf("key_texts", `${entries(met, ours, "merged", "skip")} and c.other_key is null`)), // prettier-ignore
    ...forgetTheirsSql(met, keysOf("other_key_texts", `${entries(met, ours, "skip")} and c.other_key is not null`)), // prettier-ignore
    "set local enable_nestloop to default",
  ];
}

/** Gives staged rows the values of merged images. */
function mergeSql(met: Met): string[] {
  const { shape, sides } = met;
  const others = otherColumns(shape);
  if (others.length === 0) return [];
  const named = others.map((pair) => {
    const name = sides.way === "forward" ? pair.source.name : pair.target.name;
    return `c.merged_image -> ${literal(name)} as ${ident(pair.target.name)}`;
  });
  const sets = others.map((pair, n) => `c${n + 1} = (r.${ident(pair.target.name)})::${pair.target.baseType}`);
  return [
    `update ${stageName(shape)} as s set present = true, ${sets.join(", ")}
     from replicate.conflict as c
     cross join lateral pg_catalog.jsonb_populate_record(null::${tableSql(shape.target)},
       (select pg_catalog.to_jsonb(i) from (select ${named.join(", ")}) as i)) as r
     where ${entries(met, "merged")} and ${stagedTexts(shape)} = c.key_texts`,
  ];
}

/**
 * Deltas that the batch itself makes here: merged rows, and keys of ours that lost to a row with the same unique value,
 * travel back; what other syncs read here travels on, with where it came from.
 */
export function travelOnSql(met: Met): string[] {
  const { shape, sides } = met;
  const entryKey = (n: number): string => `(c.key_texts[${n + 1}])::${shape.targetKey[n]?.column.baseType}`;
  const chosen = (winner: string): string => `replicate.conflict as c where ${entries(met, winner)}`;
  return [
    ...intoTheirsSql(shape, entryKey, `'U', pg_catalog.clock_timestamp(), null, null`, chosen("merged")),
    ...intoTheirsSql(
      shape,
      entryKey,
      `'U', null, null, null`,
      `${chosen(theirSide(sides))} and c.other_key is not null`,
    ),
    ...intoTheirsSql(
      shape,
      (n) => `s.k${n + 1}`,
      `case when not s.present then 'D'::"char" when s.did = 'I' then 'I'::"char" else 'U'::"char" end,
       s.changed_at, coalesce(s.origin, ${literal(sides.ours)}), ${literal(sides.base)}`,
      `${stageName(shape)} as s where ${othersRead(shape, sides)}`,
    ),
    ...tellCopiedSql(shape, sides),
  ];
}

/** Whether other syncs read changes here. */
function othersRead(shape: TwoSided, { base }: Sides): string {
  return `exists (select 1 from replicate.subscription as o where o.capture_id = ${shape.opposite.capture.id}
    and pg_catalog.split_part(o.sync, '.', 1) <> ${literal(base)})`;
}

/** What a copy has written is in no delta: other syncs read the whole table again once it is complete. */
function tellCopiedSql(shape: TwoSided, sides: Sides): string[] {
  if (shape.entry.state !== "copied") return [];
  const { id } = shape.opposite.capture;
  return deltaTables(id).map(
    (delta, at) => `insert into ${delta} (truncated, via) select ${REREAD}, ${literal(sides.base)}
      from replicate.capture where id = ${id} and active = '${at === 0 ? "a" : "b"}' and ${othersRead(shape, sides)}`,
  );
}
