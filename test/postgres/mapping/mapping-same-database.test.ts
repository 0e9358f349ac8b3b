import { describe, expect, it } from "vitest";

import { describeSchema } from "../../support/schema-description.ts";
import { freePair } from "../../support/database.ts";
import { each, mapped, refusals, rowsOf, verify } from "../../support/mapping-setup.ts";

// Source and target are one database: tables are replicated between its schemas, or under other names.

describe("replication inside one database", () => {
  it("goes from schema to schema, and drop leaves no trace", async () => {
    await using pair = await freePair();
    const both = { source: pair.source, target: pair.source };
    await pair.source.sql(`
      create table public.one (id serial primary key, v text);
      create table public.two (a int, b text, primary key (a, b)) partition by list (a);
      create table public.two_1 partition of public.two for values in (1);
      create table public.two_2 partition of public.two for values in (2);
      create schema app;
      create table app.one (id serial primary key, v text);
      create index on app.one (v);
      create sequence public.counter;
      create sequence app.counter;
      select setval('public.counter', 700);
      create table app.two (a int, b text, primary key (a, b));
      insert into one (v) select 'v' || n from generate_series(1, 5000) n;
      insert into two select 1 + n % 2, n::text from generate_series(1, 100) n`);
    const before = await describeSchema(pair.source.url);
    const run = mapped(both, { tables: ["public.*"], schemas: { public: "app" } });
    await each(run, "preflight", "init", "copy", "follow --until-caught-up", "verify");
    await pair.source.sql(`
      delete from one where id <= 100; update one set v = 'new' where id = 200;
      update two set a = 1 where b = '1'; truncate two_2; insert into two values (2, 'new')`);
    await each(run, "follow --until-caught-up", "sequences");
    expect(await verify(run)).toMatchObject({ equal: true, tables: [{ rows: 4900 }, { rows: 52 }] });
    for (const table of ["one", "two"]) {
      const rows = await rowsOf(pair.source, `select * from app.${table} order by 1, 2`);
      expect(rows).toEqual(await rowsOf(pair.source, `select * from public.${table} order by 1, 2`));
    }
    const values = "select nextval('app.one_id_seq') > 5000, nextval('app.counter') > 700 as is_free";
    expect(await rowsOf(pair.source, values)).toEqual([[true, true]]);
    expect(await refusals(run, "cutover", "--yes")).toEqual([
      "default: source and target are the same database: there are no sides to switch",
    ]);
    const status = await run("status", "--json");
    expect(JSON.parse(status.stdout)).toMatchObject({
      tables: [
        { source: "public.one", target: "app.one" },
        { source: "public.two", target: "app.two" },
      ],
    });
    await each(run, "drop --yes");
    expect(await describeSchema(pair.source.url)).toEqual(before);
  });

  it("refuses tables that would be copied onto themselves", async () => {
    await using pair = await freePair();
    const both = { source: pair.source, target: pair.source };
    await pair.source.sql(
      "create table t (id int primary key); create schema app; create table app.t (id int primary key)",
    );
    const run = mapped(both, { schemas: { public: "app" } });
    expect(await refusals(run, "init")).toEqual([
      "app.t: would be copied onto itself: give it another name (overrides: target) or schema (schemas)",
    ]);
  });
});

// The same from Bucardo's own tests: a table copied under another name in its own database, and customcols.
describe("what Bucardo could", () => {
  it("a copy of a table under another name in the same database", async () => {
    await using pair = await freePair();
    const both = { source: pair.source, target: pair.source };
    await pair.source.sql(`
      create table bucardo_test1 (id int primary key, data1 text, inty smallint);
      create table bucardo_test1_copy (like bucardo_test1 including all);
      insert into bucardo_test1 values (1, 'one', 1), (2, 'two', 2)`);
    const run = mapped(both, {
      tables: ["bucardo_test1"],
      overrides: { bucardo_test1: { target: "bucardo_test1_copy" } },
    });
    await each(run, "init", "copy", "follow --until-caught-up");
    const copy = "select * from bucardo_test1_copy order by id";
    expect(await rowsOf(pair.source, copy)).toEqual([
      [1, "one", 1],
      [2, "two", 2],
    ]);
    await pair.source.sql(
      "update bucardo_test1 set data1 = 'more' where id = 1; delete from bucardo_test1 where id = 2; insert into bucardo_test1 values (3, 'three', 3)",
    );
    await each(run, "follow --until-caught-up", "verify");
    expect(await rowsOf(pair.source, copy)).toEqual([
      [1, "more", 1],
      [3, "three", 3],
    ]);
  });

  it("computed columns, on the target only", async () => {
    await using pair = await freePair();
    const table = "create table bucardo_test1 (id int primary key, data1 text, inty smallint)";
    await Promise.all([pair.source.sql(table), pair.target.sql(table)]);
    await pair.source.sql("insert into bucardo_test1 values (1, 'one', 1), (2, 'two', 2)");
    const run = mapped(pair, { overrides: { bucardo_test1: { columns: { inty: "(inty*30)::smallint" } } } });
    await each(run, "init", "copy", "follow --until-caught-up");
    await pair.source.sql(
      "insert into bucardo_test1 values (3, 'three', 3); update bucardo_test1 set inty = 5 where id = 2",
    );
    await each(run, "follow --until-caught-up", "verify");
    const rows = "select * from bucardo_test1 order by id";
    expect(await rowsOf(pair.source, rows)).toEqual([
      [1, "one", 1],
      [2, "two", 5],
      [3, "three", 3],
    ]);
    expect(await rowsOf(pair.target, rows)).toEqual([
      [1, "one", 30],
      [2, "two", 150],
      [3, "three", 90],
    ]);
  });
});
