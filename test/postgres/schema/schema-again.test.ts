import { expect, test } from "vitest";

import { openSync } from "../../../src/index.ts";
import { freePair } from "../../support/database.ts";
import { leastPrivilegedPair } from "../../support/least-privileged-pair.ts";
import { tellWhySkipped } from "../../support/schema-setup.ts";

// "Run the same command again": what is there already is passed over, whatever kind of object it is; and what the role may
// not read stops nothing that is not about it.

const isSkipped = tellWhySkipped();

const celsius = `
  create type app.celsius;
  create function app.celsius_in(cstring) returns app.celsius language internal immutable strict as 'int4in';
  create function app.celsius_out(app.celsius) returns cstring language internal immutable strict as 'int4out';
  create type app.celsius (input = app.celsius_in, output = app.celsius_out, like = int4);`;
const steps = "create function app.step(json, json) returns json language sql as 'select $2';";

/** Kinds of objects whose names servers of different versions do not agree on, or that have no name of their own. */
const kinds: readonly (readonly [string, string])[] = [
  ["a base type, with its shell", celsius],
  ["a shell alone", "create type app.shell"],
  ["a function of types that have no schema in newer versions", "create function app.f(json, jsonb, \"char\", json[]) returns int language sql as 'select 1'"],
  ["a procedure", "create procedure app.p(json) language sql as 'select 1'"],
  ["an aggregate", `${steps} create aggregate app.a(json) (sfunc = app.step, stype = json)`],
  ["an operator", `${steps} create operator app.### (leftarg = json, rightarg = json, function = app.step)`],
  ["a cast with a function", `${celsius} create function app.c(json) returns app.celsius language sql as $$ select null::app.celsius $$; create cast (json as app.celsius) with function app.c(json)`],
  ["a cast without one", `${celsius} create cast (app.celsius as int4) without function as assignment`],
  ["an operator class and family", `${celsius} create operator class app.o for type app.celsius using hash as storage app.celsius; create operator family app.y using btree`],
  ["a transform", "create function app.t(internal) returns int4 language internal immutable as $$int4recv$$; create transform for int4 language sql (from sql with function prsd_lextype(internal), to sql with function app.t(internal))"],
  ["an access method", "create access method app_heap type table handler heap_tableam_handler"],
  ["text search", "create text search dictionary app.d (template = simple); create text search configuration app.c (parser = default)"],
  ["a collation and a conversion", "create collation app.c (locale = 'C'); create conversion app.v for 'LATIN1' to 'UTF8' from iso8859_1_to_utf8"],
  ["a domain over a domain, a range, an enum, a composite", "create domain app.a as text check (value <> ''); create domain app.b as app.a not null; create type app.r as range (subtype = int4); create type app.e as enum ('x'); create type app.k as (a int, b app.e)"],
  ["foreign data", "create foreign data wrapper app_w; create server app_s foreign data wrapper app_w; create foreign table app.f (id int) server app_s"],
  ["keys of partitions, attached and their own", `
    create table app.q (id int not null, k int not null, constraint q_key primary key (id, k)) partition by list (k);
    create table app.q1 partition of app.q for values in (1) partition by range (id);
    create table app.q11 partition of app.q1 for values from (0) to (10);
    create table app.q12 (k int not null, id int not null, constraint other unique (id, k), constraint mine primary key (id, k));
    alter table app.q1 attach partition app.q12 for values from (10) to (20);
    create table app.r (id int not null) partition by range (id);
    create table app.r1 partition of app.r (constraint r1_only primary key (id)) for values from (0) to (10);
    create index q_k on app.q (k)`],
  ["views, rules, statistics, policies, triggers", `
    create table app.g (id int generated always as identity primary key, e text default 'x' check (e <> ''));
    create view app.v as select * from app.g; create rule quiet as on insert to app.v do instead nothing;
    create materialized view app.m as select id from app.g; create index m_i on app.m (id);
    create statistics app.s on id, e from app.g;
    create policy everybody on app.g using (true); alter table app.g enable row level security;
    create function app.t() returns trigger language plpgsql as $$ begin return new; end $$;
    create trigger t before insert on app.g for each row execute function app.t()`],
]; // prettier-ignore

for (const [what, sql] of kinds)
  test.skipIf(isSkipped)(`schema a second time passes over ${what}`, async () => {
    await using pair = await freePair();
    await pair.source.sql(`create schema app; ${sql}`);
    await using sync = await openSync({ source: pair.source.url, target: pair.target.url, env: {} });
    const first = await sync.schema();
    expect(first.created.length).toBeGreaterThan(1);
    const second = await sync.schema();
    expect(second.created).toEqual([]);
    expect([...second.existing].sort()).toEqual([...first.created].sort());
  });

test.skipIf(isSkipped)(
  "keys of partitions that were made by hand, under other names, are passed over",
  async () => {
    await using pair = await freePair();
    await pair.source.sql(`
    create table q (id int not null, k int not null, constraint q_key primary key (id, k)) partition by list (k);
    create table q1 (k int not null, id int not null, constraint mine primary key (id, k));
    alter table q attach partition q1 for values in (1)`);
    await pair.target.sql(`
    create table q (id int, k int, primary key (id, k)) partition by list (k);
    create table q1 partition of q for values in (1)`);
    await using sync = await openSync({ source: pair.source.url, target: pair.target.url, env: {} });
    expect((await sync.schema()).created).toEqual([]);
  },
);

test.skipIf(isSkipped)(
  "tables that the role may not read: named while they are chosen, no hindrance else",
  async () => {
    await using pair = await leastPrivilegedPair();
    await pair.source.asAdmin(`
    create schema hidden; create table hidden.h (id int);
    create table public.secret (id serial primary key); create sequence public.lone;
    grant references on public.secret to ${pair.source.owner.name}`);
    await pair.source.sql(`
    create table a (id int primary key, s int references secret);
    create view v as select * from secret;
    create function f(secret) returns int language sql as 'select 1'`);
    const ends = { source: pair.source.url, target: pair.target.url, env: {} };
    await using all = await openSync(ends);
    await expect(all.schema()).rejects.toMatchObject({
      code: "PREFLIGHT_BLOCKED",
      problems: [
        { subject: "table hidden.h", remedy: expect.stringContaining("--exclude-tables 'hidden.h'") },
        {
          subject: "table public.secret",
          remedy: expect.stringContaining('grant select on "public"."secret"'),
        },
      ],
    });
    expect(await pair.target.sql("select 1 from pg_class where relname = 'a'")).toEqual([]);

    const choices = [{ exclude: ["secret", "hidden.*"] }, { tables: ["a"] }];
    for (const choice of choices) {
      await using sync = await openSync({ ...ends, ...choice });
      const report = await sync.schema();
      expect([...report.created, ...report.existing]).toContain("table public.a");
      const left = new Map(report.leftOut.map(({ object, reason }) => [object, reason]));
      for (const object of ["table hidden.h", "table public.secret", "sequence public.lone"])
        expect(left.get(object), object).toMatch(/may not read/);
      for (const object of [
        "view public.v",
        "function public.f(public.secret)",
        "fk constraint a_s_fkey on public.a",
      ])
        expect(left.get(object), object).toMatch(/refers to public\.secret/);
    }
    expect(await pair.target.sql("select 1 as there from pg_class where relname = 'a'")).toEqual([
      { there: 1 },
    ]);
  },
);
