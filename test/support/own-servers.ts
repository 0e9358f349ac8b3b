import { afterAll, beforeAll } from "vitest";

import { startCluster, type Cluster } from "./cluster.ts";

/** Two servers of a test file's own, the oldest and the newest version: they may be taken down. There from `beforeAll` on. */
export function ownServers(): { readonly source: Cluster; readonly target: Cluster } {
  let started: { source: Cluster; target: Cluster } | undefined;
  const get = (): { source: Cluster; target: Cluster } => {
    if (started === undefined) throw new Error("the servers are started before the first test, not earlier");
    return started;
  };
  beforeAll(async () => {
    const [source, target] = await Promise.all([
      startCluster({ version: "13", fsync: false }),
      startCluster({ version: "18", fsync: false }),
    ]);
    started = { source, target };
  });
  afterAll(async () => {
    await Promise.all([started?.source.stop(), started?.target.stop()]);
  });
  return {
    get source() {
      return get().source;
    },
    get target() {
      return get().target;
    },
  };
}
