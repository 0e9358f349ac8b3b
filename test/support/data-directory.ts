import { execFile, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { appendFile, chmod, chown, mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

import type { Binaries } from "./binaries.ts";
import { giveToServerUser, guardServer, runFolder, serverUser, unguardServer } from "./run-folder.ts";

const run = promisify(execFile);

export const superuser = "postgres";
export const superuserPassword = "test-superuser";

export type Authentication = "scram" | "trust";

/** `optional` offers TLS, `required` refuses connections without it, as Heroku does. */
export type Tls = "off" | "optional" | "required";

export interface DataDirectoryOptions {
  major: string;
  binaries: Binaries;
  auth: Authentication;
  locale: string;
}

/** Copies a data directory from the template of its kind, which is made once per run and takes initdb's time. */
export async function createDataDirectory(dataDir: string, options: DataDirectoryOptions): Promise<void> {
  const template = await templateFor(options);
  // -p keeps the owner and the modes, which PostgreSQL insists on.
  await run("cp", ["-Rp", template, dataDir]);
}

async function templateFor(options: DataDirectoryOptions): Promise<string> {
  const kind = `${options.major}-${options.auth}-${options.locale.replaceAll(/[^A-Za-z0-9]/g, "_")}`;
  const finished = join(runFolder(), `template-${kind}`);
  if (existsSync(finished)) return finished;
  const own = await mkdtemp(`${finished}-`);
  giveToServerUser(own);
  const passwordFile = `${own}.password`;
  await writeFile(passwordFile, `${superuserPassword}\n`, { mode: 0o600 });
  giveToServerUser(passwordFile);
  const method = options.auth === "scram" ? "scram-sha-256" : "trust";
  try {
    await runInitdb(options.binaries.initdb, own, [
      `--pgdata=${own}`,
      `--username=${superuser}`,
      `--pwfile=${passwordFile}`,
      `--auth=${method}`,
      `--locale=${options.locale}`,
      "--encoding=UTF8",
      "--no-sync",
    ]);
    await rename(own, finished);
  } catch (error) {
    await rm(own, { recursive: true, force: true });
    // Another process of this run may have finished the same template first.
    if (!existsSync(finished)) throw error;
  } finally {
    await rm(passwordFile, { force: true });
  }
  return finished;
}

function runInitdb(initdb: string, cwd: string, args: string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(initdb, args, { ...serverUser, cwd, stdio: ["ignore", "pipe", "pipe"] });
    const { pid } = child;
    if (pid !== undefined) guardServer(pid);
    let output = "";
    const collect = (text: Buffer): void => void (output += text.toString());
    child.stdout.on("data", collect);
    child.stderr.on("data", collect);
    child.on("error", reject);
    child.on("close", (code) => {
      if (pid !== undefined) unguardServer(pid);
      if (code === 0) resolve();
      else reject(new Error(`initdb failed with code ${code}:\n${output}`));
    });
  });
}

/** Later settings win over earlier ones. */
export async function writeSettings(dataDir: string, settings: Record<string, string>): Promise<void> {
  const lines = Object.entries(settings).map(([name, value]) => `${name} = '${value.replaceAll("'", "''")}'`);
  await appendFile(join(dataDir, "postgresql.conf"), `\n${lines.join("\n")}\n`);
}

export async function writeAccessRules(dataDir: string, auth: Authentication, tls: Tls): Promise<void> {
  const method = auth === "scram" ? "scram-sha-256" : "trust";
  const kind = tls === "required" ? "hostssl" : "host";
  const rules = [`local all all ${method}`];
  for (const database of ["all", "replication"]) rules.push(`${kind} ${database} all 127.0.0.1/32 ${method}`);
  await writeFile(join(dataDir, "pg_hba.conf"), `${rules.join("\n")}\n`);
}

export async function hasOpenssl(): Promise<boolean> {
  return run("openssl", ["version"]).then(
    () => true,
    () => false,
  );
}

/** A certificate that nobody vouches for, as managed providers use them; returns its path. */
export async function createCertificate(folder: string): Promise<{ certificate: string; key: string }> {
  await mkdir(folder, { recursive: true });
  const certificate = join(folder, "server.crt");
  const key = join(folder, "server.key");
  const request = "req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=localhost".split(" ");
  const names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
  await run("openssl", [...request, ...names, "-keyout", key, "-out", certificate]);
  await chmod(key, 0o600);
  for (const path of [folder, certificate, key]) {
    if (serverUser !== undefined) await chown(path, serverUser.uid, serverUser.gid);
  }
  return { certificate, key };
}
