import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import { expect, test } from "vitest";

import { withClient } from "../support/admin.ts";
import { compareDatabases } from "../support/compare.ts";
import { freePair, type Database } from "../support/database.ts";
import { seededRandom, type Random } from "../support/random.ts";
import { runToEnd, startRunner, type Orders } from "../support/torture.ts";
import { brokenInvariants, fillWorkload, startWorkload, workloadSchema } from "../support/workload.ts";

// Promises 1, 2 and 3 at once: whatever is written meanwhile, whatever is killed when, both sides are equal in the
// end, the application never had an error, and every snapshot of the target is one that the source was in.

/** How long kills go on. Longer by REPLICATE_TEST_TORTURE_SECONDS, for a night. */
const seconds = Number(process.env["REPLICATE_TEST_TORTURE_SECONDS"] ?? 45);

test("nothing is lost under random writes and kill -9", { timeout: (seconds + 200) * 1000 }, async () => {
  const random = seededRandom("torture");
  await using pair = await freePair({ leaks: "ignore" });
  await pair.source.sql(workloadSchema);
  await pair.target.sql(workloadSchema);
  await fillWorkload(await pair.source.client(), 2);
  const orders: Orders = {
    sync: { name: "torture", source: pair.source.url, target: pair.target.url, keyless: "reload" },
    verbs: ["init", "copy", "follow"],
    copy: { jobs: 2, partBytes: 64 * 1024, overwrite: true },
  };
  const drained: Orders = { ...orders, follow: { untilCaughtUp: true } };

  const writers = await startWorkload(pair.source.url, random.fork("workload"), { writers: 5 });
  const watch = watchInvariants(pair.target);
  const deaths: string[] = [];
  try {
    const deadline = Date.now() + seconds * 1000;
    for (let round = 1; Date.now() < deadline; round += 1) {
      const roundEnd = Math.min(deadline, Date.now() + random.int(6_000, 15_000));
      while (Date.now() < roundEnd) deaths.push(await killSomewhere(orders, random));
      // One that lives, so that snapshots of a target that follows are looked at, whatever chance did before.
      const survivor = startRunner(orders);
      await survivor.until("batch-applied", "error");
      const checksBefore = watch.checks();
      while (watch.checks() < checksBefore + 10 && survivor.complaint() === "") await sleep(100);
      survivor.kill("SIGTERM");
      expect((await survivor.ended).code, survivor.complaint()).toBe(0);
      if (Date.now() >= deadline) break;
      // And everything once more from the start.
      deaths.push(await killSomewhere({ ...orders, verbs: ["drop"] }, random));
      await dropAll(orders);
    }
  } finally {
    const report = await writers.stop();
    process.stderr.write(`died after: ${deaths.join(", ")}\nwriters: ${JSON.stringify(report)}\n`);
    expect(report.failures).toEqual([]);
    expect(report.committed).toBeGreaterThan(100);
    expect(report.prepared).toBeGreaterThan(0);
  }

  await runToEnd(drained);
  expect(await watch.stop()).toEqual([]);
  const comparison = await compareDatabases(pair.source.url, pair.target.url);
  expect(comparison.differences.slice(0, 10)).toEqual([]);
  expect(comparison.rows).toBeGreaterThan(100);
  expect(await pair.target.sql(brokenInvariants)).toEqual([]);
  await dropAll(orders);
});

/** Also where the one that was killed had nearly done it. */
async function dropAll(orders: Orders): Promise<void> {
  const runner = startRunner({ ...orders, verbs: ["drop"] });
  await runner.ended;
  const error = runner.lines.find((line) => line.said === "error");
  if (error !== undefined && error.code !== "SYNC_UNKNOWN") throw new Error(runner.complaint());
  for (const url of [orders.sync.source, orders.sync.target]) {
    const left = await withClient(String(url), (client) =>
      client.query("select 1 from pg_namespace where nspname = 'replicate'"),
    );
    expect(left.rows).toEqual([]);
  }
}

const steps = [
  "init",
  "capture-installed",
  "capture-waiting",
  "copy",
  "table-copied",
  "index-built",
  "follow",
];

/** Lets a runner come to a step chosen by chance, and a chosen while further, and kills it. Returns where it was. */
async function killSomewhere(orders: Orders, random: Random): Promise<string> {
  const step = random.pick(steps);
  const further = random.int(0, random.pick([10, 200, 1500]));
  const runner = startRunner(orders);
  // Where the step does not come any more, because it was done before, following is as good.
  await runner.until(step, orders.verbs[0] === "drop" ? "drop" : "follow", "error");
  await sleep(further);
  runner.kill();
  const { code } = await runner.ended;
  if (code !== null && code !== 0) throw new Error(`the runner failed: ${runner.complaint()}`);
  return runner.lines.at(-1)?.said ?? "start";
}

interface Watch {
  /** Looks at a target whose tables all followed. */
  checks: () => number;
  /** What was found broken. */
  stop: () => Promise<string[]>;
}

/** Looks at the target again and again, each time in one snapshot. */
function watchInvariants(target: Database): Watch {
  const broken: string[] = [];
  const stopping = new AbortController();
  let checks = 0;
  const watching = (async () => {
    const client = await target.client();
    while (!stopping.signal.aborted) {
      await client.query("begin isolation level repeatable read, read only");
      if (await isFollowing(client)) {
        const { rows } = await client.query(brokenInvariants);
        broken.push(...rows.map((row) => JSON.stringify(row)));
        checks += 1;
      }
      await client.query("commit");
      await sleep(50);
    }
  })();
  return {
    checks: () => checks,
    stop: async () => {
      stopping.abort();
      await watching;
      return broken;
    },
  };
}

/** In the client's snapshot. The sync may be dropped at any moment. */
async function isFollowing(client: pg.Client): Promise<boolean> {
  try {
    const { rows } = await client.query<{ all: boolean }>(
      `select count(*) > 0 and bool_and(state = 'following') as all from replicate.sync_table`,
    );
    return rows[0]?.all === true;
  } catch (error) {
    if ((error as { code?: string }).code !== "42P01") throw error;
    return false;
  }
}
