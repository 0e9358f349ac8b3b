import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";

// The programs that come with PostgreSQL, as the measure of what can be had without ours.

export function hasProgram(name: "psql" | "pgbench"): boolean {
  return spawnSync(name, ["--version"], { stdio: "ignore" }).status === 0;
}

export const noPsql =
  "psql is not installed (Debian: apt-get install postgresql-client), so nothing is compared with it";

export interface PipeOptions {
  /** Statements of the left side; the last one writes to stdout. */
  out: readonly string[];
  /** Statements of the right side, in one session; one of them reads from stdin. */
  into: readonly string[];
}

/** `psql SOURCE | psql TARGET`; no byte passes through this process. Returns seconds. */
export async function pipe(source: string, target: string, { out, into }: PipeOptions): Promise<number> {
  const flags = "-X -q -v ON_ERROR_STOP=1";
  const words = (statements: readonly string[]): string =>
    statements.map((text) => `-c ${shellQuoted(text)}`).join(" ");
  const command = `psql ${flags} "$BENCH_SOURCE" ${words(out)} | psql ${flags} "$BENCH_TARGET" ${words(into)}`;
  return await run("sh", ["-c", command], { BENCH_SOURCE: source, BENCH_TARGET: target });
}

/** Returns seconds. */
export async function psql(url: string, ...statements: readonly string[]): Promise<number> {
  const args = ["-X", "-q", "-v", "ON_ERROR_STOP=1", url, ...statements.flatMap((text) => ["-c", text])];
  return await run("psql", args);
}

/** Runs pgbench and returns its transactions per second. Throws when a transaction failed. */
export async function pgbench(url: string, args: readonly string[]): Promise<number> {
  let said = "";
  await run("pgbench", ["-n", ...args, url], {}, (text) => (said += text));
  const [, rate] = /tps = ([\d.]+)/.exec(said) ?? [];
  if (rate === undefined) throw new Error(`pgbench said no rate:\n${said}`);
  return Number(rate);
}

async function run(
  file: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
  onOutput?: (text: string) => void,
): Promise<number> {
  const startedAt = performance.now();
  const child = spawn(file, args, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  child.stderr.on("data", (piece: Buffer) => (said += piece.toString()));
  child.stdout.on("data", (piece: Buffer) => onOutput?.(piece.toString()));
  const [code] = (await once(child, "close")) as [number | null];
  const isFine = code === 0 && !/ERROR|FATAL/.test(said);
  if (!isFine) throw new Error(`${file} ended with ${code}:\n${said}`);
  return (performance.now() - startedAt) / 1000;
}

function shellQuoted(text: string): string {
  return `'${text.replaceAll("'", String.raw`'\''`)}'`;
}
