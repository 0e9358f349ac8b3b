import { openSync, type CopyReport, type Sync, type SyncEvent } from "../../src/index.ts";
import type { Cluster } from "./cluster.ts";
import { freePair, type Pair } from "./database.ts";
import { assertEqual, startProxies, type Proxies } from "./fault-scene.ts";
import { until } from "./until.ts";
import { fillWorkload, workloadSchema } from "./workload.ts";

// A copy that lasts long enough for something to happen to it: many parts, over links that take their time.

export interface CopyScene extends AsyncDisposable {
  pair: Pair;
  proxies: Proxies;
  events: SyncEvent[];
  /** Directly, from another machine. */
  observer: Sync;
  copying: Promise<CopyReport>;
  /** Waits until the copy is done, drains, and compares. */
  finish: () => Promise<void>;
}

/** Returns when the first parts are in, and not all of them. */
export async function playCopy(servers: { source: Cluster; target: Cluster }): Promise<CopyScene> {
  const pair = await freePair({ ...servers, leaks: "ignore" });
  const proxies = await startProxies(servers);
  await pair.source.sql(workloadSchema);
  await pair.target.sql(workloadSchema);
  await fillWorkload(await pair.source.client(), 4);
  const events: SyncEvent[] = [];
  const sync = await openSync({
    source: proxies.ways.source(pair.source.url),
    target: proxies.ways.target(pair.target.url),
    onEvent: (event) => events.push(event),
    keyless: "reload",
    env: {},
  });
  const observer = await openSync({ source: pair.source.url, target: pair.target.url, env: {} });
  await sync.init();
  for (const proxy of [proxies.source, proxies.target]) proxy.setDelay(8);
  const copying = sync.copy({ jobs: 2, partBytes: 64 * 1024 });
  copying.catch(() => undefined);
  await until("the first parts are in", async () => {
    const [parts] = await pair.target.sql<{ done: number; left: number }>(
      `select count(*) filter (where done)::int as done, count(*) filter (where not done)::int as left from replicate.part`,
    );
    return parts !== undefined && parts.done >= 2 && parts.left >= 20;
  });
  return {
    pair,
    proxies,
    events,
    observer,
    copying,
    finish: async () => {
      await copying;
      for (const proxy of [proxies.source, proxies.target]) proxy.setDelay(0);
      for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
      await assertEqual(pair);
    },
    [Symbol.asyncDispose]: async () => {
      await proxies[Symbol.asyncDispose]();
      await sync[Symbol.asyncDispose]();
      await observer[Symbol.asyncDispose]();
      await copying.catch(() => undefined);
      await pair.dispose();
    },
  };
}
