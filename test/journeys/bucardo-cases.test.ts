import { expect, test, vi } from "vitest";

import type { Database } from "../support/database.ts";
import { Masters } from "../support/masters.ts";

// What Bucardo's own tests ask of several masters, and what its users missed there, through the command.

// Each step is a process, of which there are many.
vi.setConfig({ testTimeout: 300_000 });

const both = { direction: "both" };
const ids = (...numbers: number[]): { id: number }[] => numbers.map((id) => ({ id }));
const table = "create table t (id int primary key, v int)";
const all = "select id from t order by id";

test("two masters: what is inserted on either is on both; others do not get it, until they are joined, and then all of it once", async () => {
  await using masters = await Masters.start(table);
  const { a, b, c } = masters;
  await masters.join({ name: "ab", source: "a", target: "b", settings: both });
  await a.sql("insert into t values (1), (3)");
  await b.sql("insert into t values (4)");
  await masters.settle();
  expect(await masters.rows(all, "a", "b")).toEqual(ids(1, 3, 4));
  expect(await masters.rows(all, "c", "d")).toEqual([]);

  // Two masters, two targets.
  await masters.join({ name: "ac", source: "a", target: "c", settings: {} });
  await masters.join({ name: "bd", source: "b", target: "d", settings: {} });
  await a.sql("insert into t values (2)");
  await b.sql("insert into t select generate_series(5, 10)");
  await masters.settle();
  expect(await masters.rows(all, "a", "b", "c", "d")).toEqual(ids(1, 2, 3, 4, 5, 6, 7, 8, 9, 10));

  // A cascade is always on: what comes to b from a goes on to d; and nothing comes back.
  await a.sql("update t set v = 1 where id = 1; delete from t where id = 2");
  await b.sql("update t set v = 2 where id = 3");
  await masters.settle();
  expect(await masters.rows("select id, v from t where id <= 3 order by id", "a", "b", "c", "d")).toEqual([
    { id: 1, v: 1 },
    { id: 3, v: 2 },
  ]);
  await c.sql("insert into t values (100)");
  expect(await masters.settle()).toBe(0);
  expect(await masters.rows(`${all} desc limit 1`, "a", "b", "d")).toEqual(ids(10));
});

/** Three masters, a in the middle. */
async function startStar(schema: string, settings: Record<string, unknown>): Promise<Masters> {
  const masters = await Masters.start(schema);
  const nodes = { a: "A", b: "B", c: "C" };
  await masters.join({ name: "ab", source: "a", target: "b", settings: { ...both, ...settings, nodes: { source: nodes.a, target: nodes.b } } });
  await masters.join({ name: "ac", source: "a", target: "c", settings: { ...both, ...settings, nodes: { source: nodes.a, target: nodes.c } } });
  return masters;
} // prettier-ignore

/** One statement after the other, each in a transaction of its own that is open until it is told to commit. */
async function begin(database: Database): Promise<{ sql: (text: string) => Promise<unknown> }> {
  const client = await database.client();
  await client.query("begin");
  return { sql: async (text) => await client.query(text) };
}

