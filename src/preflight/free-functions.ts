/**
 * Indexes over functions that find things by the search path. From 17 on the server evaluates an index under a path of its
 * own when it is built and when statistics are taken, and before under that of whoever asks. What would fail then is tried
 * beforehand, with some rows of the source.
 */
import type { Side } from "../events.ts";
import { pinPath, readFreeIndexes, type FreeIndex } from "../catalog/free-functions.ts";
import { applicationPathSql } from "../catalog/search-path.ts";
import { tableLabel, tableSql, type Table } from "../catalog/table.ts";
import type { Connection } from "../postgres/connect.ts";
import { ident, literal } from "../postgres/sql.ts";
import { sqlstateOf } from "../postgres/sqlstate.ts";
import { withLeaves } from "./examination.ts";
import { run, type Finding } from "./finding.ts";
import type { TablePair } from "./pairs.ts";

/** Versions from here on evaluate what belongs to an index under `pg_catalog, pg_temp`. */
const restrictedSince = 170_000;
const SAMPLED_ROWS = 20;

export async function checkFreeFunctions(
  source: Connection,
  target: Connection,
  pairs: readonly TablePair[],
): Promise<Finding[]> {
  const read = async (connection: Connection, tables: readonly Table[]): Promise<FreeIndex[]> =>
    await readFreeIndexes(connection, withLeaves(tables));
  const findings: Finding[] = [];
  for (const index of await read(
    source,
    pairs.map((pair) => pair.source),
  )) {
    const pair = pairs.find((each) => withLeaves([each.source]).includes(index.relid));
    if (pair === undefined) continue;
    // Whoever plans a query takes functions in SQL apart.
    const said = await objection(source, pair.source, [
      `select 1 from ${tableSql(pair.source)} as t limit 0`,
    ]);
    if (said === undefined) continue;
    const message = `on the source, its rows cannot be read, because of index ${index.index}: ${said}`;
    findings.push(finding(pair, "source", index, message));
  }
  const unread = new Set(findings.map(({ subject }) => subject));
  for (const index of await read(
    target,
    pairs.map((pair) => pair.target),
  )) {
    const pair = pairs.find((each) => withLeaves([each.target]).includes(index.relid));
    if (pair === undefined) continue;
    const sample = unread.has(tableLabel(pair.source)) ? [] : await sampleRows(source, pair.source, index);
    const values = [...index.expressions, ...(index.predicate === null ? [] : [index.predicate])];
    const to = tableSql(pair.target);
    const said = await objection(target, pair.target, [
      `select 1 from ${to} as t limit 0`,
      `select ${values.map((each) => `(${each})`).join(", ")}
       from pg_catalog.jsonb_populate_recordset(null::${to}, ${literal(JSON.stringify(sample))}) as t`,
    ]);
    if (said === undefined) continue;
    const reason = isRestricted(target)
      ? ", since from version 17 on the server does so with search_path = pg_catalog, pg_temp"
      : "";
    const message = `on the target, index ${index.index} cannot be computed${reason}: ${said}`;
    findings.push(finding(pair, "target", index, message));
  }
  return findings;
}

const isRestricted = ({ side, version }: Connection): boolean =>
  side === "target" && version >= restrictedSince;

function finding(pair: TablePair, side: Side, index: FreeIndex, message: string): Finding {
  const { searchPath, owner } = pair[side];
  return {
    severity: "blocking",
    subject: tableLabel(pair.source),
    message,
    ...run(side, owner, ...pinPath(index, searchPath)),
  };
}

/** Some rows of the source, by the types' output and input functions alone: casts may be anybody's. */
async function sampleRows(source: Connection, table: Table, { columns }: FreeIndex): Promise<unknown[]> {
  const fields = columns
    .filter((name) => table.columns.some((each) => each.name === name && each.generated === ""))
    .slice(0, 40)
    .map(
      (name) =>
        `${literal(name)}::text, case when t.${ident(name)} is not null then pg_catalog.format('%s', t.${ident(name)}) end`,
    );
  const results = await source
    .script(
      `begin; ${applicationPathSql(table)};
     select pg_catalog.jsonb_build_object(${fields.join(", ")}) as row from ${tableSql(table)} as t limit ${SAMPLED_ROWS};
     rollback`,
    )
    .catch(async (error: unknown) => {
      if (source.isBroken) throw error;
      // What is wrong there is told elsewhere.
      await source.script("rollback");
      return [];
    });
  return ((results[2]?.rows ?? []) as { row: unknown }[]).map(({ row }) => row);
}

/** What the server says to these statements, as far as it is about names; undefined: nothing. */
async function objection(
  connection: Connection,
  table: Table,
  statements: readonly string[],
): Promise<string | undefined> {
  const path = isRestricted(connection)
    ? "set local search_path = pg_catalog, pg_temp"
    : applicationPathSql(table);
  try {
    await connection.script(["begin", path, ...statements, "rollback"].join(";\n"));
    return undefined;
  } catch (error) {
    if (connection.isBroken) throw error;
    await connection.script("rollback");
    const state = sqlstateOf(error) ?? "";
    // Older servers look for this function of a domain's type when they make rows of JSON, which do without it: nothing is known.
    if ((error as { routine?: unknown }).routine === "getTypeBinaryInputInfo") return undefined;
    return /^(42|3F)/.test(state) && state !== "42501" ? (error as Error).message : undefined;
  }
}
