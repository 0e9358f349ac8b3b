import { cp, rm } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";

import { openSync } from "../../src/index.ts";
import { urlWith, withClient } from "../support/admin.ts";
import { startCluster, type Cluster } from "../support/cluster.ts";
import { compareDatabases } from "../support/compare.ts";
import { freePair, type Pair } from "../support/database.ts";
import { startProxy, type Proxy } from "../support/proxy.ts";
import { seededRandom } from "../support/random.ts";
import { openFollowed } from "../postgres/follow-setup.ts";
import {
  brokenInvariants,
  fillWorkload,
  startWorkload,
  workloadSchema,
  type Workload,
} from "../support/workload.ts";

// Servers restart, networks break: a runner carries on by itself from where the target is, and nothing is lost.

let source: Cluster;
let target: Cluster;
beforeAll(async () => {
  [source, target] = await Promise.all([
    startCluster({ version: "13", fsync: false }),
    startCluster({ version: "18", fsync: false }),
  ]);
});
afterAll(async () => {
  await Promise.all([source.stop(), target.stop()]);
});

interface Scene extends AsyncDisposable {
  pair: Pair;
  events: string[];
  /** Resolves when a batch was applied whose number is later than the last one at the call. */
  nextBatch: () => Promise<void>;
  /** Stops writers and runner, drains, and compares. */
  finish: () => Promise<void>;
  workload: Workload;
}

/** Writers on the source, and a runner in this process that follows, perhaps through proxies. */
async function play(urls?: {
  source: (url: string) => string;
  target: (url: string) => string;
}): Promise<Scene> {
  const random = seededRandom("reconnect");
  const pair = await freePair({ source, target, leaks: "ignore" });
  await pair.source.sql(workloadSchema);
  await pair.target.sql(workloadSchema);
  const given = {
    source: urls?.source(pair.source.url) ?? pair.source.url,
    target: urls?.target(pair.target.url) ?? pair.target.url,
  };
  const followed = await openFollowed(
    {
      source: { ...pair.source, url: given.source, sql: pair.source.sql },
      target: { ...pair.target, url: given.target, sql: pair.target.sql },
    },
    { keyless: "reload" },
  );
  const client = await pair.source.client();
  await fillWorkload(client, 0.3);
  const workload = await startWorkload(pair.source.url, random, {
    writers: 2,
    longTransactions: false,
    preparedTransactions: false,
    truncates: false,
  });
  const stop = new AbortController();
  let last = 0;
  let failure: unknown;
  const events: string[] = [];
  const running = (async () => {
    try {
      const batches = followed.sync.follow({ signal: stop.signal, onEvent: ({ type }) => events.push(type) });
      for await (const batch of batches) last = batch.number;
    } catch (error) {
      failure = error;
    }
  })();
  const scene: Scene = {
    pair,
    events,
    workload,
    nextBatch: async () => {
      const before = last;
      const deadline = Date.now() + 90_000;
      while (last <= before) {
        if (failure !== undefined) throw failure;
        if (Date.now() > deadline) throw new Error(`no batch after ${events.slice(-5).join(", ")}`);
        await sleep(20);
      }
    },
    finish: async () => {
      await workload.stop();
      stop.abort();
      await running;
      if (failure !== undefined) throw failure;
      await followed.drain();
      const { differences, rows } = await compareDatabases(pair.source.url, pair.target.url);
      expect(differences.slice(0, 5)).toEqual([]);
      expect(rows).toBeGreaterThan(100);
      const broken = await withClient(pair.target.url, async (each) => await each.query(brokenInvariants));
      expect(broken.rows).toEqual([]);
    },
    [Symbol.asyncDispose]: async () => {
      stop.abort();
      await workload.stop().catch(() => undefined);
      await running;
      await followed[Symbol.asyncDispose]();
      await pair.dispose();
    },
  };
  await scene.nextBatch();
  return scene;
}

for (const way of ["fast", "immediate", "kill9"] as const) {
  test(`the target restarts: ${way}`, { timeout: 180_000 }, async () => {
    await using scene = await play();
    if (way === "kill9") await target.kill9();
    await target.restart(way === "fast" ? "fast" : "immediate");
    await scene.nextBatch();
    await scene.nextBatch();
    expect(scene.events).toContain("connection-lost");
    expect(scene.events).toContain("connection-restored");
    await scene.finish();
  });

  test(`the source restarts: ${way}`, { timeout: 180_000 }, async () => {
    await using scene = await play();
    // The writers' connections go with the server; they are not the subject.
    await scene.workload.stop();
    await scene.pair.source.sql("update accounts set owner = 'before'");
    if (way === "kill9") await source.kill9();
    await source.restart(way === "fast" ? "fast" : "immediate");
    const next = scene.nextBatch();
    for (;;) {
      try {
        await scene.pair.source.sql("update accounts set owner = 'after'");
        break;
      } catch {
        await sleep(100);
      }
    }
    await next;
    await scene.finish();
    expect(scene.events).toContain("connection-lost");
  });
}

