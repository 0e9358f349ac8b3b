import { expect, test } from "vitest";
import { freePair } from "../../support/database.ts";
import {
  differences,
  followUntilCaughtUp,
  onBoth,
  openCopySync,
  shopRows,
  shopSchema,
} from "../../support/copy-setup.ts";

const partBytes = 256 * 1024;

test("copies tables with all kinds of keys, small and large, in parts, and a second run has nothing to do", async () => {
  await using pair = await freePair();
  await onBoth(pair, shopSchema);
  await pair.source.sql(shopRows(30_000));
  const { sync, events, of } = await openCopySync(pair);
  await using _ = sync;
  await sync.init();

  const report = await sync.copy({ jobs: 3, partBytes });
  expect(await differences(pair)).toEqual([]);
  expect(report.rows).toBe(30_000 + 1000 + 60_000 + 4);
  expect(report.tables.map(({ table, state }) => `${table} ${state}`)).toEqual([
    "public.customer copied",
    "public.item copied",
    "public.product copied",
    "public.setting copied",
  ]);
  expect(of("copy-planned")[0]?.tables).toBe(4);
  expect(of("copy-planned")[0]?.parts).toBeGreaterThan(20);
  expect(of("table-copied").map((event) => event.table).sort()).toEqual(report.tables.map(({ table }) => table)); // prettier-ignore
  expect(of("index-built").map((event) => event.index).sort()).toEqual(["customer_email_key", "customer_pkey", "item_pkey", "item_product"]); // prettier-ignore
  const parts = await pair.target.sql<{ n: number }>(`select count(*)::int as n from replicate.part`);
  expect(parts[0]?.n).toBe(of("copy-planned")[0]?.parts);

  events.splice(0);
  const again = await sync.copy();
  expect(again.rows).toBe(report.rows);
  expect(of("copy-planned")[0]).toMatchObject({ tables: 0, parts: 0 });
  expect(of("table-copied")).toEqual([]);

  await followUntilCaughtUp(sync);
  await sync.drop();
});

test.each([
  ["13", "13"],
  ["13", "18"],
  ["18", "18"],
  ["18", "13"],
])("from %s to %s: keys of any kind are cut into parts, none lost and none twice", async (from, to) => {
  await using pair = await freePair({ source: from, target: to });
  await onBoth(
    pair,
    `create extension citext;
     create collation blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
     create table by_uuid (id uuid primary key, filler text);
     create table by_text (a text collate "C", b timestamptz, c numeric, filler text, primary key (a, b, c));
     create table by_citext (id citext primary key, filler text);
     create table by_blind (id text collate blind primary key, filler text);
     create table by_bytes (id bytea, n "char", filler text, primary key (id, n));
     create table gaps (id bigint primary key, filler text);
     create table emptied (id int primary key, filler text);
     create table "Weird ""name"" . x" ("Key ' col" int primary key, "select" text, filler text);`,
  );
  await pair.source.sql(
    `insert into by_uuid select md5(g::text)::uuid, repeat('x', 80) from generate_series(1, 15000) g;
     insert into by_text select E'k\\\\''' || g % 10, timestamptz '2020-01-01 00:00+00' + g * interval '1.000001 second', g / 3.0, repeat('x', 80) from generate_series(1, 15000) g;
     insert into by_citext select md5(g::text), repeat('x', 80) from generate_series(1, 15000) g;
     insert into by_blind select md5(g::text), repeat('x', 80) from generate_series(1, 15000) g;
     insert into by_bytes select decode(md5(g::text), 'hex'), chr(1 + g % 120)::"char", repeat('x', 80) from generate_series(1, 15000) g;
     insert into gaps select g::bigint * g * g * (case when g % 2 = 0 then -1 else 1 end), repeat('x', 80) from generate_series(1, 15000) g;
     insert into emptied select g, repeat('x', 80) from generate_series(1, 15000) g; delete from emptied;
     insert into "Weird ""name"" . x" select g, 's' || g, repeat('x', 80) from generate_series(1, 15000) g;
     analyze`,
  );
  const { sync } = await openCopySync(pair);
  await using _ = sync;
  await sync.init();
  await sync.copy({ jobs: 2, partBytes: 200_000 });
  expect(await differences(pair)).toEqual([]);
  const splits = await pair.target.sql<{ name: string; split: string; parts: number; most: number }>(
    `select t.source_name as name, min(p.split) as split, count(*)::int as parts, max(p.rows)::int as most
     from replicate.part p join replicate.sync_table t using (sync, capture_id) group by 1 order by 1`,
  );
  for (const { name, split, parts, most } of splits) {
    expect(split).toBe(name === "emptied" && from === "13" ? "whole" : from === "13" ? "keys" : "pages");
    if (name === "emptied") continue;
    expect(parts).toBeGreaterThan(5);
    expect(most).toBeLessThan((15_000 / parts) * 2);
  }
});

