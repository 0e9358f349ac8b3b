/** Whose code runs with our rights: see docs/security.md. */
import type { Table } from "../catalog/table.ts";
import type { Connection } from "../postgres/connect.ts";
import { ident, load } from "../postgres/sql.ts";
import type { Examination } from "./examination.ts";
import { administrator, run, some, type Finding } from "./finding.ts";
import type { Server } from "./server.ts";

export async function checkRightsOfCode({ source, target, servers, pairs }: Examination): Promise<Finding[]> {
  const sides = [
    { connection: source, server: servers.source, tables: pairs.map((pair) => pair.source) },
    { connection: target, server: servers.target, tables: pairs.map((pair) => pair.target) },
  ];
  const found = await Promise.all(
    sides.map(async ({ connection, server, tables }) => await checkRole(connection, server, tables)),
  );
  return found.flat();
}

async function checkRole(
  connection: Connection,
  { role, database }: Server,
  tables: readonly Table[],
): Promise<Finding[]> {
  const { side, version } = connection;
  const names = [...new Set(tables.map(({ owner }) => owner))];
  const lesser = await connection.rows<{ owner: string }>(load("preflight/lesser-owners"), [names]);
  if (lesser.length === 0) return [];
  const owners = lesser.map(({ owner }) => owner);
  const what =
    side === "target"
      ? "functions of theirs behind checks, domains, generated columns and ENABLE ALWAYS triggers run as it when rows are written"
      : "it may do more than is needed to read their tables";
  return [
    {
      severity: "warning",
      subject: `role ${role}`,
      message: `is a superuser on the ${side}, or may become one, and ${some(owners)}, who own${owners.length === 1 ? "s" : ""} tables, may not: ${what} (docs/security.md)`,
      ...run(
        side,
        administrator,
        `create role replicate_runner login in role ${owners.map(ident).join(", ")};  -- give it a password, and connect as it`,
        `grant create, temporary on database ${ident(database)} to replicate_runner;`,
        ...(side === "target" && version >= 150_000
          ? ["grant set on parameter session_replication_role to replicate_runner;"]
          : []),
      ),
    },
  ];
}
