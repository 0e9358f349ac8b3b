import { describe, expect, test } from "vitest";

import { freePair, type Pair } from "../../support/database.ts";
import { startVerifiedSync } from "../../support/verified-sync.ts";

/** Runs the same statements on both sides. */
async function onBoth(pair: Pair, statements: string): Promise<void> {
  await Promise.all([pair.source.sql(statements), pair.target.sql(statements)]);
}

const usersSql = `
  create table users (
    id integer primary key, name text, amount numeric, ratio double precision, at timestamptz, doc jsonb);
  insert into users
  select g, 'name ' || g, g * 1.50, g / 7.0::float8, '2020-01-01Z'::timestamptz + g * interval '1 hour',
         jsonb_build_object('n', g)
  from generate_series(1, 5000) g`;

describe("equal tables", () => {
  test("are equal whatever their keys, names and column orders", async () => {
    await using pair = await freePair();
    await onBoth(
      pair,
      `create type mood as enum ('sad', 'ok');
       create domain positive as numeric(10,2) check (value > 0);
       create table by_uuid (id uuid primary key, v int);
       insert into by_uuid select md5(g::text)::uuid, g from generate_series(1, 300) g;
       create table by_text (id text primary key, v int);
       insert into by_text select 'key ' || g, g from generate_series(1, 300) g;
       create table by_two (a int, b text, c bool not null, primary key (b, a));
       insert into by_two select g, 'b' || g % 7, g % 2 = 0 from generate_series(1, 300) g;
       create table by_enum (m mood primary key, p positive);
       insert into by_enum values ('sad', 1.5), ('ok', null);
       create table empty (id int primary key, v text);
       create schema "Odd ""Schema"" .x";
       create table "Odd ""Schema"" .x"."Täble, {{x}} $1" ("Id ""x"".y" int primary key, "select" text, "a'b\\c" int);
       insert into "Odd ""Schema"" .x"."Täble, {{x}} $1" select g, 'x', g from generate_series(1, 5) g;
       create table computed (id int primary key, a int, twice int generated always as (a * 2) stored);
       insert into computed (id, a) values (1, 1), (2, null);
       create table computed_key (a int, id int generated always as (a * 2) stored primary key, v text);
       insert into computed_key (a, v) select g, 'v' from generate_series(1, 3) g`,
    );
    await pair.source.sql(
      `create table reordered (id int primary key, a text, b int); insert into reordered values (1, 'x', 2), (2, null, 3)`,
    );
    await pair.target.sql(
      `create schema app;
       create table app.moved (extra text default 'only here', b int, id int primary key, a text);
       insert into app.moved (id, a, b) values (1, 'x', 2), (2, null, 3)`,
    );
    await using sync = await startVerifiedSync(pair, {
      overrides: { "public.reordered": { target: "app.moved" } },
    });
    const report = await sync.verify();
    expect(report.tables.map(({ table, target, rows, equal }) => [table, target, rows, equal])).toEqual([
      [`"Odd ""Schema"" .x"."Täble, {{x}} $1"`, `"Odd ""Schema"" .x"."Täble, {{x}} $1"`, 5, true],
      ...["by_enum", "by_text", "by_two", "by_uuid", "computed", "computed_key", "empty"].map((name) => [
        `public.${name}`,
        `public.${name}`,
        { by_enum: 2, by_text: 300, by_two: 300, by_uuid: 300, computed: 2, computed_key: 3, empty: 0 }[name],
        true,
      ]),
      ["public.reordered", "app.moved", 2, true],
    ]);
    expect(report.equal).toBe(true);
    const last = sync.events.findLast((event) => event.type === "verify-progress");
    expect(last).toMatchObject({ tablesDone: 9, tablesTotal: 9, rowsDone: 914 });

    // And what differs in them is named.
    await pair.target.sql(
      `update "Odd ""Schema"" .x"."Täble, {{x}} $1" set "a'b\\c" = 0, "select" = null where "Id ""x"".y" = 3;
       update app.moved set b = 0 where id = 2;
       update by_two set c = not c where a = 17;
       delete from by_enum where m = 'sad';
       update computed_key set v = 'w' where id = 4;
       alter table computed drop column twice;
       alter table computed add column twice int generated always as (a * 3) stored`,
    );
    expect(await sync.differences()).toEqual([
      `"Odd ""Schema"" .x"."Täble, {{x}} $1" {"Id \\"x\\".y":3} changed select a'b\\c`,
      `public.by_enum {"m":"sad"} missing`,
      `public.by_two {"b":"b3","a":17} changed c`,
      `public.computed {"id":1} changed twice`,
      `public.computed_key {"id":4} changed v`,
      `public.reordered {"id":2} changed b`,
    ]);
  });

  test("of which none is chosen, or none exists", async () => {
    await using pair = await freePair();
    await onBoth(pair, usersSql);
    await using sync = await startVerifiedSync(pair);
    await pair.target.sql("delete from replicate.sync_table");
    expect(await sync.verify()).toMatchObject({ equal: false, tables: [], notReplicated: ["public.users"] });
  });
});

