import { readFileSync } from "node:fs";

// The test data: one table of narrow rows, as pgbench has it, and three of the kinds that applications have.

const read = (name: string): string => readFileSync(new URL(`./${name}`, import.meta.url), "utf8");

/** Tables without keys and indexes. */
export const tablesSql: string = read("tables.sql");

/** Keys and indexes, one statement each. */
export const indexStatements: readonly string[] = read("indexes.sql")
  .split(/;\n/)
  .map((statement) => statement.replaceAll(/^--.*$/gm, "").trim())
  .filter((statement) => statement !== "");

export const indexesSql: string = indexStatements.join(";\n");

export const tables = ["account", "customer", "document", "measurement"] as const;

/** Fills the tables with so many rows altogether, about 150 bytes each. */
export function rowsSql(rows: number): string {
  return read("rows.sql").replaceAll("{{rows}}", String(rows));
}
