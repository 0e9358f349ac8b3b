/** The console beside a command that runs for long, and how `serve` starts it. */
import { openConsole } from "../console/console.ts";
import { Engine } from "../console/engine.ts";
import { Feed } from "../console/feed.ts";
import type { OnEvent, Sync } from "../index.ts";
import type { Values } from "./options.ts";
import type { Output } from "./output.ts";
import type { Terminal } from "./terminal.ts";
import { version } from "./version.ts";

/** What the console needs of a command. */
interface Surroundings {
  readonly values: Values;
  readonly terminal: Terminal;
  readonly output: Output;
  readonly listeners: Set<OnEvent>;
}

/** What the command does is shown at the address of --listen, until the returned object is disposed. */
export async function listen(
  { values, terminal, output, listeners }: Surroundings,
  sync: Sync,
): Promise<AsyncDisposable> {
  const feed = new Feed(sync);
  listeners.add(feed.onEvent);
  const console = await openConsole({
    listen: values.listen ?? "",
    feeds: [feed],
    version: version(),
    env: terminal.env,
  });
  output.log.info({}, `the console is at ${console.url}`);
  for (const warning of console.warnings) output.log.warn({}, warning);
  return console;
}

/** Runs the console and the sync, until the signal fires. */
export async function serve(
  { values, terminal, output, listeners, signal }: Surroundings & { readonly signal: AbortSignal },
  sync: Sync,
): Promise<void> {
  const feed = new Feed(sync);
  listeners.add(feed.onEvent);
  await using engine = new Engine(sync, feed);
  await using console = await openConsole({
    listen: values.listen ?? "127.0.0.1:8080",
    feeds: [feed],
    version: version(),
    env: terminal.env,
    ...(values["allow-actions"] === true
      ? { act: async (_sync, action, _options, by) => await engine.act(action, by) }
      : {}),
  });
  output.log.info({}, `the console is at ${console.url}`);
  for (const warning of console.warnings) output.log.warn({}, warning);
  await engine.start();
  if (signal.aborted) return;
  await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
}
