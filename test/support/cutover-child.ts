import { openSync, ReplicateError, type CutoverOptions } from "../../src/index.ts";

// The process that dies in the middle of a cutover or a rollback: source, target, verb and options are its arguments.

const [source = "", target = "", verb, options = "{}"] = process.argv.slice(2);
const stop = new AbortController();
process.once("SIGTERM", () => stop.abort());
try {
  await using sync = await openSync({ name: "shop", source, target, env: {}, keylessLimit: 0 });
  const given = { ...(JSON.parse(options) as CutoverOptions), signal: stop.signal };
  await (verb === "rollback" ? sync.rollback(given) : sync.cutover(given));
} catch (error) {
  process.stderr.write(
    `${error instanceof ReplicateError ? error.code : ""} ${String((error as Error).stack)}\n`,
  );
  process.exitCode = 3;
}
