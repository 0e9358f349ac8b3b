import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";

import type { ConflictSetting } from "../../src/config/conflict-policy.ts";
import { assertConverged, twoWayPatterns } from "../support/convergence.ts";
import { freePair } from "../support/database.ts";
import { seededRandom } from "../support/random.ts";
import { runToEnd, startRunner, type Orders } from "../support/torture.ts";
import { startTwoWayWriters, twoWayRows, twoWaySchema } from "../support/two-way-workload.ts";

// Three databases that all take writes: every change reaches each of them once, and the same one wins everywhere.

/** How long each scene is written to. Longer, and with more scenes, by REPLICATE_TEST_CONVERGENCE_SECONDS, for a night. */
const given = process.env["REPLICATE_TEST_CONVERGENCE_SECONDS"];
const isLong = given !== undefined;
const seconds = Number(given ?? 3);

const policies = {
  latest: "latest",
  "source-wins": "source-wins",
  "target-wins": "target-wins",
  order: { order: ["two", "three", "one"] },
} satisfies Record<string, ConflictSetting>;
const scenes = (["star", "chain"] as const).flatMap((form) =>
  (Object.keys(policies) as (keyof typeof policies)[]).map((policy) => [form, policy] as const),
);

const quickScenes = [
  ["star", "source-wins"],
  ["chain", "latest"],
] as const;

test.for(isLong ? scenes : quickScenes)(
  "three databases in a %s converge under random writes and kill -9, with %s",
  { timeout: (seconds + 170) * 1000 },
  async ([form, policy]) => {
    const random = seededRandom(`convergence ${form} ${policy}`);
    await using first = await freePair({ leaks: "ignore" });
    await using second = await freePair({ leaks: "ignore" });
    const databases = { one: first.source, two: first.target, three: second.target };
    for (const each of Object.values(databases)) await each.sql(`${twoWaySchema};${twoWayRows}`);
    const orders = (
      [
        ["s1", "one", "two"],
        ["s2", form === "star" ? "one" : "two", "three"],
      ] as const
    ).map(([name, source, target]): Orders => ({
      sync: {
        name,
        source: databases[source].url,
        target: databases[target].url,
        tables: twoWayPatterns,
        direction: "both",
        conflict: policies[policy],
        nodes: { source, target },
      },
      verbs: ["follow"],
    }));
    for (const each of orders) await runToEnd({ ...each, verbs: ["init", "copy"], copy: { adopt: true } });

    const writers = await Promise.all(
      Object.entries(databases).map(
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
    const { conflicts } = await assertConverged(
      Object.values(databases),
      orders.map(({ sync }) => sync),
      { isLatest: policy === "latest" },
    );
    process.stderr.write(`${form} ${policy}: ${conflicts.length} conflicts\n`);
    expect(conflicts.length).toBeGreaterThan(0);
  },
);
