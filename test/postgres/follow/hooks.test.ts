import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";

import { loadOptions, openSync, type Hooks } from "../../../src/index.ts";
import { freePair, type Pair } from "../../support/database.ts";
import { openFollowed, startFollowed } from "../../support/follow-setup.ts";

// Functions of the user's that are called while rows are replicated.

const folder = mkdtempSync(join(tmpdir(), "hooks-"));
afterAll(() => rmSync(folder, { recursive: true }));

async function column(pair: Pair, text: string): Promise<unknown[]> {
  return (await pair.target.sql<{ v: unknown }>(text)).map(({ v }) => v);
}

test("before and after each batch, small or large", async () => {
  await using pair = await freePair();
  const said: unknown[] = [];
  const hooks: Hooks = {
    beforeBatch: async ({ sync, tables }) => {
      said.push([sync, ...tables.toSorted(), await column(pair, "select count(*)::int as v from t")]);
    },
    afterBatch: async ({ number, rows }) => {
      said.push([number, rows, await column(pair, "select count(*)::int as v from t")]);
    },
  };
  await using followed = await startFollowed(
    pair,
    'create table t (id int primary key, v text); create table "U" (id int primary key)',
    {
      hooks,
    },
  );
  await followed.drain();
  said.length = 0;
  await pair.source.sql("insert into t values (1, 'x')");
  await followed.drain();
  await pair.source.sql(
    `insert into t select g, repeat('x', 1000) from generate_series(2, 5000) g; insert into "U" values (1)`,
  );
  await followed.drain();
  expect(said).toEqual([
    ["default", "public.t", [0]],
    [expect.any(Number), 1, [1]],
    ["default", 'public."U"', "public.t", [1]],
    [expect.any(Number), 5000, [5000]],
  ]);
});

test.for(["beforeBatch", "afterBatch"] as const)(
  "%s throws: the sync stops and says which hook it was",
  async (name) => {
    await using pair = await freePair();
    await using plain = await startFollowed(pair, "create table t (id int primary key)");
    await plain.drain();
    await pair.source.sql("insert into t values (1)");
    const hooks: Hooks = {
      [name]: () => {
        throw new Error("no, thanks");
      },
    };
    await using followed = await openFollowed(pair, { hooks });
    await expect(followed.drain()).rejects.toMatchObject({
      code: "HOOK_FAILED",
      message: `the hook ${name} failed: no, thanks`,
    });
    // What is committed stays so.
    expect(await column(pair, "select id as v from t")).toEqual(name === "afterBatch" ? [1] : []);
    expect(await plain.differences()).toEqual([]);
  },
);

test("a row that is refused: skipped, tried again, or the end of it, as the function says", async () => {
  await using pair = await freePair();
  const said: unknown[] = [];
  const hooks: Hooks = {
    onError: async (error, { table, key, attempt }) => {
      said.push([table, key, attempt, error.sqlstate]);
      if (key["id"] === 1) return "skip";
      if (key["id"] === 2) {
        if (attempt === 2) await pair.target.sql("alter table t drop constraint few");
        return "retry";
      }
      return key["id"] === 3 ? "stop" : ("what?" as "stop");
    },
  };
  await using followed = await startFollowed(pair, "create table t (id int primary key, n int)", { hooks });
  await pair.target.sql("alter table t add constraint few check (n < 10)");
  await pair.source.sql("insert into t values (1, 100), (10, 1)");
  await followed.drain();
  expect(said.splice(0)).toEqual([["public.t", { id: 1 }, 1, "23514"]]);
  expect(await column(pair, "select id as v from t")).toEqual([10]);
  expect((await followed.sync.status()).parked).toBe(1);

  await pair.source.sql("insert into t values (3, 100), (11, 1)");
  await expect(followed.drain()).rejects.toMatchObject({
    code: "ROW_REFUSED",
    message: expect.stringContaining("few") as string,
  });
  await pair.source.sql("delete from t where id = 3; insert into t values (4, 100)");
  await expect(followed.drain()).rejects.toMatchObject({
    code: "HOOK_FAILED",
    message: "the hook onError failed: it answered what? and not retry, skip, stop",
  });
  expect(await column(pair, "select id as v from t")).toEqual([10]);
  said.length = 0;
  await pair.source.sql("delete from t where id = 4; insert into t values (2, 100)");
  await followed.drain();
  expect(said).toEqual([
    ["public.t", { id: 2 }, 1, "23514"],
    ["public.t", { id: 2 }, 2, "23514"],
  ]);
  await followed.drain();
  expect(await followed.differences()).toEqual([]);
});

