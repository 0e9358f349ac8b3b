import { mkdtempSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";

import type { ConflictSetting } from "../../src/config/conflict-policy.ts";
import { openSync } from "../../src/sync.ts";
import { assertConverged, twoWayPatterns } from "../support/convergence.ts";
import { freePair, type Database, type Pair } from "../support/database.ts";
import { startProxy, type Proxy } from "../support/proxy.ts";
import { seededRandom, type Random } from "../support/random.ts";
import { runFolder } from "../support/run-folder.ts";
import { runToEnd, startRunner, type Orders } from "../support/torture.ts";
import { startTwoWayWriters, twoWayRows, twoWaySchema } from "../support/two-way-workload.ts";

// Whatever applications write on both sides at once, and whatever is killed or cut when: in the end both sides are
// equal, nothing comes back, and what was overwritten is in the log.

/** How long each scene is written to. Longer, and with every policy, by REPLICATE_TEST_CONVERGENCE_SECONDS, for a night. */
const given = process.env["REPLICATE_TEST_CONVERGENCE_SECONDS"];
const seconds = Number(given ?? 3);
const all = ["source-wins", "target-wins", "latest", "order", "custom", "skip"] as const;
const tested = given === undefined ? (["latest", "custom", "skip"] as const) : all;

/** Both images are kept in one value, that both sides are told apart by; a row that is gone on one side is gone. */
const merging = `import { createHash } from "node:crypto";
  export default ({ table, source, target }) => {
    // Where a value has to be unique, a row with values of both sides might meet a third one.
    if (table === "public.member") return "target";
    if (source.image === null || target.image === null) return "source";
    const both = [source.image.v, target.image.v].sort().join(" and ");
    return { row: { ...source.image, v: "merged " + createHash("sha1").update(both).digest("hex").slice(0, 16) } };
  };`;

function policies(): Record<(typeof all)[number], ConflictSetting> {
  const folder = mkdtempSync(join(runFolder(), "resolver-"));
  writeFileSync(join(folder, "merging.mjs"), merging);
  return {
    "source-wins": "source-wins",
    "target-wins": "target-wins",
    latest: "latest",
    order: { order: ["two", "one"] },
    custom: { custom: join(folder, "merging.mjs") },
    skip: "skip",
  };
}

test.for(tested)(
  "both sides converge under random writes, kill -9, cuts and absence, with %s",
  { timeout: (seconds + 150) * 1000 },
  async (policy) => {
    const random = seededRandom(`convergence ${policy}`);
    await using pair = await freePair({ leaks: "ignore" });
    for (const side of [pair.source, pair.target]) await side.sql(`${twoWaySchema};${twoWayRows}`);
    await using ways = await startWays(pair);
    const orders: Orders = {
      sync: {
        name: "both",
        source: ways.source.url,
        target: ways.target.url,
        tables: twoWayPatterns,
        direction: "both",
        conflict: policies()[policy],
        nodes: { source: "one", target: "two" },
      },
      verbs: ["follow"],
    };
    await runToEnd({ ...orders, verbs: ["init", "copy"], copy: { adopt: true } });

    const writers = await Promise.all(
      (["source", "target"] as const).map(
        async (side) => await startTwoWayWriters(pair[side].url, side, random.fork(side)),
      ),
    );
    const deaths: string[] = [];
    try {
      const deadline = Date.now() + seconds * 1000;
      while (Date.now() < deadline) deaths.push(await live(orders, ways, random));
    } finally {
      for (const { stop } of writers) {
        const { committed, failures } = await stop();
        expect(failures).toEqual([]);
        expect(committed).toBeGreaterThan(20);
      }
    }
    const drained: Orders = { ...orders, follow: { untilCaughtUp: true } };
    await runToEnd(drained);
    if (policy === "skip") await resolveAll(orders, drained, random);
    const { conflicts } = await assertConverged([pair.source, pair.target], [orders.sync], {
      isLatest: policy === "latest",
      isResolved: policy === "skip",
    });
    process.stderr.write(`${policy}: ${conflicts.length} conflicts; ${deaths.join(", ")}\n`);
    expect(conflicts.length).toBeGreaterThan(0);
  },
); // prettier-ignore

interface Way extends Proxy {
  url: string;
}

/** To each side through a proxy. */
async function startWays(pair: Pair): Promise<{ source: Way; target: Way } & AsyncDisposable> {
  const through = async (database: Database): Promise<Way> => {
    const url = new URL(database.url);
    const proxy = await startProxy({ targetPort: Number(url.port) });
    url.port = String(proxy.port);
    return Object.assign(proxy, { url: url.toString() });
  };
  const [source, target] = [await through(pair.source), await through(pair.target)];
  return {
    source,
    target,
    [Symbol.asyncDispose]: async () => {
      await source.close();
      await target.close();
    },
  };
}

/** One life of a runner, or a while without any. Returns how it ended. */
async function live(orders: Orders, ways: { source: Proxy; target: Proxy }, random: Random): Promise<string> {
  if (random.bool(0.2)) {
    await sleep(random.int(200, 1500));
    return "absence";
  }
  const runner = startRunner(orders);
  await runner.until("batch-applied", "error");
  await sleep(random.int(0, random.pick([50, 500, 2000])));
  const isCut = random.bool(0.4);
  if (isCut) {
    ways[random.pick(["source", "target"] as const)].cutAll();
    await sleep(random.int(0, 600));
  }
  const isKilled = random.bool(0.75);
  runner.kill(isKilled ? "SIGKILL" : "SIGTERM");
  const { code } = await runner.ended;
  if (code !== null && code !== 0) throw new Error(`the runner failed: ${runner.complaint()}`);
  return `${isCut ? "cut, " : ""}${isKilled ? "killed" : "stopped"}`;
}

/** Resolves what is pending, one way or the other, until nothing is. */
async function resolveAll({ sync: options }: Orders, drained: Orders, random: Random): Promise<void> {
  await using sync = await openSync({ ...options, env: {} });
  for (let round = 1; ; round += 1) {
    const pending = await sync.conflicts({ state: "pending", limit: Infinity });
    if (pending.length === 0) return;
    expect(round).toBeLessThan(10);
    for (const { id } of pending) await sync.resolveConflict([id], random.pick(["source", "target"]));
    await runToEnd(drained);
  }
}
