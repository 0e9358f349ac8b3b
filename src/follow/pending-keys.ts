/**
 * Keys of skipped conflicts: until somebody resolves them they stay as they are on both sides, neither read nor applied. The
 * log of each side has those that were met there.
 */
import { literal } from "../postgres/sql.ts";
import { stageName } from "./staging.ts";
import type { Sides, TwoSided } from "./two-sided.ts";

/** A key as text, in the order of staging. */
export type KeyTexts = readonly string[];

/** Leaves them out of staging. `kept`: those that only the source knows of, where its whole table was read. */
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

/** Leaves them out of what is read: a condition on changes `d` of the source. */
export function exceptPendingSql(shape: TwoSided, base: string): string {
  const columns = shape.capture.keyColumns;
  const isKey = (logged: string): string =>
    `(${pendingOrder(shape)
      .map((n, k) => `(${logged}[${k + 1}])::${columns[n]?.readType} ${columns[n]?.equals} d.k${n + 1}`)
      .join(" and ")})`;
  return `not exists (select 1 from replicate.conflict as c
    where ${open(base, shape.source)} and (${isKey("c.key_texts")} or ${isKey("c.other_key_texts")}))`;
}

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

const open = (base: string, { oid }: { readonly oid: number }): string =>
  `c.sync = ${literal(base)} and c.relid = ${oid} and c.resolved_at is null`;

/** One that has a winner but is not resolved yet is applied again, see conflict/resolve. */
const pending = (base: string, table: { readonly oid: number }): string =>
  `${open(base, table)} and c.winner = 'skip'`;

/** Compared as the type does: other databases may write an equal key otherwise, such as 1.0 and 1.00. */
function isStagedKey(shape: TwoSided, logged: string): string {
  return `(${shape.targetKey.map(({ column, equals }, n) => `(${logged}[${n + 1}])::${column.baseType} ${equals} s.k${n + 1}`).join(" and ")})`;
}

const texts = (keys: readonly KeyTexts[]): string =>
  keys.map((key) => `(array[${key.map(literal).join(", ")}]::text[])`).join(", ");
