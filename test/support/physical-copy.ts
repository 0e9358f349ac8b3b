import { execFile } from "node:child_process";
import { appendFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

import { startCluster, type Cluster } from "./cluster.ts";
import { giveToServerUser } from "./run-folder.ts";
import { until } from "./until.ts";

const run = promisify(execFile);

/** Puts the content of one data directory in place of another's, with owner and rights as they are there. Both are down. */
export async function replaceData(from: string, to: string): Promise<void> {
  const script = `owner=$(stat -c %u:%g "$2") && rm -rf "$2"/* && cp -R "$1"/. "$2"/ && chown -R "$owner" "$2" && chmod 700 "$2"`;
  await run("sh", ["-c", script, "sh", from, to]);
}

/** Streams from the primary, which is restarted for it. For versions from 12 on. */
export async function startStandby(primary: Cluster): Promise<Cluster> {
  const standby = await startCluster({ version: String(primary.major), fsync: false });
  const [from, to] = [primary.dataDir, standby.dataDir];
  if (from === undefined || to === undefined) throw new Error("the servers run in containers");
  try {
    await standby.kill9();
    await primary.down("fast");
    await replaceData(from, to);
    await writeFile(join(to, "standby.signal"), "");
    giveToServerUser(join(to, "standby.signal"));
    const { username, password, port } = new URL(primary.adminUrl);
    const conninfo = `host=127.0.0.1 port=${port} user=${username} password=${password} application_name=standby`;
    await appendFile(join(to, "postgresql.conf"), `\nprimary_conninfo = '${conninfo}'\nhot_standby = on\n`);
    await primary.restart();
    await standby.restart();
    return standby;
  } catch (error) {
    await standby.stop();
    throw error;
  }
}

/** Whether the standby has what the primary has committed, from now on before the primary says so. */
export async function makeSynchronous(
  sql: (text: string) => Promise<Record<string, unknown>[]>,
): Promise<void> {
  await sql("alter system set synchronous_standby_names = '*'");
  await sql("select pg_reload_conf()");
  await until("the standby is synchronous", async () => {
    const rows = await sql("select 1 from pg_stat_replication where sync_state = 'sync'");
    return rows.length === 1;
  });
}
