import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";

import { json, replicate, type Finished } from "./replicate.ts";
import type { Database } from "./database.ts";

// What the tests of mapped tables share: the command with a configuration file, as a user would map tables.

interface Side {
  readonly url: string;
}

export type Run = (...args: string[]) => Promise<Finished>;

const folder = mkdtempSync(join(tmpdir(), "replicate-mapping-"));
let files = 0;

/** Runs the command with settings in a file of their own. */
export function mapped(
  pair: { source: Side; target: Side },
  settings: Readonly<Record<string, unknown>>,
  env: NodeJS.ProcessEnv = {},
): Run {
  const file = join(folder, `${(files += 1)}.yaml`);
  writeFileSync(file, JSON.stringify({ source: pair.source.url, target: pair.target.url, ...settings }));
  return async (...args) => await replicate([...args, "--config", file], { env });
}

/** Runs the commands one after the other, and stops at the first that fails. */
export async function each(run: Run, ...commands: readonly string[]): Promise<void> {
  for (const command of commands) {
    const { code, stdout, stderr } = await run(...command.split(" "));
    expect(code, `${command}\n${stdout}${stderr}`).toBe(0);
  }
}

/** The findings that block: of a preflight, or of an error. */
export async function refusals(run: Run, ...command: string[]): Promise<string[]> {
  const finished = await run(...command, "--json");
  expect(finished.code, finished.stdout).not.toBe(0);
  const found = json<{ findings?: Finding[]; error?: { problems: Finding[] } }>(finished);
  const findings = found.findings ?? found.error?.problems ?? [];
  return findings
    .filter(({ severity }) => severity === undefined || severity === "blocking")
    .map(({ subject, message }) => `${subject}: ${message}`);
}

interface Finding {
  readonly severity?: string;
  readonly subject: string;
  readonly message: string;
}

export interface Verified {
  equal: boolean;
  tables: {
    table: string;
    rows: number;
    equal: boolean;
    differences: { key: Record<string, unknown>; kind: string; columns: string[] }[];
  }[];
}

export async function verify(run: Run, ...options: string[]): Promise<Verified> {
  return json<Verified>(await run("verify", "--json", ...options));
}

export async function rowsOf(side: Pick<Database, "sql">, query: string): Promise<unknown[]> {
  return (await side.sql(query)).map((row) => Object.values(row));
}
