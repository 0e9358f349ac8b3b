/** Cuts a large table into ranges of its key, so that no snapshot has to be held for longer than one range takes. */
import { applicationPathSql } from "../catalog/search-path.ts";
import type { Connection } from "../postgres/connect.ts";
import { literal } from "../postgres/sql.ts";
import type { SideSql, TablePlan } from "./plan.ts";

/** A range of the key's first column, as text; null means open. The first and the last range are open at their ends. */
export interface KeyRange {
  readonly low: string | null;
  readonly high: string | null;
}

export const everything: KeyRange = { low: null, high: null };

/** Heap and TOAST that one part reads. */
const defaultPartBytes = 256 * 1024 * 1024;

/** Types whose order is the same on every server. Not text: its order is the collation's, which differs by library. */
const families: readonly (readonly string[])[] = [
  ["smallint", "integer", "bigint", "numeric"],
  ["uuid"],
  ["date"],
  ["timestamp without time zone"],
  ["timestamp with time zone"],
];

const PAGE_BYTES = 8192;
/** Pages to look at for each part: enough that parts differ little in size. */
const SAMPLED_PAGES_PER_PART = 20;
/**
 * Below this correlation between key and place, a range's rows are scattered over the whole table, and reading range by
 * range would read most pages once for every range.
 */
const LEAST_CORRELATION = 0.8;
/** How many times the pages of such a table may be read altogether. */
const MOST_READS = 4;

/** The ranges of a table, in order; one that is open at both ends where it is small or cannot be cut. */
export async function keyRanges(
  source: Connection,
  plan: TablePlan,
  partBytes: number = defaultPartBytes,
): Promise<KeyRange[]> {
  const wanted = Math.ceil(plan.bytes / partBytes);
  const [first] = plan.key;
  if (wanted <= 1 || first === undefined || plan.heapBytes === 0) return [everything];
  const types = [first.source, first.target].map((column) => (column.isBuiltin ? column.baseType : ""));
  if (!families.some((family) => types.every((type) => family.includes(type)))) return [everything];

  const pages = plan.heapBytes / PAGE_BYTES;
  const percent = Math.min(100, (100 * wanted * SAMPLED_PAGES_PER_PART) / pages);
  const fractions = Array.from({ length: wanted - 1 }, (_, index) => (index + 1) / wanted);
  const results = await source.script(
    `${applicationPathSql(plan.source)};
     with sample as (
       select ${plan.source.key[0]?.value} as key, pg_catalog.row_number() over () as place
       from ${plan.source.table} as t tablesample system (${percent})),
     ranked as (select s.key, s.place, pg_catalog.row_number() over (order by s.key) as rank from sample s)
     select (select (pg_catalog.percentile_disc('{${fractions.join(",")}}'::float8[]) within group (order by r.key))::text[] from ranked r) as bounds,
            (select pg_catalog.corr(r.place, r.rank) from ranked r) as correlation,
            (select pg_catalog.count(*)::float8 from ranked r) as rows`,
  );
  const [sample] = (results.at(-1)?.rows ?? []) as {
    bounds: string[] | null;
    correlation: number | null;
    rows: number;
  }[];
  const bounds = [...new Set(sample?.bounds ?? [])];
  if (sample === undefined || bounds.length === 0) return [everything];
  const rowsPerPage = sample.rows / (pages * (percent / 100));
  const isScattered = Math.abs(sample.correlation ?? 0) < LEAST_CORRELATION && rowsPerPage > MOST_READS;
  return rangesBetween(isScattered ? thinOut(bounds, MOST_READS - 1) : bounds);
}

/** `count` of the bounds, evenly spread. */
export function thinOut(bounds: readonly string[], count: number): string[] {
  if (bounds.length <= count) return [...bounds];
  const step = (bounds.length + 1) / (count + 1);
  return Array.from({ length: count }, (_, index) => bounds[Math.round(step * (index + 1)) - 1] as string);
}

export function rangesBetween(bounds: readonly string[]): KeyRange[] {
  return [null, ...bounds].map((low, index) => ({ low, high: bounds[index] ?? null }));
}

/** Conditions on the first key column, `value` being of `type`; none for an open range. */
export function rangeConditions(range: KeyRange, value: string, type: string): string[] {
  return [
    ...(range.low === null ? [] : [`${value} operator(pg_catalog.>=) ${literal(range.low)}::${type}`]),
    ...(range.high === null ? [] : [`${value} operator(pg_catalog.<) ${literal(range.high)}::${type}`]),
  ];
}

/** `only "public"."users" as t where …` */
export function rowsFrom(side: SideSql, conditions: readonly string[]): string {
  return `${side.rows} as t${conditions.length === 0 ? "" : ` where ${conditions.join(" and ")}`}`;
}
