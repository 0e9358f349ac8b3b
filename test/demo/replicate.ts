import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const program = fileURLToPath(new URL("../../bin/replicate.js", import.meta.url));

/** Calls the program as a person would, with both servers named by variables. */
export class Replicate {
  readonly #env: NodeJS.ProcessEnv;
  readonly #children = new Set<ChildProcess>();

  constructor(env: NodeJS.ProcessEnv) {
    this.#env = { ...process.env, ...env };
  }

  /** Shows the command and all it says. Throws unless it ends with exit code 0. */
  async run(...args: readonly string[]): Promise<void> {
    // On a terminal the program draws its progress there itself.
    const child = this.#spawn(args, process.stdout.isTTY ? "inherit" : "pipe");
    await this.#end(child, args);
  }

  /** Starts a command that goes on until it is stopped. */
  start(...args: readonly string[]): { stop: () => Promise<void> } {
    const child = this.#spawn(args, "pipe");
    const ended = this.#end(child, args);
    // Whoever stops it hears about the failure.
    ended.catch(() => undefined);
    return {
      stop: async () => {
        child.kill("SIGTERM");
        await ended;
      },
    };
  }

  /** Ends what is still running, and waits for it. */
  async stopAll(): Promise<void> {
    await Promise.all(
      Array.from(this.#children, async (child) => {
        child.kill("SIGKILL");
        if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
      }),
    );
  }

  #spawn(args: readonly string[], output: "inherit" | "pipe"): ChildProcess {
    console.log(`\n  $ replicate ${args.join(" ")}`);
    const child = spawn(process.execPath, [program, ...args], {
      env: this.#env,
      stdio: ["ignore", output, output],
    });
    for (const stream of [child.stdout, child.stderr]) {
      if (stream !== null) createInterface({ input: stream }).on("line", (line) => console.log(`  ${line}`));
    }
    this.#children.add(child);
    child.once("exit", () => this.#children.delete(child));
    return child;
  }

  async #end(child: ChildProcess, args: readonly string[]): Promise<void> {
    // "close" comes after the last line of its output.
    const [code, signal] = (await once(child, "close")) as [number | null, string | null];
    if (code !== 0) throw new Error(`replicate ${args.join(" ")} ended with ${code ?? signal}`);
  }
}
