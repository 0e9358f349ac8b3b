import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import { type Binaries, findBinaries } from "./binaries.ts";
import { createDatabaseAt, serverVersion } from "./admin.ts";
import type { Cluster, ClusterDatabase, ClusterOptions } from "./cluster.ts";
import { commonSettings, postgresUrl } from "./cluster-settings.ts";
import {
  createCertificate,
  createDataDirectory,
  superuser,
  superuserPassword,
  writeAccessRules,
  writeSettings,
} from "./data-directory.ts";
import { freePort } from "./free-port.ts";
import { childrenOf, isRunning } from "./processes.ts";
import { giveToServerUser, guardServer, runFolder, serverUser, unguardServer } from "./run-folder.ts";

const startTimeoutMs = 60_000;
const stopTimeoutMs = 20_000;

export async function startEmbeddedCluster(options: ClusterOptions): Promise<Cluster> {
  const major = options.version.split(".")[0] ?? "";
  const binaries = await findBinaries(major);
  const auth = options.auth ?? "scram";
  const folder = await mkdtemp(join(runFolder(), `pg-${major}-`));
  giveToServerUser(folder);
  const dataDir = join(folder, "data");
  const socketDir = options.unixSocket === true ? join(folder, "sockets") : undefined;
  try {
    await createDataDirectory(dataDir, { major, binaries, auth, locale: options.locale ?? "C" });
    await writeAccessRules(dataDir, auth, options.tls ?? "off");
    if (socketDir !== undefined) {
      await mkdir(socketDir);
      giveToServerUser(socketDir);
    }
    let certificate: string | undefined;
    const settings: Record<string, string> = {
      listen_addresses: "127.0.0.1",
      unix_socket_directories: socketDir ?? "",
      ...commonSettings(options),
    };
    if (options.tls !== undefined && options.tls !== "off") {
      const files = await createCertificate(join(folder, "tls"));
      certificate = files.certificate;
      Object.assign(settings, { ssl: "on", ssl_cert_file: files.certificate, ssl_key_file: files.key });
    }
    await writeSettings(dataDir, { ...settings, ...options.settings });
    const isTlsRequired = options.tls === "required";
    const parts = { major, binaries, folder, dataDir, socketDir, certificate, isTlsRequired };
    const cluster = new EmbeddedCluster(parts);
    await cluster.startAtFreePort();
    return cluster;
  } catch (error) {
    await rm(folder, { recursive: true, force: true });
    throw error;
  }
}

interface Parts {
  major: string;
  binaries: Binaries;
  folder: string;
  dataDir: string;
  socketDir: string | undefined;
  certificate: string | undefined;
  isTlsRequired: boolean;
}

class EmbeddedCluster implements Cluster {
  readonly major: number;
  readonly dataDir: string;
  readonly socketDir: string | undefined;
  readonly certificate: string | undefined;
  version: string;
  port = 0;
  readonly #binaries: Binaries;
  readonly #folder: string;
  readonly #logFile: string;
  readonly #isTlsRequired: boolean;
  #server: ChildProcess | undefined;

  constructor(parts: Parts) {
    this.major = Number(parts.major);
    this.version = parts.major;
    this.dataDir = parts.dataDir;
    this.socketDir = parts.socketDir;
    this.certificate = parts.certificate;
    this.#binaries = parts.binaries;
    this.#folder = parts.folder;
    this.#isTlsRequired = parts.isTlsRequired;
    this.#logFile = join(parts.folder, "server.log");
  }

  get pid(): number | undefined {
    return this.#server?.pid;
  }

  get adminUrl(): string {
    // The driver's word for encryption without verification; libpq's own would be `require`.
    return this.urlFor("postgres") + (this.#isTlsRequired ? "?sslmode=no-verify" : "");
  }

  urlFor(database: string, user: string = superuser, password?: string): string {
    const known = password ?? (user === superuser ? superuserPassword : undefined);
    return postgresUrl({ port: this.port, database, user, password: known });
  }

  createDatabase(prefix = "test"): Promise<ClusterDatabase> {
    return createDatabaseAt(this.adminUrl, prefix);
  }

  log(): Promise<string> {
    return readFile(this.#logFile, "utf8");
  }

  /** Between the search for a port and the server's start another process may take the port. */
  async startAtFreePort(): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      this.port = await freePort();
      try {
        await this.#start();
        break;
      } catch (error) {
        if (attempt === 5 || !/could not (bind|create any TCP)/.test(String(error))) throw error;
      }
    }
    try {
      this.version = await serverVersion(this.adminUrl);
    } catch (error) {
      await this.stop();
      throw error;
    }
  }

