import { spawn, spawnSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import { withClient } from "./admin.ts";
import { freePort } from "./free-port.ts";
import { giveToServerUser, guardServer, runFolder, serverUser, unguardServer } from "./run-folder.ts";

// PgBouncer, where it is installed (Debian: pgbouncer), in front of a test's database.

export type PoolMode = "session" | "transaction" | "statement";

export interface PgBouncer {
  /** Of the database, through the pool. */
  readonly url: string;
  [Symbol.asyncDispose]: () => Promise<void>;
}

const program = ["pgbouncer", "/usr/sbin/pgbouncer"].find(
  (each) => spawnSync(each, ["--version"]).error === undefined,
);

/** Says why tests with it cannot run here; undefined where they can. */
export const noPgBouncer: string | undefined =
  program === undefined ? "pgbouncer is not installed" : undefined;

/** `settings`: what follows in [pgbouncer]. */
export async function startPgBouncer(
  databaseUrl: string,
  mode: PoolMode,
  settings: Readonly<Record<string, string | number>> = {},
): Promise<PgBouncer> {
  const server = new URL(databaseUrl);
  const database = server.pathname.slice(1);
  const [user, password] = [server.username, server.password].map(decodeURIComponent) as [string, string];
  const folder = await mkdtemp(join(runFolder(), "pgbouncer-"));
  const port = await freePort();
  const all = {
    listen_addr: "127.0.0.1",
    listen_port: port,
    unix_socket_dir: "",
    auth_type: "trust",
    auth_file: join(folder, "users"),
    pool_mode: mode,
    max_client_conn: 200,
    default_pool_size: 40,
    ...settings,
  };
  const lines = Object.entries(all).map(([name, value]) => `${name} = ${value}`);
  const entry = `${database} = host=${server.hostname} port=${server.port} dbname=${database} user=${user} password=${password}`;
  await writeFile(join(folder, "ini"), ["[databases]", entry, "[pgbouncer]", ...lines, ""].join("\n"));
  await writeFile(join(folder, "users"), `"${user}" "${password}"\n`);
  for (const path of [folder, join(folder, "ini"), join(folder, "users")]) giveToServerUser(path);
  const child = spawn(program as string, [join(folder, "ini")], {
    ...serverUser,
    cwd: folder,
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (text: Buffer) => void (said += text.toString()));
  const ended = new Promise<void>((resolve) => child.on("close", () => resolve()));
  const { pid } = child;
  if (pid === undefined) throw new Error("pgbouncer did not start");
  guardServer(pid);
  const url = `postgresql://${server.username}:${server.password}@127.0.0.1:${port}/${database}?sslmode=disable`;
  const dispose = async (): Promise<void> => {
    child.kill("SIGKILL");
    await ended;
    unguardServer(pid);
    await rm(folder, { recursive: true, force: true });
  };
  for (let tries = 1; ; tries += 1) {
    try {
      await withClient(url, async (client) => await client.query("select 1"));
      return { url, [Symbol.asyncDispose]: dispose };
    } catch (error) {
      if (tries < 100 && child.exitCode === null) {
        await sleep(50);
        continue;
      }
      await dispose();
      throw new Error(`pgbouncer does not answer: ${said}`, { cause: error });
    }
  }
}
