import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

// The program under test, as its users run it: a process of its own.

const program = fileURLToPath(new URL("../../bin/replicate.js", import.meta.url));
const usageProbe = new URL("./usage.mjs", import.meta.url).href;

export interface Used {
  /** From the start of the process to its end. */
  seconds: number;
  /** Of the Node process, user and system. */
  cpuSeconds: number;
  /** The most memory that the process had, resident. */
  peakBytes: number;
}

export interface Finished extends Used {
  /** What it printed with --json, one document per line. */
  lines: readonly Record<string, unknown>[];
}

export interface Sides {
  source: string;
  target: string;
}

let count = 0;
const children = new Set<ChildProcess>();

/** Runs a command to its end. Throws with what it said on stderr unless the exit code is 0. */
export async function replicate(sides: Sides, ...args: readonly string[]): Promise<Finished> {
  return await startReplicate(sides, ...args).ended;
}

export interface Started {
  pid: number;
  ended: Promise<Finished>;
  stop: () => Promise<Finished>;
}

export function startReplicate(sides: Sides, ...args: readonly string[]): Started {
  const usageFile = join(tmpdir(), `bench-usage-${process.pid}-${++count}.json`);
  const startedAt = performance.now();
  const child = spawn(process.execPath, ["--import", usageProbe, program, ...args, "--json"], {
    env: {
      ...process.env,
      REPLICATE_SOURCE: sides.source,
      REPLICATE_TARGET: sides.target,
      BENCH_USAGE_FILE: usageFile,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  children.add(child);
  let said = "";
  child.stderr.on("data", (piece: Buffer) => (said = (said + piece.toString()).slice(-4000)));
  const lines: string[] = [];
  createInterface({ input: child.stdout }).on("line", (line) => lines.push(line));
  const end = async (): Promise<Finished> => {
    const [code, signal] = (await once(child, "close")) as [number | null, string | null];
    const seconds = (performance.now() - startedAt) / 1000;
    children.delete(child);
    if (code !== 0) throw new Error(`replicate ${args.join(" ")} ended with ${code ?? signal}:\n${said}`);
    const usage = JSON.parse(await readFile(usageFile, "utf8")) as { cpuSeconds: number; peakBytes: number };
    await rm(usageFile);
    return { seconds, ...usage, lines: parse(lines) };
  };
  const ended = end();
  ended.catch(() => undefined);
  return {
    pid: child.pid ?? 0,
    ended,
    stop: async () => {
      child.kill("SIGTERM");
      return await ended;
    },
  };
}

/** Captures the tables while `work` runs. Nobody follows meanwhile: the source alone is measured. */
export async function whileCaptured<Value>(
  sides: Sides,
  options: readonly string[],
  work: () => Promise<Value>,
): Promise<Value> {
  await replicate(sides, "init", ...options);
  try {
    return await work();
  } finally {
    await replicate(sides, "drop", "--yes", ...options);
  }
}

/** Ends what a failed benchmark has left. */
export async function killAll(): Promise<void> {
  await Promise.all(
    Array.from(children, async (child) => {
      child.kill("SIGKILL");
      if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
    }),
  );
}

/** Long-running commands print one document per line, the others one over many lines. */
function parse(lines: readonly string[]): Record<string, unknown>[] {
  try {
    return lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  } catch {
    return [JSON.parse(lines.join("\n")) as Record<string, unknown>];
  }
}
