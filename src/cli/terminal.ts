/** What the command line runs in: streams, variables, signals. Tests bring their own. */
import { once } from "node:events";
import { createInterface } from "node:readline/promises";

export interface Stream {
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
  write(text: string): unknown;
}

export interface Terminal {
  readonly env: NodeJS.ProcessEnv;
  readonly stdout: Stream;
  readonly stderr: Stream;
  /** Asks the person in front of it; undefined where there is none. */
  readonly ask?: (question: string, signal: AbortSignal) => Promise<string>;
  /** Names the process, so that `ps` shows no connection strings. */
  readonly setTitle?: (title: string) => void;
  /** Calls back at every request to stop, until the returned function is called. */
  readonly onStop?: (callback: (signal: "SIGINT" | "SIGTERM" | "EPIPE") => void) => () => void;
  /** Ends the process at once. */
  readonly exit?: (code: number) => void;
}

/** The terminal of this process. */
export function processTerminal(): Terminal {
  const { stdin, stdout, stderr, env } = process;
  return {
    env,
    stdout,
    stderr,
    ...(stdin.isTTY && stderr.isTTY
      ? {
          ask: async (question, signal) => {
            // Without line editing, so that Ctrl-C stays a signal.
            const lines = createInterface({ input: stdin, output: stderr, terminal: false });
            try {
              const end = once(lines, "close", { signal }).then(() => "");
              return await Promise.race([lines.question(question, { signal }), end]);
            } finally {
              lines.close();
            }
          },
        }
      : {}),
    setTitle: (title) => {
      process.title = title;
    },
    onStop: (callback) => {
      const onSignal = (signal: NodeJS.Signals): void => callback(signal as "SIGINT" | "SIGTERM");
      // The reader of a pipe went away, as in `replicate … | head`.
      const onError = (error: NodeJS.ErrnoException): void => {
        if (error.code === "EPIPE") callback("EPIPE");
      };
      process.on("SIGINT", onSignal).on("SIGTERM", onSignal);
      stdout.on("error", onError);
      stderr.on("error", onError);
      return () => {
        process.off("SIGINT", onSignal).off("SIGTERM", onSignal);
      };
    },
    exit: (code) => process.exit(code),
  };
}
