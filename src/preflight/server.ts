/** The servers themselves: what cannot be worked with at all, and what the role needs on the database. */
import { tableSql } from "../catalog/table.ts";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { ident, load } from "../postgres/sql.ts";
import { administrator, run, type Finding } from "./finding.ts";

/** As sql/preflight/server returns it. */
export interface Server {
  readonly database: string;
  readonly role: string;
  readonly isSuperuser: boolean;
  readonly inherits: boolean;
  readonly identity: string;
  readonly isStandby: boolean;
  readonly isEncrypted: boolean;
  readonly mayCreateSchema: boolean;
  readonly mayCreateTemporary: boolean;
  readonly hasSchema: boolean;
  readonly mayUseSchema: boolean;
  readonly schemaOwner: string | null;
  readonly publications: readonly {
    readonly name: string;
    readonly owner: string;
    readonly publish: string;
  }[];
  readonly largeObjects: number;
  readonly temporaryTables: number;
}

/** Throws POOLER_IN_BETWEEN and SERVER_IS_STANDBY, which leave nothing to check. */
export async function readServer(connection: Connection): Promise<Server> {
  await checkPooler(connection);
  const server = await connection.row<Server>(load("preflight/server"));
  if (server.isStandby) {
    throw new ReplicateError(
      "SERVER_IS_STANDBY",
      `the ${connection.side} is a hot standby: nothing can be installed there`,
    );
  }
  return server;
}

/** A pool that announces the pid of one of its sessions as if it were ours looks like a server to `connect`. */
async function checkPooler(connection: Connection): Promise<void> {
  for (let n = 0; n < 2; n += 1) {
    const { pid } = await connection.row<{ pid: number }>("select pg_catalog.pg_backend_pid() as pid");
    if (pid !== connection.pid) {
      throw new ReplicateError(
        "POOLER_IN_BETWEEN",
        `the ${connection.side} is reached through a pool that gives a session to others after each transaction: one session became several`,
      );
    }
  }
}

export function checkServer({ side }: Connection, server: Server): Finding[] {
  const findings: Finding[] = [];
  const block = (message: string, role: string, statement: string): number =>
    findings.push({ severity: "blocking", subject: side, message, ...run(side, role, statement) });
  const database = ident(server.database);
  const role = ident(server.role);
  if (!server.hasSchema && !server.mayCreateSchema) {
    block(
      `role ${server.role} may not create schema replicate`,
      administrator,
      `grant create on database ${database} to ${role};`,
    );
  }
  if (server.hasSchema && !server.mayUseSchema) {
    block(
      "schema replicate belongs to another role",
      server.schemaOwner ?? administrator,
      `grant usage, create on schema replicate to ${role};`,
    );
  }
  if (side === "target" && !server.mayCreateTemporary) {
    block(
      `role ${server.role} may not create temporary tables`,
      administrator,
      `grant temporary on database ${database} to ${role};`,
    );
  }
  return findings;
}

/** What a database holds besides tables, and what nobody copies. */
export function checkContents(server: Server): Finding[] {
  const findings: Finding[] = [];
  if (server.largeObjects > 0) {
    findings.push({
      severity: "warning",
      subject: "large objects",
      message: `${server.largeObjects} of them, not replicated: copy them by other means, for example pg_dump --blobs`,
    });
  }
  if (server.temporaryTables > 0) {
    findings.push({
      severity: "note",
      subject: "temporary tables",
      message: `${server.temporaryTables} of open sessions are not replicated`,
    });
  }
  return findings;
}

/** Tables of a statement, beyond which it names their schemas where the server can do that. */
const mostTables = 20;

/** Publications of all tables take ours along. `tables`: what they would have to name instead. */
export function checkPublications(
  { side, version }: Connection,
  server: Server,
  tables: readonly { readonly schema: string; readonly name: string }[],
): Finding[] {
  const ours = side === "source" ? "our delta tables" : "the tables of our state";
  const schemas = [...new Set(tables.map(({ schema }) => ident(schema)))];
  const instead =
    tables.length > mostTables && version >= 150_000
      ? ` for tables in schema ${schemas.join(", ")}`
      : tables.length === 0 ? "" : ` for table ${tables.map(tableSql).join(", ")}`; // prettier-ignore
  return server.publications.map(({ name, owner, publish }) => ({
    severity: "warning",
    subject: `publication ${name}`,
    message: `publishes all tables of the ${side}, so it publishes ${ours} too: its subscribers need tables of the same names in a schema replicate, or their apply stops`,
    ...run(
      side,
      owner,
      "begin;",
      `drop publication ${ident(name)};`,
      `create publication ${ident(name)}${instead} with (publish = '${publish}');`,
      "commit;  -- subscribers then need: alter subscription … refresh publication",
    ),
  }));
}
