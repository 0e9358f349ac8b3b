import { createDatabaseAt, withClient } from "../../test/support/admin.ts";
import { startCluster, type Cluster, type ClusterDatabase } from "../../test/support/cluster.ts";
import { removeRunFolder } from "../../test/support/run-folder.ts";
import { killAll } from "./command.ts";
import type { Options } from "./options.ts";

export interface Servers {
  source: Cluster;
  target: Cluster;
}

const running: Promise<Cluster>[] = [];

/** Two servers that write through to the disk, with memory as a small production server has it. */
export async function startServers(options: Options): Promise<Servers> {
  const settings = {
    shared_buffers: "1GB",
    maintenance_work_mem: "256MB",
    max_wal_size: "8GB",
    checkpoint_timeout: "30min",
    max_locks_per_transaction: "256",
  };
  const start = (version: string): Promise<Cluster> => startCluster({ version, fsync: true, settings });
  running.push(start(options.source), start(options.target));
  const [source, target] = (await Promise.all(running)) as [Cluster, Cluster];
  return { source, target };
}

/** Ends everything, also in the middle of a benchmark. */
export async function stopServers(): Promise<void> {
  await killAll();
  for (const each of await Promise.allSettled(running)) {
    if (each.status === "fulfilled") await each.value.stop();
  }
  removeRunFolder();
}

/** A new database in which the script was run. */
export async function createDatabase(cluster: Cluster, script: string): Promise<ClusterDatabase> {
  const database = await createDatabaseAt(cluster.adminUrl, "bench");
  await sql(database.url, script);
  return database;
}

/** Runs a script and returns the rows of its last statement. */
export async function sql<Row = Record<string, unknown>>(url: string, script: string): Promise<Row[]> {
  return await withClient(url, async (client) => {
    // Several statements give a list of results, which the driver's types do not tell.
    const result: unknown = await client.query(script);
    const last = (Array.isArray(result) ? result.at(-1) : result) as { rows: Row[] };
    return last.rows;
  });
}

/** Writes dirty pages out before something is measured, so that no run pays for the one before. */
export async function settle(...clusters: readonly Cluster[]): Promise<void> {
  await Promise.all(clusters.map((cluster) => sql(cluster.adminUrl, "checkpoint")));
}
