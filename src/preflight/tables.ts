/** Whether a table can be captured on the source, and whether its counterpart takes its rows. */
import type { Side } from "../events.ts";
import { hasLeafTriggers } from "../catalog/delta.ts";
import { targetColumn } from "../catalog/mapping.ts";
import { ownColumns } from "../catalog/rows.ts";
import { hidingRelations, tableLabel, tableSql, type Table } from "../catalog/table.ts";
import type { Problem } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { ident } from "../postgres/sql.ts";
import { administrator, run, type RawFinding } from "./finding.ts";
import type { TablePair } from "./pairs.ts";
import type { Server } from "./server.ts";

export function checkSourceTable(table: Table, source: Connection, server: Server): RawFinding[] {
  const subject = tableLabel(table);
  const findings: RawFinding[] = [];
  if (!table.isOwned) {
    findings.push({
      severity: "blocking",
      subject,
      isOfTable: true,
      message: `is owned by ${table.owner}: triggers can be created by its owner only`,
      ...orLeaveOut(subject, membership(table, source, server)),
    });
  }
  for (const relation of hidingRelations(table)) {
    findings.push({
      severity: "blocking",
      subject: tableLabel(relation),
      isOfTable: true,
      message: "row security hides rows from this role",
      ...orLeaveOut(subject, seeAllRows(table, relation, "source")),
    });
  }
  const foreign = table.leaves.filter((leaf) => leaf.kind === "f");
  if (foreign.length > 0) {
    findings.push({
      severity: "blocking",
      subject,
      message: `has foreign partitions, which cannot be captured: ${foreign.map(tableLabel).join(", ")}`,
      remedy: `-- leave the table out: --exclude-tables '${subject}'`,
    });
  }
  if (table.hasOids) {
    findings.push({
      severity: "warning",
      subject,
      message:
        "was made WITH OIDS: its hidden column oid is not replicated, and servers from 12 on have none. Rows that the application finds by oid, it would not find on the target",
      ...run(
        "source",
        table.owner,
        `alter table ${tableSql(table)} add column row_oid oid; update ${tableSql(table)} set row_oid = oid;  -- keeps the numbers in an ordinary column, if they are needed`,
        `-- or, if nobody needs them: alter table ${tableSql(table)} set without oids;  -- rewrites the table`,
      ),
    });
  }
  if (table.persistence === "u") {
    findings.push({
      severity: "warning",
      subject,
      message: "is unlogged: a crash of the source empties it without a trace in the capture",
      ...run("source", table.owner, `alter table ${tableSql(table)} set logged;  -- rewrites the table`),
    });
  }
  if (hasLeafTriggers(table, source.version)) {
    findings.push({
      severity: "note",
      subject,
      message:
        "before version 13 each partition is captured by itself; new ones are taken in while follow runs",
    });
  }
  return findings;
}

/**
 * `isKnown`: the table is in the sync already, and its key may be away for the time of the copy. `problems`: why its rows do not fit
 * the target's table.
 */
export function checkPair(
  pair: TablePair,
  target: Connection,
  server: Server,
  isKnown: boolean,
  problems: readonly Problem[],
): RawFinding[] {
  const { source, target: table } = pair;
  const subject = tableLabel(source);
  const block = { severity: "blocking", subject } as const;
  const findings: RawFinding[] = problems.map(({ message, remedy }) => ({
    ...block,
    message,
    ...(remedy === undefined ? {} : run("target", table.owner, remedy)),
  }));
  if (!table.isOwned) {
    findings.push({
      ...block,
      message: `on the target, ${tableLabel(table)} is owned by ${table.owner}: indexes can be rebuilt by its owner only`,
      ...membership(table, target, server),
    });
  }
  for (const relation of hidingRelations(table)) {
    findings.push({
      ...block,
      message: `on the target, row security applies to this role on ${tableLabel(relation)}`,
      ...seeAllRows(table, relation, "target"),
    });
  }
  // As the target calls them, with what tells our rows from those of others.
  const names = [
    ...(source.key?.columns ?? []).map(({ name }) => targetColumn(pair.mapping, name) ?? name),
    ...ownColumns(table),
  ];
  const targetKey = table.key?.columns.map((column) => column.name) ?? [];
  if (isKnown || source.key === null) return findings;
  if (names.some((name) => !table.columns.some((column) => column.name === name))) return findings;
  if ([...names].sort().join("\0") !== [...targetKey].sort().join("\0")) {
    findings.push({
      ...block,
      message: `the target's table has no unique index on the key (${names.join(", ")})`,
      ...run(
        "target",
        table.owner,
        `alter table ${tableSql(table)} add primary key (${names.map(ident).join(", ")});`,
      ),
    });
  }
  return findings;
}

/** The other way out, where what would have to be done belongs to somebody else. */
function orLeaveOut(subject: string, { remedy, ...rest }: ReturnType<typeof run>): ReturnType<typeof run> {
  return { ...rest, remedy: `${remedy}\n-- or leave the table out: --exclude-tables '${subject}'` };
}

/** Only the owner's rights escape row security that is forced; nobody but an owner's member comes here otherwise. */
function seeAllRows(
  table: Table,
  relation: { readonly schema: string; readonly name: string },
  side: Side,
): ReturnType<typeof run> {
  return run(
    side,
    table.owner,
    `alter table ${tableSql(relation)} no force row level security;  -- or use a role that is not subject to it`,
  );
}

/** Makes the role a member of the owner, with the owner's rights. */
function membership(table: Table, { side, version }: Connection, server: Server): ReturnType<typeof run> {
  const [owner, role] = [ident(table.owner), ident(server.role)];
  if (version >= 160_000)
    return run(side, administrator, `grant ${owner} to ${role} with inherit true, set true;`);
  return run(
    side,
    administrator,
    `grant ${owner} to ${role};`,
    ...(server.inherits ? [] : [`alter role ${role} inherit;`]),
  );
}
