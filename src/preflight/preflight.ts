/** Preflight: every check before anything is changed, and all findings at once, each with its remedy. */
import { columnPlan } from "../catalog/columns.ts";
import { parseTableName, patternMatches, selectTables } from "../catalog/patterns.ts";
import { describeTables, tableLabel, tableSql, type Table } from "../catalog/table.ts";
import type { TableOverride } from "../config.ts";
import { ReplicateError, type Problem } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { ident, load } from "../postgres/sql.ts";
import type { SyncContext } from "../state/context.ts";

/** blocking: init refuses. warning: something is not replicated or may surprise. note: good to know. */
export type Severity = "blocking" | "warning" | "note";

export interface Finding extends Problem {
  readonly severity: Severity;
}

/** A table and where it goes. */
export interface TablePair {
  readonly source: Table;
  readonly target: Table;
  readonly override: TableOverride;
}

export interface Preflight {
  readonly findings: readonly Finding[];
  /** Tables that can be replicated; complete only when no finding is blocking. */
  readonly pairs: readonly TablePair[];
}

interface Relation {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  readonly kind: string;
  readonly isPartition: boolean;
  readonly isExtensionMember: boolean;
}

interface Server {
  readonly database: string;
  readonly role: string;
  readonly identity: string;
  readonly isStandby: boolean;
  readonly mayCreateSchema: boolean;
  readonly mayCreateTemporary: boolean;
  readonly hasSchema: boolean;
  readonly mayUseSchema: boolean;
  readonly allTablesPublications: string | null;
  readonly largeObjects: number;
  readonly preparedTransactions: number;
  readonly oldestTransactionSeconds: number;
}

/**
 * Runs all checks; changes nothing. `known`: source oids of tables that are in the sync already, whose keys on the target
 * may be away for the time of the copy. Throws PATTERN_MATCHES_NOTHING, SAME_DATABASE, SERVER_IS_STANDBY,
 * POOLER_IN_BETWEEN, which leave nothing to check, and the connection errors.
 */
export async function preflight(
  context: SyncContext,
  source: Connection,
  target: Connection,
  known: ReadonlySet<number> = new Set(),
): Promise<Preflight> {
  const findings: Finding[] = [];
  const [sourceServer, targetServer] = await Promise.all([
    checkServer(source, findings),
    checkServer(target, findings),
  ]);

  const relations = await source.rows<Relation>(load("catalog/relations"));
  const { selected, unmatchedPatterns, unmatchedExcludes } = selectTables(
    relations.filter((relation) => !relation.isExtensionMember),
    context.config.tables,
    context.config.exclude,
  );
  const unmatchedOverrides = Object.keys(context.config.overrides).filter(
    (pattern) => !relations.some(({ schema, name }) => patternMatches(pattern, schema, name)),
  );
  if (unmatchedPatterns.length + unmatchedOverrides.length > 0) {
    throw new ReplicateError(
      "PATTERN_MATCHES_NOTHING",
      `no table on the source fits ${[...unmatchedPatterns, ...unmatchedOverrides].join(", ")}`,
      {
        problems: [...unmatchedPatterns, ...unmatchedOverrides].map((subject) => ({
          subject,
          message: "fits no table on the source",
        })),
      },
    );
  }
  for (const pattern of unmatchedExcludes) {
    findings.push({ severity: "note", subject: pattern, message: "this exclusion fits no table" });
  }

  const tables = await describeTables(source, replicable(relations, selected, findings));
  const overrideOf = (table: Table): TableOverride =>
    Object.entries(context.config.overrides).find(([pattern]) =>
      patternMatches(pattern, table.schema, table.name),
    )?.[1] ?? {};
  if (sourceServer.identity === targetServer.identity) {
    const unmapped = tables.filter((table) => overrideOf(table).target === undefined);
    if (unmapped.length > 0 || tables.length === 0) {
      throw new ReplicateError("SAME_DATABASE", "source and target are the same database", {
        problems: unmapped.map((table) => ({
          subject: tableLabel(table),
          message: "would be copied onto itself: give it another name (overrides: target)",
        })),
      });
    }
  }
  const pairs = await pairTables(target, tables, overrideOf, findings);
  for (const table of tables) checkSourceTable(table, source, sourceServer.role, findings);
  for (const pair of pairs) checkPair(pair, targetServer.role, findings, known.has(pair.source.oid));
  if (tables.length === 0) {
    findings.push({ severity: "blocking", subject: "source", message: "there is no table to replicate" });
  }
  return { findings, pairs };
}

