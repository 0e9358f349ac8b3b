import { expect, test } from "vitest";

import { openSync, type Sync, type SyncEvent } from "../../../src/index.ts";
import { statusLines } from "../../../src/cli/status-text.ts";
import { freePair } from "../../support/database.ts";
import { onBoth, openFollowed } from "../../support/follow-setup.ts";
import { drain, prepareCutover } from "../../support/cutover-setup.ts";

// Tables that an application creates after `init`: until they are taken in, everybody who is asked has to say so. How they are
// taken in by themselves: test/postgres/join.

const known = `
  create schema sales; create schema other; create schema archive;
  create table sales.orders (id int primary key);
  create table sales.log (id int, at date, primary key (id, at)) partition by range (at);
  create table sales.log_1 partition of sales.log for values from ('2020-01-01') to ('2021-01-01');
  create table archive.old (id int primary key)`;

/** What an application does, and which tables are new by it. */
const members: readonly (readonly [string, string, readonly string[]])[] = [
  ["a table", "create table sales.a (id int primary key); insert into sales.a values (1)", ["sales.a"]],
  ["one without a key", "create table sales.a (v text)", ["sales.a"]],
  ["an unlogged one", "create unlogged table sales.a (id int primary key)", ["sales.a"]],
  ["one with capitals and a dot", 'create table sales."A.b" (id int primary key)', ['sales."A.b"']],
  [
    "a partitioned one, by its root",
    "create table sales.p (id int primary key) partition by range (id); create table sales.p1 partition of sales.p for values from (0) to (9)",
    ["sales.p"],
  ],
  ["one that inherits", "create table sales.child () inherits (sales.orders)", ["sales.child"]],
  ["one that comes from a query", "create table sales.a as select 1 as id", ["sales.a"]],
  [
    "one that is moved in from a schema that is not chosen",
    "alter table archive.old set schema sales",
    ["sales.old"],
  ],
  ["one that is renamed over", "create table sales.b (id int); alter table sales.b rename to c", ["sales.c"]],
  [
    "one that takes the place of another",
    "drop table sales.orders; create table sales.orders (id int primary key)",
    ["sales.orders"],
  ],
  ["a partition that stands alone", "alter table sales.log detach partition sales.log_1", ["sales.log_1"]],
  ["several", "create table sales.b (id int); create table sales.a (id int)", ["sales.a", "sales.b"]],
  [
    "a new partition is none",
    "create table sales.log_2 partition of sales.log for values from ('2021-01-01') to ('2022-01-01')",
    [],
  ],
  ["nor is one that is not chosen", "create table other.a (id int); create table a (id int)", []],
  ["nor one that is left out", "create table sales.tmp_1 (id int)", []],
  ["nor a temporary one", "create temporary table orders_now (id int)", []],
  ["nor a view", "create view sales.v as select 1 as id", []],
  ["nor one of an extension", "create extension tablefunc schema sales", []],
  ["nor a chosen one that is renamed", "alter table sales.orders rename to purchases", []],
];

for (const [what, sql, expected] of members)
  test(`new tables on the source: ${what}`, async () => {
    await using pair = await freePair();
    await onBoth(pair, known);
    await using followed = await openFollowed(pair, { tables: ["sales.*"], exclude: ["sales.tmp_*"] });
    await followed.drain();
    expect((await followed.sync.status()).notReplicated).toEqual([]);
    await pair.source.sql(sql);
    // From a machine that has been told no patterns.
    await using bare = await openSync({ source: pair.source.url, target: pair.target.url, env: {} });
    expect((await bare.status()).notReplicated).toEqual(expected);
  });

async function followOnce(sync: Sync): Promise<void> {
  for await (const _ of sync.follow({ untilCaughtUp: true }));
}

