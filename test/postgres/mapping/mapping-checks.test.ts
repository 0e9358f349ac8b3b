import { describe, expect, it } from "vitest";

import { freePair } from "../../support/database.ts";
import { each, mapped, refusals, rowsOf, verify } from "../../support/mapping-setup.ts";

describe("a mapping that cannot be kept", () => {
  it.each(["13", "18"])(
    "is refused before anything changes, with every problem at once: %s",
    async (version) => {
      await using pair = await freePair({ source: version });
      await pair.source.sql(`
      create table a (id int primary key, x int, email text, ok bool, at timestamptz, y smallint);
      create table b (id int primary key, v text);
      create function calls() returns int stable language sql as 'select count(*)::int from public.b'`);
      await pair.target.sql(`
      create table a (id int primary key, x int, email varchar(40), ok bool, at timestamptz, y smallint, z int, need text not null);
      create table b (id int primary key, v text)`);
      const settings = {
        overrides: {
          "public.a": {
            where: "x + 1",
            columns: {
              id: "id + 1",
              x: "nothing + 1",
              email: "email || (select v from public.b limit 1)",
              ok: "random() > 0.5",
              at: "now()",
              y: "y * 30",
              z: "public.calls()",
              gone: null,
              lost: { to: "found" },
              extra: "1",
              need: "max(email)",
            },
          },
          "public.b": { where: "v = '" },
        },
      };
      const run = mapped(pair, settings);
      const found = await refusals(run, "preflight");
      // Types and names first: what the source does not understand cannot be looked at more closely.
      expect(found).toEqual(
        expect.arrayContaining([
          "public.a: columns.id: a column of the key cannot be computed: rows are found by it",
          'public.a: columns.x: the source says: column "nothing" does not exist',
          "public.a: columns.gone: the source has no such column",
          "public.a: columns.lost: the source has no such column",
          "public.a: where: has to be a condition, and is of type integer",
          'public.a: column "extra" is missing on the target',
          'public.a: y * 30 is integer, and column "y" smallint on the target: the types do not match',
          expect.stringMatching(/^public.b: where: the source says: unterminated/),
        ]),
      );
      expect((await run("init")).code).toBe(1);
      const nothing = [{ schema: null }];
      expect(await pair.source.sql("select to_regnamespace('replicate') as schema")).toEqual(nothing);

      const {
        id: _id,
        x: _x,
        gone: _gone,
        lost: _lost,
        extra: _extra,
        ...columns
      } = settings.overrides["public.a"].columns;
      const deeper = mapped(pair, {
        overrides: {
          "public.a": { where: "at > current_date", columns: { ...columns, y: "(y * 30)::smallint" } },
        },
      });
      const more = await refusals(deeper, "preflight");
      expect(more).toEqual([
        "public.a: columns.email: must not contain a subquery: other rows than its own would decide about a row",
        "public.a: columns.ok: must not call volatile functions: a row has to look the same whenever it is read",
        "public.a: columns.at: must not use now(): rows change only when somebody writes to them",
        "public.a: columns.need: must not aggregate rows, nor return more than one value",
        "public.a: columns.z: calls public.calls(), which is not declared IMMUTABLE: it may read other rows than its own",
        "public.a: where: must not use CURRENT_DATE: rows change only when somebody writes to them",
      ]);
      expect((await deeper("init")).code).toBe(1);
      expect(await pair.target.sql("select to_regnamespace('replicate') as schema")).toEqual(nothing);
    },
  );

  it("is refused in the settings where they cannot be meant", async () => {
    await using pair = await freePair();
    const run = mapped(pair, {
      direction: "both",
      schemas: { public: 1 },
      overrides: {
        "public.a": {
          target: "app.t",
          where: 1,
          columns: { x: 3, y: {}, z: { form: "1" } },
          discriminator: { r: null },
        },
        "public.b": { target: "app.t", discriminator: { r: "b" } },
      },
    });
    const { code } = await run("preflight");
    expect(code).toBe(2);
    expect((await refusals(run, "preflight")).map((each) => each.split(":")[0])).toEqual([
      "schemas.public",
      "overrides.public.a.where",
      "overrides.public.a.columns.x",
      "overrides.public.a.columns.y",
      "overrides.public.a.columns.z.form",
      "overrides.public.a.columns.z",
      "overrides.public.a.discriminator.r",
      "overrides.public.b.target",
      "overrides.public.a.columns",
      "overrides.public.b.discriminator",
    ]);
  });
});