test("the network: cut, and silent for twenty seconds", { timeout: 240_000 }, async () => {
  await using proxies = await startProxies();
  await using scene = await play(proxies.urls);
  for (const proxy of [proxies.source, proxies.target]) {
    proxy.cutAll();
    await scene.nextBatch();
    await scene.nextBatch();
  }
  for (const proxy of [proxies.source, proxies.target]) {
    proxy.blackhole(true);
    await sleep(20_000);
    proxy.blackhole(false);
    await scene.nextBatch();
    await scene.nextBatch();
  }
  await proxies.target.refuse(true);
  proxies.target.cutAll();
  await sleep(2000);
  await proxies.target.refuse(false);
  await scene.nextBatch();
  await scene.finish();
});

test("each of our sessions is ended by an administrator", { timeout: 180_000 }, async () => {
  await using scene = await play();
  const ended = new Set<string>();
  for (let round = 0; round < 3; round += 1) {
    for (const side of [scene.pair.source, scene.pair.target]) {
      const sessions = await side.sql<{ pid: number; name: string }>(
        `select pid, application_name as name from pg_stat_activity
         where application_name like 'replicate %' and datname = current_database() order by name`,
      );
      for (const { pid, name } of sessions) {
        await side.sql("select pg_terminate_backend($1)", [pid]);
        ended.add(name);
        await scene.nextBatch();
      }
    }
  }
  expect([...ended].toSorted()).toEqual(
    expect.arrayContaining(["replicate follow", "replicate follow heartbeat"]),
  );
  await scene.nextBatch();
  await scene.finish();
});

test("statements of ours are cancelled", { timeout: 180_000 }, async () => {
  await using scene = await play();
  for (const side of [scene.pair.source, scene.pair.target, scene.pair.source, scene.pair.target]) {
    const holder = await side.client();
    await holder.query("begin; lock table accounts in access exclusive mode");
    // Until one of ours waits for it.
    for (let cancelled = 0; cancelled === 0; await sleep(20)) {
      const hit = await side.sql(
        `select pg_cancel_backend(pid) from pg_stat_activity
         where application_name like 'replicate follow%' and datname = current_database() and wait_event_type = 'Lock'`,
      );
      cancelled = hit.length;
    }
    await holder.query("commit");
    await scene.nextBatch();
    await scene.nextBatch();
  }
  await scene.finish();
});

test("the source is put back to an older copy of its data", { timeout: 240_000 }, async (context) => {
  if (source.dataDir === undefined) return context.skip("the server runs in a container");
  const dataDir = source.dataDir;
  const copy = `${dataDir}-older`;
  await using pair = await freePair({ source, target, leaks: "ignore" });
  await using sync = await openSync({ source: pair.source.url, target: pair.target.url, env: {} });
  const schema = "create table t (id int primary key)";
  await pair.source.sql(schema);
  await pair.target.sql(schema);
  await sync.init();
  await sync.copy();
  const drain = async (): Promise<void> => {
    for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
  };
  const insert = async (id: number): Promise<void> => {
    for (let attempt = 0; ; attempt += 1) {
      try {
        await pair.source.sql(`insert into t values (${id})`);
        return;
      } catch (error) {
        if (attempt > 20) throw error;
        await sleep(100);
      }
    }
  };
  await insert(1);
  await drain();
  await source.kill9();
  await cp(dataDir, copy, { recursive: true, preserveTimestamps: true });
  await source.restart();
  // A crash alone is no loss.
  await insert(2);
  await drain();
  await insert(3);
  await drain();
  await source.kill9();
  await restoreFolder(copy, dataDir);
  await source.restart();
  await insert(100);
  await expect(drain()).rejects.toMatchObject({ code: "SOURCE_LOST", exitCode: 3 });
  expect(await pair.target.sql("select id from t order by id")).toEqual([{ id: 1 }, { id: 2 }, { id: 3 }]);
  await sync.drop();
});

/** The content of one folder in place of another's, with owner and rights as they are there. */
async function restoreFolder(from: string, to: string): Promise<void> {
  const { execFile } = await import("node:child_process");
  const { promisify } = await import("node:util");
  await promisify(execFile)("sh", [
    "-c",
    `owner=$(stat -c %u:%g "$2") && rm -rf "$2"/* && cp -R "$1"/. "$2"/ && chown -R "$owner" "$2" && chmod 700 "$2"`,
    "sh",
    from,
    to,
  ]);
  await rm(from, { recursive: true });
}

interface Proxies extends AsyncDisposable {
  source: Proxy;
  target: Proxy;
  urls: { source: (url: string) => string; target: (url: string) => string };
}

async function startProxies(): Promise<Proxies> {
  const [one, other] = [
    await startProxy({ targetPort: source.port }),
    await startProxy({ targetPort: target.port }),
  ];
  const through = (proxy: Proxy) => (url: string) => {
    const changed = new URL(urlWith(url, {}));
    changed.port = String(proxy.port);
    return changed.toString();
  };
  return {
    source: one,
    target: other,
    urls: { source: through(one), target: through(other) },
    [Symbol.asyncDispose]: async () => {
      await one.close();
      await other.close();
    },
  };
}
