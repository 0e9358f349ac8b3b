import { expect, test } from "vitest";

import { freePair } from "../support/database.ts";
import { startFollowed } from "./follow-setup.ts";

// Both databases take writes: batches with many conflicts, and columns that only one side has.

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
    message: expect.stringMatching(/\(on the way back\)$/) as string,
    hint: expect.stringMatching(/what is said of the target is meant of your source/) as string,
  });
  await pair.source.sql("alter table t add v int");
  expect(await followed.differences()).toEqual([]);
  expect(await pair.source.sql("select id, v from t")).toEqual([{ id: 1, v: 1 }]);
});
