import { expect, test } from "vitest";

import { followSync } from "../../../src/follow/follow.ts";
import { compareDatabases } from "../../support/compare.ts";
import { freePair, type Pair } from "../../support/database.ts";
import { leastPrivilegedPair } from "../../support/least-privileged-pair.ts";
import { startVerifiedSync, type VerifiedSync } from "../../support/verified-sync.ts";

const tablesSql = `
  create table users (id int primary key, name text, note text);
  insert into users select g, 'name ' || g, null from generate_series(1, 6000) g;
  create table parts (shop text collate "C", code numeric, at timestamptz, flag bool not null, primary key (flag, at, code, shop));
  insert into parts select 'shop ' || g % 5, g / 10.0, '2020-01-01Z'::timestamptz + g * interval '1 hour', g % 2 = 0
  from generate_series(1, 500) g`;

async function onBoth(
  pair: { source: Pick<Pair["source"], "sql">; target: Pick<Pair["target"], "sql"> },
  text: string,
): Promise<void> {
  await Promise.all([pair.source.sql(text), pair.target.sql(text)]);
}

async function catchUp(sync: VerifiedSync): Promise<void> {
  let batches = 0;
  for await (const batch of followSync(sync.context(), { untilCaughtUp: true })) batches = batch.number;
  expect(batches).toBeGreaterThan(0);
}

const damageSql = `
  update users set name = 'wrong' where id % 2 = 0;
  delete from users where id % 100 = 1;
  insert into users select g, 'extra' from generate_series(7000, 7100) g;
  update parts set code = code + 0.001 where shop = 'shop 3';
  update parts set code = trunc(code, 1) + 0.00 where shop = 'shop 4'`;

test("the differing keys are noted as changed, and the next batches bring them", async () => {
  await using pair = await freePair();
  await onBoth(pair, tablesSql);
  await using sync = await startVerifiedSync(pair);
  await catchUp(sync);
  await pair.target.sql(damageSql);

  const found = await sync.verify();
  expect(
    found.tables.map(({ table, differencesTotal, repaired }) => [table, differencesTotal, repaired]),
  ).toEqual([
    // 100 shop-3 keys are there with another code: extra, and missing; 100 of shop 4 are written in another way.
    ["public.parts", 300, undefined],
    ["public.users", 3000 + 60 + 101, undefined],
  ]);
  expect(
    await pair.source.sql("select * from replicate.delta_1_a union all select * from replicate.delta_1_b"),
  ).toEqual([]);

  // Far more than are listed.
  const repaired = await sync.verify({ repair: true, maxDifferences: 5 });
  expect(repaired.equal).toBe(false);
  expect(repaired.tables.map(({ differences, repaired: count }) => [differences.length, count])).toEqual([
    [5, 300],
    [5, 3161],
  ]);
  // Noted keys are pending until they are applied; noting them again is not called for.
  const noted = await sync.verify({ repair: true });
  expect(noted).toMatchObject({
    equal: true,
    tables: [
      { pending: 300, repaired: 0 },
      { pending: 3161, repaired: 0 },
    ],
  });

  await catchUp(sync);
  expect(await sync.verify()).toMatchObject({
    equal: true,
    tables: [
      { rows: 500, pending: 0 },
      { rows: 6000, pending: 0 },
    ],
  });
  expect((await compareDatabases(pair.source.url, pair.target.url)).differences).toEqual([]);
});

test("keys go into the delta table that is in use, in parts, before the first batch too", async () => {
  await using pair = await freePair();
  await onBoth(pair, tablesSql);
  await using sync = await startVerifiedSync(pair);
  await pair.target.sql(damageSql);
  await pair.source.sql("update replicate.capture set active = 'b'");
  const { tables } = await sync.verify({ repair: true, partBytes: 64 * 1024, jobs: 3 });
  expect(tables.map(({ repaired }) => repaired)).toEqual([300, 3161]);
  const recordedIn = async (which: string): Promise<unknown> =>
    (
      await pair.source.sql(
        `select (select count(*)::int from replicate.delta_1_${which}) + (select count(*)::int from replicate.delta_2_${which}) as n`,
      )
    )[0]?.["n"];
  expect([await recordedIn("a"), await recordedIn("b")]).toEqual([0, 3461]);
  await catchUp(sync);
  expect((await compareDatabases(pair.source.url, pair.target.url)).differences).toEqual([]);
});

test("and all of it without superuser rights", async () => {
  await using pair = await leastPrivilegedPair();
  await onBoth(pair, tablesSql);
  await using sync = await startVerifiedSync(pair);
  await catchUp(sync);
  await pair.target.sql("update users set name = 'wrong' where id = 5");
  await pair.source.asWriter("update users set name = 'changed' where id = 6");
  expect(await sync.differences({ repair: true })).toEqual([`public.users {"id":5} changed name`]);
  await catchUp(sync);
  expect(await sync.verify()).toMatchObject({ equal: true });
});

test("a key that only the target's type can hold is refused, not left for follow to stumble over", async () => {
  await using pair = await freePair();
  await pair.source.sql("create table t (id int primary key, v text); insert into t values (1, 'a')");
  await pair.target.sql(
    "create table t (id bigint primary key, v text); insert into t values (1, 'a'), (5000000000, 'b')",
  );
  await using sync = await startVerifiedSync(pair);
  expect(await sync.differences()).toEqual([`public.t {"id":5000000000} extra`]);
  await expect(sync.verify({ repair: true })).rejects.toMatchObject({
    code: "STATEMENT_FAILED",
    message: expect.stringContaining("noting the differences of public.t") as string,
  });
  expect(await pair.source.sql("select * from replicate.delta_1_a")).toEqual([]);
});
