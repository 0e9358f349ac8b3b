import { expect, test } from "vitest";

import { openSync, type Sync, type SyncEvent } from "../../../src/index.ts";
import { freePair } from "../../support/database.ts";
import { startProxy } from "../../support/proxy.ts";
import { until } from "../../support/until.ts";
import { drain, startChain } from "../../support/chain-setup.ts";
import { onBoth, startFollowed } from "../../support/follow-setup.ts";

// Both databases take writes, and something else happens as well.

const schema = `create table t (id int primary key, v text); insert into t select g, 'v' || g from generate_series(1, 10) g`;

test("a chain: TRUNCATE reaches the last database", async () => {
  await using chain = await startChain(schema);
  await chain.first.sql("truncate t; insert into t values (3, 'kept'), (20, 'new')");
  await drain(chain.near);
  await drain(chain.far);
  expect(await chain.differences()).toEqual([]);
});

test("a chain: what a new copy of a table has changed reaches the last database", async () => {
  await using chain = await startChain(schema);
  // Not captured: only the copy brings it.
  await chain.first.sql(
    "insert into replicate.applying values ('test', pg_backend_pid()); set replicate.applying = 'test'; update t set v = 'anew' where id < 4; delete from t where id = 5",
  );
  await chain.third.sql("update t set v = 'third' where id = 9");
  await chain.near.copy({ restart: true });
  await drain(chain.near);
  await drain(chain.far);
  await drain(chain.near);
  expect(await chain.differences()).toEqual([]);
});

test("two runners that stand by: the one that has a way gets the other as well", async () => {
  await using pair = await freePair({ leaks: "ignore" });
  await using followed = await startFollowed(pair, schema, { direction: "both" });
  await followed.drain();
  const start = (): { stop: () => Promise<void>; events: SyncEvent[] } => {
    const stop = new AbortController();
    const events: SyncEvent[] = [];
    const running = (async () => {
      for await (const _ of followed.sync.follow({
        standby: true,
        signal: stop.signal,
        onEvent: (e) => events.push(e),
      }))
        void _;
    })();
    return { events, stop: async () => (stop.abort(), await running) };
  };
  const one = start();
  await pair.source.sql("insert into t values (100, 'a')");
  await until(
    "it arrives",
    async () => (await pair.target.sql("select 1 from t where id = 100")).length === 1,
  );
  const two = start();
  await until("it stands by", () => two.events.some(({ type }) => type === "standing-by"));
  // The forward way's session on the target.
  const [gone] = await pair.target.sql<{ pid: number }>(
    "select backend as pid from replicate.lease where name = 'runner default'",
  );
  await pair.target.sql("select pg_terminate_backend($1)", [gone?.pid]);
  await until("somebody notices", () =>
    [...one.events, ...two.events].some(({ type }) => type === "taken-over" || type === "connection-lost"),
  );
  await pair.source.sql("insert into t values (101, 'b')");
  await pair.target.sql("insert into t values (102, 'c')");
  try {
    await until(
      "it arrives",
      async () => (await pair.target.sql("select 1 from t where id = 101")).length === 1,
    );
    await until(
      "it arrives",
      async () => (await pair.source.sql("select 1 from t where id = 102")).length === 1,
    );
  } finally {
    await one.stop();
    await two.stop();
  }
});

test("a runner that is cut off from one side leaves both ways to the one that stands by", async () => {
  await using pair = await freePair({ leaks: "ignore" });
  await using followed = await startFollowed(pair, schema, { direction: "both" });
  await followed.drain();
  const url = new URL(pair.target.url);
  await using proxy = await startProxy({ targetHost: url.hostname, targetPort: Number(url.port) });
  url.host = `127.0.0.1:${proxy.port}`;
  await using near = await openSync({
    source: pair.source.url,
    target: url.href,
    env: {},
    direction: "both",
  });
  const start = (sync: Sync): { stop: () => Promise<void>; events: SyncEvent[] } => {
    const stop = new AbortController();
    const events: SyncEvent[] = [];
    const onEvent = (event: SyncEvent): unknown => events.push(event);
    const running = (async () => {
      for await (const _ of sync.follow({ standby: true, signal: stop.signal, onEvent })) void _;
    })();
    return { events, stop: async () => (stop.abort(), await running) };
  };
  const one = start(near);
  await pair.source.sql("insert into t values (100, 'a')");
  await until(
    "it arrives",
    async () => (await pair.target.sql("select 1 from t where id = 100")).length === 1,
  );
  const two = start(followed.sync);
  await until("it stands by", () => two.events.some(({ type }) => type === "standing-by"));
  await proxy.refuse(true);
  proxy.cutAll();
  await pair.source.sql("insert into t values (101, 'b')");
  await pair.target.sql("insert into t values (102, 'c')");
  try {
    for (const [side, id] of [
      [pair.target, 101],
      [pair.source, 102],
    ] as const) {
      await until(
        "it arrives",
        async () => (await side.sql(`select 1 from t where id = ${id}`)).length === 1,
      );
    }
  } finally {
    await one.stop();
    await two.stop();
  }
});

