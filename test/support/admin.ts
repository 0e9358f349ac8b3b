import { randomBytes } from "node:crypto";
import pg from "pg";

import type { ClusterDatabase } from "./cluster.ts";

/** A connected client that survives the end of its server: without a listener the error ends the process. */
export async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url, application_name: "test" });
  client.on("error", () => undefined);
  await client.connect();
  return client;
}

export async function withClient<Result>(
  url: string,
  use: (client: pg.Client) => Promise<Result>,
): Promise<Result> {
  const client = await connect(url);
  try {
    return await use(client);
  } finally {
    await client.end().catch(() => undefined);
  }
}

/** In full, such as "13.23". */
export async function serverVersion(url: string): Promise<string> {
  return withClient(url, async (client) => {
    const { rows } = await client.query<{ server_version: string }>("show server_version");
    // Distributors add their own name: "15.18 (Debian 15.18-1)".
    return rows[0]?.server_version.split(" ")[0] ?? "";
  });
}

export async function serverMajor(client: pg.Client): Promise<number> {
  const { rows } = await client.query<{ server_version_num: string }>("show server_version_num");
  return Math.floor(Number(rows[0]?.server_version_num) / 10_000);
}

export function quoteName(name: string): string {
  return pg.escapeIdentifier(name);
}

/** Names shared by all databases of a server (databases, roles) must not meet those of a parallel test. */
export function uniqueName(prefix: string): string {
  return `${prefix}_${randomBytes(5).toString("hex")}`;
}

export function urlWith(url: string, parts: { database?: string; user?: string; password?: string }): string {
  const changed = new URL(url);
  if (parts.database !== undefined) changed.pathname = `/${encodeURIComponent(parts.database)}`;
  if (parts.user !== undefined) changed.username = encodeURIComponent(parts.user);
  if (parts.password !== undefined) changed.password = encodeURIComponent(parts.password);
  return changed.toString();
}

export async function createDatabaseAt(
  adminUrl: string,
  prefix: string,
  options = "",
): Promise<ClusterDatabase> {
  const name = uniqueName(prefix);
  await withClient(adminUrl, async (client) => {
    // Copying the files costs less than writing the template's pages to the log, the default since 15.
    const strategy = (await serverMajor(client)) >= 15 ? "strategy file_copy" : "";
    await client.query(`create database ${quoteName(name)} ${strategy} ${options}`);
  });
  return { name, url: urlWith(adminUrl, { database: name }), drop: () => dropDatabaseAt(adminUrl, name) };
}

/** Also drops it from under connections that are still open. */
async function dropDatabaseAt(adminUrl: string, name: string): Promise<void> {
  await withClient(adminUrl, async (client) => {
    if ((await serverMajor(client)) >= 13) {
      await client.query(`drop database if exists ${quoteName(name)} with (force)`);
      return;
    }
    await client.query("update pg_catalog.pg_database set datallowconn = false where datname = $1", [name]);
    await client.query(
      "select pg_catalog.pg_terminate_backend(pid) from pg_catalog.pg_stat_activity where datname = $1",
      [name],
    );
    // Waits five seconds for the terminated backends by itself.
    await client.query(`drop database if exists ${quoteName(name)}`);
  });
}