test("a target that holds rows is refused as a whole, replaced with overwrite, kept with adopt", async () => {
  await using pair = await freePair();
  await onBoth(
    pair,
    `create table a (id int primary key, t text); create table b (id int primary key, t text); create table c (id int primary key);`,
  );
  await pair.source.sql(
    `insert into a select g, 's' from generate_series(1, 100) g; insert into b select * from a`,
  );
  await pair.target.sql(`insert into a values (-1, 'old'); insert into b values (-2, 'old')`);
  const { sync, of } = await openCopySync(pair);
  await using _ = sync;
  await sync.init();

  await expect(sync.copy()).rejects.toMatchObject({
    code: "TARGET_NOT_EMPTY",
    problems: [{ subject: "public.a" }, { subject: "public.b" }],
  });
  const states = (): Promise<{ states: string }[]> =>
    pair.target.sql<{ states: string }>(
      `select string_agg(state, ',' order by source_name) as states from replicate.sync_table`,
    );
  expect(await states()).toEqual([{ states: "new,new,new" }]);

  const plan = await sync.copy({ dryRun: true, overwrite: true });
  expect(plan.plan.map((each) => [each.table, each.parts, each.format, each.emptiesTarget])).toEqual([
    ["public.a", 1, "binary", true],
    ["public.b", 1, "binary", true],
    ["public.c", 1, "binary", false],
  ]);
  expect(await states()).toEqual([{ states: "new,new,new" }]);

  await sync.copy({ adopt: true, tables: ["public.b"] });
  expect(await pair.target.sql(`select * from b`)).toEqual([{ id: -2, t: "old" }]);
  expect(await states()).toEqual([{ states: "new,copied,new" }]);
  await expect(sync.copy({ tables: ["public.unknown"] })).rejects.toMatchObject({
    code: "PATTERN_MATCHES_NOTHING",
  });
  await expect(sync.copy({ adopt: true, overwrite: true })).rejects.toMatchObject({ code: "USAGE_INVALID" });

  await sync.copy({ overwrite: true });
  expect(await pair.target.sql(`select count(*)::int as n, min(id) as first from a`)).toEqual([
    { n: 100, first: 1 },
  ]);
  expect(of("table-copied").map((event) => event.table).sort()).toEqual(["public.a", "public.b", "public.c"]); // prettier-ignore

  await pair.target.sql(`delete from a`);
  await sync.copy({ restart: true, tables: ["public.a"] });
  expect(await pair.target.sql(`select count(*)::int as n from a`)).toEqual([{ n: 100 }]);

  await followUntilCaughtUp(sync);
  await pair.target.sql(
    `update c set id = 5; delete from a where id > 50; insert into b values (777, 'stray')`,
  );
  await pair.source.sql(`update a set t = 'later' where id = 60; insert into c values (6)`);
  await sync.copy({ restart: true });
  await followUntilCaughtUp(sync);
  expect(await differences(pair)).toEqual([]);
});

