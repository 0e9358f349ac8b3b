/**
 * Keys of skipped conflicts: until somebody resolves them they stay as they are on both sides, neither read nor applied. The
 * log of each side has those that were met there.
 */
import { fromText } from "../../catalog/text-form.ts";
import { literal } from "../../postgres/sql.ts";
import { stageName } from "../apply/staging.ts";
import type { Sides, TrackedPair } from "./sides.ts";

/** A key as text, in the order of staging. */
export type KeyTexts = readonly string[];

/** Leaves them out of staging. `kept`: those that only the source knows of, where its whole table was read. */
export function leavePendingSql(shape: TrackedPair, sides: Sides, kept: readonly KeyTexts[]): string[] {
  const logged = keysInLog(pending(sides.base, shape.target));
  const both = kept.length === 0 ? logged : `${logged} union all values ${texts(kept)}`;
  const keys = shape.targetKey.map(({ column: { baseType }, equals }, n) => ({
    value: `s.k${n + 1}`,
    logged: fromText(`p.key[${n + 1}]`, baseType),
    equals,
  }));
  return [`delete from ${stageName(shape)} as s where ${isAmong(keys, both)}`];
}

/** Leaves them out of what is read: a condition on changes `d` of the source. */
export function exceptPendingSql(shape: TrackedPair, base: string): string {
  const keys = pendingOrder(shape).map((n, k) => {
    const { readType = "", equals = "" } = shape.capture.keyColumns[n] ?? {};
    return { value: `d.k${n + 1}`, logged: fromText(`p.key[${k + 1}]`, readType), equals };
  });
  return `not ${isAmong(keys, keysInLog(open(base, shape.source)))}`;
}

/** The keys that the source's log keeps, see `leavePendingSql`. */
export function pendingKeysSql(shape: TrackedPair, base: string): string {
  const order = shape.targetKey.map((_, n) => `p.key[${pendingOrder(shape).indexOf(n) + 1}]`).join(", ");
  return `select array[${order}] as key from (${keysInLog(open(base, shape.source))}) as p (key)`;
}

/** The keys of entries `c`, as texts: of both rows, where two want the same value. */
function keysInLog(condition: string): string {
  return `select k.key from replicate.conflict as c
    cross join lateral (values (c.key_texts), (c.other_key_texts)) as k (key) where ${condition} and k.key is not null`;
}

interface KeyColumn {
  readonly value: string;
  readonly logged: string;
  readonly equals: string;
}

/**
 * Whether a key is one of those that a query gives as texts. Compared as the type does: other databases may write an equal
 * key otherwise, such as 1.0 and 1.00. `any` that is not at the top of a condition is hashed, whatever joins are wanted and
 * however few rows are expected; but it knows one operator for all columns.
 */
function isAmong(key: readonly KeyColumn[], query: string): string {
  const from = `from (${query}) as p (key)`;
  if (new Set(key.map(({ equals }) => equals)).size > 1) {
    const same = key.map(({ value, logged, equals }) => `${value} ${equals} ${logged}`).join(" and ");
    return `(exists (select 1 ${from} where ${same}))`;
  }
  const values = key.map(({ value }) => value).join(", ");
  const logged = key.map((column) => column.logged).join(", ");
  return `(((${values}) ${key[0]?.equals} any (select ${logged} ${from})) is true)`;
}

/** The log holds keys in the order of the capture whose way has met the conflict there, which is the other one. */
function pendingOrder({ reverse }: TrackedPair): number[] {
  return reverse.capture.keyColumns.map((_, k) => reverse.key.indexOf(k));
}

const open = (base: string, { oid }: { readonly oid: number }): string =>
  `c.sync = ${literal(base)} and c.relid = ${oid}::pg_catalog.oid and c.resolved_at is null`;

/** One that has a winner but is not resolved yet is applied again, see conflict/resolve. */
const pending = (base: string, table: { readonly oid: number }): string =>
  `${open(base, table)} and c.winner = 'skip'`;

const texts = (keys: readonly KeyTexts[]): string =>
  keys.map((key) => `(array[${key.map(literal).join(", ")}]::text[])`).join(", ");
