import { expect, test } from "vitest";

import { openSync } from "../../../src/index.ts";
import { compareDatabases } from "../../support/compare.ts";
import { freePair, type Pair } from "../../support/database.ts";
import { until } from "../../support/until.ts";
import { startFollowed } from "../../support/follow-setup.ts";

// A table that is copied anew although the target has changes of its own: what they changed before is gone by the user's
// order, and what they change from then on is theirs.

const schema = `create table t (id int primary key, v text); insert into t select g, 'v' || g from generate_series(1, 10) g`;

const conflicts = async (pair: Pair): Promise<Record<string, unknown>[]> => {
  const select = `select key, winner, resolved_at is null as pending from replicate.conflict order by id`;
  return [...(await pair.source.sql(select)), ...(await pair.target.sql(select))];
};

const policies = ["target-wins", "skip", { order: ["b", "a"] }] as const;

for (const direction of ["both", "one-way"] as const)
  test.for(policies)(
    `copied anew (${direction}, %j): what the target had changed is forgotten, what it changes then is not`,
    async (conflict) => {
      await using pair = await freePair();
      await using followed = await startFollowed(pair, schema, { direction, conflict, nodes: { source: "a", target: "b" } }); // prettier-ignore
      await followed.drain();
      await pair.target.sql(
        "update t set v = 'gone' where id < 4; delete from t where id = 4; insert into t values (20, 'gone')",
      );
      await pair.source.sql("update t set v = 'old' where id = 1; insert into t values (20, 'new')");
      await expect(followed.sync.copy({ restart: true })).rejects.toMatchObject({ code: "TARGET_NOT_EMPTY" });
      await followed.sync.copy({ restart: true, overwrite: true });
      await pair.source.sql("update t set v = 'newer' where id in (2, 4)");
      expect(await followed.differences()).toEqual([]);
      expect(await conflicts(pair)).toEqual([]);
      expect(await pair.target.sql("select v from t where id in (1, 2, 3, 4, 20) order by id")).toEqual(
        ["old", "newer", "v3", "newer", "new"].map((v) => ({ v })),
      );

      await followed.sync.copy({ restart: true });
      await pair.target.sql("update t set v = 'mine' where id in (5, 6)");
      await pair.source.sql("update t set v = 'theirs' where id = 6");
      await followed.drain();
      expect(await conflicts(pair)).toMatchObject([{ key: { id: 6 } }]);
      expect(await pair.target.sql("select v from t where id in (5, 6)")).toEqual([
        { v: "mine" },
        { v: "mine" },
      ]);
      if (direction === "both")
        expect(await pair.source.sql("select v from t where id = 5")).toEqual([{ v: "mine" }]);
    },
  );

test("copied anew: a TRUNCATE of the target is forgotten as well", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, schema, { direction: "both", conflict: "target-wins" });
  await followed.drain();
  await pair.target.sql("truncate t");
  await pair.source.sql("update t set v = 'newer' where id = 1");
  await followed.sync.copy({ restart: true, overwrite: true });
  expect(await followed.differences()).toEqual([]);
  expect(await pair.source.sql("select v from t where id in (1, 2) order by id")).toEqual([
    { v: "newer" },
    { v: "v2" },
  ]);
  expect(await conflicts(pair)).toEqual([]);
});

