// The process that tests kill: runs verbs one after the other, and says on stdout what it has come to, one JSON document
// per line. Its orders are the only argument. It is no TypeScript, and runs the package as it was built, because it is
// started hundreds of times, and each time compiling would take longer than starting.
import { openSync, ReplicateError } from "pg-replicate";

/** @typedef {import("./torture.ts").Line} Line */

/** @type {(line: Line) => void} */
const say = (line) => void process.stdout.write(`${JSON.stringify(line)}\n`);

/** @type {import("./torture.ts").Orders} */
const orders = JSON.parse(process.argv[2] ?? "{}");
const stop = new AbortController();
process.once("SIGTERM", () => stop.abort());
const call = {
  signal: stop.signal,
  /** @param {import("pg-replicate").SyncEvent} event */
  onEvent: (event) => {
    const { type } = event;
    if (type === "standing-by") say({ said: type, message: event.runner });
    else if (type !== "copy-progress") say({ said: type });
  },
};
let sync;
try {
  sync = await openSync(orders.sync);
  for (const verb of orders.verbs) {
    say({ said: verb });
    if (verb === "init") await sync.init(call);
    else if (verb === "copy") await sync.copy({ ...orders.copy, ...call });
    else if (verb === "cutover") await sync.cutover({ ...orders.cutover, ...call });
    else if (verb === "rollback") await sync.rollback({ ...orders.cutover, ...call });
    else if (verb === "drop") await sync.drop(call);
    else for await (const batch of sync.follow({ ...orders.follow, ...call })) void batch;
  }
  say({ said: "done" });
} catch (error) {
  const { code, message, problems, stack } = /** @type {ReplicateError} */ (error);
  say({ said: "error", code, message: `${message} ${JSON.stringify(problems)} ${stack ?? ""}` });
  process.exitCode = error instanceof ReplicateError ? error.exitCode : 3;
} finally {
  await sync?.[Symbol.asyncDispose]();
}