const transforming = { overrides: { "public.t": { transform: true } } };

test("rows are transformed in copy and follow, and no other table's", async () => {
  await using pair = await freePair();
  const columns = "(id int primary key, name text, n int, at timestamptz, raw bytea)";
  for (const side of [pair.source, pair.target])
    await side.sql(`create table t ${columns}; create table u ${columns}`);
  const seen = new Set<string>();
  const hooks: Hooks = {
    transformRow: (row, { table }) => {
      seen.add(table);
      if (row["n"] === null || Number(row["n"]) < 0) return null;
      return { name: `${row["name"]}\t\\${row["at"] === null ? "never" : "once"}`, n: Number(row["n"]) * 2 };
    },
  };
  const make = (t: string): string =>
    `insert into ${t} select g, E'name\n' || g, g % 50 - 5, case when g % 2 = 0 then '2020-01-01'::timestamptz end, '\\x0102' from generate_series(1, 5000) g`;
  await pair.source.sql(`${make("t")}; ${make("u")}; insert into t (id) values (0)`);
  await using sync = await openSync({
    source: pair.source.url,
    target: pair.target.url,
    env: {},
    hooks,
    ...transforming,
  });
  await sync.init();
  await sync.copy({ partBytes: 64 * 1024 });
  const expected = async (): Promise<void> => {
    const rows = await pair.source
      .sql(`select id, chr(9) || chr(92) || case when at is null then 'never' else 'once' end as tail,
      name, n * 2 as n, at, raw from t where n >= 0 order by id`);
    const now = await pair.target.sql("select * from t order by id");
    expect(now).toEqual(
      rows.map(({ tail, name, ...row }) => ({ ...row, name: `${String(name)}${String(tail)}` })),
    );
    expect(await pair.target.sql("select * from u order by id")).toEqual(
      await pair.source.sql("select * from u order by id"),
    );
  };
  const drain = async (): Promise<void> => {
    for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
  };
  await drain();
  await expected();
  await pair.source.sql(
    "update t set n = n - 1; delete from t where id < 100; insert into t values (-1, 'x', 7)",
  );
  await drain();
  await expected();
  await pair.source.sql("update t set n = -1 where id = -1");
  await drain();
  await expected();
  await pair.source.sql("truncate t; insert into t values (1, 'again', 3)");
  await drain();
  await expected();
  expect(seen).toEqual(new Set(["public.t"]));
  // What a hook has made of rows is compared with nothing, and has no way back.
  expect(await sync.verify()).toMatchObject({
    equal: true,
    tables: [{ table: "public.u" }],
    notCompared: ["public.t"],
  });
  await expect(sync.cutover()).rejects.toMatchObject({
    code: "PREFLIGHT_BLOCKED",
    problems: [{ subject: "public.t", remedy: "cut over without reverse replication: --no-reverse" }],
  });
  expect((await sync.cutover({ reverse: false })).result).toBe("switched");
  await sync.drop();
});

test.for(["copy", "a small batch", "a large batch"])(
  "transformRow throws in %s: the sync stops, and goes on when it is repaired",
  async (where) => {
    await using pair = await freePair();
    for (const side of [pair.source, pair.target])
      await side.sql("create table t (id int primary key, v text)");
    let isBroken = where === "copy";
    const hooks: Hooks = {
      transformRow: ({ id, v }) => {
        if (isBroken && Number(id) === 4000) throw new Error("no");
        return { v: `<${v}>` };
      },
    };
    await using sync = await openSync({
      source: pair.source.url,
      target: pair.target.url,
      env: {},
      hooks,
      ...transforming,
    });
    const rows = (from: number): string =>
      `insert into t select g, repeat('x', 1000) from generate_series(${from}, 6000) g`;
    const failed = {
      code: "HOOK_FAILED",
      message: expect.stringContaining("the hook transformRow failed: no") as string,
    };
    const drain = async (): Promise<void> => {
      for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
    };
    if (where === "copy") await pair.source.sql(rows(1));
    await sync.init();
    if (where === "copy") {
      await expect(sync.copy()).rejects.toMatchObject(failed);
      isBroken = false;
    }
    await sync.copy();
    await drain();
    if (where !== "copy") {
      isBroken = true;
      await pair.source.sql(where === "a small batch" ? "insert into t values (4000, 'x')" : rows(1));
      await expect(drain()).rejects.toMatchObject(failed);
      expect(await column(pair, "select count(*)::int as v from t")).toEqual([0]);
      isBroken = false;
    }
    await drain();
    const [{ n, wrong } = { n: 0, wrong: 0 }] = await pair.target.sql<{ n: number; wrong: number }>(
      "select count(*)::int as n, count(*) filter (where v !~ '^<x+>$')::int as wrong from t",
    );
    expect({ n, wrong }).toEqual({ n: where === "a small batch" ? 1 : 6000, wrong: 0 });
  },
);

