// A process that copies, for tests that kill it: `copy-child.ts SOURCE TARGET VERB…`. Verbs: copy, follow, drop.
import { openSync } from "../../src/index.ts";

const [source = "", target = "", ...verbs] = process.argv.slice(2);
const sync = await openSync({ source, target, env: {} });
for (const verb of verbs) {
  if (verb === "copy")
    await sync.copy({ jobs: 2, indexJobs: 2, partBytes: 400_000, restart: process.env["RESTART"] === "1" });
  if (verb === "follow") for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
  if (verb === "drop") await sync.drop();
}
await sync[Symbol.asyncDispose]();