  async #start(): Promise<void> {
    const log = openSync(this.#logFile, "a");
    const args = ["-D", this.dataDir, "-p", String(this.port)];
    // Detached: a Ctrl-C in the terminal must reach the tests first, not the servers below them.
    const server = spawn(this.#binaries.postgres, args, {
      ...serverUser,
      cwd: this.#folder,
      detached: true,
      stdio: ["ignore", log, log],
      env: { PATH: process.env["PATH"] ?? "", LC_MESSAGES: "C" },
    });
    closeSync(log);
    let failure: Error | undefined;
    server.on("error", (error) => (failure = error));
    server.unref();
    this.#server = server;
    const { pid } = server;
    if (pid !== undefined) {
      guardServer(pid);
      server.once("exit", () => {
        unguardServer(pid);
        if (this.#server === server) this.#server = undefined;
      });
    }
    const deadline = Date.now() + startTimeoutMs;
    while (!this.#isReady(pid)) {
      if (failure !== undefined) throw failure;
      if (server.exitCode !== null || server.signalCode !== null) {
        throw new Error(`PostgreSQL ${this.major} did not start:\n${(await this.log()).slice(-3000)}`);
      }
      if (Date.now() > deadline) {
        await this.#end("SIGQUIT");
        throw new Error(`PostgreSQL ${this.major} was not ready after ${startTimeoutMs} ms`);
      }
      await sleep(10);
    }
  }

  /** The postmaster writes its state into line 8 of its pid file, in all versions since 10; a hot standby is one too. */
  #isReady(pid: number | undefined): boolean {
    try {
      const lines = readFileSync(join(this.dataDir, "postmaster.pid"), "utf8").split("\n");
      return Number(lines[0]) === pid && ["ready", "standby"].includes(lines[7]?.trim() ?? "");
    } catch {
      return false;
    }
  }

  async #end(signal: "SIGINT" | "SIGQUIT"): Promise<void> {
    const server = this.#server;
    if (server === undefined) return;
    const escalation: NodeJS.Signals[] = signal === "SIGINT" ? ["SIGINT", "SIGQUIT"] : ["SIGQUIT"];
    for (const step of escalation) {
      server.kill(step);
      if (await hasExited(server, stopTimeoutMs)) return;
    }
    await this.kill9();
  }

  async down(mode: "fast" | "immediate"): Promise<void> {
    await this.#end(mode === "fast" ? "SIGINT" : "SIGQUIT");
  }

  async restart(mode: "fast" | "immediate" = "fast"): Promise<void> {
    await this.down(mode);
    await this.#start();
  }

  async kill9(): Promise<void> {
    const server = this.#server;
    if (server?.pid === undefined) return;
    // The postmaster first, so that it cannot react to the death of its children by starting others.
    // Stopped in between, it cannot reap a child either, so the pids stay theirs until they are signalled.
    server.kill("SIGSTOP");
    const backends = await childrenOf(server.pid);
    server.kill("SIGKILL");
    for (const pid of backends) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It saw the postmaster's death and ended by itself.
      }
    }
    if (!(await hasExited(server, stopTimeoutMs)))
      throw new Error(`postmaster ${server.pid} survived SIGKILL`);
    await Promise.all(backends.map(hasVanished));
  }

  async stop(): Promise<void> {
    await this.#end("SIGINT");
    await rm(this.#folder, { recursive: true, force: true, maxRetries: 5 });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

async function hasExited(server: ChildProcess, timeoutMs: number): Promise<boolean> {
  const deadline = Date.now() + timeoutMs;
  while (server.exitCode === null && server.signalCode === null) {
    if (Date.now() > deadline) return false;
    await sleep(5);
  }
  return true;
}

/** A backend that still holds the shared memory would keep the next postmaster from starting. */
async function hasVanished(pid: number): Promise<void> {
  const deadline = Date.now() + stopTimeoutMs;
  while (isRunning(pid) && Date.now() < deadline) await sleep(5);
}
