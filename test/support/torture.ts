import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import type {
  CopyOptions,
  CutoverOptions,
  FollowOptions,
  OpenOptions,
  SyncOptions,
} from "../../src/index.ts";

/** What a process is to do. */
export interface Orders {
  sync: SyncOptions & Pick<OpenOptions, "env">;
  verbs: ("init" | "copy" | "follow" | "cutover" | "rollback" | "drop")[];
  copy?: CopyOptions;
  follow?: FollowOptions;
  /** Of a rollback too. */
  cutover?: CutoverOptions;
}

/** What it says. */
export interface Line {
  /** The verb that begins, "done", "error", or the type of an event. */
  said: string;
  code?: string;
  message?: string;
}

/** A process that replicates and can be killed. */
export interface Runner {
  readonly pid: number;
  /** What it has said so far. */
  readonly lines: readonly Line[];
  /** Resolves when it has said one of these words, or has ended. */
  until: (...said: string[]) => Promise<void>;
  kill: (signal?: NodeJS.Signals) => void;
  /** Resolves when it has ended. */
  ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  /** The error it ended with, for messages. */
  complaint: () => string;
}

const child = fileURLToPath(new URL("torture-child.mjs", import.meta.url));

export function startRunner(orders: Orders, env: Readonly<Record<string, string>> = {}): Runner {
  const process_ = spawn(process.execPath, [child, JSON.stringify(orders)], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...env },
  });
  return new RunnerProcess(process_);
}

class RunnerProcess implements Runner {
  readonly pid: number;
  readonly lines: Line[] = [];
  readonly ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  readonly #process: ChildProcess;
  #errors = "";
  #listeners: (() => void)[] = [];
  #hasEnded = false;

  constructor(child_: ChildProcess) {
    this.#process = child_;
    this.pid = child_.pid ?? 0;
    const { stdout, stderr } = child_;
    if (stdout === null || stderr === null) throw new Error("no pipes");
    createInterface({ input: stdout }).on("line", (text) => {
      try {
        this.lines.push(JSON.parse(text) as Line);
      } catch {
        // The last line of a process that was killed may be cut.
      }
      this.#wake();
    });
    stderr.on("data", (data: Buffer) => {
      this.#errors += data.toString();
    });
    this.ended = once(child_, "close").then(([code, signal]) => {
      this.#hasEnded = true;
      this.#wake();
      return { code: code as number | null, signal: signal as NodeJS.Signals | null };
    });
  }

  #wake(): void {
    for (const listener of this.#listeners.splice(0)) listener();
  }

  async until(...said: string[]): Promise<void> {
    while (!this.#hasEnded && !this.lines.some((line) => said.includes(line.said))) {
      await new Promise<void>((resolve) => {
        this.#listeners.push(resolve);
      });
    }
  }

  kill(signal: NodeJS.Signals = "SIGKILL"): void {
    if (!this.#hasEnded) this.#process.kill(signal);
  }

  complaint(): string {
    const error = this.lines.find((line) => line.said === "error");
    return `${error?.code ?? ""} ${error?.message ?? ""} ${this.#errors}`.trim();
  }
}

/** Runs the orders to their end and throws what went wrong. */
export async function runToEnd(orders: Orders): Promise<readonly Line[]> {
  const runner = startRunner(orders);
  const { code, signal } = await runner.ended;
  if (code !== 0)
    throw new Error(`${orders.verbs.join(", ")} ended with ${code ?? signal}: ${runner.complaint()}`);
  return runner.lines;
}

/** A step that is not come to in this time is not come to, in milliseconds. */
const patienceMs = 60_000;

/** Runs the orders until the process kills itself at a step, as `name:3` at the third time; throws if it does not. */
export async function dieAt(step: string, orders: Orders): Promise<void> {
  const runner = startRunner(orders, { REPLICATE_FAILPOINT: step });
  const patience = setTimeout(() => runner.kill("SIGTERM"), patienceMs);
  const { code, signal } = await runner.ended;
  clearTimeout(patience);
  if (signal === "SIGKILL") return;
  const came = `ended with ${code ?? signal} at ${runner.lines.at(-1)?.said}`;
  throw new Error(`no death at ${step}, but ${came}: ${runner.complaint()}`);
}
