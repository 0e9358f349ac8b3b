import { expect, test } from "vitest";

import { openSync } from "../../src/index.ts";
import { freePair, type Database } from "../support/database.ts";

// "char" holds any byte, and is written in three ways: what arrives is the byte that was sent, or the reading is refused.
// Compared by what the types' send functions give.

const database = (encoding: string): string =>
  `template template0 encoding '${encoding}' lc_collate 'C' lc_ctype 'C'`;
const made = `create table bytes (id int primary key, c "char", i interval, m money, r regtype, f float8, n name, x xml, o oidvector, t tid);
  create table plain (id int primary key, c "char", f float8);
  create table keyed (c "char" primary key, i interval)`;
/** One row for each byte; that of number 0 is the empty value. */
const filled = (from: number, to: number): string => `
  insert into bytes select g, (case when g > 127 then g - 256 else g end)::"char", g * interval '1 day 2 min', g::numeric::money, 'integer', 1 / (g + 3.0)::float8,
    'nom', '<a>b</a>', '1 2', '(1,2)' from generate_series(${from}, ${to}) g;
  insert into plain select id, c, f from bytes where id between ${from} and ${to};
  insert into keyed select c, i from bytes where id between ${from} and ${to}`;

async function bytesOf(side: Database): Promise<unknown[]> {
  return [
    ...(await side.sql(`select 1 as n, id, encode(charsend(c), 'hex') as c, encode(interval_send(i), 'hex') as i, encode(cash_send(m), 'hex') as m, r::oid::regtype::text as r,
      encode(float8send(f), 'hex') as f, encode(namesend(n), 'hex') as n, x::text as x, encode(oidvectorsend(o), 'hex') as o, encode(tidsend(t), 'hex') as t from bytes order by id`)),
    ...(await side.sql("select 2 as n, id, encode(charsend(c), 'hex') as c from plain order by id")),
    ...(await side.sql(
      "select 3 as n, encode(charsend(c), 'hex') as c, i::text as i from keyed order by charsend(c)",
    )),
  ];
}

const all = [
  { source: "13", from: "LATIN1", target: "18", to: "UTF8", last: 255 },
  { source: "15", from: "LATIN1", target: "16", to: "LATIN1", last: 255 },
  { source: "10", from: "LATIN1", target: "18", to: "LATIN1", last: 255 },
  { source: "13", from: "UTF8", target: "18", to: "UTF8", last: 127 },
  { source: "18", from: "UTF8", target: "18", to: "UTF8", last: 255 },
  { source: "16", from: "LATIN1", target: "18", to: "UTF8", last: 255 },
  // The target is not able to read them.
  { source: "18", from: "UTF8", target: "13", to: "UTF8", last: 127 },
  { source: "16", from: "UTF8", target: "15", to: "UTF8", last: 127 },
  { source: "13", from: "LATIN1", target: "15", to: "UTF8", last: 127 },
] as const;

test.for(all)("$source to $target, $from to $to, up to $last", async ({ source, from, target, to, last }) => {
  await using pair = await freePair({
    source,
    target,
    createOptions: database(from),
    targetOptions: database(to),
  });
  await pair.source.sql(made);
  await pair.target.sql(made);
  await pair.source.sql(filled(0, last - 20));
  await using sync = await openSync({ source: pair.source.url, target: pair.target.url, env: {} });
  await sync.init();
  await sync.copy();
  expect(await bytesOf(pair.target)).toEqual(await bytesOf(pair.source));
  await pair.source.sql(filled(last - 19, last));
  await pair.source.sql(
    "update bytes set c = 'z' where id = 5; delete from keyed where i = interval '7 days 14 min'",
  );
  for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
  const there = await bytesOf(pair.target);
  expect(there).toEqual(await bytesOf(pair.source));
  expect(there.length).toBe(3 * (last + 1) - 1);
  expect(await sync.verify()).toMatchObject({ equal: true });
});

test.for([
  { source: "18", from: "UTF8", target: "13", to: "UTF8" },
  { source: "13", from: "LATIN1", target: "15", to: "UTF8" },
] as const)(
  "$source to $target, $from to $to: a byte over 127 is refused, not changed",
  async ({ source, from, target, to }) => {
    for (const [type, value] of [
      ['"char"', `(-23)::"char"`],
      ['"char"[]', `array['a', (-23)::"char"]`],
    ]) {
      await using pair = await freePair({
        source,
        target,
        createOptions: database(from),
        targetOptions: database(to),
      });
      for (const side of [pair.source, pair.target])
        await side.sql(`create table t (id int primary key, c ${type}, i interval)`);
      await pair.source.sql("insert into t values (1, null, '1 day')");
      await using sync = await openSync({ source: pair.source.url, target: pair.target.url, env: {} });
      await sync.init();
      await sync.copy();
      await pair.source.sql(`insert into t values (2, ${value}, '1 day')`);
      const follow = async (): Promise<void> => {
        for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
      };
      await expect(follow()).rejects.toThrow("cannot be read as the column's type");
      expect(await pair.target.sql("select id from t")).toEqual([{ id: 1 }]);
      await pair.source.sql("update t set c = null where id = 2");
      await follow();
      expect(await pair.target.sql("select id from t order by id")).toEqual([{ id: 1 }, { id: 2 }]);
    }
  },
);
