import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";

import { failpoints } from "../../src/postgres/failpoint.ts";
import { assertConverged, twoWayPatterns } from "../support/convergence.ts";
import { freePair, type Pair } from "../support/database.ts";
import { seededRandom } from "../support/random.ts";
import { dieAt, runToEnd, type Orders } from "../support/torture.ts";
import { startTwoWayWriters, twoWayRows, twoWaySchema } from "../support/two-way-workload.ts";

// A death at every step whose order matters where changes go both ways, under writes on both sides, so that batches of
// either way die there. The next runner carries on: nothing is lost unlogged, and nothing is there twice.

/**
 * Reached when somebody resolves a conflict, which has tests of its own; and where there are more deltas than these writers
 * leave, which is tested one way.
 */
const elsewhere = ["conflict.begun", "conflict.key-recorded", "rotate.switched"];
const steps = failpoints.filter(
  (name) => /^(batch|conflict|rotate)\./.test(name) && !elsewhere.includes(name),
);

test.for(steps)("a death at %s, both ways", { timeout: 180_000 }, async (step) => {
  const random = seededRandom(`two-way ${step}`);
  await using pair = await freePair({ leaks: "ignore" });
  for (const side of [pair.source, pair.target]) await side.sql(`${twoWaySchema};${twoWayRows}`);
  const orders: Orders = {
    sync: {
      name: "both",
      source: pair.source.url,
      target: pair.target.url,
      tables: twoWayPatterns,
      direction: "both",
      conflict: "latest",
    },
    verbs: ["follow"],
  };
  await runToEnd({ ...orders, verbs: ["init", "copy"], copy: { adopt: true } });
  let lives = 0;
  const startWriters = async (): Promise<() => Promise<void>> => {
    lives += 1;
    const writers = await Promise.all(
      (["source", "target"] as const).map(async (side) => {
        // The name is part of every value, and no value may come twice.
        const name = `${side}${lives}-`;
        return await startTwoWayWriters(pair[side].url, name, random.fork(name), { writers: 2, pauseMs: 60 });
      }),
    );
    return async () => {
      for (const { stop } of writers) expect((await stop()).failures).toEqual([]);
    };
  };
  // Chance alone brings few rows that want the same unique value.
  const isRare = step === "conflict.returned";
  let twins = 0;
  for (const time of isRare ? [1, 1] : [1, random.int(2, 6)]) {
    const stop = await startWriters();
    const state = { isOver: false };
    const colliding = isRare
      ? (async () => {
          for (; !state.isOver; twins += 1) await insertTwins(pair, twins);
        })()
      : undefined;
    try {
      if (step.startsWith("rotate.")) {
        // Few deltas are thrown away when nothing happens any more.
        await sleep(500);
        await stop();
      }
      if (step === "batch.staged") {
        // More than is kept in memory until the source is done, of either side.
        const bulk = `insert into num (id, v, b) select g, 'bulk', decode(repeat(md5(g::text), 40), 'hex')
          from generate_series($1::int, $1::int + 3000) g`;
        await pair.source.sql(bulk, [10_000 * time]);
        await pair.target.sql(bulk, [10_000 * time + 4_000]);
      }
      await dieAt(step === "batch.staged" ? step : `${step}:${time}`, orders);
    } finally {
      state.isOver = true;
      await colliding;
      await stop();
    }
  }
  await runToEnd({ ...orders, follow: { untilCaughtUp: true } });
  await assertConverged([pair.source, pair.target], [orders.sync], { isLatest: true });
});

/** Two rows with one unique value, the later one now on this side, now on the other. */
async function insertTwins(pair: Pair, n: number): Promise<void> {
  const sides = [pair.source, pair.target];
  for (const [at, side] of (n % 2 === 0 ? sides : sides.toReversed()).entries()) {
    await side.sql("insert into member values ($1::int, $2, null, false, $3)", [
      1_000_000 + 2 * n + at,
      `twin-${n}`,
      `twin ${n} ${at}`,
    ]);
  }
  await sleep(50);
}