test("types that differ, columns in another order, generated and identity columns, text format where binary is not safe", async () => {
  await using pair = await freePair();
  await pair.source.sql(`
    create type mood as enum ('sad', 'ok');
    create table wide (id int primary key, n smallint, v varchar(10), m mood, twice int generated always as (n * 2) stored, f real, iv interval, ts tsvector, filler text);
    create table alike (id int generated always as identity primary key, a int[], m mood, filler text);
    create table odd (id int primary key, moods mood[], range int4range);
    insert into wide (id, n, v, m, f, iv, ts, filler) select g, g % 100, 'v' || g % 9, (array['sad', 'ok'])[1 + g % 2]::mood, g / 3.0, g * interval '1 minute', to_tsvector('simple', 'w' || g), repeat('x', 100) from generate_series(1, 12000) g;
    insert into alike (a, m, filler) select array[g, null], 'ok', repeat('x', 100) from generate_series(1, 12000) g;
    insert into odd select g, array['sad', null]::mood[], int4range(g, g + 3) from generate_series(1, 10) g;
  `);
  await pair.target.sql(`
    create schema types; create type types.mood as enum ('happy', 'ok', 'sad');
    create table wide (m text, extra text, v text, id bigint primary key, stamp timestamptz not null default now(), n numeric, f double precision, iv interval, ts tsvector, filler text,
      twice int generated always as (id * 3) stored);
    create table alike (filler text, a int[], m types.mood, id int generated always as identity primary key, more int default 7);
    create table odd (id int primary key, moods types.mood[], range int4range);
  `);
  const { sync } = await openCopySync(pair);
  await using _ = sync;
  await sync.init();
  const plan = await sync.copy({ dryRun: true });
  expect(plan.plan.map((each) => [each.table, each.format])).toEqual([
    ["public.wide", "text"],
    ["public.alike", "binary"],
    ["public.odd", "text"],
  ]);
  await sync.copy({ partBytes: 300_000 });
  const sums = (table: string, columns: string): string =>
    `select count(*)::int as n, md5(string_agg((${columns})::text, '|' order by id)) as sum from ${table}`;
  for (const [table, columns] of [
    ["wide", "id, n, v, m::text, f::text, iv, ts, filler"],
    ["alike", "id, a, m::text, filler"],
    ["odd", "id, moods::text, range"],
  ] as const) {
    expect(await pair.target.sql(sums(table, columns)), table).toEqual(
      await pair.source.sql(sums(table, columns)),
    );
  }
  expect(await pair.target.sql(`select distinct twice = id * 3 as a, extra is null as b, stamp is not null as c from wide`)).toEqual([{ a: true, b: true, c: true }]); // prettier-ignore
  expect(await pair.target.sql(`select distinct more from alike`)).toEqual([{ more: 7 }]);
});

test("a row that the target refuses is named; nothing is left half done, and the next run goes on", async () => {
  await using pair = await freePair();
  await onBoth(
    pair,
    `create table a (id int primary key, t text); create table b (id int primary key, t text)`,
  );
  await pair.source.sql(
    `insert into a select g, repeat('x', 200) from generate_series(1, 10000) g; insert into b select * from a`,
  );
  await pair.target.sql(`alter table a add constraint odd check (id <> 5000)`);
  const { sync } = await openCopySync(pair);
  await using _ = sync;
  await sync.init();
  const refused = await sync.copy({ partBytes: 200_000 }).catch((error: unknown) => error);
  expect(refused).toMatchObject({ code: "ROW_REFUSED", sqlstate: "23514" });
  expect(String(refused)).toMatch(/public\.a: .*odd/);
  await pair.target.sql(`alter table a drop constraint odd`);
  await sync.copy({ partBytes: 200_000 });
  expect(await differences(pair)).toEqual([]);
});
