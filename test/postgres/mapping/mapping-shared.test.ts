import { describe, expect, it } from "vitest";

import { openSync, type Sync, type TransformRow } from "../../../src/index.ts";
import { json } from "../../support/replicate.ts";
import { freePair, type Database } from "../../support/database.ts";
import { seededRandom } from "../../support/random.ts";
import { each, mapped, refusals, rowsOf, verify, type Run } from "../../support/mapping-setup.ts";

// Several sources write to one table of the target, each to its own rows.

const target = `
  create schema app;
  create table app.orders (region text, id int, v text, note text, primary key (region, id));
  create index on app.orders (v);
  insert into app.orders values ('own', 1, 'written', 'on the target')`;
const rows = (region: string): string =>
  `select id, v from app.orders where region = '${region}' order by id`;
const own = (table: string): string => `select id, v from ${table} order by id`;

describe("a table that several sources write to", () => {
  it("keeps the rows of each sync apart, in all that is done to them", async () => {
    await using pair = await freePair();
    await using second = await freePair();
    await pair.target.sql(target);
    const source = "create table orders (id int primary key, v text)";
    await pair.source.sql(`${source}; insert into orders select n, 'eu' || n from generate_series(1, 40) n`);
    await second.source.sql(
      `${source}; insert into orders select n, 'us' || n from generate_series(1, 30) n`,
    );
    const sync = (name: string, from: Database): Run =>
      mapped(
        { source: from, target: pair.target },
        { name, overrides: { "public.orders": { target: "app.orders", discriminator: { region: name } } } },
      );
    const [eu, us] = [sync("eu", pair.source), sync("us", second.source)];
    await each(eu, "init", "copy", "follow --until-caught-up", "verify");
    // The other's rows are no reason to ask for --overwrite.
    await each(us, "init", "copy", "follow --until-caught-up", "verify");
    const alike = async (): Promise<void> => {
      expect(await rowsOf(pair.target, rows("eu"))).toEqual(await rowsOf(pair.source, own("orders")));
      expect(await rowsOf(pair.target, rows("us"))).toEqual(await rowsOf(second.source, own("orders")));
      expect(await rowsOf(pair.target, rows("own"))).toEqual([[1, "written"]]);
    };
    await alike();

    await pair.source.sql(
      "delete from orders where id < 10; update orders set v = 'new' where id = 20; update orders set id = 100 where id = 21",
    );
    await second.source.sql("update orders set v = 'new' where id < 5");
    await each(eu, "follow --until-caught-up", "verify");
    await each(us, "follow --until-caught-up", "verify");
    await alike();

    await pair.source.sql("truncate orders; insert into orders values (1, 'again')");
    await each(eu, "follow --until-caught-up", "verify");
    await alike();
    await second.source.sql(`do $$ declare d text; begin
      select 'replicate.delta_' || id || '_' || active into d from replicate.capture;
      execute 'insert into ' || d || ' (truncated) values (0)'; end $$; delete from orders where id = 7`);
    await each(us, "follow --until-caught-up", "verify");
    await alike();

    await pair.target.sql(`
      update app.orders set v = 'changed' where region = 'us' and id = 8;
      insert into app.orders values ('us', 500, 'extra'), ('eu', 501, 'extra')`);
    expect((await verify(us)).tables[0]?.differences).toEqual([
      { key: { id: 8 }, kind: "changed", columns: ["v"] },
      { key: { id: 500 }, kind: "extra", columns: [] },
    ]);
    expect((await verify(eu)).tables[0]?.differences).toEqual([
      { key: { id: 501 }, kind: "extra", columns: [] },
    ]);
    await verify(us, "--repair");
    await verify(eu, "--repair");
    await each(us, "follow --until-caught-up", "verify");
    await each(eu, "follow --until-caught-up", "verify");
    await alike();

    await each(eu, "copy --restart", "follow --until-caught-up", "verify");
    await alike();
    await each(sync("another", pair.source), "preflight");
    const again = mapped(
      { source: second.source, target: pair.target },
      {
        name: "third",
        overrides: { "public.orders": { target: "app.orders", discriminator: { region: "us" } } },
      },
    );
    expect(await refusals(again, "init")).toEqual([
      "public.orders: sync us writes to app.orders too, without a discriminator of another value",
    ]);
    await each(us, "drop --yes");
    await each(eu, "drop --yes");
    await alike();
  });

  it("takes two tables of one source, also with rows that swap unique values, and large ones", async () => {
    await using pair = await freePair();
    const random = seededRandom("mapping-shared");
    await pair.source.sql(`
      create table a (id int primary key, v text);
      create table b (id int primary key, v text);
      insert into a select n, repeat('a', 100) || n from generate_series(1, 20000) n;
      insert into b select n, 'b' || n from generate_series(1, 50) n`);
    await pair.target.sql(`
      create type place as enum ('first', 'second');
      create table both_of (id int, at place, v text, primary key (id, at));
      create unique index on both_of (at, v)`);
    const run = mapped(pair, {
      overrides: {
        "public.a": { target: "both_of", discriminator: { at: "first" } },
        "public.b": { target: "both_of", discriminator: { at: "second" } },
      },
    });
    await each(run, "init", "copy", "follow --until-caught-up", "verify");
    // The index is there all the time: others use it.
    const numbers = Array.from({ length: 50 }, (_, n) => n + 1);
    const [some, others] = [random.shuffle(numbers), random.shuffle(numbers.map((n) => n + 50))];
    for (let n = 0; n < 3; n += 1) {
      // Each number once: the source has no unique index that would keep values apart.
      const [x, y] = [some[n], others[n]];
      await pair.source.sql(`
        update a set v = 'swap' where id = ${x}; update a set v = repeat('a', 100) || ${x} where id = ${y};
        update a set v = repeat('a', 100) || ${y} where id = ${x};
        update b set v = 'b' || (51 - id); delete from b where id = ${x}`);
      await each(run, "follow --until-caught-up", "verify");
    }
    const found = "select id, v from both_of where at = ";
    expect(await rowsOf(pair.target, `${found}'first' order by id`)).toEqual(
      await rowsOf(pair.source, own("a")),
    );
    expect(await rowsOf(pair.target, `${found}'second' order by id`)).toEqual(
      await rowsOf(pair.source, own("b")),
    );
    await pair.source.sql("truncate a");
    await each(run, "follow --until-caught-up", "verify", "drop --yes");
    expect(await rowsOf(pair.target, "select distinct at::text from both_of")).toEqual([["second"]]);
  });

  it("is refused where rows cannot be told apart", async () => {
    await using pair = await freePair();
    await pair.source.sql(`
      create schema more;
      create table t (id int primary key);
      create table more.t (id int primary key);
      create table u (id int primary key)`);
    await pair.target.sql(`
      create schema app;
      create table app.t (id int primary key, place int not null, form json);
      create table app.u (id int primary key)`);
    const run = mapped(pair, {
      schemas: { public: "app", more: "app" },
      overrides: {
        "public.t": { discriminator: { place: "one" } },
        "more.t": { discriminator: { form: "{}", lost: 1 } },
      },
    });
    expect(await refusals(run, "preflight")).toEqual(
      expect.arrayContaining([
        "public.t: the target's table has no unique index on the key (id, place)",
        expect.stringMatching(/^public.t: discriminator.place: the source says: invalid input syntax for/),
        expect.stringMatching(/^public.t: discriminator.place: the target says: invalid input syntax for/),
        'more.t: column "lost" is missing on the target',
        expect.stringMatching(/^more.t: discriminator.form: the target says: operator does not exist/),
        "public.t: goes to app.t, as does more.t: each needs a discriminator with a value of its own",
      ]),
    );
  });

  it("parks rows that it refuses, whose values are computed", async () => {
    await using pair = await freePair();
    await pair.source.sql(
      "create table t (id int primary key, v text); insert into t values (1, 'a'), (2, 'b')",
    );
    await pair.target.sql(`
      create table all_of (region text, nr int, v text check (v <> 'REFUSED'), primary key (region, nr));
      insert into all_of values ('us', 1, 'of another'), ('us', 2, 'of another')`);
    const run = mapped(pair, {
      onRefusal: "park",
      overrides: {
        "public.t": {
          target: "all_of",
          columns: { id: { to: "nr" }, v: "upper(v)" },
          discriminator: { region: "eu" },
        },
      },
    });
    await each(run, "init", "copy", "follow --until-caught-up");
    await pair.source.sql("update t set v = 'refused' where id = 1; update t set v = 'c' where id = 2");
    await each(run, "follow --until-caught-up");
    const rows = "select nr, v from all_of where region = 'eu' order by nr";
    expect(await rowsOf(pair.target, rows)).toEqual([
      [1, "A"],
      [2, "C"],
    ]);
    expect(json(await run("parked", "--json"))).toMatchObject({
      rows: [{ table: "public.t", key: { id: 1 } }],
    });
    await pair.target.sql("alter table all_of drop constraint all_of_v_check");
    await pair.source.sql("update t set v = v");
    await each(run, "follow --until-caught-up", "verify");
    expect(await rowsOf(pair.target, rows)).toEqual([
      [1, "REFUSED"],
      [2, "C"],
    ]);
    expect(await rowsOf(pair.target, "select count(*)::int from all_of where region = 'us'")).toEqual([[2]]);
  });

  it("does not let a hook give rows to others", async () => {
    await using pair = await freePair();
    await pair.source.sql(
      "create table t (id int primary key, v text); insert into t values (1, 'a'), (2, 'b')",
    );
    await pair.target.sql("create table all_of (region text, id int, v text, primary key (region, id))");
    const open = async (transformRow: TransformRow): Promise<Sync> =>
      await openSync({
        source: pair.source.url,
        target: pair.target.url,
        env: {},
        hooks: { transformRow },
        overrides: {
          "public.t": {
            target: "all_of",
            transform: true,
            columns: { v: "upper(v)" },
            discriminator: { region: "eu" },
          },
        },
      });
    await using wrong = await open((row) => ({ ...row, region: "us" }));
    await wrong.init();
    await expect(wrong.copy()).rejects.toThrow("it changed the key region");
    await using right = await open((row) => ({ ...row, v: `${row["v"]}!` }));
    await right.copy();
    await pair.source.sql("update t set v = 'c' where id = 2");
    for await (const _batch of right.follow({ untilCaughtUp: true }));
    expect(await rowsOf(pair.target, "select * from all_of order by id")).toEqual([
      ["eu", 1, "A!"],
      ["eu", 2, "C!"],
    ]);
  });
});