test("a new table is named by follow, status and verify until it is taken in, or left out", async () => {
  await using pair = await freePair();
  await onBoth(pair, known);
  const events: SyncEvent[] = [];
  const ends = { source: pair.source.url, target: pair.target.url, env: {} };
  await using sync = await openSync({
    ...ends,
    tables: ["sales.*"],
    schemaChanges: "stop",
    onEvent: (event) => events.push(event),
  });
  await sync.init();
  await sync.copy({ adopt: true });
  await followOnce(sync);
  expect(events.filter(({ type }) => type === "table-not-replicated")).toEqual([]);
  expect(await sync.verify()).toMatchObject({ equal: true, notReplicated: [] });

  await onBoth(pair, "create table sales.a (id int primary key)");
  await pair.source.sql("insert into sales.a values (1)");
  await followOnce(sync);
  expect(events.filter(({ type }) => type === "table-not-replicated")).toEqual([
    { type: "table-not-replicated", side: "source", table: "sales.a" },
  ]);
  const status = await sync.status();
  expect(statusLines(status, new Date()).join("\n")).toMatch(
    /not replicated, as created after init: sales\.a\n.*replicate init/,
  );
  const report = await sync.verify();
  expect(report).toMatchObject({ equal: false, notReplicated: ["sales.a"] });
  expect(report.tables.every(({ equal }) => equal)).toBe(true);
  expect((await sync.verify({ tables: ["sales.orders"] })).equal).toBe(true);

  await sync.init();
  await sync.copy();
  await followOnce(sync);
  expect(await sync.verify()).toMatchObject({ equal: true, notReplicated: [] });
  expect(await pair.target.sql("select id from sales.a")).toEqual([{ id: 1 }]);

  await pair.source.sql("create table sales.b (id int primary key)");
  expect((await sync.status()).notReplicated).toEqual(["sales.b"]);
  await using narrower = await openSync({ ...ends, tables: ["sales.*"], exclude: ["sales.b"] });
  expect((await narrower.status()).notReplicated, "by the settings at hand").toEqual([]);
  expect((await sync.status()).notReplicated).toEqual(["sales.b"]);
  await narrower.init();
  expect((await sync.status()).notReplicated, "by what init was told last").toEqual([]);
});

test("a cutover would lose a new table: refused before the fence, unless it is accepted", async () => {
  await using pair = await freePair();
  await using prepared = await prepareCutover(pair);
  const { sync } = prepared;
  await pair.source.sql("create table late (id int primary key); insert into late values (1)");
  const { rehearsal } = await sync.cutover({ rehearse: true });
  expect(rehearsal?.blockers).toEqual([
    expect.objectContaining({ subject: "public.late", remedy: expect.stringContaining("replicate init") }),
  ]);
  await expect(sync.cutover()).rejects.toMatchObject({
    code: "PREFLIGHT_BLOCKED",
    problems: [expect.objectContaining({ subject: "public.late" })],
  });
  await pair.source.sql("insert into account (name) values ('still open')");
  expect((await sync.cutover({ acceptUnreplicated: true })).result).toBe("switched");
});

test("a table that is created while the fence stands makes the cutover undo itself", async () => {
  await using pair = await freePair();
  let created: Promise<unknown> | undefined;
  await using prepared = await prepareCutover(pair, {
    onEvent: (event) => {
      if (event.type === "switch-step" && event.step === "fencing the old side")
        created = pair.source.sql("create table late (id int primary key)");
    },
  });
  await expect(prepared.sync.cutover()).rejects.toMatchObject({
    code: "TABLE_NOT_REPLICATED",
    exitCode: 1,
    message: expect.stringMatching(/public\.late.*everything was undone/),
  });
  await created;
  await pair.source.sql("insert into account (name) values ('open again')");
  expect((await prepared.sync.status()).fence).toBeNull();
});

test("a table that is new on the new side is named, and a rollback would lose it", async () => {
  await using pair = await freePair();
  await using prepared = await prepareCutover(pair);
  const { sync } = prepared;
  await sync.cutover();
  await drain(sync);
  await pair.target.sql("create table late (id int primary key)");
  expect((await sync.status()).notReplicated).toEqual(["public.late"]);
  await drain(sync);
  expect(prepared.events).toContainEqual({
    type: "table-not-replicated",
    side: "target",
    table: "public.late",
  });
  await expect(sync.rollback()).rejects.toMatchObject({
    code: "PREFLIGHT_BLOCKED",
    problems: [expect.objectContaining({ subject: "public.late" })],
  });
  expect((await sync.rollback({ acceptUnreplicated: true })).result).toBe("switched");
});

test("new tables of either side of a two-way sync are named", async () => {
  await using pair = await freePair();
  await onBoth(pair, "create table t (id int primary key)");
  await using sync = await openSync({
    source: pair.source.url,
    target: pair.target.url,
    direction: "both",
    env: {},
  });
  await sync.init();
  await sync.copy({ adopt: true });
  await pair.source.sql("create table here (id int primary key)");
  await pair.target.sql("create table there (id int primary key)");
  expect((await sync.status()).notReplicated).toEqual(["public.here", "public.there"]);
});
