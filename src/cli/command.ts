/** What every command is given, and what the commands share. */
import { ReplicateError, openSync, type OnEvent, type Sync, type SyncOptions } from "../index.ts";
import type { Values } from "./options.ts";
import type { VerbName } from "./verbs.ts";
import type { Output } from "./output.ts";
import type { Progress } from "./progress.ts";
import type { Terminal } from "./terminal.ts";

export interface CommandContext {
  readonly verb: VerbName;
  /** Words after the verb. */
  readonly operands: readonly string[];
  readonly values: Values;
  /** Flags, variables and file put together and checked. */
  readonly options: SyncOptions;
  readonly terminal: Terminal;
  readonly output: Output;
  readonly progress: Progress;
  /** Who hears the library's events: the terminal, and whoever joins in. */
  readonly listeners: Set<OnEvent>;
  /** Fires at the first request to stop. */
  readonly signal: AbortSignal;
}

/** Does what the verb says and prints the result; returns the exit code. Throws ReplicateError. */
export type Command = (context: CommandContext) => Promise<number>;

/** Verbs that print one line of JSON per event and a last one with the result, instead of one document. */
export function printsLines(verb: VerbName): boolean {
  return verb === "copy" || verb === "follow" || verb === "run";
}

/** Opens the sync of a command, and its console where one is asked for. */
export async function open(context: CommandContext): Promise<Sync> {
  const sync = await openHeard(context);
  if (context.values.listen === undefined) return sync;
  try {
    // Loaded only where it is wanted: most commands are over before it would be.
    const { listen } = await import("./listen.ts");
    const console = await listen(context, sync);
    return {
      ...sync,
      [Symbol.asyncDispose]: async () => {
        await console[Symbol.asyncDispose]();
        await sync[Symbol.asyncDispose]();
      },
    };
  } catch (error) {
    await sync[Symbol.asyncDispose]();
    throw error;
  }
}

/** The sync, whose events go to all listeners. */
export async function openHeard({ options, output, listeners, terminal }: CommandContext): Promise<Sync> {
  const onEvent: OnEvent = (event) => {
    for (const listener of listeners) listener(event);
  };
  return await openSync({ ...options, logger: output.log, onEvent, env: terminal.env });
}

/** The result for programs. */
export function printResult({ verb, output }: CommandContext, result: object): void {
  if (printsLines(verb)) output.line({ type: "result", verb, ...result });
  else output.document(result);
}

/** Whether the work ended because a person asked for it, which may cut its connections. */
export function wasStopped(error: unknown, signal: AbortSignal): boolean {
  return (
    signal.aborted && error instanceof ReplicateError && ["ABORTED", "CONNECTION_LOST"].includes(error.code)
  );
}

/** How to call the program again for this sync. */
export function nextCommand({ options }: CommandContext, command: string): string {
  return `replicate ${command}${options.name === undefined || options.name === "default" ? "" : ` --name ${options.name}`}`;
}
