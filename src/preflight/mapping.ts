/** Whether a mapping can be kept: by what a row is alone, and without touching anybody else's rows. */
import { objection } from "../catalog/mapping.ts";
import { enclosed } from "../catalog/rows.ts";
import { fromSql, tableLabel, type Table } from "../catalog/table.ts";
import type { ResolvedConfig } from "../config/options.ts";
import { differ } from "../config/mapping.ts";
import type { Connection } from "../postgres/connect.ts";
import { ident, literal } from "../postgres/sql.ts";
import { stateVersion } from "../state/migrate.ts";
import { remappingProblem } from "../state/remapping.ts";
import type { SyncTable } from "../state/sync-table.ts";
import type { Finding } from "./finding.ts";
import type { KnownTables, TablePair } from "./pairs.ts";

export async function checkMappings(
  source: Connection,
  target: Connection,
  pairs: readonly TablePair[],
  known: KnownTables,
  config: ResolvedConfig,
): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const pair of pairs.filter(({ mapping }) => mapping !== null)) {
    // What the source does not understand has been said.
    if (pair.source.mappingProblems?.length === 0) findings.push(...(await checkExpressions(source, pair)));
    findings.push(...(await checkDiscriminator(target, pair)));
  }
  for (const pair of pairs) {
    const entry = known.get(pair.source.oid);
    if (entry === undefined || entry.state === "new") {
      findings.push(...checkLeftOut(pair));
      continue;
    }
    const problem = remappingProblem(config, entry);
    if (problem !== undefined) findings.push({ severity: "blocking", ...problem });
  }
  return [...findings, ...checkCompany(pairs), ...(await checkOtherSyncs(target, pairs, config.name))];
}

/** Columns that are left out and were never there: probably misspelt. */
function checkLeftOut({ source, mapping }: TablePair): Finding[] {
  return Object.entries(mapping?.columns ?? {}).flatMap(([name, { to, as }]): Finding[] => {
    if (to !== null || as !== null || source.columns.some((column) => column.name === name)) return [];
    const message = `columns.${name}: the source has no such column`;
    return [{ severity: "blocking", subject: tableLabel(source), message }];
  });
}

/** Nodes of a plan that reads a table and computes something of each row. */
const plain =
  /^(Seq Scan|Index Scan|Index Only Scan|Bitmap .*|Tid .*|Append|Merge Append|Result|Gather|Gather Merge)$/;
/** What depends on when, where or by whom it is asked; servers count it with what does not change. */
const passing =
  /\b(?:now|transaction_timestamp|statement_timestamp|timeofday|txid_\w+|pg_current_\w+|pg_backend_pid|inet_\w+|current_setting|current_query|pg_postmaster_\w+)\s*\(|\b(?:CURRENT_\w+|LOCALTIME(?:STAMP)?|SESSION_USER|SYSTEM_USER|USER)\b/;

interface PlanNode {
  readonly "Node Type": string;
  readonly "Parent Relationship"?: string;
  readonly Plans?: readonly PlanNode[];
  readonly [property: string]: unknown;
}

/**
 * A row is read again by its key whenever it changes, and compared: what comes out must depend on the row alone. The
 * planner tells by how it would compute an expression: a subquery that holds anything but that stays a step of its own.
 */
async function checkExpressions(source: Connection, { source: table }: TablePair): Promise<Finding[]> {
  const expressions = [
    ...table.columns.flatMap(({ name, mapped }) =>
      mapped?.as == null || mapped.isConstant === true
        ? []
        : [{ setting: `columns.${name}`, sql: mapped.as }],
    ),
    ...(table.where === undefined ? [] : [{ setting: "where", sql: table.where }]),
  ];
  const findings: Finding[] = [];
  for (const { setting, sql } of expressions) {
    const why = await whyNotOfRow(source, table, sql);
    if (why !== null)
      findings.push({ severity: "blocking", subject: tableLabel(table), message: `${setting}: ${why}` });
  }
  return findings;
}

/** Why an expression cannot be told from its row; null: it can. */
async function whyNotOfRow(source: Connection, table: Table, sql: string): Promise<string | null> {
  const rows = `select ${enclosed(sql)} as x from ${fromSql(table)} as ${ident(table.name)}`;
  try {
    const explained = await source.row<{ "QUERY PLAN": readonly { readonly Plan: PlanNode }[] }>(
      `explain (verbose, costs off, format json) select p.x from (${rows}) as p where p.x is not null`,
    );
    const nodes = explained["QUERY PLAN"].flatMap(({ Plan }) => nodesOf(Plan));
    const why = nodes.map(whyNotPlain).find((each) => each !== null);
    return why ?? (await whyNotImmutable(source, nodes.map(expressionsIn).join(" ")));
  } catch (error) {
    return `the source says: ${objection(source, error).message}`;
  }
}

function nodesOf(node: PlanNode): PlanNode[] {
  return [node, ...(node.Plans ?? []).flatMap(nodesOf)];
}

/** What a step computes, as the server writes it, without literals. */
function expressionsIn(node: PlanNode): string {
  return [node["Output"], node["Filter"], node["One-Time Filter"]]
    .flat()
    .join(" ")
    .replaceAll(/'(?:[^']|'')*'/g, "''");
}