test("three masters: deletes, the same inserts, the latest change per row, whatever order they are committed in", async () => {
  await using masters = await startStar(
    `${table}; create table kept (id int primary key, v int); create table big (id int primary key, v text)`,
    { conflict: "latest" },
  );
  const { a, b, c } = masters;
  await a.sql(
    "insert into t select g, g from generate_series(1, 10) g; insert into kept values (21), (22), (25)",
  );
  await masters.settle();

  // Deletes on each.
  await a.sql("delete from t where id in (10, 9, 8)");
  await b.sql("delete from t where id in (6, 5, 4)");
  await c.sql("delete from t where id in (2, 1)");
  await masters.settle();
  expect(await masters.rows(all, "a", "b", "c")).toEqual(ids(3, 7));

  // The same insert on several.
  await a.sql("insert into t values (1, 100), (2, 101)");
  await b.sql("insert into t values (1, 200), (2, 201)");
  await c.sql("insert into t values (2, 301)");
  await masters.settle();
  expect(await masters.rows("select id, v from t where id < 3 order by id", "a", "b", "c")).toEqual([
    { id: 1, v: 200 },
    { id: 2, v: 301 },
  ]);

  // The time that counts is that of the change: not that of the transaction's begin, nor of its commit.
  const [inC, inA, inB] = [await begin(c), await begin(a), await begin(b)];
  await inA.sql("update t set v = 1 where id = 3");
  await inC.sql("update t set v = 2 where id = 3");
  await inB.sql("update t set v = 3 where id = 3");
  await inB.sql("commit");
  await inC.sql("commit");
  await inA.sql("commit");
  await masters.settle();
  expect(await masters.rows("select v from t where id = 3", "a", "b", "c")).toEqual([{ v: 3 }]);

  // Row by row, and not by the table or the database that was changed last.
  await c.sql("update kept set v = 1 where id in (21, 22)");
  await b.sql("update kept set v = 2 where id in (21, 22)");
  await b.sql("update kept set v = 2 where id = 25");
  await c.sql("update kept set v = 3 where id = 25");
  await masters.settle();
  expect(await masters.rows("select id, v from kept order by id", "a", "b", "c")).toEqual([
    { id: 21, v: 2 },
    { id: 22, v: 2 },
    { id: 25, v: 3 },
  ]);

  // Mixed.
  await b.sql("update t set v = 102 where id = 1; update t set v = 202 where id = 2");
  await a.sql("update t set v = 103 where id = 2; insert into t values (30, 1)");
  await c.sql("update t set v = 203 where id = 2");
  await a.sql("update t set v = 301 where id = 30");
  await masters.settle();
  expect(await masters.rows("select id, v from t where id in (1, 2, 30) order by id", "a", "b", "c")).toEqual(
    [
      { id: 1, v: 102 },
      { id: 2, v: 203 },
      { id: 30, v: 301 },
    ],
  );
  await masters.assertEqual("a", "b", "c");
  expect(await masters.settle()).toBe(0);
  // What lost is known.
  const known = [...(await masters.conflicts("ab")), ...(await masters.conflicts("ac"))];
  const images = JSON.stringify(known.map(({ source, target }) => [source, target]));
  for (const v of [100, 101, 201, 103, 202]) expect(images).toContain(`"v":${v}`);
});

test("three masters: by their order; an unknown name in it is refused", async () => {
  await using masters = await startStar(table, { conflict: { order: ["C", "A", "B"] } });
  const { a, b, c } = masters;
  await a.sql("insert into t values (1), (2)");
  await masters.settle();
  await c.sql("update t set v = 3 where id = 1");
  await a.sql("update t set v = 1 where id in (1, 2)");
  await b.sql("update t set v = 2 where id in (1, 2)");
  await masters.settle();
  const rows = "select id, v from t order by id";
  expect(await masters.rows(rows, "a", "b", "c")).toEqual([{ id: 1, v: 3 }, { id: 2, v: 1 }]); // prettier-ignore
  masters.configure({
    name: "bd",
    source: "b",
    target: "d",
    settings: { ...both, nodes: { source: "B", target: "D" }, conflict: { order: ["C", "A", "B"] } },
  });
  const refused = await masters.run("bd", "init");
  expect(refused.code).toBe(2);
  expect(refused.stderr).toContain("does not name D");
});

