import { expect } from "vitest";

import { openSync, type Status, type Sync, type SyncEvent } from "../../src/index.ts";
import { openFollowed } from "./follow-setup.ts";
import { urlWith, withClient } from "./admin.ts";
import type { Cluster } from "./cluster.ts";
import { compareDatabases } from "./compare.ts";
import { freePair, type Pair } from "./database.ts";
import { startProxy, type Proxy } from "./proxy.ts";
import { seededRandom } from "./random.ts";
import { until } from "./until.ts";
import { brokenInvariants, fillWorkload, startWorkload, workloadSchema, type Workload } from "./workload.ts";

// What the tests of faults share: writers, a runner in this process, somebody at another machine who asks for the
// status, and the proof in the end that nothing was lost or doubled.

export interface Scene extends AsyncDisposable {
  pair: Pair;
  /** Of the runner. */
  events: SyncEvent[];
  workload: Workload;
  /** Number of the last batch. */
  last: () => number;
  /** Resolves when a batch was applied that is later than the last one at the call. */
  nextBatch: () => Promise<void>;
  /** Waits until the status, asked for directly and not through proxies, is like that, and returns it. */
  told: (what: string, is: (status: Status) => boolean) => Promise<Status>;
  /** Stops writers and runner, drains, and compares. */
  finish: () => Promise<void>;
}

export interface Ways {
  source: (url: string) => string;
  target: (url: string) => string;
}

/** An error that is not over, with all that somebody needs who is woken up by it. */
export function isWrong({ lastError }: Status): boolean {
  return lastError !== null && !lastError.cleared && lastError.message !== "" && lastError.hint !== "";
}

export function isWell({ lastError, runner }: Status): boolean {
  return runner.alive && lastError?.cleared !== false;
}

/** Writers on the source, and a runner that follows, perhaps through proxies. */
export async function playFollow(
  servers: { source: Cluster; target: Cluster },
  options: { ways?: Ways; pauseMs?: number } = {},
): Promise<Scene> {
  const random = seededRandom("faults");
  const pair = await freePair({ ...servers, leaks: "ignore" });
  await pair.source.sql(workloadSchema);
  await pair.target.sql(workloadSchema);
  const given = {
    source: options.ways?.source(pair.source.url) ?? pair.source.url,
    target: options.ways?.target(pair.target.url) ?? pair.target.url,
  };
  const followed = await openFollowed(
    {
      source: { ...pair.source, url: given.source, sql: pair.source.sql },
      target: { ...pair.target, url: given.target, sql: pair.target.sql },
    },
    { keyless: "reload" },
  );
  const observer = await openSync({ source: pair.source.url, target: pair.target.url, env: {} });
  await withClient(pair.source.url, async (client) => await fillWorkload(client, 0.3));
  const workload = await startWorkload(pair.source.url, random, {
    writers: 2,
    longTransactions: false,
    preparedTransactions: false,
    truncates: false,
    ...(options.pauseMs === undefined ? {} : { pauseMs: options.pauseMs }),
  });
  const stop = new AbortController();
  let last = 0;
  let failure: unknown;
  const events: SyncEvent[] = [];
  const running = (async () => {
    try {
      const batches = followed.sync.follow({ signal: stop.signal, onEvent: (event) => events.push(event) });
      for await (const batch of batches) last = batch.number;
    } catch (error) {
      failure = error;
    }
  })();
  const scene: Scene = {
    pair,
    events,
    workload,
    last: () => last,
    nextBatch: async () => {
      const before = last;
      await until(`a batch after ${events.slice(-5).map(({ type }) => type).join(", ")}`, () => {
        if (failure !== undefined) throw failure;
        return last > before;
      }); // prettier-ignore
    },
    told: async (what, is) => await untilTold(observer, what, is),
    finish: async () => {
      await workload.stop();
      stop.abort();
      await running;
      if (failure !== undefined) throw failure;
      await followed.drain();
      await assertEqual(pair);
    },
    [Symbol.asyncDispose]: async () => {
      stop.abort();
      await workload.stop().catch(() => undefined);
      await running;
      await followed[Symbol.asyncDispose]();
      await observer[Symbol.asyncDispose]();
      await pair.dispose();
    },
  };
  await scene.nextBatch();
  return scene;
}

export async function untilTold(
  observer: Sync,
  what: string,
  is: (status: Status) => boolean,
): Promise<Status> {
  let seen: Status | undefined;
  try {
    return await until(what, async () => {
      seen = await observer.status();
      return is(seen) ? seen : undefined;
    });
  } catch (error) {
    throw new Error(`${String(error)}; the status is ${JSON.stringify(seen)}`, { cause: error });
  }
}

/** Both sides are equal, and the money adds up. */
export async function assertEqual(pair: Pick<Pair, "source" | "target">): Promise<void> {
  const { differences, rows } = await compareDatabases(pair.source.url, pair.target.url);
  expect(differences.slice(0, 5)).toEqual([]);
  expect(rows).toBeGreaterThan(100);
  const broken = await withClient(pair.target.url, async (each) => await each.query(brokenInvariants));
  expect(broken.rows).toEqual([]);
}

export interface Proxies extends AsyncDisposable {
  source: Proxy;
  target: Proxy;
  ways: Ways;
}

export async function startProxies(servers: { source: Cluster; target: Cluster }): Promise<Proxies> {
  const source = await startProxy({ targetPort: servers.source.port });
  const target = await startProxy({ targetPort: servers.target.port });
  const through = (proxy: Proxy) => (url: string) => {
    const changed = new URL(urlWith(url, {}));
    changed.port = String(proxy.port);
    return changed.toString();
  };
  return {
    source,
    target,
    ways: { source: through(source), target: through(target) },
    [Symbol.asyncDispose]: async () => {
      await source.close();
      await target.close();
    },
  };
}
