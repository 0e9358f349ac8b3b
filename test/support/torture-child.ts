import { openSync } from "../../src/sync.ts";
import type { SyncOptions } from "../../src/config.ts";
import type { CopyOptions } from "../../src/copy/copy.ts";
import { ReplicateError } from "../../src/errors.ts";
import type { SyncEvent } from "../../src/events.ts";
import type { FollowOptions } from "../../src/follow/follow.ts";

// The process that torture tests kill: runs verbs one after the other, and says on stdout what it has come to, one
// JSON document per line. Its orders are the only argument.

export interface Orders {
  sync: SyncOptions;
  verbs: ("init" | "copy" | "follow" | "drop")[];
  copy?: CopyOptions;
  follow?: FollowOptions;
}

export interface Line {
  /** The verb that begins, "done", "error", or the type of an event. */
  said: string;
  code?: string;
  message?: string;
}

const say = (line: Line): void => {
  process.stdout.write(`${JSON.stringify(line)}\n`);
};

const orders = JSON.parse(process.argv[2] ?? "{}") as Orders;
const stop = new AbortController();
process.once("SIGTERM", () => stop.abort());
const call = {
  signal: stop.signal,
  onEvent: (event: SyncEvent) => {
    const { type } = event;
    if (type === "standing-by") say({ said: type, message: event.runner });
    else if (type !== "copy-progress") say({ said: type });
  },
};
try {
  await using sync = await openSync(orders.sync);
  for (const verb of orders.verbs) {
    say({ said: verb });
    if (verb === "init") await sync.init(call);
    else if (verb === "copy") await sync.copy({ ...orders.copy, ...call });
    else if (verb === "drop") await sync.drop(call);
    else for await (const batch of sync.follow({ ...orders.follow, ...call })) void batch;
  }
  say({ said: "done" });
} catch (error) {
  const { code, message, problems } = error as ReplicateError;
  say({
    said: "error",
    code,
    message: `${message} ${JSON.stringify(problems)} ${(error as Error).stack ?? ""}`,
  });
  process.exitCode = error instanceof ReplicateError ? error.exitCode : 3;
}