describe("differences", () => {
  test("are found with key, kind and columns", async () => {
    await using pair = await freePair();
    await onBoth(pair, usersSql);
    await using sync = await startVerifiedSync(pair);
    expect(await sync.verify()).toMatchObject({ equal: true, tables: [{ rows: 5000, differencesTotal: 0 }] });
    await pair.target.sql(
      `update users set name = 'x' where id = 77;
       delete from users where id in (99, 5000);
       insert into users (id) values (-1), (2147483647);
       update users set name = null, ratio = 1 where id = 9`,
    );
    const report = await sync.verify();
    expect(report.equal).toBe(false);
    expect(report.tables).toEqual([
      {
        table: "public.users",
        target: "public.users",
        rows: 5000,
        pending: 0,
        equal: false,
        differences: [
          { key: { id: -1 }, kind: "extra", columns: [] },
          { key: { id: 9 }, kind: "changed", columns: ["name", "ratio"] },
          { key: { id: 77 }, kind: "changed", columns: ["name"] },
          { key: { id: 99 }, kind: "missing", columns: [] },
          { key: { id: 5000 }, kind: "missing", columns: [] },
          { key: { id: 2147483647 }, kind: "extra", columns: [] },
        ],
        differencesTotal: 6,
        parked: 0,
      },
    ]);
    // Looking changes nothing.
    expect(await pair.source.sql("select * from replicate.delta_1_a")).toEqual([]);
  });

  test("are counted beyond those that are listed", async () => {
    await using pair = await freePair();
    await onBoth(pair, usersSql);
    await using sync = await startVerifiedSync(pair);
    await pair.target.sql("update users set name = 'x' where id <= 3000");
    const { tables } = await sync.verify({ maxDifferences: 7 });
    expect(tables[0]?.differencesTotal).toBe(3000);
    expect(tables[0]?.differences.map(({ key }) => key["id"])).toEqual([1, 2, 3, 4, 5, 6, 7]);
    const none = await sync.verify({ maxDifferences: 0 });
    expect(none.tables[0]).toMatchObject({ equal: false, differences: [], differencesTotal: 3000 });
    await pair.target.sql("truncate users");
    expect((await sync.verify()).tables[0]).toMatchObject({ rows: 5000, differencesTotal: 5000 });
    await pair.source.sql("alter table users disable trigger zzz_replicate_truncate_1; truncate users");
    await pair.target.sql("insert into users (id) values (1), (2)");
    expect(await sync.differences()).toEqual([`public.users {"id":1} extra`, `public.users {"id":2} extra`]);
  });

  test("in how a value is written, not in what it means", async () => {
    await using pair = await freePair();
    const values: [column: string, type: string, source: string, target: string][] = [
      ["scale", "numeric", "1.0", "1.00"],
      ["blanks", "text", "'a'", "'a '"],
      ["casing", "text", "'a'", "'A'"],
      ["zero", "float8", "0", "'-0'"],
      ["zero4", "float4", "0", "'-0'"],
      ["empty", "text", "null", "''"],
      ["word", "text", "null", "'null'"],
      ["element", "text[]", "array[null]", "array['NULL']"],
      ["bounds", "int[]", "'[2:3]={1,2}'", "'{1,2}'"],
      ["nothing", "int[]", "'{}'", "null"],
      ["spaces", "json", `'{"a":1}'`, `'{"a": 1}'`],
      ["number", "jsonb", `'{"a":1}'`, `'{"a":1.0}'`],
      ["day", "interval", "'1 day'", "'24 hours'"],
      ["hour", "timetz", "'12:00+01'", "'11:00+00'"],
      ["composed", "text", "U&'\\00e9'", "U&'e\\0301'"],
      ["bytes", "bytea", "'\\x00'", "'\\x'"],
      ["fields", "pair", "row(null, null)", "null"],
      ["quoted", "pair", `row(1, '"')`, `row(1, '""')`],
      ["digit", "float8", "0.1", "0.10000000000000002"],
      ["micro", "timestamptz", "'2020-01-01 00:00:00.000001Z'", "'2020-01-01 00:00:00Z'"],
      ["ci", "text collate ci", "'a'", "'A'"],
      ["cit", "citext", "'a'", "'A'"],
      ["bit", "bit varying", "B'0'", "B'00'"],
      ["mask", "inet", "'10.0.0.1/24'", "'10.0.0.1'"],
      ["mark", "text", "'\\.'", "'\\\\.'"],
      ["tab", "text", "E'a\\tb'", "E'a\\\\tb'"],
      ["comma", "text", "'(,)'", `'("","")'`],
    ];
    await onBoth(
      pair,
      `create extension citext;
       create collation ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
       create type pair as (a int, b text);
       create table forms (id int primary key, ${values.map(([name, type]) => `"${name}" ${type}`).join(", ")})`,
    );
    const fill = (side: 2 | 3): string =>
      values
        .map((value, index) => `insert into forms (id, "${value[0]}") values (${index}, ${value[side]})`)
        .join(";");
    await pair.source.sql(fill(2));
    await pair.target.sql(fill(3));
    await using sync = await startVerifiedSync(pair);
    expect(await sync.differences()).toEqual(
      values.map(([name], index) => `public.forms {"id":${index}} changed ${name}`),
    );
    await pair.target.sql(`truncate forms; ${fill(2)}`);
    expect(await sync.differences()).toEqual([]);
  });

  test("in how a key is written", async () => {
    await using pair = await freePair();
    await onBoth(
      pair,
      `create extension citext;
       create collation ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
       create table by_numeric (k numeric primary key, v int);
       create table by_ci (k text collate ci primary key, v int);
       create table by_citext (k citext, n int, v int, primary key (n, k));
       create table by_float (k float8 primary key, v int)`,
    );
    await pair.source.sql(
      `insert into by_numeric values (1.0, 1), (2.0, 2); insert into by_ci values ('a', 1), ('b', 2);
       insert into by_citext values ('a', 1, 1), ('a', 2, 1); insert into by_float values (0, 1), ('NaN', 2), (0.1, 3)`,
    );
    await pair.target.sql(
      `insert into by_numeric values (1.00, 1), (2.0, 2); insert into by_ci values ('A', 1), ('b', 2);
       insert into by_citext values ('A', 1, 1), ('a', 2, 1); insert into by_float values ('-0', 1), ('NaN', 2), (0.1, 3)`,
    );
    await using sync = await startVerifiedSync(pair);
    const expected = [
      `public.by_ci {"k":"a"} changed k`,
      `public.by_citext {"n":1,"k":"a"} changed k`,
      `public.by_float {"k":"0"} changed k`,
      `public.by_numeric {"k":"1.0"} changed k`,
    ];
    expect(await sync.differences()).toEqual(expected);
    // The same by way of the buckets, where the two spellings fall into different ones.
    const many = `insert into by_numeric select g, g from generate_series(3, 3000) g;
      insert into by_ci select 'k' || g, g from generate_series(3, 3000) g;
      insert into by_citext select 'k' || g, g from generate_series(3, 3000) g;
      insert into by_float select g, g from generate_series(3, 3000) g`;
    await pair.source.sql(`set session_replication_role = replica; ${many}`);
    await pair.target.sql(many);
    await pair.target.sql("update replicate.sync_table set state = 'following'");
    const [{ snapshot } = {}] = await pair.source.sql("select txid_current_snapshot()::text as snapshot");
    await pair.target.sql("update replicate.sync set position = $1", [snapshot]);
    expect(await sync.differences()).toEqual(expected);
  });

  test("of keys that are hard to quote", async () => {
    await using pair = await freePair();
    const keys = [
      "", " ", "  ", "'", '"', "\\", "\\.", "\\N", "null", "NULL", "\t", "\n", "\r\n", "a,b", "(a)", "{a}", "$1", "%s",
      "é", "e\u0301", "☃", "𝄞", "\u0001", "\u0085", "\u00a0", "x".repeat(2000), "a\u0000".slice(0, 1) + "\\x00", "--", ";",
    ]; // prettier-ignore
    await onBoth(pair, "create table odd (k text, n int, v text, primary key (k, n))");
    await pair.source.sql("insert into odd select k, 1, k from unnest($1::text[]) as k", [keys]);
    await pair.target.sql("insert into odd select k, 1, k from unnest($1::text[]) as k", [keys]);
    await using sync = await startVerifiedSync(pair);
    expect(await sync.differences()).toEqual([]);
    await pair.target.sql("update odd set v = v || '!'");
    const { tables } = await sync.verify();
    const found = tables[0]?.differences ?? [];
    expect(new Set(found.map(({ key }) => key["k"]))).toEqual(new Set(keys));
    expect(found).toHaveLength(keys.length);
    expect(found.every(({ kind, columns }) => kind === "changed" && columns.join() === "v")).toBe(true);
    // Nothing but the keys themselves, in both directions.
    await pair.target.sql("update odd set k = k || '!', v = k");
    expect((await sync.verify()).tables[0]).toMatchObject({ differencesTotal: 2 * keys.length });
  });

  test("that are rows which the target has twice", async () => {
    await using pair = await freePair();
    await onBoth(
      pair,
      "create table t (id int primary key, v text); insert into t values (1, 'a'), (2, 'b')",
    );
    await using sync = await startVerifiedSync(pair);
    await pair.target.sql("alter table t drop constraint t_pkey; insert into t values (2, 'b')");
    expect(await sync.differences()).toEqual([`public.t {"id":2} extra`]);
  });

  test("in large values", async () => {
    await using pair = await freePair();
    await onBoth(
      pair,
      `create table large (id int primary key, b bytea, t text, v varchar);
       alter table large alter b set storage external;
       insert into large values
         (1, convert_to(repeat('0123456789', 2000000), 'UTF8'), repeat('abcdefghij', 2000000), repeat('x', 9000000)),
         (2, 'small', 'small', 'small'), (3, null, null, null)`,
    );
    await using sync = await startVerifiedSync(pair);
    expect(await sync.differences()).toEqual([]);
    await pair.target.sql(
      `update large set b = set_byte(b, 19999999, 0) where id = 1;
       update large set t = overlay(t placing 'X' from 12345678), v = v || 'x' where id = 1`,
    );
    expect(await sync.differences()).toEqual([`public.large {"id":1} changed b t v`]);
  });
});

