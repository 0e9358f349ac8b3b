/** What has to be so where the target's changes are captured too, and where both sides are written to by us. */
import { columnPlan } from "../catalog/columns.ts";
import type { Reaction } from "../catalog/definitions.ts";
import { tableLabel, tableSql, type Table } from "../catalog/table.ts";
import type { ResolvedConfig } from "../config/options.ts";
import type { Connection } from "../postgres/connect.ts";
import { fill, ident, load } from "../postgres/sql.ts";
import { withLeaves } from "./examination.ts";
import { administrator, run, some, type Finding } from "./finding.ts";
import { checkLatest } from "./latest.ts";
import type { TablePair } from "./pairs.ts";

export async function checkTwoWay(
  config: ResolvedConfig,
  source: Connection,
  target: Connection,
  pairs: readonly TablePair[],
): Promise<Finding[]> {
  if (!config.tracksTarget) return [];
  const findings = [...pairs.flatMap(keyFindings), ...(await checkLatest(config, target, pairs))];
  if (config.direction === "one-way") return findings;
  const isSourceReplica = await mayBeReplica(source);
  return [
    ...findings,
    ...pairs.flatMap(wayBackFindings),
    ...(await sideFindings(source, pairs.map((pair) => pair.source), isSourceReplica)),
    ...(await sideFindings(target, pairs.map((pair) => pair.target), target.isReplicaRole)),
  ]; // prettier-ignore
}

/** Where rows meet, both stand side by side in rows of at most 1,664 columns. */
const MOST_COLUMNS = 800;

function keyFindings({ source, target }: TablePair): Finding[] {
  const subject = tableLabel(source);
  if (target.columns.length > MOST_COLUMNS) {
    return [
      {
        severity: "blocking",
        subject,
        message: `has ${target.columns.length} columns: conflicts can be met in tables of up to ${MOST_COLUMNS}`,
        remedy: `-- leave the table out: --exclude-tables '${subject}'`,
      },
    ];
  }
  const names = (table: Table): string[] | undefined => table.key?.columns.map(({ name }) => name).sort();
  const [here, there] = [names(source), names(target)];
  if (here === undefined) {
    return [
      {
        severity: "blocking",
        subject,
        message: "has no key, so conflicts cannot be told row by row",
        ...run("source", source.owner, `alter table ${tableSql(source)} add primary key (…);`),
      },
    ];
  }
  if (there === undefined || here.length !== there.length) {
    return [
      {
        severity: "blocking",
        subject,
        message: `its key on the target is ${there === undefined ? "missing" : `(${there.join(", ")})`}, on the source (${here.join(", ")}): conflicts are told by the key`,
        ...run(
          "target",
          target.owner,
          `alter table ${tableSql(target)} add primary key (${here.map(ident).join(", ")});`,
        ),
      },
    ];
  }
  return [];
}

/** Rows have to fit the source as well as the target. */
function wayBackFindings({ source, target }: TablePair): Finding[] {
  return columnPlan(target, source).problems.map((problem) => ({
    ...problem,
    message: `${problem.message} (from the target to the source)`,
    severity: "blocking",
  }));
}

/** Whether a session that writes here could keep triggers and foreign keys from acting; this one stays as it is. */
async function mayBeReplica(connection: Connection): Promise<boolean> {
  const results = await connection.script(
    `begin; ${fill("catalog/replica-role", { pid: String(connection.pid) })}; select pg_catalog.current_setting('session_replication_role') as role; rollback`,
  );
  return (results[2]?.rows as { role: string }[] | undefined)?.[0]?.role === "replica";
}

/** Applications write to both sides, so nothing of theirs can be away: it must not act on rows that we bring. */
async function sideFindings(
  connection: Connection,
  tables: readonly Table[],
  isReplica: boolean,
): Promise<Finding[]> {
  const { side } = connection;
  const oids = withLeaves(tables);
  const reactions = await connection.rows<Reaction>(load("catalog/reactions"), [oids]);
  const acting = reactions.filter(({ enabled }) => (isReplica ? enabled !== "O" : enabled !== "R"));
  if (isReplica) {
    return acting.map((each): Finding => {
      const table = { schema: each.schema, name: each.table };
      return {
        severity: "blocking",
        subject: tableLabel(table),
        message: `${each.kind} ${each.name} on the ${side} acts on rows that come from the other side too`,
        ...run(
          side,
          "the table's owner",
          `alter table ${tableSql(table)} enable ${each.kind} ${ident(each.name)};`,
        ),
      };
    });
  }
  const foreignKeys = await connection.rows<{ name: string; schema: string; table: string }>(
    load("catalog/foreign-keys"),
    [oids],
  );
  const names = [...acting, ...foreignKeys].map((each) => `${each.name} on ${tableLabel({ schema: each.schema, name: each.table })}`); // prettier-ignore
  if (names.length === 0) return [];
  const { role } = await connection.row<{ role: string }>(`select current_user::text as role`);
  return [
    {
      severity: "blocking",
      subject: `session_replication_role on the ${side}`,
      message: `role ${role} may not set it, so ${some(names)} would act on rows that come from the other side`,
      ...run(
        side,
        administrator,
        connection.version >= 150_000
          ? `grant set on parameter session_replication_role to ${ident(role)};`
          : `alter role ${ident(role)} superuser;  -- or the provider's role for it, such as: grant rds_superuser to ${ident(role)}`,
      ),
    },
  ];
}
