import { expect, test } from "vitest";

import { freePair } from "../../support/database.ts";
import { startFollowed } from "../../support/follow-setup.ts";

// Both databases take writes: batches with many conflicts, merged rows that cannot be had, and columns that only one side has.

test("more conflicts in a batch than are decided at a time: each is decided, and none is left pending", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(
    pair,
    `create table t (id int primary key, v text); insert into t select g, 'v' from generate_series(1, 1500) g`,
    { direction: "both", conflict: "latest" },
  );
  await followed.drain();
  await pair.source.sql("update t set v = 'source' where id <= 1200");
  await pair.target.sql("update t set v = 'target' where id <= 1100");
  expect(await followed.differences()).toEqual([]);
  expect(await followed.sync.conflicts({ state: "pending" })).toEqual([]);
  expect(await pair.source.sql("select v, count(*)::int as n from t group by v order by v")).toEqual([
    { v: "source", n: 100 },
    { v: "target", n: 1100 },
    { v: "v", n: 300 },
  ]);
});

test("a column of one side alone stops the way that would lose it, and the error says on which side", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, "create table t (id int primary key)", {
    direction: "both",
  });
  await followed.drain();
  await pair.target.sql("alter table t add v int; insert into t values (1, 1)");
  await expect(followed.drain()).rejects.toMatchObject({
    code: "TABLE_SHAPE_CHANGED",
    message: expect.stringMatching(/\(from the target to the source\)$/) as string,
    hint: expect.stringMatching(/changes that go from the target to the source/) as string,
  });
  await pair.source.sql("alter table t add v int");
  expect(await followed.differences()).toEqual([]);
  expect(await pair.source.sql("select id, v from t")).toEqual([{ id: 1, v: 1 }]);
});

test("merged rows with a unique value of another row of the batch are skipped, and the sync goes on", async () => {
  await using pair = await freePair();
  const emails: Record<number, string> = { 1: "new", 2: "same", 3: "same", 4: "own" };
  await using followed = await startFollowed(
    pair,
    `create table t (id int primary key, email text unique, v text); insert into t select g, 'e' || g, 'v' from generate_series(1, 9) g`,
    {
      direction: "both",
      conflict: {
        custom: ({ key, source }) => ({ row: { ...source.image, email: emails[Number(key["id"])] } }),
      },
    },
  );
  await followed.drain();
  await pair.source.sql(
    "update t set v = 'source' where id <= 5; insert into t values (20, 'new', 'source')",
  );
  await pair.target.sql("update t set v = 'target' where id <= 4");
  await followed.drain();
  const rows = "select id, email, v from t where id < 6 or id = 20 order by id";
  const settled = [
    { id: 4, email: "own", v: "source" },
    { id: 5, email: "e5", v: "source" },
    { id: 20, email: "new", v: "source" },
  ];
  const kept = (v: string): unknown[] => [1, 2, 3].map((id) => ({ id, email: `e${id}`, v }));
  expect(await pair.source.sql(rows)).toEqual([...kept("source"), ...settled]);
  expect(await pair.target.sql(rows)).toEqual([...kept("target"), ...settled]);
  const pending = await followed.sync.conflicts({ state: "pending" });
  expect(
    pending.map(({ key, winner, constraint, merged }) => [key["id"], winner, constraint, merged?.["email"]]),
  ).toEqual(expect.arrayContaining([1, 2, 3].map((id) => [id, "skip", "t_email_key", emails[id]])));
  expect(pending).toHaveLength(3);
  await pair.target.sql("update t set v = 'target again' where id = 1");
  await followed.drain();
  expect(await pair.source.sql(rows)).toEqual([...kept("source"), ...settled]);
  await followed.sync.resolveConflict({}, "target");
  expect(await followed.differences()).toEqual([]);
  expect(await pair.source.sql("select v from t where id in (1, 2) order by id")).toEqual([
    { v: "target again" },
    { v: "target" },
  ]);
});

test("two rows without a value, where only one may be: the one that loses goes into the log, and the sync goes on", async () => {
  await using pair = await freePair({ source: "18", target: "18" });
  await using followed = await startFollowed(
    pair,
    "create table t (id int primary key, part int, email text, unique nulls not distinct (part, email))",
    { direction: "both", conflict: "source-wins" },
  );
  await followed.drain();
  await pair.source.sql("insert into t values (1, 1, null), (3, 1, 'a')");
  await pair.target.sql("insert into t values (2, 1, null), (4, 1, 'b')");
  expect(await followed.differences()).toEqual([]);
  expect(await pair.source.sql("select id from t order by id")).toEqual([{ id: 1 }, { id: 3 }, { id: 4 }]);
  expect(await followed.sync.conflicts()).toMatchObject([
    { kind: "multiple_unique_conflicts", winner: "source" },
  ]);
});