describe("parts", () => {
  test("cover everything, in ranges of the key or whole", async () => {
    await using pair = await freePair();
    const tables = {
      ints: "g::int - 20000",
      bigints: "g::bigint * 1000000007",
      numerics: "(g / 3.0)::numeric",
      dates: "'2020-01-01'::date + g::int",
      stamps: "'2020-01-01Z'::timestamptz + g * interval '1 second'",
      uuids: "md5(g::text)::uuid",
      texts: "md5(g::text)",
    };
    for (const [name, key] of Object.entries(tables)) {
      await onBoth(
        pair,
        `create table ${name} as select ${key} as k, g as n, repeat('x', 50) as v from generate_series(1, 40000) g;
         alter table ${name} add primary key (k${name === "dates" ? ", n" : ""})`,
      );
    }
    await using sync = await startVerifiedSync(pair);
    const equal = await sync.verify({ partBytes: 256 * 1024 });
    expect(equal.tables.map(({ rows, equal: isEqual }) => [rows, isEqual])).toEqual(
      Object.keys(tables).map(() => [40_000, true]),
    );
    const partsOf = (name: string): number =>
      sync.events.filter((event) => event.type === "verify-progress" && event.table === `public.${name}`)
        .length;
    for (const name of ["ints", "bigints", "numerics", "dates", "stamps"])
      expect(partsOf(name)).toBeGreaterThan(8);
    // Their rows lie scattered over the table, or have an order that servers do not agree on.
    expect(partsOf("uuids")).toBe(4);
    expect(partsOf("texts")).toBe(1);

    await pair.target.sql(
      `insert into ints (k) values (-2147483648), (2147483647); delete from ints where k in (-19999, 0, 20000);
       insert into numerics (k, n) values ('NaN', 0), (-1, 0);
       insert into stamps (k) values ('infinity'), ('-infinity');
       insert into uuids (k) values ('00000000-0000-0000-0000-000000000000'), ('ffffffff-ffff-ffff-ffff-ffffffffffff');
       update dates set v = 'y' where n % 10000 = 0`,
    );
    expect(await sync.differences({ partBytes: 256 * 1024 })).toEqual([
      `public.dates {"k":"2047-05-19","n":10000} changed v`,
      `public.dates {"k":"2074-10-04","n":20000} changed v`,
      `public.dates {"k":"2102-02-20","n":30000} changed v`,
      `public.dates {"k":"2129-07-08","n":40000} changed v`,
      `public.ints {"k":-2147483648} extra`,
      `public.ints {"k":-19999} missing`,
      `public.ints {"k":0} missing`,
      `public.ints {"k":20000} missing`,
      `public.ints {"k":2147483647} extra`,
      `public.numerics {"k":"-1"} extra`,
      `public.numerics {"k":"NaN"} extra`,
      `public.stamps {"k":"-infinity"} extra`,
      `public.stamps {"k":"infinity"} extra`,
      `public.uuids {"k":"00000000-0000-0000-0000-000000000000"} extra`,
      `public.uuids {"k":"ffffffff-ffff-ffff-ffff-ffffffffffff"} extra`,
    ]);
    const listed = await sync.verify({ partBytes: 256 * 1024, tables: ["ints"], maxDifferences: 2 });
    expect(listed.tables[0]).toMatchObject({ differencesTotal: 5, differences: { length: 2 } });
  });

  test("of partitioned tables go through the root, those of inheritance parents do not reach the children", async () => {
    await using pair = await freePair();
    await onBoth(
      pair,
      `create table base (id int primary key, v text);
       create table child (primary key (id)) inherits (base);
       insert into base values (1, 'base'), (2, 'base');
       insert into child values (1, 'child'), (3, 'child')`,
    );
    await pair.source.sql(
      `create table events (id int, at date, v text, primary key (id, at)) partition by range (at);
       create table events_old partition of events for values from (minvalue) to ('2021-01-01');
       create table events_new (v text, at date not null, id int not null, primary key (id, at));
       alter table events attach partition events_new for values from ('2021-01-01') to (maxvalue)`,
    );
    // Partitioned differently.
    await pair.target.sql(
      `create table events (id int, at date, v text, primary key (id, at)) partition by hash (id);
       create table events_0 partition of events for values with (modulus 2, remainder 0);
       create table events_1 partition of events for values with (modulus 2, remainder 1)`,
    );
    await onBoth(
      pair,
      "insert into events select g, '2020-06-01'::date + g, 'v' || g from generate_series(1, 2000) g",
    );
    await using sync = await startVerifiedSync(pair, { tables: ["events", "base", "child"] });
    expect(await sync.differences({ partBytes: 64 * 1024 })).toEqual([]);
    await pair.target.sql(
      `update events set v = 'x' where id in (3, 1999); update only base set v = 'x' where id = 1;
       update child set v = 'x' where id = 1; delete from child where id = 3`,
    );
    expect(await sync.differences({ partBytes: 64 * 1024 })).toEqual([
      `public.base {"id":1} changed v`,
      `public.child {"id":1} changed v`,
      `public.child {"id":3} missing`,
      `public.events {"id":3,"at":"2020-06-04"} changed v`,
      `public.events {"id":1999,"at":"2025-11-21"} changed v`,
    ]);
  });
});

