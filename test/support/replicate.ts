import { type ChildProcess, spawn } from "node:child_process";
import { tmpdir } from "node:os";
import { fileURLToPath } from "node:url";

// Runs the command as a shell would: as a process of its own, compiled, with nothing of the test's environment.

const program = fileURLToPath(new URL("../../bin/replicate.js", import.meta.url));

export interface Finished {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

export interface Running {
  child: ChildProcess;
  /** What it has printed so far. */
  said: { stdout: string; stderr: string };
  finished: Promise<Finished>;
  /** Waits until stdout and stderr together hold the text. */
  says: (text: string) => Promise<void>;
}

export interface Settings {
  env?: NodeJS.ProcessEnv;
  cwd?: string;
}

export function start(args: readonly string[], settings: Settings = {}): Running {
  const env = { PATH: process.env["PATH"], HOME: "/nonexistent", ...settings.env };
  const child = spawn(process.execPath, [program, ...args], {
    env,
    cwd: settings.cwd ?? tmpdir(),
    stdio: "pipe",
  });
  const said = { stdout: "", stderr: "" };
  child.stdout.on("data", (text: Buffer) => (said.stdout += text.toString()));
  child.stderr.on("data", (text: Buffer) => (said.stderr += text.toString()));
  child.stdin.end();
  const finished = new Promise<Finished>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => resolve({ code, signal, ...said }));
  });
  const says = (text: string): Promise<void> =>
    new Promise((resolve, reject) => {
      const look = (): void => {
        if (`${said.stdout}${said.stderr}`.includes(text)) resolve();
      };
      child.stdout.on("data", look);
      child.stderr.on("data", look);
      child.on("close", () =>
        reject(new Error(`ended without saying "${text}":\n${said.stdout}${said.stderr}`)),
      );
      look();
    });
  return { child, said, finished, says };
}

export function replicate(args: readonly string[], settings: Settings = {}): Promise<Finished> {
  return start(args, settings).finished;
}

/** The only document of a result. */
export function json<Result>({ stdout }: Finished): Result {
  return JSON.parse(stdout) as Result;
}

/** The documents of a result that has one per line. */
export function jsonLines<Result>({ stdout }: Finished): Result[] {
  return stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Result);
}