async function checkServer(connection: Connection, findings: Finding[]): Promise<Server> {
  const { side } = connection;
  await checkPooler(connection);
  const server = await connection.row<Server>(load("catalog/server"));
  if (server.isStandby) {
    throw new ReplicateError(
      "SERVER_IS_STANDBY",
      `the ${side} is a hot standby: nothing can be installed there`,
    );
  }
  const block = (message: string, remedy: string): number =>
    findings.push({ severity: "blocking", subject: side, message, remedy });
  const database = ident(server.database);
  const role = ident(server.role);
  if (!server.hasSchema && !server.mayCreateSchema) {
    block(
      `role ${server.role} may not create schema replicate`,
      `grant create on database ${database} to ${role};`,
    );
  }
  if (server.hasSchema && !server.mayUseSchema) {
    block(`schema replicate belongs to another role`, `grant usage, create on schema replicate to ${role};`);
  }
  if (side === "target" && !server.mayCreateTemporary) {
    block(
      `role ${server.role} may not create temporary tables`,
      `grant temporary on database ${database} to ${role};`,
    );
  }
  if (side === "source") noteSource(server, findings);
  return server;
}

function noteSource(server: Server, findings: Finding[]): void {
  const add = (severity: Severity, subject: string, message: string): number =>
    findings.push({ severity, subject, message });
  if (server.allTablesPublications !== null) {
    add("warning", `publication ${server.allTablesPublications}`,
      "publishes all tables, so it publishes our delta tables too: its subscribers need tables of the same names in a schema replicate, or their apply stops"); // prettier-ignore
  }
  if (server.largeObjects > 0) {
    add(
      "warning",
      "large objects",
      `${server.largeObjects} large objects are not replicated: copy them by other means`,
    );
  }
  if (server.preparedTransactions > 0) {
    add(
      "note",
      "prepared transactions",
      `${server.preparedTransactions} are open: installing capture waits for those that wrote to the tables`,
    );
  }
  if (server.oldestTransactionSeconds > 60) {
    add(
      "note",
      "long transactions",
      `the oldest is open for ${Math.round(server.oldestTransactionSeconds)} s: installing capture waits for it if it wrote to the tables`,
    );
  }
}

/** A pool in transaction mode gives a transaction to any of several sessions; ours must be one. */
async function checkPooler(connection: Connection): Promise<void> {
  const mark = `replicate-${process.pid}-${Math.round(performance.now() * 1000)}`;
  await connection.rows(`select pg_catalog.set_config('application_name', $1, false)`, [mark]);
  for (let n = 0; n < 3; n += 1) {
    const { name, pid } = await connection.row<{ name: string; pid: number }>(
      `select pg_catalog.current_setting('application_name') as name, pg_catalog.pg_backend_pid() as pid`,
    );
    if (name !== mark || pid !== connection.pid) {
      throw new ReplicateError(
        "POOLER_IN_BETWEEN",
        `the ${connection.side} is reached through a pooler in transaction mode: one session became several`,
      );
    }
  }
  await connection.rows(`select pg_catalog.set_config('application_name', 'replicate preflight', false)`);
}

/** Oids of the relations that can be replicated; the others are named. */
function replicable(all: readonly Relation[], selected: readonly Relation[], findings: Finding[]): number[] {
  const kinds: Record<string, string> = { f: "a foreign table", m: "a materialized view" };
  const oids: number[] = [];
  for (const relation of selected) {
    const what = kinds[relation.kind];
    if (what !== undefined) {
      findings.push({
        severity: "warning",
        subject: tableLabel(relation),
        message: `${what} is not replicated`,
      });
    } else if (!relation.isPartition) {
      oids.push(relation.oid);
    }
  }
  for (const relation of all.filter((each) => each.isExtensionMember && each.kind !== "f")) {
    findings.push({
      severity: "note",
      subject: tableLabel(relation),
      message: "belongs to an extension and is not replicated",
    });
  }
  if (oids.length === 0 && selected.some((relation) => relation.isPartition)) {
    findings.push({
      severity: "blocking",
      subject: selected.map(tableLabel).join(", "),
      message: "partitions are replicated with their root: name the partitioned table",
    });
  }
  return oids;
}

/** Finds each table's counterpart on the target. */
async function pairTables(
  target: Connection,
  tables: readonly Table[],
  overrideOf: (table: Table) => TableOverride,
  findings: Finding[],
): Promise<TablePair[]> {
  const relations = await target.rows<Relation>(load("catalog/relations"));
  const wanted = tables.map((source) => {
    const override = overrideOf(source);
    const name = override.target === undefined ? source : parseTableName(override.target);
    const relation = relations.find((each) => each.schema === name.schema && each.name === name.name);
    return { source, override, name, relation };
  });
  const described = new Map(
    (
      await describeTables(
        target,
        wanted.flatMap(({ relation }) => relation?.oid ?? []),
      )
    ).map((table) => [table.oid, table]),
  );
  const pairs: TablePair[] = [];
  for (const { source, override, name, relation } of wanted) {
    const found = relation === undefined ? undefined : described.get(relation.oid);
    if (found !== undefined && ["r", "p"].includes(found.kind)) {
      pairs.push({ source, target: found, override });
    } else {
      findings.push({
        severity: "blocking",
        subject: tableLabel(source),
        message:
          relation === undefined
            ? `the target has no table ${tableLabel(name)}`
            : `${tableLabel(name)} on the target is not a table`,
        remedy: `create the table on the target, for example: pg_dump --schema-only --table '${tableLabel(source)}' SOURCE | psql TARGET`,
      });
    }
  }
  return pairs;
}

