import { expect, test } from "vitest";

import { freePair } from "../../support/database.ts";
import { drain, startChain } from "../../support/chain-setup.ts";
import { onBoth, openFollowed } from "../../support/follow-setup.ts";

// What happens to a row in the middle of a chain, where two syncs have to do with it; and which change is the later one.

const schema = "create table t (id int primary key, v text); insert into t values (1, 'first'), (2, 'first')";

test("a chain: a conflict that one sync skips does not keep the other from bringing the row on", async () => {
  await using chain = await startChain(schema, { conflict: "skip" });
  const { first, second, third, near, far } = chain;
  await second.sql("update t set v = 'second' where id = 1; delete from t where id = 2");
  await third.sql("update t set v = 'third'");
  await drain(far);
  expect(await far.conflicts({ state: "pending" })).toHaveLength(2);
  await drain(near);
  expect(await first.sql("select * from t")).toEqual([{ id: 1, v: "second" }]);
  await far.resolveConflict(
    (await far.conflicts({ state: "pending" })).map(({ id }) => id),
    "target",
  );
  for (const sync of [far, near]) await drain(sync);
  for (const each of [first, second, third]) {
    expect(await each.sql("select * from t order by id")).toEqual([
      { id: 1, v: "third" },
      { id: 2, v: "third" },
    ]);
  }
});

test("a chain: rows that were there before a sync joined are no change of its target's", async () => {
  await using chain = await startChain(schema);
  const { first, second, third, near, far } = chain;
  for (const each of [first, second, third])
    await each.sql("create table u (id int primary key, v text); insert into u values (1, 'first')");
  for (const sync of [far, near]) {
    await sync.init();
    await sync.copy({ adopt: true });
    if (sync === far) await drain(far);
  }
  await third.sql("update u set v = 'third'");
  for (const sync of [near, far, near]) await drain(sync);
  for (const each of [first, second, third])
    expect(await each.sql("select v from u")).toEqual([{ v: "third" }]);
  expect(await far.conflicts({ state: "all" })).toEqual([]);
});

test("latest: a row that both sides have deleted is gone until a change after the later deletion", async () => {
  await using pair = await freePair();
  await onBoth(pair, schema);
  await using followed = await openFollowed(pair, { conflict: "latest" });
  await followed.drain();
  await pair.source.sql("delete from t");
  const open = await pair.source.client();
  await open.query("begin; insert into t values (1, 'before'), (2, 'before')");
  await pair.target.sql("delete from t where id = 1");
  // Both have no row 1 now, and the source's deletion was the earlier one.
  await followed.drain();
  expect(await followed.sync.conflicts({ state: "all" })).toMatchObject([
    {
      key: { id: 1 },
      kind: "delete_missing",
      resolved: true,
      source: { image: null },
      target: { image: null },
    },
  ]);
  await open.query("commit");
  await followed.drain();
  expect(await pair.target.sql("select * from t")).toEqual([{ id: 2, v: "before" }]);
  expect(await followed.sync.conflicts({ state: "all", kinds: ["update_missing"] })).toMatchObject([
    { key: { id: 1 }, winner: "target", source: { change: "insert" }, target: { change: "delete" } },
  ]);
});
