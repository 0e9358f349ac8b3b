import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";

import { assertConverged, twoWayPatterns } from "../support/convergence.ts";
import { freePair } from "../support/database.ts";
import { seededRandom } from "../support/random.ts";
import { runToEnd, startRunner, type Orders } from "../support/torture.ts";
import { startTwoWayWriters, twoWayRows, twoWaySchema } from "../support/two-way-workload.ts";

// Three databases that all take writes: every change reaches each of them once, and the later one wins everywhere.

/** How long each scene is written to. Longer, and with more scenes, by REPLICATE_TEST_CONVERGENCE_SECONDS, for a night. */
const given = process.env["REPLICATE_TEST_CONVERGENCE_SECONDS"];
const isLong = given !== undefined;
const seconds = Number(given ?? 3);

test.for(isLong ? (["star", "chain"] as const) : (["star"] as const))(
  "three databases in a %s converge under random writes and kill -9",
  { timeout: (seconds + 170) * 1000 },
  async (form) => {
    const random = seededRandom(`convergence ${form}`);
    await using first = await freePair({ leaks: "ignore" });
    await using second = await freePair({ leaks: "ignore" });
    const [a, b, c] = [first.source, first.target, second.target];
    for (const each of [a, b, c]) await each.sql(`${twoWaySchema};${twoWayRows}`);
    const orders = [["s1", a, b], form === "star" ? ["s2", a, c] : ["s2", b, c]].map(([name, source, target]): Orders => ({
      sync: {
        name: name as string,
        source: (source as typeof a).url,
        target: (target as typeof a).url,
        tables: twoWayPatterns,
        direction: "both",
        conflict: "latest",
      },
      verbs: ["follow"],
    })); // prettier-ignore
    for (const each of orders) await runToEnd({ ...each, verbs: ["init", "copy"], copy: { adopt: true } });

    const writers = await Promise.all(
      Object.entries({ a, b, c }).map(
        async ([side, { url }]) => await startTwoWayWriters(url, side, random.fork(side), { writers: 2 }),
      ),
    );
    try {
      const deadline = Date.now() + seconds * 1000;
      while (Date.now() < deadline) {
        const runners = orders.map((each) => startRunner(each));
        for (const runner of runners) await runner.until("batch-applied", "error");
        await sleep(random.int(0, 2500));
        for (const runner of runners) {
          runner.kill(random.bool(0.7) ? "SIGKILL" : "SIGTERM");
          const { code } = await runner.ended;
          expect(code ?? 0, runner.complaint()).toBe(0);
        }
      }
    } finally {
      for (const { stop } of writers) {
        const { committed, failures } = await stop();
        expect(failures).toEqual([]);
        expect(committed).toBeGreaterThan(10);
      }
    }
    // What one brings to the middle is news for the other.
    for (let round = 1; ; round += 1) {
      const lines = [];
      for (const each of orders)
        lines.push(...(await runToEnd({ ...each, follow: { untilCaughtUp: true } })));
      if (!lines.some(({ said }) => said === "batch-applied")) break;
      expect(round).toBeLessThan(10);
    }
    const { conflicts } = await assertConverged([a, b, c], orders.map(({ sync }) => sync), { isLatest: true }); // prettier-ignore
    process.stderr.write(`${form}: ${conflicts.length} conflicts\n`);
    expect(conflicts.length).toBeGreaterThan(0);
  },
);
