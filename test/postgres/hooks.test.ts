import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";

import { loadOptions, openSync, type Hooks } from "../../src/index.ts";
import { freePair, type Pair } from "../support/database.ts";
import { openFollowed, startFollowed } from "./follow-setup.ts";

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
  writeFileSync(join(folder, "broken.mjs"), "export default (");
  await expect(open(join(folder, "broken.mjs"))).rejects.toMatchObject(problem("cannot be loaded"));
  writeFileSync(join(folder, "empty.mjs"), "export const afterBatch = 1;");
  await expect(open(join(folder, "empty.mjs"))).rejects.toMatchObject(problem("is no object"));
});
