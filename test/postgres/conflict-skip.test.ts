import { expect, test } from "vitest";

import { startFollowed } from "./follow-setup.ts";
import { freePair, type Pair } from "../support/database.ts";

// A skipped conflict from its beginning to its end, with a runner.

/** What each side has in the row. */
async function values(pair: Pair): Promise<unknown[]> {
  return await Promise.all(
    [pair.source, pair.target].map(
      async (side) => (await side.sql("select v from t where id = 1"))[0]?.["v"],
    ),
  );
}

test.for(["source", "target"] as const)("it waits until it is resolved with the %s", async (winner) => {
  await using pair = await freePair();
  await using followed = await startFollowed(
    pair,
    `create table t (id int primary key, v text); insert into t select g, 'v' from generate_series(1, 3) g`,
    { direction: "both", conflict: "skip" },
  );
  const { sync } = followed;
  await followed.drain();
  await pair.source.sql("update t set v = 's1' where id < 3");
  await pair.target.sql("update t set v = 't1' where id = 1");
  await followed.drain();
  expect(await values(pair)).toEqual(["s1", "t1"]);
  const [entry, ...more] = await sync.conflicts();
  expect(more).toEqual([]);
  expect(entry).toMatchObject({
    table: "public.t",
    key: { id: 1 },
    kind: "update_origin_differs",
    policy: "skip",
    winner: "skip",
    resolved: false,
    source: { image: { id: 1, v: "s1" } },
    target: { image: { id: 1, v: "t1" } },
  });
  // Other rows go on, this one stays as each side has it, whatever they do to it.
  expect(await pair.target.sql("select v from t where id = 2")).toEqual([{ v: "s1" }]);
  await pair.source.sql("update t set v = 's2' where id = 1");
  await followed.drain();
  await pair.target.sql("update t set v = 't2' where id = 1");
  await followed.drain();
  await pair.source.sql("update t set v = 's3' where id = 1");
  await pair.target.sql("update t set v = 't3' where id = 1");
  await followed.drain();
  expect(await values(pair)).toEqual(["s3", "t3"]);
  expect((await sync.status()).conflicts).toBe(1);

  await sync.resolveConflict(entry?.id ?? 0, winner);
  await followed.drain();
  const won = winner === "source" ? "s3" : "t3";
  expect(await values(pair)).toEqual([won, won]);
  expect(await sync.conflicts({ state: "pending" })).toEqual([]);
  expect(await followed.differences()).toEqual([]);
  // The row is one like any other again.
  await pair.target.sql("update t set v = 't4' where id = 1");
  await followed.drain();
  expect(await values(pair)).toEqual(["t4", "t4"]);
});
