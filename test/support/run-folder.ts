import { spawn, type ChildProcess } from "node:child_process";
import { accessSync, chmodSync, chownSync, constants, existsSync, mkdtempSync, readFileSync } from "node:fs";
import {
  readdirSync,
  readlinkSync,
  realpathSync,
  rmSync,
  statfsSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { freemem, hostname, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { isRunning, startOf } from "./processes.ts";

// Everything a test run puts on the disk lives in one folder: data directories, templates, copies of
// binaries. The process that made it owns it; worker processes find it through the environment.

const prefix = "pg-replicate-test-";
const variable = "REPLICATE_TEST_RUN_FOLDER";

/** The user that servers run as: PostgreSQL refuses to run as root. */
export const serverUser: { uid: number; gid: number } | undefined =
  process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : undefined;

interface Owner {
  pid: number;
  /** What distinguishes this process from a later one with the same pid; unknown without /proc. */
  startedAt: string | undefined;
  /** Pids mean something only within one machine and one pid namespace. */
  place: string;
}

/** Where the files of a run are in memory, on Linux. */
const memory = "/dev/shm";

/** In bytes: more than the servers of any run fill, all versions together, with what the tests themselves need. */
const roomInMemory = 6 * 1024 ** 3;

let folder: string | undefined;
let watchdog: ChildProcess | undefined;

/**
 * The folder of this run, made at the first call, which says where. Tests want memory: they make and drop databases by the
 * hundred, which keeps the file system of a disk busier than the servers. TMPDIR, where it is set, is obeyed.
 */
export function runFolder(where: "disk" | "memory" = "disk"): string {
  if (folder !== undefined) return folder;
  const inherited = process.env[variable];
  if (inherited !== undefined && existsSync(join(inherited, "owner.json"))) {
    folder = inherited;
    // The test runner's workers outlive a runner that was killed, and would keep their servers up.
    if (process.send !== undefined) process.once("disconnect", () => process.exit(1));
    return folder;
  }
  // What is left in memory takes it from everybody, also from a run that finds no room there.
  if (existsSync(memory)) sweepStaleFolders(memory);
  const base = where === "memory" && hasMemory() ? memory : diskFolder();
  if (base !== memory) sweepStaleFolders(base);
  folder = mkdtempSync(join(base, prefix));
  giveToServerUser(folder);
  chmodSync(folder, 0o755);
  const owner: Owner = { pid: process.pid, startedAt: startOf(process.pid), place: place() };
  writeFileSync(join(folder, "owner.json"), JSON.stringify(owner));
  process.env[variable] = folder;
  tellWatchdog(`folder ${folder}`);
  return folder;
}

/** Removes the folder if this process made it; its servers must have been stopped. */
export function removeRunFolder(): void {
  if (folder === undefined || readOwner(folder)?.pid !== process.pid) return;
  rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  if (process.env[variable] === folder) delete process.env[variable];
  folder = undefined;
}

export function giveToServerUser(path: string): void {
  if (serverUser !== undefined) chownSync(path, serverUser.uid, serverUser.gid);
}

/**
 * Has a server ended when this process is gone, however it went: the watchdog is a process of its own
 * whose input ends with ours, which holds for kill -9 too.
 */
export function guardServer(pid: number): void {
  tellWatchdog(`server ${pid} ${startOf(pid) ?? ""}`);
}

export function unguardServer(pid: number): void {
  tellWatchdog(`gone ${pid}`);
}

function tellWatchdog(line: string): void {
  if (watchdog === undefined) {
    const script = fileURLToPath(new URL("./watchdog.mjs", import.meta.url));
    // Detached: Ctrl-C and the end of a terminal reach us and our group, and it has to outlive both.
    watchdog = spawn(process.execPath, [script], {
      detached: true,
      cwd: "/",
      stdio: ["pipe", "ignore", "ignore"],
      env: {},
    });
    watchdog.unref();
    watchdog.on("error", () => undefined);
    watchdog.stdin?.on("error", () => undefined);
    const pipe = watchdog.stdin as unknown as { unref?: () => void } | null;
    pipe?.unref?.();
  }
  watchdog.stdin?.write(`${line}\n`);
}

/** Whether files may be in memory: there is room for them, and programs among them can be run. */
function hasMemory(): boolean {
  if (process.env["TMPDIR"] || !isUsable(memory)) return false;
  const { bavail, bsize } = statfsSync(memory);
  if (Math.min(bavail * bsize, freemem()) < roomInMemory) return false;
  const mounts = readFileSync("/proc/mounts", "utf8").split("\n");
  // Of several mounts in one place the last is the one that is seen.
  const [, , type, options] = mounts.findLast((line) => line.split(" ")[1] === memory)?.split(" ") ?? [];
  return type === "tmpfs" && options?.split(",").includes("noexec") === false;
}

/** A folder that the server's user can reach: TMPDIR may lie in someone's private folder. */
function diskFolder(): string {
  const candidates = [tmpdir(), "/tmp", "/var/tmp"];
  for (const candidate of candidates) {
    if (isUsable(candidate)) return realpathSync(candidate);
  }
  throw new Error(`none of ${candidates.join(", ")} can be used by the user the test servers run as`);
}

function isUsable(path: string): boolean {
  try {
    accessSync(path, constants.W_OK);
    return serverUser === undefined || isWorldTraversable(realpathSync(path));
  } catch {
    return false;
  }
}

function isWorldTraversable(path: string): boolean {
  if ((statSync(path).mode & 0o001) === 0) return false;
  return dirname(path) === path || isWorldTraversable(dirname(path));
}

/** What an earlier run left: normally nothing, since its watchdog has cleaned up; but a machine can lose both. */
function sweepStaleFolders(base: string): void {
  for (const name of readdirSync(base)) {
    if (!name.startsWith(prefix)) continue;
    const path = join(base, name);
    const owner = readOwner(path);
    if (owner === undefined || owner.place !== place() || isRunning(owner.pid, owner.startedAt)) continue;
    try {
      killServersIn(path);
      rmSync(path, { recursive: true, force: true, maxRetries: 5 });
    } catch {
      // Another user's folder, or another run sweeps it at this moment.
    }
  }
}

function killServersIn(path: string): void {
  for (const name of readdirSync(path)) {
    const dataDir = join(path, name, "data");
    const pidFile = join(dataDir, "postmaster.pid");
    if (!existsSync(pidFile)) continue;
    const [pidLine, dataDirLine] = readFileSync(pidFile, "utf8").split("\n");
    const pid = Number(pidLine);
    // The pid may long belong to somebody else: only a process that names our folder is ours.
    if (dataDirLine === dataDir && commandLine(pid).includes(dataDir)) process.kill(pid, "SIGQUIT");
  }
}

function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8");
  } catch {
    return "";
  }
}

function readOwner(path: string): Owner | undefined {
  try {
    return JSON.parse(readFileSync(join(path, "owner.json"), "utf8")) as Owner;
  } catch {
    return undefined;
  }
}

function place(): string {
  try {
    return `${hostname()} ${readlinkSync("/proc/self/ns/pid")}`;
  } catch {
    return hostname();
  }
}