describe("refusals", () => {
  test("of tables that are not there yet, and of names that mean nothing", async () => {
    await using pair = await freePair();
    await onBoth(pair, `${usersSql}; create table other (id int primary key)`);
    await using sync = await startVerifiedSync(pair);
    await pair.target.sql("update replicate.sync_table set state = 'loaded' where source_name = 'other'");
    await expect(sync.verify()).rejects.toMatchObject({
      code: "COPY_UNFINISHED",
      problems: [{ subject: "public.other", message: "is in state loaded" }],
    });
    expect(await sync.verify({ tables: ["us*"] })).toMatchObject({ tables: [{ table: "public.users" }] });
    await expect(sync.verify({ tables: ["users", "no_such"] })).rejects.toMatchObject({
      code: "PATTERN_MATCHES_NOTHING",
    });
    await pair.target.sql("delete from replicate.sync");
    await expect(sync.verify()).rejects.toMatchObject({ code: "SYNC_UNKNOWN" });
  });

  test("of tables whose shapes do not fit any more, all at once", async () => {
    await using pair = await freePair();
    await onBoth(pair, `${usersSql}; create table other (id int primary key, a int, b int)`);
    await using sync = await startVerifiedSync(pair);
    await pair.source.sql("alter table users add column email text; alter table other alter b type text");
    await expect(sync.verify()).rejects.toMatchObject({
      code: "TABLE_SHAPE_CHANGED",
      problems: [
        { subject: "public.other", message: expect.stringContaining('"b"') as string },
        { subject: "public.users", remedy: expect.stringContaining('add column "email" text') as string },
      ],
    });
    await pair.source.sql("drop table other");
    await expect(sync.verify({ tables: ["other"] })).rejects.toMatchObject({ code: "TABLE_SHAPE_CHANGED" });
  });

  test("of a source that is behind its target", async () => {
    await using pair = await freePair();
    await onBoth(pair, usersSql);
    await using sync = await startVerifiedSync(pair);
    await pair.target.sql("update replicate.sync set position = '99999999:99999999:'");
    await pair.target.sql("update replicate.sync_table set state = 'following'");
    await expect(sync.verify()).rejects.toMatchObject({ code: "SOURCE_LOST" });
  });
});
