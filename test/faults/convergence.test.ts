import { mkdtempSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";

import type { ConflictSetting } from "../../src/conflict-policy.ts";
import { openSync } from "../../src/sync.ts";
import type { SyncOptions } from "../../src/config.ts";
import { compareDatabases } from "../support/compare.ts";
import { freePair, type Database, type Pair } from "../support/database.ts";
import { startProxy, type Proxy } from "../support/proxy.ts";
import { seededRandom, type Random } from "../support/random.ts";
import { runFolder } from "../support/run-folder.ts";
import { runToEnd, startRunner, type Orders } from "../support/torture.ts";
import { deltasOf, takeAccount, type Account } from "../support/two-way-account.ts";
import { startTwoWayWriters, twoWayRows, twoWaySchema, twoWayTables } from "../support/two-way-workload.ts";

// Whatever applications write on both sides at once, and whatever is killed or cut when: in the end both sides are
// equal, nothing comes back, and what was overwritten is in the log.

/** How long each scene is written to. Longer by REPLICATE_TEST_CONVERGENCE_SECONDS, for a night. */
const seconds = Number(process.env["REPLICATE_TEST_CONVERGENCE_SECONDS"] ?? 6);

const tables = twoWayTables.map((table) => `public.${table}`);

/** Both images are kept in one value, that both sides are told apart by; a row that is gone on one side is gone. */
const merging = `import { createHash } from "node:crypto";
  export default ({ table, source, target }) => {
    // Where a value has to be unique, a row with values of both sides might meet a third one.
    if (table === "public.member") return "target";
    if (source.image === null || target.image === null) return "source";
    const both = [source.image.v, target.image.v].sort().join(" and ");
    return { row: { ...source.image, v: "merged " + createHash("sha1").update(both).digest("hex").slice(0, 16) } };
  };`;

function policies(): Record<string, ConflictSetting> {
  const folder = mkdtempSync(join(runFolder(), "resolver-"));
  writeFileSync(join(folder, "merging.mjs"), merging);
  return {
    "source-wins": "source-wins",
    "target-wins": "target-wins",
    latest: "latest",
    order: { order: ["two", "one"] },
    custom: { custom: join(folder, "merging.mjs") },
  };
}

test.for(["source-wins", "target-wins", "latest", "order", "custom"])(
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
        tables,
        direction: "both",
        conflict: policies()[policy] as ConflictSetting,
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
    await runToEnd({ ...orders, follow: { untilCaughtUp: true } });
    const { conflicts } = await assertConverged([pair.source, pair.target], [orders.sync], policy === "latest");
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

/** All are equal, nothing moves any more, no delta is left, and the log has what was overwritten. */
async function assertConverged(
  sides: readonly Database[],
  syncs: readonly SyncOptions[],
  isLatest: boolean,
): Promise<Account> {
  const [first, ...others] = sides;
  for (const other of others) {
    const { differences, rows } = await compareDatabases((first as Database).url, other.url, tables);
    expect(differences.slice(0, 10)).toEqual([]);
    expect(rows).toBeGreaterThan(5);
  }
  const account = await takeAccount(sides, isLatest);
  expect(account.wrong.slice(0, 10)).toEqual([]);
  await assertNoEcho(sides, syncs);
  return account;
}

/** Follows until every delta table is empty, and sees no batch meanwhile. */
async function assertNoEcho(sides: readonly Database[], syncs: readonly SyncOptions[]): Promise<void> {
  const stop = new AbortController();
  const batches: unknown[] = [];
  const running = syncs.map(async (options) => {
    await using sync = await openSync({ ...options, env: {} });
    for await (const batch of sync.follow({ signal: stop.signal })) batches.push(batch);
  });
  try {
    const deadline = Date.now() + 60_000;
    while ((await deltasOf(sides)) > 0) {
      if (Date.now() > deadline) throw new Error("deltas are left");
      await sleep(100);
    }
  } finally {
    stop.abort();
    await Promise.all(running);
  }
  expect(batches).toEqual([]);
}