test("a table that is not copied yet: says so instead of waiting for ever", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, schema, { direction: "both" });
  await followed.drain();
  await onBoth(pair, "create table u (id int primary key)");
  await followed.sync.init();
  await pair.source.sql("insert into t values (30, 'x')");
  await expect(followed.drain()).rejects.toMatchObject({ code: "COPY_UNFINISHED" });
}, 20_000);

test("a re-read waits for who is changing a row that has gone, and meets the change", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, schema, { direction: "both", conflict: "target-wins" });
  await followed.drain();
  await pair.source.sql("truncate t");
  const client = await pair.target.client();
  await client.query("begin; update t set v = 'mine' where id = 4");
  const draining = followed.drain();
  await until(
    "it waits",
    async () =>
      (
        await pair.target.sql(
          "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query not like '%pg_stat_activity%'",
        )
      ).length > 0,
  );
  await client.query("commit");
  await draining;
  expect(await followed.differences()).toEqual([]);
  expect(await pair.source.sql("select * from t")).toEqual([{ id: 4, v: "mine" }]);
});

test("keys that are equal but written otherwise: a skipped conflict stays as it is", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, "create table t (id numeric primary key, v text)", {
    direction: "both",
    conflict: "skip",
  });
  await followed.drain();
  await pair.source.sql("insert into t values (1.0, 'source')");
  await pair.target.sql("insert into t values (1.00, 'target')");
  await followed.drain();
  await pair.target.sql("update t set v = 'target again'");
  await followed.drain();
  await pair.source.sql("update t set v = 'source again'");
  await followed.drain();
  expect([await pair.source.sql("select v from t"), await pair.target.sql("select v from t")]).toEqual([
    [{ v: "source again" }],
    [{ v: "target again" }],
  ]);
});

test("a key whose columns have operators of different schemas: a skipped conflict stays as it is", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(
    pair,
    "create extension citext; create table t (name citext, id int, v text, primary key (name, id))",
    { direction: "both", conflict: "skip" },
  );
  await followed.drain();
  await pair.source.sql("insert into t values ('Ann', 1, 'source')");
  await pair.target.sql("insert into t values ('ANN', 1, 'target')");
  await followed.drain();
  await pair.target.sql("update t set v = 'target again'; insert into t values ('ann', 2, 'new')");
  await followed.drain();
  await pair.source.sql("update t set v = 'source again' where id = 1");
  await followed.drain();
  const rows = "select v from t order by id";
  expect([await pair.source.sql(rows), await pair.target.sql(rows)]).toEqual([
    [{ v: "source again" }, { v: "new" }],
    [{ v: "target again" }, { v: "new" }],
  ]);
});

test("a sync with parked rows is not made to go both ways: they would be overwritten", async () => {
  await using pair = await freePair();
  await using oneWay = await startFollowed(pair, schema, { onRefusal: "park" });
  await oneWay.drain();
  await pair.target.sql("alter table t add constraint short check (length(v) < 10)");
  await pair.source.sql("update t set v = 'too long for it' where id = 1");
  await oneWay.drain();
  await using both = await openSync({
    source: pair.source.url,
    target: pair.target.url,
    env: {},
    direction: "both",
  });
  await expect(both.init()).rejects.toMatchObject({ code: "CONFIG_INVALID" });
  await pair.source.sql("update t set v = 'short' where id = 1");
  await oneWay.drain();
  await both.init();
  await pair.target.sql("update t set v = 'back' where id = 1");
  await drain(both);
  expect(await pair.source.sql("select v from t where id = 1")).toEqual([{ v: "back" }]);
});

test("a new copy does not overwrite changes that the source lacks without being told to", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, schema, { direction: "both" });
  await followed.drain();
  await pair.target.sql("update t set v = 'mine' where id = 1");
  await expect(followed.sync.copy({ restart: true })).rejects.toMatchObject({ code: "TARGET_NOT_EMPTY" });
  await followed.drain();
  expect(await pair.source.sql("select v from t where id = 1")).toEqual([{ v: "mine" }]);
  await followed.sync.copy({ restart: true });
  expect(await followed.differences()).toEqual([]);
  await pair.target.sql("update t set v = 'mine again' where id = 1");
  await followed.sync.copy({ restart: true, overwrite: true });
  expect(await followed.differences()).toEqual([]);
  expect(await pair.source.sql("select v from t where id = 1")).toEqual([{ v: "mine" }]);
});