describe("a mapping that changes", () => {
  it("is noticed by every command, and copied again when asked", async () => {
    await using pair = await freePair();
    const tables =
      "create table t (id int primary key, v text, w int); create table other (id int primary key)";
    await Promise.all([pair.source.sql(tables), pair.target.sql(tables)]);
    await pair.source.sql(`
      insert into t select n, 'v' || n, n from generate_series(1, 10) n;
      insert into other values (1)`);
    const before = mapped(pair, { overrides: { "public.t": { where: "id > 2", columns: { w: null } } } });
    const after = mapped(pair, {
      overrides: { "public.t": { where: "id > 3", columns: { v: "upper(v)" } } },
    });
    const silent = mapped(pair, {});
    const t = "select * from t order by id";
    await each(before, "init");
    // Nothing is copied yet.
    await each(after, "init");
    await each(before, "init", "copy", "follow --until-caught-up");
    expect((await rowsOf(pair.target, t))[0]).toEqual([3, "v3", null]);

    const problem = "public.t: is mapped otherwise by the settings than its rows on the target are";
    for (const command of ["preflight", "init", "copy", "follow --once", "verify", "cutover --rehearse"])
      expect(await refusals(after, ...command.split(" ")), command).toEqual([problem]);
    // A machine without the file takes what is remembered.
    await pair.source.sql("insert into t values (11, 'v11', 11); delete from t where id = 3");
    await each(silent, "follow --until-caught-up", "verify", "init", "copy");
    expect((await rowsOf(pair.target, t)).at(-1)).toEqual([11, "v11", null]);

    await pair.target.sql("create table seen (id int); insert into seen select id from other");
    await each(after, "copy --remap");
    await pair.source.sql("insert into t values (12, 'v12', 12)");
    await each(after, "follow --until-caught-up", "verify");
    const wanted = await rowsOf(pair.source, "select id, upper(v), w from t where id > 3 order by id");
    expect(await rowsOf(pair.target, t)).toEqual(wanted);
    expect(await refusals(before, "verify")).toEqual([problem]);
    const elsewhere = mapped(pair, { overrides: { "public.t": { target: "other" } } });
    expect(await refusals(elsewhere, "copy", "--remap")).toEqual([
      "public.t: goes to public.other by the settings, and has gone to public.t so far",
    ]);
  });
});

describe.each(["copy.prepare.planned", "copy.prepare.committed", "copy.part.loaded:3"])(
  "a copy with a new mapping that is killed at %s",
  (failpoint) => {
    it("leaves rows of one mapping alone, and is taken up", async () => {
      await using pair = await freePair({ leaks: "ignore" });
      const table = "create table t (id int primary key, v text, w text)";
      await Promise.all([pair.source.sql(table), pair.target.sql(table)]);
      await pair.source.sql(
        "insert into t select n, 'v' || n, repeat('w', 100) from generate_series(1, 20000) n",
      );
      const settings = (where: string): Record<string, unknown> => ({
        copy: { partSize: "256kB", jobs: 1 },
        overrides: { "public.t": { where } },
      });
      await each(mapped(pair, settings("id > 10")), "init", "copy", "follow --until-caught-up");
      await pair.source.sql("delete from t where id = 5000");
      const killed = await mapped(pair, settings("id % 2 = 0"), { REPLICATE_FAILPOINT: failpoint })(
        "copy",
        "--remap",
      );
      expect(killed.signal).toBe("SIGKILL");
      const after = mapped(pair, settings("id % 2 = 0"));
      const isRemembered = failpoint !== "copy.prepare.planned";
      if (!isRemembered)
        expect(await refusals(after, "copy")).toEqual([
          "public.t: is mapped otherwise by the settings than its rows on the target are",
        ]);
      await each(after, isRemembered ? "copy" : "copy --remap", "follow --until-caught-up", "verify");
      const ids = "select array_agg(id order by id) from t";
      expect(await rowsOf(pair.target, ids)).toEqual(await rowsOf(pair.source, `${ids} where id % 2 = 0`));
    });
  },
);

