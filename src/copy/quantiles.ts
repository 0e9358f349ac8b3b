/**
 * Where to cut a table by its key, for sources before 14, which cannot scan a range of pages: real quantiles of a
 * sample, so that gaps and clusters in the values do not matter, for any key that has an order.
 */
import type { Capture } from "../catalog/delta.ts";
import { outputText } from "../catalog/text-form.ts";
import type { Connection } from "../postgres/connect.ts";
import { applicationPathSql } from "../catalog/search-path.ts";
import type { Table } from "../catalog/table.ts";
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
  table: Pick<Table, "searchPath">,
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
  const texts = keys.map(outputText);
  return await source.transaction(async () => {
    await source.script(applicationPathSql(table));
    const found = await source.rows<{ bound: string[] }>(
      `select s.bound from (
         select pg_catalog.jsonb_build_array(${texts.join(", ")}) as bound,
                pg_catalog.row_number() over (order by ${keys.join(", ")}) as n,
                count(*) over () as total
         from only ${qualified(storage.schema, storage.name)} as t tablesample system (${100 * share})
         where pg_catalog.random() operator(pg_catalog.<) ${kept}::float8
       ) as s
       where s.total >= $1::bigint * 2::bigint and s.n > 1::bigint
         and (s.n - 1::bigint) * $1::bigint / s.total <> (s.n - 2::bigint) * $1::bigint / s.total
       order by s.n`,
      [parts],
    );
    return found.map((row) => row.bound);
  }, "begin isolation level repeatable read read only");
}

/** Condition for a range of the key over the alias `t`. */
export function keyRangeSql(
  capture: Capture,
  low: readonly string[] | null,
  high: readonly string[] | null,
): string {
  const columns = capture.keyColumns.map(({ name, readType, equals }, n) => ({
    value: `(t.${ident(name)})::${readType}`,
    bound: (texts: readonly string[]): string => `${literal(texts[n] ?? "")}::${readType}`,
    // The operators of a type are where its equality is.
    operator: (name: string): string => equals.replace(/\.[^.]+\)$/, `.${name})`),
  }));
  const compare = (name: ">=" | "<", texts: readonly string[]): string => {
    const operators = new Set(columns.map(({ operator }) => operator(name)));
    const [only] = operators;
    if (operators.size === 1)
      return `row(${columns.map(({ value }) => value).join(", ")}) ${only} row(${columns.map(({ bound }) => bound(texts)).join(", ")})`;
    // A comparison of rows knows one operator for all columns.
    const strict = name === ">=" ? ">" : "<";
    return columns.reduceRight((rest, { value, bound, operator }, n) => {
      const own = `${value} ${operator(n === columns.length - 1 ? name : strict)} ${bound(texts)}`;
      return rest === "" ? own : `(${own} or (${value} ${operator("=")} ${bound(texts)} and ${rest}))`;
    }, "");
  };
  return [...(low === null ? [] : [compare(">=", low)]), ...(high === null ? [] : [compare("<", high)])].join(
    " and ",
  );
}