test("three masters: a function decides for a table, or for each row", async () => {
  await using masters = await Masters.start(`${table}; create table u (id int primary key, v int)`);
  masters.write("first.mjs", `export default ({ source, target }) => {
    const rank = ({ node }) => ["B", "A", "C"].indexOf(node);
    return rank(source) < rank(target) ? "source" : "target";
  };`); // prettier-ignore
  masters.write("greatest.mjs", `export default ({ source, target }) => ({
    row: { ...source.image, v: Math.max(source.image.v, target.image.v) + 1 },
  });`); // prettier-ignore
  for (const target of ["b", "c"] as const) {
    await masters.join({
      name: `a${target}`,
      source: "a",
      target,
      settings: {
        ...both,
        nodes: { source: "A", target: target.toUpperCase() },
        conflict: { custom: "./first.mjs" },
        overrides: { "public.u": { conflict: { custom: "./greatest.mjs" } } },
      },
    });
  }
  const { a, b, c } = masters;
  await a.sql("insert into t values (1), (2); insert into u values (1, 0)");
  await masters.settle();
  for (const [n, each] of [a, b, c].entries()) await each.sql(`update t set v = ${n} where id = 1`);
  for (const [n, each] of [a, c].entries()) await each.sql(`update t set v = ${n} where id = 2`);
  await b.sql("update u set v = 20");
  await a.sql("update u set v = 10");
  await masters.settle();
  expect(await masters.rows("select id, v from t order by id", "a", "b", "c")).toEqual([{ id: 1, v: 1 }, { id: 2, v: 0 }]); // prettier-ignore
  expect(await masters.rows("select v from u", "a", "b", "c")).toEqual([{ v: 21 }]);
  expect(await masters.settle()).toBe(0);
});

test("a conflict stops the sync where it shall, naming the row, and no side is changed", async () => {
  await using masters = await Masters.start(table);
  const { a, b } = masters;
  await a.sql("insert into t values (1), (2)");
  await masters.join({ name: "ab", source: "a", target: "b", settings: { ...both, conflict: "error" } });
  await masters.settle();
  await a.sql("update t set v = 1 where id = 2; insert into t values (3)");
  await b.sql("update t set v = 2 where id = 2; insert into t values (4)");
  const stopped = await masters.run("ab", "follow", "--until-caught-up");
  expect(stopped.code).toBe(1);
  expect(stopped.stderr).toMatch(/CONFLICT.*public\.t id=2/);
  expect(await a.sql("select id, v from t order by id")).toEqual([{ id: 1, v: null }, { id: 2, v: 1 }, { id: 3, v: null }]); // prettier-ignore
  expect(await b.sql("select id, v from t order by id")).toEqual([{ id: 1, v: null }, { id: 2, v: 2 }, { id: 4, v: null }]); // prettier-ignore
});

test("delete against update, and a change of the key against an update, under each policy", async () => {
  await using masters = await Masters.start(
    ["source", "target", "latest", "skipped"]
      .map((name) => `create table ${name} (id int primary key, v text)`)
      .join(";"),
  );
  const { a, b } = masters;
  const tables = ["source", "target", "latest", "skipped"];
  for (const name of tables)
    await a.sql(`insert into ${name} select g, 'old' from generate_series(1, 5) g`);
  await masters.join({
    name: "ab",
    source: "a",
    target: "b",
    settings: {
      ...both,
      overrides: {
        "public.target": { conflict: "target-wins" },
        "public.latest": { conflict: "latest" },
        "public.skipped": { conflict: "skip" },
      },
    },
  });
  await masters.settle();
  for (const name of tables) {
    await a.sql(`delete from ${name} where id = 1; update ${name} set v = 'a' where id = 2`);
    await b.sql(
      `update ${name} set v = 'b' where id = 1; delete from ${name} where id = 2; update ${name} set v = 'b' where id in (3, 4)`,
    );
    await a.sql(`update ${name} set id = 13 where id = 3; delete from ${name} where id = 4`);
  }
  await masters.settle();
  const rows = async (name: string): Promise<unknown> =>
    Object.fromEntries(
      (await masters.rows(`select id, v from ${name} where id <> 5 order by id`, "a", "b")).map((row) =>
        Object.values(row as object),
      ),
    );
  expect(await rows("source")).toEqual({ 2: "a", 13: "old" });
  expect(await rows("target")).toEqual({ 1: "b", 3: "b", 4: "b", 13: "old" });
  // The later of both, delete or not.
  expect(await rows("latest")).toEqual({ 1: "b", 13: "old" });
  // Each keeps what it has, until somebody says which.
  const skipped = "select id, v from skipped where id <= 4 order by id";
  expect(await a.sql(skipped)).toEqual([{ id: 2, v: "a" }]);
  expect(await b.sql(skipped)).toEqual([1, 3, 4].map((id) => ({ id, v: "b" })));
  const resolved = await masters.run("ab", "conflicts", "resolve", "--all-pending", "--with", "target", "--yes");
  expect(resolved.code, resolved.stderr).toBe(0);
  await masters.settle();
  expect(await rows("skipped")).toEqual({ 1: "b", 3: "b", 4: "b", 13: "old" });
  await masters.assertEqual("a", "b");
  const log = await masters.conflicts("ab");
  expect(log).toHaveLength(16);
  for (const { source, target } of log) expect([source, target]).not.toEqual([null, null]);
}); // prettier-ignore