test("a row that the target refuses only after it was transformed", async () => {
  await using pair = await freePair();
  const hooks: Hooks = { transformRow: ({ n }) => ({ n: Number(n) * 10 }) };
  await using followed = await startFollowed(pair, "create table t (id int primary key, n int)", {
    hooks,
    onRefusal: "park",
    ...transforming,
  });
  await pair.target.sql("alter table t add check (n < 100)");
  await pair.source.sql("insert into t values (1, 5), (2, 50)");
  await followed.drain();
  expect(await pair.target.sql("select * from t")).toEqual([{ id: 1, n: 50 }]);
  expect((await followed.sync.parked()).rows).toMatchObject([{ key: { id: 2 } }]);
});

test("from a module that the configuration file names", async () => {
  await using pair = await freePair();
  writeFileSync(
    join(folder, "hooks.mjs"),
    `
    import { writeFileSync } from "node:fs";
    export default { afterBatch: ({ rows }) => writeFileSync(${JSON.stringify(join(folder, "said"))}, String(rows)) };`,
  );
  writeFileSync(
    join(folder, "replicate.yaml"),
    `source: ${pair.source.url}\ntarget: ${pair.target.url}\nhooks: ./hooks.mjs\n`,
  );
  const options = loadOptions({ file: join(folder, "replicate.yaml") }, {});
  await using sync = await openSync({ ...options, env: {} });
  await pair.source.sql("create table t (id int primary key)");
  await pair.target.sql("create table t (id int primary key)");
  await sync.init();
  await sync.copy();
  await pair.source.sql("insert into t values (1), (2), (3)");
  for await (const { rows } of sync.follow({ untilCaughtUp: true })) expect(rows).toBe(3);
  expect(readFileSync(join(folder, "said"), "utf8")).toBe("3");
});

test("settings that are wrong", async () => {
  const base = { source: "postgresql://x@localhost/x", target: "postgresql://x@localhost/y", env: {} };
  const problem = (message: string): object => ({
    code: "CONFIG_INVALID",
    problems: [{ subject: "hooks", message: expect.stringContaining(message) as string }],
  });
  const open = async (hooks: unknown, more = {}): Promise<unknown> =>
    await openSync({ ...base, hooks: hooks as Hooks, ...more });
  await expect(open("./nowhere.js")).rejects.toMatchObject(problem("there is no such file"));
  await expect(open({ afterBach: () => undefined })).rejects.toMatchObject(
    problem('did you mean "afterBatch"'),
  );
  await expect(open({ afterBatch: 3 })).rejects.toMatchObject(problem("which is no function"));
  await expect(open({ onError: () => "skip" }, { direction: "both" })).rejects.toMatchObject(
    problem("onError is not for"),
  );
  const overrides = { "public.t": { transform: true } };
  const transformRow = (): null => null;
  await expect(open({ transformRow })).rejects.toMatchObject(problem("no table has transform: true"));
  const asks = (message: string): object => ({
    problems: [
      { subject: "overrides.public.t.transform", message: expect.stringContaining(message) as string },
    ],
  });
  await expect(open({}, { overrides })).rejects.toMatchObject(asks("needs a hook transformRow"));
  await expect(open({ transformRow }, { overrides, direction: "both" })).rejects.toMatchObject(
    asks("is not for"),
  );
  writeFileSync(join(folder, "broken.mjs"), "export default (");
  await expect(open(join(folder, "broken.mjs"))).rejects.toMatchObject(problem("cannot be loaded"));
  writeFileSync(join(folder, "empty.mjs"), "export const afterBatch = 1;");
  await expect(open(join(folder, "empty.mjs"))).rejects.toMatchObject(problem("is no object"));
});