describe("the way back from a mapped table", () => {
  it("is refused where rows or values are lost, and goes where names alone change", async () => {
    await using pair = await freePair();
    await pair.source.sql(`
      create table t (id serial primary key, v text);
      create table u (id int primary key, v text);
      select setval('t_id_seq', 300);
      insert into t values (1, 'one'), (2, 'two');
      insert into u values (1, 'one'), (2, 'two')`);
    await pair.target.sql(`
      create schema app;
      create table app.t (nr serial primary key, word text);
      create table app.u (id int primary key, v text)`);
    const run = mapped(pair, {
      tables: ["public.*"],
      schemas: { public: "app" },
      overrides: {
        "public.t": { columns: { id: { to: "nr" }, v: { to: "word" } } },
        "public.u": { where: "id < 2" },
      },
    });
    await each(run, "init", "copy", "follow --until-caught-up", "verify");
    expect(await refusals(run, "cutover", "--yes")).toEqual([
      "public.u: is filtered, lacks columns, or has computed ones on the new side: reverse replication is not possible",
    ]);
    await each(run, "drop --yes");

    const names = mapped(pair, {
      tables: ["public.t"],
      schemas: { public: "app" },
      overrides: { "public.t": { columns: { id: { to: "nr" }, v: { to: "word" } } } },
    });
    await each(names, "init", "copy --overwrite", "follow --until-caught-up", "cutover --yes");
    await pair.target.sql(
      "update app.t set word = 'new' where nr = 1; insert into app.t values (3, 'three')",
    );
    await each(names, "follow --until-caught-up", "verify");
    expect(await rowsOf(pair.source, "select * from t order by id")).toEqual([
      [1, "new"],
      [2, "two"],
      [3, "three"],
    ]);
    expect(await rowsOf(pair.target, "select nextval('app.t_nr_seq') > 300")).toEqual([[true]]);
    await each(names, "rollback --yes");
    await pair.source.sql("delete from t where id = 2");
    await each(names, "follow --until-caught-up", "verify");
    expect(await rowsOf(pair.target, "select * from app.t order by nr")).toEqual([
      [1, "new"],
      [3, "three"],
    ]);
    expect((await verify(names)).equal).toBe(true);
  });

  it("is not needed for a cutover without one", async () => {
    await using pair = await freePair();
    const table = "create table u (id int primary key, v text)";
    await Promise.all([
      pair.source.sql(`${table}; insert into u values (1, 'one'), (2, 'two')`),
      pair.target.sql(table),
    ]);
    const run = mapped(pair, { overrides: { "public.u": { where: "id < 2" } } });
    await each(run, "init", "copy", "follow --until-caught-up", "cutover --yes --no-reverse");
    expect(await rowsOf(pair.target, "select * from u")).toEqual([[1, "one"]]);
  });
});

describe("a table with another name", () => {
  it("is replicated both ways", async () => {
    await using pair = await freePair();
    const table = (name: string): string => `create table ${name} (id int primary key, v text)`;
    await pair.source.sql(
      `${table("t")}; ${table("u")}; insert into t values (1, 'one'); insert into u values (1, 'one')`,
    );
    await pair.target.sql(`create schema app; ${table("app.t")}; ${table("app.other")}`);
    const run = mapped(pair, {
      direction: "both",
      schemas: { public: "app" },
      overrides: { "public.u": { target: "app.other" } },
    });
    await each(run, "init", "copy", "follow --until-caught-up");
    await pair.source.sql("update t set v = 'from the source'; insert into u values (2, 'two')");
    await pair.target.sql(
      "insert into app.t values (3, 'three'); update app.other set v = 'from the target' where id = 1",
    );
    await each(run, "follow --until-caught-up", "verify");
    const [t, u] = [
      [
        [1, "from the source"],
        [3, "three"],
      ],
      [
        [1, "from the target"],
        [2, "two"],
      ],
    ];
    expect(await rowsOf(pair.source, "select * from t order by id")).toEqual(t);
    expect(await rowsOf(pair.target, "select * from app.t order by id")).toEqual(t);
    expect(await rowsOf(pair.source, "select * from u order by id")).toEqual(u);
    expect(await rowsOf(pair.target, "select * from app.other order by id")).toEqual(u);
    const inside = mapped(
      { source: pair.source, target: pair.source },
      { name: "inside", direction: "both", schemas: { public: "app" } },
    );
    expect(await refusals(inside, "preflight")).toEqual([
      "direction: inside one database only one-way, with conflict source-wins",
    ]);
  });
});