function checkSourceTable(table: Table, source: Connection, role: string, findings: Finding[]): void {
  const subject = tableLabel(table);
  const block = (message: string, remedy: string): number =>
    findings.push({ severity: "blocking", subject, message, remedy });
  const leaveOut = `-- or leave the table out: --exclude-tables '${subject}'`;
  if (table.key === null && table.kind === "p" && source.version < 110_000) {
    block(
      "has no key: on version 10, each partition needs a unique index on the same NOT NULL columns, those of the partition bounds among them",
      table.leaves.map((leaf) => `alter table ${tableSql(leaf)} add primary key (…);`).join(" ") +
        `  ${leaveOut}`,
    );
  } else if (table.key === null) {
    block(
      "has no key: no primary key, and no unique index on NOT NULL columns",
      `alter table ${tableSql(table)} add primary key (…);  ${leaveOut}`,
    );
  }
  if (!table.isOwned) {
    block(
      `is owned by ${table.owner}: triggers can be created by its owner only`,
      `grant ${ident(table.owner)} to ${ident(role)};  -- run as ${table.owner} or an administrator`,
    );
  }
  if (table.rowSecurityActive) {
    block(
      "row security hides rows from this role",
      `alter table ${tableSql(table)} no force row level security;  -- or use a role that is not subject to it`,
    );
  }
  const foreign = table.leaves.filter((leaf) => leaf.kind === "f");
  if (foreign.length > 0) {
    block(
      `has foreign partitions, which cannot be captured: ${foreign.map(tableLabel).join(", ")}`,
      `-- leave the table out: --exclude-tables '${subject}'`,
    );
  }
  if (table.persistence === "u") {
    findings.push({
      severity: "warning",
      subject,
      message: "is unlogged: a crash of the source empties it without a trace in the capture",
    });
  }
  if (table.kind === "p" && source.version < 110_000) {
    findings.push({
      severity: "note",
      subject,
      message: "on version 10 each partition is captured by itself; new ones are taken in while follow runs",
    });
  }
}

function checkPair(pair: TablePair, role: string, findings: Finding[], isKnown: boolean): void {
  const { source, target } = pair;
  const subject = tableLabel(source);
  for (const problem of columnPlan(source, target).problems) {
    findings.push({ severity: "blocking", ...problem, subject });
  }
  if (!target.isOwned) {
    findings.push({
      severity: "blocking",
      subject,
      message: `on the target, ${tableLabel(target)} is owned by ${target.owner}: indexes can be rebuilt by its owner only`,
      remedy: `grant ${ident(target.owner)} to ${ident(role)};  -- on the target, as ${target.owner} or an administrator`,
    });
  }
  if (target.rowSecurityActive) {
    findings.push({
      severity: "blocking",
      subject,
      message: `on the target, row security applies to this role on ${tableLabel(target)}`,
      remedy: `alter table ${tableSql(target)} no force row level security;  -- on the target`,
    });
  }
  const names = source.key?.columns.map((column) => column.name) ?? [];
  const targetKey = target.key?.columns.map((column) => column.name) ?? [];
  if (isKnown || source.key === null) return;
  if (names.some((name) => !target.columns.some((column) => column.name === name))) return;
  if ([...names].sort().join("\0") !== [...targetKey].sort().join("\0")) {
    findings.push({
      severity: "blocking",
      subject,
      message: `the target's table has no unique index on the key (${names.join(", ")})`,
      remedy: `alter table ${tableSql(target)} add primary key (${names.map(ident).join(", ")});  -- on the target`,
    });
  }
}

/** Throws PREFLIGHT_BLOCKED when a finding is blocking. */
export function refuseBlocking(findings: readonly Finding[]): void {
  const blocking = findings.filter((finding) => finding.severity === "blocking");
  if (blocking.length === 0) return;
  throw new ReplicateError(
    "PREFLIGHT_BLOCKED",
    `${blocking.length} finding${blocking.length > 1 ? "s" : ""} must be settled first`,
    {
      problems: blocking,
    },
  );
}
