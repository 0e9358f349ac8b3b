import { readFile } from "node:fs/promises";

import { startRunner, type Orders, type Runner } from "./torture.ts";
import { until } from "./until.ts";

/** Runs the orders in a process of its own until it sleeps at that step. SIGCONT wakes it up. */
export async function sleepAt(step: string, orders: Orders): Promise<Runner> {
  const runner = startRunner(orders, { REPLICATE_FAILPOINT: `${step}:1:stop` });
  let hasEnded = false;
  void runner.ended.then(() => (hasEnded = true));
  await until(`${orders.verbs.join(", ")} sleeps at ${step}`, async () => {
    if (hasEnded) throw new Error(`it ended before ${step}: ${runner.complaint()}`);
    return (await stateOf(runner.pid)) === "T";
  });
  return runner;
}

/** One letter: T is stopped. */
async function stateOf(pid: number): Promise<string | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  return /\) (\w)/.exec(stat)?.[1];
}