test("copied anew, stopped in the middle and resumed: what the target changes of a row that is copied already is its own", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(
    pair,
    `create table t (id int primary key, v text, filler text); insert into t select g, 'v', repeat('x', 100) from generate_series(1, 60000) g; analyze t`,
    { direction: "both", conflict: "target-wins" },
  );
  await followed.drain();
  await pair.target.sql("update t set v = 'gone' where id in (1, 30000, 59999)");
  await pair.source.sql("update t set v = 'old' where id in (1, 30000, 59999)");
  const stop = new AbortController();
  const options = { jobs: 1, partBytes: 100_000 };
  const copying = followed.sync.copy({ ...options, restart: true, overwrite: true, signal: stop.signal });
  const parts = async (): Promise<unknown> =>
    (await pair.target.sql("select done from replicate.part group by done having not done or count(*) > 2"))
      .length === 2;
  await until("some parts are copied", async () => (await parts()) === true);
  stop.abort();
  await expect(copying).rejects.toMatchObject({ code: "ABORTED" });
  expect(await parts()).toBe(true);
  const [row] = await pair.target.sql<{ id: number }>(
    "update t set v = 'mine' where id = (select max(id) from t) returning id",
  );
  await followed.sync.copy(options);
  expect(await followed.differences()).toEqual([]);
  expect(await conflicts(pair)).toEqual([]);
  expect(await pair.source.sql("select v, count(*)::int as n from t group by v order by v")).toEqual([
    { v: "mine", n: 1 },
    { v: "old", n: 3 },
    { v: "v", n: 59_996 },
  ]);
  expect(await pair.source.sql("select id from t where v = 'mine'")).toEqual([row]);
});

test("copied anew: a skipped conflict is resolved by it, and its row is there", async () => {
  for (const first of ["source", "target"] as const) {
    await using pair = await freePair();
    await using followed = await startFollowed(pair, schema, { direction: "both", conflict: "skip" });
    await followed.drain();
    const second = first === "source" ? "target" : "source";
    await pair[first].sql(`update t set v = '${first}' where id = 1`);
    await pair[second].sql(`update t set v = '${second}' where id = 1`);
    await followed.drain();
    await pair.source.sql("update t set v = 'source again' where id = 1");
    await pair.target.sql("update t set v = 'target again' where id = 1");
    await followed.drain();
    // What the target has is not on the source, and may be lost by nobody's word.
    await expect(followed.sync.copy({ restart: true })).rejects.toMatchObject({ code: "TARGET_NOT_EMPTY" });
    expect(await conflicts(pair)).toMatchObject([{ winner: "skip", pending: true }]);
    await followed.sync.copy({ restart: true, overwrite: true });
    expect(await followed.differences()).toEqual([]);
    expect(await pair.target.sql("select v from t where id = 1")).toEqual([{ v: "source again" }]);
    expect(await conflicts(pair)).toMatchObject([{ winner: "source", pending: false }]);
    await pair.target.sql("update t set v = 'mine' where id = 1");
    expect(await followed.differences()).toEqual([]);
    expect(await pair.source.sql("select v from t where id = 1")).toEqual([{ v: "mine" }]);
  }
});

test("copied anew in a chain: the database behind the target gets what was copied, and keeps what it has changed since", async () => {
  await using pair = await freePair();
  await using other = await freePair();
  const [first, second, third] = [pair.source, pair.target, other.target];
  for (const each of [first, second, third]) await each.sql(schema);
  const open = async (name: string, source: string, target: string): ReturnType<typeof openSync> =>
    await openSync({ name, source, target, env: {}, direction: "both", conflict: "target-wins" });
  await using ab = await open("ab", first.url, second.url);
  await using bc = await open("bc", second.url, third.url);
  const drain = async (sync: typeof ab): Promise<void> => {
    for await (const _ of sync.follow({ untilCaughtUp: true })) void _;
  };
  for (const sync of [ab, bc]) {
    await sync.init();
    await sync.copy({ adopt: true });
    await drain(sync);
  }
  await second.sql("update t set v = 'gone' where id < 4; delete from t where id = 4");
  await third.sql("update t set v = 'third' where id = 3");
  await first.sql("update t set v = 'old' where id = 1");
  await ab.copy({ restart: true, overwrite: true });
  await third.sql("update t set v = 'third' where id = 9");
  await drain(ab);
  await drain(bc);
  await drain(ab);
  expect((await compareDatabases(first.url, second.url)).differences).toEqual([]);
  expect((await compareDatabases(second.url, third.url)).differences).toEqual([]);
  expect(await third.sql("select v from t where id in (1, 2, 3, 4, 9) order by id")).toEqual(
    ["old", "v2", "third", "v4", "third"].map((v) => ({ v })),
  );
});
