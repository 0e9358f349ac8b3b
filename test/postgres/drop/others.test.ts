import { expect, test } from "vitest";

import { openSync, type Sync, type SyncOptions } from "../../../src/index.ts";
import { compareDatabases } from "../../support/compare.ts";
import { freePair, type Database } from "../../support/database.ts";
import { until } from "../../support/until.ts";

// Names of syncs are per pair of databases, and "default" is one that many have. A drop that is given the sides of two different
// syncs must not take either for its own.

const directions = ["one-way", "both"] as const;
const schema = "create table t (id int primary key, v text)";

const open = async (source: Database, target: Database, direction: SyncOptions["direction"]): Promise<Sync> =>
  await openSync({
    source: source.url,
    target: target.url,
    tables: ["public.t"],
    ...(direction === undefined ? {} : { direction }),
    env: {},
  });

async function begin(sync: Sync): Promise<void> {
  await sync.init();
  await sync.copy();
  await drain(sync);
}

async function drain(sync: Sync): Promise<void> {
  for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
}

/** It brings what is written after what was tried, as if nothing had been. */
async function goesOn(sync: Sync, source: Database, target: Database): Promise<void> {
  await source.sql("insert into t values ((select coalesce(max(id), 0) + 1 from t), 'after')");
  await drain(sync);
  expect((await compareDatabases(source.url, target.url, ["public.t"])).differences).toEqual([]);
}

test.each(directions)("each side has its sync with somebody else, %s", async (direction) => {
  await using one = await freePair();
  await using two = await freePair();
  for (const side of [one.source, one.target, two.source, two.target]) await side.sql(schema);
  await using first = await open(one.source, one.target, direction);
  await using second = await open(two.source, two.target, direction);
  await begin(first);
  await begin(second);
  await using mixed = await open(one.source, two.target, direction);
  await expect(mixed.drop({ dryRun: true })).rejects.toMatchObject({ code: "SYNC_MISMATCH" });
  await expect(mixed.drop()).rejects.toMatchObject({ code: "SYNC_MISMATCH", exitCode: 2 });
  await goesOn(first, one.source, one.target);
  await goesOn(second, two.source, two.target);
  await first.drop();
  await second.drop();
});

test.each(directions)("the source has given this target up, and has another, %s", async (direction) => {
  await using one = await freePair();
  await using two = await freePair();
  for (const side of [one.source, one.target, two.target]) await side.sql(schema);
  // As long as the source has any state, it remembers what it has given up.
  await using keeping = await openSync({ name: "keeping", source: one.source.url, target: two.target.url, tables: ["public.kept"], env: {} }); // prettier-ignore
  for (const side of [one.source, two.target]) await side.sql("create table kept (id int primary key)");
  await keeping.init();
  await using former = await open(one.source, one.target, direction);
  await begin(former);
  await former.drop({ sourceOnly: true });
  await using current = await open(one.source, two.target, direction);
  await begin(current);
  await expect(former.drop()).rejects.toMatchObject({ code: "SYNC_EXPELLED" });
  await goesOn(current, one.source, two.target);
  await former.drop({ targetOnly: true });
  await goesOn(current, one.source, two.target);
  await current.drop();
  await keeping.drop();
});

test.each(directions)("another target's runner reads the source at the time, %s", async (direction) => {
  await using one = await freePair();
  await using two = await freePair();
  for (const side of [one.source, one.target, two.target]) await side.sql(schema);
  await using sync = await open(one.source, one.target, direction);
  await begin(sync);
  const stop = new AbortController();
  const running = (async () => {
    for await (const batch of sync.follow({ signal: stop.signal })) void batch;
  })();
  await one.source.sql("insert into t values (1, 'followed')");
  await until("it follows", async () => (await one.target.sql("select from t")).length === 1);
  await using mistaken = await open(one.source, two.target, direction);
  await expect(mistaken.drop()).rejects.toMatchObject({ code: "RUNNER_ACTIVE" });
  stop.abort();
  await running;
  await goesOn(sync, one.source, one.target);
  await sync.drop();
});
