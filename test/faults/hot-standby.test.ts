import { hostname } from "node:os";
import { expect, test } from "vitest";

import { openSync } from "../../src/index.ts";
import { freePair, type Pair } from "../support/database.ts";
import { assertEqual, untilTold } from "../support/fault-scene.ts";
import { openFollowed } from "../support/follow-setup.ts";
import { seededRandom } from "../support/random.ts";
import { startRunner, type Orders, type Runner } from "../support/torture.ts";
import { until } from "../support/until.ts";
import { fillWorkload, startWorkload, workloadSchema } from "../support/workload.ts";

// A second runner that waits for the first one's end: it takes over by itself, and never do two of them write.

interface Scene extends AsyncDisposable {
  pair: Pair;
  orders: Orders;
  start: (options?: { standby?: boolean }) => Runner;
  batches: () => Promise<number>;
  /** Writers and runners end; drains and compares. */
  finish: () => Promise<void>;
}

async function play(): Promise<Scene> {
  const pair = await freePair({ leaks: "ignore" });
  await pair.source.sql(workloadSchema);
  await pair.target.sql(workloadSchema);
  const followed = await openFollowed(pair, { name: "pairs", keyless: "reload" });
  await fillWorkload(await pair.source.client(), 0.3);
  const writers = await startWorkload(pair.source.url, seededRandom("standby"), {
    writers: 2,
    longTransactions: false,
    preparedTransactions: false,
  });
  const runners: Runner[] = [];
  const orders: Orders = {
    sync: { name: "pairs", source: pair.source.url, target: pair.target.url },
    verbs: ["follow"],
  };
  const endAll = async (): Promise<void> => {
    for (const runner of runners) runner.kill("SIGKILL");
    await Promise.all(runners.map(async (runner) => await runner.ended));
  };
  return {
    pair,
    orders,
    start: (options = {}) => {
      const runner = startRunner({ ...orders, follow: options });
      runners.push(runner);
      return runner;
    },
    batches: async () => {
      const [row] = await pair.target.sql<{ n: string }>("select batches as n from replicate.sync");
      return Number(row?.n);
    },
    finish: async () => {
      expect((await writers.stop()).failures).toEqual([]);
      await endAll();
      await until(
        "the dead runner's session is gone",
        async () => !(await followed.sync.status()).runner.alive,
      );
      await followed.drain();
      await assertEqual(pair);
    },
    [Symbol.asyncDispose]: async () => {
      await writers.stop().catch(() => undefined);
      await endAll();
      await followed[Symbol.asyncDispose]();
      await pair.dispose();
    },
  };
}

async function nextBatch(scene: Scene): Promise<void> {
  const before = await scene.batches();
  await until("a batch", async () => (await scene.batches()) > before);
}

test("the first one dies: the second goes on", { timeout: 120_000 }, async () => {
  await using scene = await play();
  const first = scene.start();
  await first.until("batch-applied", "error");
  const refused = scene.start();
  expect((await refused.ended).code).toBe(4);
  const second = scene.start({ standby: true });
  await second.until("standing-by", "error");
  expect(second.complaint()).toBe("");
  await nextBatch(scene);
  expect(second.lines.map(({ said }) => said)).not.toContain("batch-applied");
  first.kill("SIGKILL");
  await first.ended;
  await second.until("batch-applied", "error");
  expect(second.lines.map(({ said }) => said)).toContain("taken-over");
  await using observer = await openSync({ ...scene.orders.sync, env: {} });
  await untilTold(observer, "the second one runs", ({ runner }) => runner.alive && runner.pid === second.pid);
  // And the other way round, when it ends as it should.
  const third = scene.start({ standby: true });
  await third.until("standing-by", "error");
  expect(third.lines.find(({ said }) => said === "standing-by")?.message).toContain(
    `process ${second.pid} on ${hostname()}`,
  );
  second.kill("SIGTERM");
  expect((await second.ended).code).toBe(0);
  await third.until("batch-applied", "error");
  expect(third.complaint()).toBe("");
  await scene.finish();
});

test("the first one sleeps: it has lost the sync when it wakes up", { timeout: 120_000 }, async () => {
  await using scene = await play();
  const first = scene.start();
  await first.until("batch-applied", "error");
  const second = scene.start({ standby: true });
  await second.until("standing-by", "error");
  first.kill("SIGSTOP");
  await second.until("batch-applied", "error");
  expect(second.complaint()).toBe("");
  expect(second.lines.map(({ said }) => said)).toEqual(expect.arrayContaining(["warning", "taken-over"]));
  await nextBatch(scene);
  await nextBatch(scene);
  const applied = first.lines.filter(({ said }) => said === "batch-applied").length;
  first.kill("SIGCONT");
  expect((await first.ended).code).toBe(4);
  expect(first.complaint()).toContain("RUNNER_ACTIVE");
  // What it had read already it may have told, but nothing it did came after the other's first batch.
  expect(first.lines.filter(({ said }) => said === "batch-applied").length).toBeLessThanOrEqual(applied + 1);
  await nextBatch(scene);
  expect(second.complaint()).toBe("");
  await using observer = await openSync({ ...scene.orders.sync, env: {} });
  // The one that lost it has not left its complaint there.
  expect((await observer.status()).lastError?.cleared).not.toBe(false);
  await scene.finish();
});

test("two that wait: each time one takes over", { timeout: 120_000 }, async () => {
  await using scene = await play();
  const waiting = [scene.start({ standby: true })];
  await waiting[0]?.until("batch-applied", "error");
  waiting.push(scene.start({ standby: true }), scene.start({ standby: true }));
  await Promise.all(waiting.slice(1).map(async (runner) => await runner.until("standing-by", "error")));
  for (let left = waiting.length; left > 1; left -= 1) {
    const holder = await until("somebody has it", async () => {
      const [row] = await scene.pair.target.sql<{ pid: number }>("select pid from replicate.runner");
      return waiting.find(({ pid }) => pid === row?.pid);
    });
    holder.kill("SIGKILL");
    await holder.ended;
    waiting.splice(waiting.indexOf(holder), 1);
    await nextBatch(scene);
  }
  expect(waiting.map((runner) => runner.complaint())).toEqual([""]);
  await scene.finish();
});