test("one unique value, two keys, on both masters: the loser is in the log, the sync goes on; an inactive double is none", async () => {
  await using masters = await Masters.start(`
    create table account (id int primary key, subid int not null, email text not null, active boolean not null default true);
    create unique index account_email on account (subid, lower(email)) where active;
    create table item (id int primary key, account int not null references account)`);
  masters.write("lower.mjs", `export default ({ source, target }) => source.image.id < target.image.id ? "source" : "target";`); // prettier-ignore
  const { a, b } = masters;
  await a.sql("insert into account values (1, 1, 'one@example.org')");
  const settings = { ...both, conflict: "error", overrides: { "public.item": { conflict: "latest" } } };
  await masters.join({ name: "ab", source: "a", target: "b", settings });
  await masters.settle();
  await a.sql("insert into account values (10, 7, 'Joe@Example.org'), (12, 7, 'off@example.org'); insert into item values (1, 10)");
  await b.sql("insert into account values (11, 7, 'joe@example.org', true), (13, 7, 'off@example.org', false); insert into item values (2, 11)");
  const stopped = await masters.run("ab", "follow", "--until-caught-up");
  expect(stopped.code).toBe(1);
  expect(stopped.stderr).toContain("account_email");

  masters.configure({ name: "ab", source: "a", target: "b", settings: { ...settings, conflict: { custom: "./lower.mjs" } } });
  await masters.settle();
  const [met] = await masters.conflicts("ab");
  expect(met).toMatchObject({ kind: "multiple_unique_conflicts", constraint: "account_email" });
  expect(JSON.stringify(met)).toContain("joe@example.org");
  // A row points at the loser, so it stays until that is moved; everything else has gone on.
  expect(await masters.rows("select id from account order by id", "a")).toEqual(ids(1, 10, 12, 13));
  expect(await masters.rows("select id from account order by id", "b")).toEqual(ids(1, 11, 12, 13));
  await b.sql("insert into account values (10, 7, 'moving'); update item set account = 10 where id = 2; delete from account where id = 11");
  const resolved = await masters.run("ab", "conflicts", "resolve", String(met?.["id"]), "--with", "source");
  expect(resolved.code).toBe(0);
  await masters.settle();
  await masters.assertEqual("a", "b");
  expect(await masters.rows("select id from account order by id", "a", "b")).toEqual(ids(1, 10, 12, 13));
  expect(await masters.rows("select id, account from item order by id", "a", "b")).toEqual([
    { id: 1, account: 10 },
    { id: 2, account: 10 },
  ]);
  expect(await masters.settle()).toBe(0);
}); // prettier-ignore

test("truncate takes what its own database had; what others have made meanwhile stays", async () => {
  await using masters = await startStar(table, { conflict: "latest" });
  const { a, b, c } = masters;
  for (const [n, each] of [a, b, c].entries()) await each.sql(`insert into t values (${n + 1})`);
  await masters.settle();
  expect(await masters.rows(all, "a", "b", "c")).toEqual(ids(1, 2, 3));
  for (const [n, each] of [a, b, c].entries()) await each.sql(`truncate t; insert into t values (${n + 5})`);
  await masters.settle();
  expect(await masters.rows(all, "a", "b", "c")).toEqual(ids(5, 6, 7));

  // On one of them alone, at the end of the star.
  await a.sql("insert into t values (8)");
  await c.sql("truncate t");
  await masters.settle();
  expect(await masters.rows(all, "a", "b", "c")).toEqual(ids(8));
  await b.sql("insert into t values (9)");
  await masters.settle();
  expect(await masters.rows(all, "a", "b", "c")).toEqual(ids(8, 9));
  expect(await masters.settle()).toBe(0);
});
