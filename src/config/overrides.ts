/**
 * The settings of one table. Everybody who wants to know one asks here, so that there is one answer.
 *
 * Several overrides may fit a table. They are merged key by key, `columns` and `discriminator` name by name: what the exact
 * name says goes before patterns, a narrower pattern before a wider one, see `compareWidth`. null takes back what wider ones
 * say, except of a single column, where it leaves the column out.
 */
import { parsePattern, patternMatches, type Pattern, type TableName } from "../catalog/patterns.ts";

/** Keys whose values are merged name by name. */
const mergedInside: readonly string[] = ["columns", "discriminator"];

type Overrides<O> = Readonly<Record<string, O>>;

/** An override without what was taken back. */
export type Merged<O> = { readonly [K in keyof O]?: Exclude<O[K], null | undefined> };

/** One setting of a table, and who says so. */
export interface EffectiveSetting {
  /** `capture`. */
  readonly key: string;
  /** A column, where the key is merged name by name. */
  readonly name: string | null;
  readonly value: unknown;
  /** The override as written by the user. */
  readonly from: string;
}

/** The settings of one table, merged. A key that no override sets is not there. */
export function tableSettings<O extends object>(
  table: TableName,
  { overrides }: { readonly overrides: Overrides<O> },
): Merged<O> {
  const merged: Record<string, unknown> = {};
  for (const { key, name, value } of effectiveSettings(table, overrides)) {
    if (name === null) merged[key] = value;
    else merged[key] = { ...(merged[key] as Record<string, unknown> | undefined), [name]: value };
  }
  return merged as Merged<O>;
}

/** The same one by one, each with the override that it comes from. */
export function effectiveSettings<O extends object>(
  table: TableName,
  overrides: Overrides<O>,
): EffectiveSetting[] {
  const effective = new Map<string, EffectiveSetting>();
  /** Keys of which an override has said that wider ones do not count. */
  const closed = new Set<string>();
  for (const { text, pattern } of ranked(overrides)) {
    if (!patternMatches(pattern, table.schema, table.name)) continue;
    for (const [key, value] of Object.entries(overrides[text] ?? {}) as [string, unknown][]) {
      if (value === undefined || closed.has(key)) continue;
      if (value === null || !mergedInside.includes(key)) closed.add(key);
      if (value === null) continue;
      const inner = mergedInside.includes(key) ? Object.entries(value as object) : [[null, value] as const];
      for (const [name, each] of inner) {
        const path = JSON.stringify([key, name]);
        if (!effective.has(path)) effective.set(path, { key, name, value: each as unknown, from: text });
      }
    }
  }
  return [...effective.values()];
}

interface Ranked {
  readonly text: string;
  readonly pattern: Pattern;
}

const known = new WeakMap<object, readonly Ranked[]>();

/** Overrides in the order in which they count; those that are equally wide as they were written. */
function ranked(overrides: Overrides<unknown>): readonly Ranked[] {
  const before = known.get(overrides);
  if (before !== undefined) return before;
  const all = Object.keys(overrides)
    .map((text) => ({ text, pattern: parsePattern(text) }))
    .toSorted((one, other) => compareWidth(one.pattern, other.pattern));
  known.set(overrides, all);
  return all;
}

/**
 * Negative where `one` is the narrower: more characters of the table's name are written out, or else of the schema's. Of two
 * patterns of which one fits nothing that the other does not fit too, that one is always the narrower.
 */
export function compareWidth(one: Pattern, other: Pattern): number {
  for (const part of ["name", "schema"] as const) {
    const [a, b] = [one.width[part], other.width[part]];
    const difference = b.letters - a.letters || b.least - a.least || a.stars - b.stars;
    if (difference !== 0) return difference;
  }
  return 0;
}

/** Overrides that mean the same tables, however they are written: `users` and `public.users`. */
export function sameOverrides(texts: readonly string[]): (readonly [later: string, earlier: string])[] {
  const seen = new Map<string, string>();
  return texts.flatMap((text) => {
    const { schema, name } = parsePattern(text);
    const meant = JSON.stringify([schema.source, name.source]);
    const earlier = seen.get(meant);
    if (earlier !== undefined) return [[text, earlier] as const];
    seen.set(meant, text);
    return [];
  });
}
