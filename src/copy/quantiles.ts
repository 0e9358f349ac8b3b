/**
 * Where to cut a table by its key, for sources before 14, which cannot scan a range of pages: real quantiles of a
 * sample, so that gaps and clusters in the values do not matter, for any key that has an order.
 */
import type { Capture } from "../catalog/delta.ts";
import type { Connection } from "../postgres/connect.ts";
import { ident, literal, qualified } from "../postgres/sql.ts";
import type { Storage } from "./plan.ts";

/**
 * What to sample per part, so that the parts' sizes differ by about a sixth. Pages count where keys lie together on the
 * disk, rows where they do not: all rows of that many pages are more than it takes to sort, so most are left out.
 */
const pagesPerPart = 40;
const rowsPerPart = 100;
const pageBytes = 8192;

/**
 * Key values that cut a relation into about `parts` equal ones, as texts; fewer or none when the sample is too small.
 */
export async function sampleBounds(
  source: Connection,
  storage: Storage,
  capture: Capture,
  estimatedRows: number,
  parts: number,
): Promise<string[][]> {
  // Without statistics: as if rows were of an ordinary width.
  const rows = Math.max(1, estimatedRows > 0 ? estimatedRows : storage.heapBytes / 100);
  const share = Math.min(1, (parts * pagesPerPart * pageBytes) / storage.heapBytes);
  const kept = Math.min(1, (parts * rowsPerPart) / (rows * share));
  const keys = capture.keyColumns.map((column) => `t.${ident(column.name)}`);
  const texts = keys.map((key) => `(${key})::pg_catalog.text`);
  return await source.transaction(async () => {
    await source.script(searchPathSql(capture));
    const found = await source.rows<{ bound: string[] }>(
      `select s.bound from (
         select pg_catalog.jsonb_build_array(${texts.join(", ")}) as bound,
                pg_catalog.row_number() over (order by ${keys.join(", ")}) as n,
                count(*) over () as total
         from only ${qualified(storage.schema, storage.name)} as t tablesample system (${100 * share})
         where pg_catalog.random() < ${kept}
       ) as s
       where s.total >= $1 * 2 and s.n > 1
         and (s.n - 1) * $1 / s.total <> (s.n - 2) * $1 / s.total
       order by s.n`,
      [parts],
    );
    return found.map((row) => row.bound);
  }, "begin isolation level repeatable read read only");
}

/** Condition for a range of the key over the alias `t`. Runs under the search path of `searchPathSql`. */
export function keyRangeSql(
  capture: Capture,
  low: readonly string[] | null,
  high: readonly string[] | null,
): string {
  const keys = capture.keyColumns.map((column) => `(t.${ident(column.name)})::${column.readType}`).join(", ");
  const bound = (texts: readonly string[]): string =>
    texts
      .map((text, index) => `${literal(text)}::${capture.keyColumns[index]?.readType ?? "text"}`)
      .join(", ");
  return [
    ...(low === null ? [] : [`(${keys}) >= (${bound(low)})`]),
    ...(high === null ? [] : [`(${keys}) < (${bound(high)})`]),
  ].join(" and ");
}

/**
 * Row comparison finds its operators by the search path alone. Types of extensions have theirs in the schema of their
 * equality operator; pg_catalog stays first, so nothing there can stand in for a built-in.
 */
export function searchPathSql(capture: Capture): string {
  const schemas = new Set(["pg_catalog"]);
  for (const { equals } of capture.keyColumns) {
    const found = /^operator\((.+)\.[^.]+\)$/.exec(equals);
    if (found?.[1] !== undefined) schemas.add(found[1]);
  }
  return `set local search_path = ${[...schemas].join(", ")}`;
}
