import { cp, rm } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";

import { openSync, type Status, type Sync } from "../../src/index.ts";
import { urlWith, withClient } from "../support/admin.ts";
import { startCluster, type Cluster } from "../support/cluster.ts";
import { compareDatabases } from "../support/compare.ts";
import { freePair, type Pair } from "../support/database.ts";
import { isWrong, startProxies, untilTold, type Proxies } from "../support/fault-scene.ts";
import { makeSynchronous, replaceData, startStandby } from "../support/physical-copy.ts";
import { until } from "../support/until.ts";

// A source that is another one than it was: where it lacks what was applied, it is not followed, and status says so; where
// it has everything, as a standby that was promoted, the runner just goes on.

let target: Cluster;
beforeAll(async () => {
  target = await startCluster({ version: "18", fsync: false });
});
afterAll(async () => {
  await target.stop();
});

const schema = "create table t (id int primary key, note text)";

async function openPair(pair: Pair, urls?: Proxies["ways"]): Promise<Sync> {
  await pair.source.sql(schema);
  await pair.target.sql(schema);
  const sync = await openSync({
    source: urls?.source(pair.source.url) ?? pair.source.url,
    target: pair.target.url,
    env: {},
  });
  await sync.init();
  await sync.copy();
  return sync;
}

async function drain(sync: Sync): Promise<void> {
  for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
}

/** By a connection of its own, again until the server takes it. */
async function insert(url: string, id: number): Promise<void> {
  await until(`row ${id} is in`, async () =>
    await withClient(url, async (client) => await client.query("insert into t values ($1)", [id]))
      .then(() => true, (error: { code?: string }) => error.code === "23505"),
  ); // prettier-ignore
}

/** What somebody reads who looks at it at three in the morning. */
async function assertLost(sync: Sync): Promise<void> {
  const status: Status = await untilTold(sync, "what is wrong", isWrong);
  expect(status).toMatchObject({ phase: "failed", lastError: { code: "SOURCE_LOST" } });
  expect(status.lastError?.hint).toContain("Bring the right source back");
}

test("the source is put back to an older copy of its data", { timeout: 240_000 }, async (context) => {
  await using source = await startCluster({ version: "13", fsync: false });
  if (source.dataDir === undefined) return context.skip("the server runs in a container");
  const copy = `${source.dataDir}-older`;
  await using pair = await freePair({ source, target, leaks: "ignore" });
  await using sync = await openPair(pair);
  await insert(pair.source.url, 1);
  await drain(sync);
  await source.kill9();
  await cp(source.dataDir, copy, { recursive: true, preserveTimestamps: true });
  await source.restart();
  // A crash alone is no loss.
  await insert(pair.source.url, 2);
  await drain(sync);
  await insert(pair.source.url, 3);
  await drain(sync);
  await source.kill9();
  await replaceData(copy, source.dataDir);
  await rm(copy, { recursive: true });
  await source.restart();
  await insert(pair.source.url, 100);
  await expect(drain(sync)).rejects.toMatchObject({ code: "SOURCE_LOST", exitCode: 3 });
  await assertLost(sync);
  await expect(sync.verify()).rejects.toMatchObject({ code: "SOURCE_LOST" });
  await expect(sync.cutover()).rejects.toMatchObject({ code: "SOURCE_LOST" });
  await insert(pair.source.url, 101);
  expect(await pair.target.sql("select id from t order by id")).toEqual([{ id: 1 }, { id: 2 }, { id: 3 }]);
  await sync.drop();
});

test("the source's standby is promoted, and has everything", { timeout: 240_000 }, async (context) => {
  await using source = await startCluster({ version: "13", fsync: false });
  if (source.dataDir === undefined) return context.skip("the server runs in a container");
  const pair = await freePair({ source, target, leaks: "ignore" });
  await using proxies = await startProxies({ source, target });
  const name = proxies.ways.source(pair.source.url);
  await using sync = await openPair(pair, proxies.ways);
  await using standby = await startStandby(source);
  await until("the primary is back", async () => await pair.source.sql("select 1").then(() => true, () => false)); // prettier-ignore
  await makeSynchronous(async (text) => await pair.source.sql(text));
  const stop = new AbortController();
  let batches = 0;
  const losses: string[] = [];
  const running = (async () => {
    const options = {
      signal: stop.signal,
      onEvent: (event: { type: string; message?: string }) => {
        if (event.type === "connection-lost") losses.push(event.message ?? "");
      },
    };
    for await (const batch of sync.follow(options)) {
      void batch;
      batches += 1;
    }
  })();
  running.catch(() => undefined);
  let isWriting = true;
  const writing = (async () => {
    for (let id = 1; isWriting || id < 50; id += 1) {
      await insert(name, id);
      await sleep(5);
    }
  })();
  try {
    await until("it follows", () => batches > 5);
    await source.kill9();
    await until("the loss is told", () => losses.length > 0);
    await withClient(standby.adminUrl, async (client) => await client.query("select pg_promote()"));
    proxies.source.retarget(standby.port);
    const before = batches;
    await until("it goes on from the one that was promoted", () => batches > before + 5);
  } finally {
    isWriting = false;
    await writing;
    stop.abort();
    await running;
  }
  await drain(sync);
  const promoted = urlWith(standby.adminUrl, { database: pair.source.name });
  const { differences, rows } = await compareDatabases(promoted, pair.target.url);
  expect(differences).toEqual([]);
  expect(rows).toBeGreaterThanOrEqual(49);
  expect((await sync.verify()).equal).toBe(true);
  await sync.drop();
});

test("the source's standby is promoted, and lacks something", { timeout: 240_000 }, async (context) => {
  await using source = await startCluster({ version: "13", fsync: false });
  if (source.dataDir === undefined) return context.skip("the server runs in a container");
  const pair = await freePair({ source, target, leaks: "ignore" });
  await using proxies = await startProxies({ source, target });
  await using sync = await openPair(pair, proxies.ways);
  await insert(pair.source.url, 1);
  await drain(sync);
  await using standby = await startStandby(source);
  await standby.down("fast");
  await insert(pair.source.url, 2);
  await drain(sync);
  await source.kill9();
  await standby.restart();
  await withClient(standby.adminUrl, async (client) => await client.query("select pg_promote()"));
  proxies.source.retarget(standby.port);
  const promoted = urlWith(standby.adminUrl, { database: pair.source.name });
  await insert(promoted, 3);
  await expect(drain(sync)).rejects.toMatchObject({ code: "SOURCE_LOST", exitCode: 3 });
  await assertLost(sync);
  expect(await pair.target.sql("select id from t order by id")).toEqual([{ id: 1 }, { id: 2 }]);
});