function whyNotPlain(node: PlanNode): string | null {
  if (/^(InitPlan|SubPlan)$/.test(node["Parent Relationship"] ?? ""))
    return "must not contain a subquery: other rows than its own would decide about a row";
  if (node["Node Type"] === "Subquery Scan")
    return "must not call volatile functions: a row has to look the same whenever it is read";
  if (!plain.test(node["Node Type"])) return "must not aggregate rows, nor return more than one value";
  const [found] = passing.exec(expressionsIn(node).replaceAll(/"(?:[^"]|"")*"/g, "")) ?? [];
  if (found === undefined) return null;
  return `must not use ${found.replace(/\s*\($/, "()")}: rows change only when somebody writes to them`;
}

/** Of functions that are not the server's own nobody but their author knows what they read. */
async function whyNotImmutable(source: Connection, expressions: string): Promise<string | null> {
  // Under our search path these alone are written with a schema.
  const part = String.raw`("(?:[^"]|"")+"|[a-z_][a-z0-9_$]*)`;
  const calls = [...expressions.matchAll(new RegExp(`${part}\\.${part}\\(`, "g"))];
  if (calls.length === 0) return null;
  const bare = (name = ""): string => (name.startsWith('"') ? name.slice(1, -1).replaceAll('""', '"') : name);
  const [found] = await source.rows<{ name: string }>(
    `select pg_catalog.format('%I.%I', n.nspname, p.proname) as name
     from rows from (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) as c (schema, name)
     join pg_catalog.pg_namespace n on n.nspname = c.schema
     join pg_catalog.pg_proc p on p.pronamespace = n.oid and p.proname = c.name and p.provolatile <> 'i'
     limit 1`,
    [calls.map(([, schema]) => bare(schema)), calls.map(([, , name]) => bare(name))],
  );
  if (found === undefined) return null;
  return `calls ${found.name}(), which is not declared IMMUTABLE: it may read other rows than its own`;
}

async function checkDiscriminator(
  target: Connection,
  { source, target: table, mapping }: TablePair,
): Promise<Finding[]> {
  const findings: Finding[] = [];
  const subject = tableLabel(source);
  const block = (message: string): void => void findings.push({ severity: "blocking", subject, message });
  for (const { column: name, value, type } of table.own ?? []) {
    const column = table.columns.find((each) => each.name === name);
    const setting = `discriminator.${name}`;
    // Of one override that has been refused; they may come from two.
    if (mapping?.columns[name] !== undefined) block(`${setting}: is set by columns already`);
    // That it is missing has been said, with the statement that adds it.
    if (column === undefined) continue;
    if (!column.isBuiltin && column.baseKind !== "e") {
      block(
        `${setting}: a column of type ${column.type} cannot tell rows apart, only one of a built-in type or an enum`,
      );
      continue;
    }
    const probe = `select ${literal(value)}::${type} operator(pg_catalog.=) ${literal(value)}::${type} as same`;
    const failure = await target.rows(probe).then(
      () => undefined,
      (error: unknown) => objection(target, error),
    );
    if (failure !== undefined) block(`${setting}: the target says: ${failure.message}`);
  }
  return findings;
}

/** Tables that go to the same one, and whose rows nothing tells apart there. */
function checkCompany(pairs: readonly TablePair[]): Finding[] {
  return pairs.flatMap((pair, index): Finding[] => {
    const other = pairs
      .slice(0, index)
      .find(
        (each) =>
          each.target.oid === pair.target.oid &&
          !differ(each.mapping?.discriminator, pair.mapping?.discriminator),
      );
    if (other === undefined) return [];
    const message = `goes to ${tableLabel(pair.target)}, as does ${tableLabel(other.source)}: each needs a discriminator with a value of its own`;
    return [{ severity: "blocking", subject: tableLabel(pair.source), message }];
  });
}

/** Other syncs that write to a shared table. */
async function checkOtherSyncs(
  target: Connection,
  pairs: readonly TablePair[],
  sync: string,
): Promise<Finding[]> {
  const shared = pairs.filter((pair) => pair.target.own !== undefined);
  if (shared.length === 0 || (await stateVersion(target)) === 0) return [];
  const others = await target.rows<Pick<SyncTable, "targetRelid" | "mapping"> & { sync: string }>(
    `select t.sync, t.target_relid::bigint::float8 as "targetRelid", t.mapping as "mapping"
     from replicate.sync_table t where t.sync <> $1 and t.target_relid = any ($2::oid[]) order by t.sync`,
    [sync, shared.map((pair) => pair.target.oid)],
  );
  return shared.flatMap((pair): Finding[] => {
    const other = others.find(
      ({ targetRelid, mapping }) =>
        targetRelid === pair.target.oid && !differ(mapping?.discriminator, pair.mapping?.discriminator),
    );
    if (other === undefined) return [];
    const message = `sync ${other.sync} writes to ${tableLabel(pair.target)} too, without a discriminator of another value`;
    return [{ severity: "blocking", subject: tableLabel(pair.source), message }];
  });
}
