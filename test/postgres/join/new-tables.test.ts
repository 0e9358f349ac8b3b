import { setTimeout as sleep } from "node:timers/promises";

import { expect, test } from "vitest";

import { openSync } from "../../../src/index.ts";
import { freePair } from "../../support/database.ts";
import { describeSchema } from "../../support/schema-description.ts";
import { createAll, followInBackground, joined } from "../../support/new-tables.ts";
import { until } from "../../support/until.ts";

// Tables that an application creates while `follow` runs: nobody types a statement on the target.

test("new tables of every shape join while the sync is followed", { timeout: 240_000 }, async () => {
  await using pair = await freePair({ source: "13", target: "18" });
  await using reference = await freePair({ source: "18", target: "18" });
  const { rows, expected, found, equal, left } = await createAll(pair, "13", reference.source);
  expect(rows).toEqual([]);
  expect(found).toEqual(expected);
  expect(equal).toBe(true);
  expect(left).toEqual([]);
});

/** What cannot be taken in, and what is said of it. */
const refused: readonly (readonly [string, string, string, RegExp])[] = [
  ["unlogged", "create unlogged table n (id int primary key)", "", /unlogged/],
  [
    "a foreign table",
    "create extension postgres_fdw; create server s foreign data wrapper postgres_fdw; create foreign table n (id int) server s",
    "",
    /foreign table/,
  ],
  ["one that inherits", "create table n () inherits (old)", "", /inherit/],
  [
    "made of a type",
    "create type n_type as (id int); create table n of n_type (primary key (id))",
    "",
    /of a type/,
  ],
  [
    "a name that a view has",
    "create table n (id int primary key)",
    "create view n as select 1 as id",
    /taken on the target by something that is not a table/,
  ],
  [
    "a name that another table has",
    "create table n (id int primary key)",
    "create table n (id text primary key)",
    /taken on the target by another table/,
  ],
  [
    "a name that a table with rows has",
    "create table n (id int primary key)",
    "create table n (id int primary key); insert into n values (7)",
    /holds rows/,
  ],
  [
    "a name that a partition has",
    "create table n (id int primary key)",
    "create table p (id int primary key) partition by range (id); create table n partition of p for values from (0) to (9)",
    /taken on the target by a partition or child of public\.p/,
  ],
  [
    "a name that a child has",
    "create table n (id int primary key)",
    "create table p (id int primary key); create table n (primary key (id)) inherits (p)",
    /taken on the target by a partition or child of public\.p/,
  ],
  [
    "a function that the target lacks",
    "create function f() returns int language sql as 'select 1'; create table n (id int primary key, v int default f())",
    "",
    /function public\.f\(\) does not exist/,
  ],
];

for (const [what, sql, there, reason] of refused)
  test(`a new table that cannot be taken in is named with its reason: ${what}`, async () => {
    await using pair = await freePair();
    await using followed = await followInBackground(pair);
    if (there !== "") await pair.target.sql(there);
    const before = await describeSchema(pair.target.url);
    await pair.source.sql(sql);
    await until("it is told", () =>
      followed.events.some(
        (event) =>
          event.type === "table-not-replicated" &&
          event.table === "public.n" &&
          reason.test(event.reason ?? ""),
      ),
    );
    // The others go on.
    await pair.source.sql("update old set v = 'late'");
    await until(
      "the others go on",
      async () => (await pair.target.sql("select 1 from old where v = 'late'")).length === 20,
    );
    const status = await followed.sync.status();
    expect(status.notReplicated).toEqual(["public.n"]);
    expect(status.notReplicatedReasons["public.n"]).toMatch(reason);
    const report = await followed.sync.verify();
    expect(report.equal).toBe(false);
    expect(report.notReplicatedReasons["public.n"]).toMatch(reason);
    const { rehearsal } = await followed.sync.cutover({ rehearse: true });
    expect(rehearsal?.blockers).toEqual([
      expect.objectContaining({ subject: "public.n", message: expect.stringMatching(reason) }),
    ]);
    await expect(followed.sync.cutover()).rejects.toMatchObject({ code: "PREFLIGHT_BLOCKED" });
    expect((await describeSchema(pair.target.url)).filter((line) => !/replicate/.test(line))).toEqual(before.filter((line) => !/replicate/.test(line))); // prettier-ignore
    await pair.source.sql("insert into old values (1000, 'still open')");
  });

test("a refused table is taken in once nothing is in its way any more", async () => {
  await using pair = await freePair();
  await using followed = await followInBackground(pair);
  await pair.target.sql("create table n (id text primary key)");
  await pair.source.sql("create table n (id int primary key); insert into n values (1)");
  await until("it is told", () => followed.events.some(({ type }) => type === "table-not-replicated"));
  await pair.target.sql("drop table n; create table n (id int primary key)");
  await joined(followed, "public.n");
  expect(await followed.end()).toEqual([]);
});

test("tables that come and go all the time are no work, and leave nothing behind", async () => {
  await using pair = await freePair();
  await using followed = await followInBackground(pair);
  for (let n = 0; n < 200; n += 1) {
    await pair.source.sql(`create table tmp_${n} (id int primary key); insert into tmp_${n} values (1)`);
    await sleep(5);
    await pair.source.sql(`drop table tmp_${n}`);
  }
  await pair.source.sql("create table stays (id int primary key); insert into stays values (1)");
  await joined(followed, "public.stays");
  expect(await followed.end()).toEqual([]);
  expect(
    await pair.source.sql("select relid::regclass::text as t from replicate.capture order by 1"),
  ).toEqual([{ t: "old" }, { t: "stays" }]);
  expect(
    await pair.target.sql("select tablename from pg_tables where schemaname = 'public' order by 1"),
  ).toEqual([{ tablename: "old" }, { tablename: "stays" }]);
});

test("patterns decide, also those that leave out", async () => {
  await using pair = await freePair();
  await using followed = await followInBackground(pair, { tables: ["public.*"], exclude: ["public.tmp_*"] });
  await pair.source.sql(
    "create schema other; create table other.a (id int primary key); create table tmp_a (id int primary key); create table a (id int primary key)",
  );
  await joined(followed, "public.a");
  expect((await followed.sync.status()).tables.map(({ source }) => source)).toEqual([
    "public.a",
    "public.old",
  ]);
});

test("schemaChanges: stop names it, and creates nothing", async () => {
  await using pair = await freePair();
  await using followed = await followInBackground(pair, { schemaChanges: "stop" });
  await pair.source.sql("create table a (id int primary key)");
  await until("it is told", () =>
    followed.events.some((event) => event.type === "table-not-replicated" && event.table === "public.a"),
  );
  expect(await pair.target.sql("select to_regclass('public.a') as a")).toEqual([{ a: null }]);
});

test(
  "a large one is copied in parts, while the others go on, with the help of another process",
  { timeout: 240_000 },
  async () => {
    await using pair = await freePair();
    const copy = { jobs: 1, indexJobs: 1, partSize: "1MB" };
    await using followed = await followInBackground(pair, { copy });
    await pair.source.sql(
      "create table big (id int primary key, v text, w int); insert into big select g, repeat('x', 60), g % 7 from generate_series(1, 200000) g; create index on big (w)",
    );
    await until("its copy has begun", async () => {
      const [row] = await pair.target.sql<{ n: number }>(
        "select count(*)::int as n from replicate.part where not done",
      );
      return (row?.n ?? 0) > 3;
    });
    await using helper = await openSync({
      name: "shop",
      source: pair.source.url,
      target: pair.target.url,
      env: {},
      copy,
      keyless: "reload",
    });
    const helping = helper.copy();
    await pair.source.sql("update old set v = 'meanwhile'; update big set w = -1 where id % 1000 = 0");
    await until(
      "the others go on",
      async () => (await pair.target.sql("select 1 from old where v = 'meanwhile'")).length === 20,
    );
    await helping;
    await joined(followed, "public.big");
    expect(await followed.end()).toEqual([]);
  },
);

test(
  "a table that is created in the last moment before the fence is not lost",
  { timeout: 120_000 },
  async () => {
    await using pair = await freePair();
    await using followed = await followInBackground(pair);
    for (let n = 0; ; n += 1) {
      await pair.source.sql(
        `create table late_${n} (id int primary key); insert into late_${n} values (${n})`,
      );
      const outcome = await followed.sync.cutover({ reverse: false }).then(
        ({ result }) => result,
        (error: { code: string }) => error.code,
      );
      if (outcome === "switched") {
        const names = Array.from({ length: n + 1 }, (_, i) => `late_${i}`);
        for (const name of names)
          expect(await pair.target.sql(`select count(*)::int as n from ${name}`)).toEqual([{ n: 1 }]);
        return;
      }
      expect(["PREFLIGHT_BLOCKED", "TABLE_NOT_REPLICATED"]).toContain(outcome);
      // Open again, and taken in meanwhile.
      await joined(followed, `public.late_${n}`).catch(() => undefined);
      if (n === 3) {
        expect((await followed.sync.cutover({ reverse: false })).result).toBe("switched");
        return;
      }
    }
  },
);

test(
  "a job queue is installed and used on the source: its tables and partitions follow",
  { timeout: 120_000 },
  async () => {
    await using pair = await freePair();
    await using followed = await followInBackground(pair);
    const { default: PgBoss } = (await import(String("pg-boss"))) as {
      default: new (options: object) => Record<string, (...given: unknown[]) => Promise<unknown>> & {
        on: (name: string, heard: () => void) => void;
      };
    };
    const boss = new PgBoss({ connectionString: pair.source.url, supervise: false, schedule: false });
    boss.on("error", () => undefined);
    await boss["start"]?.();
    await boss["createQueue"]?.("mail");
    for (let n = 0; n < 20; n += 1) await boss["send"]?.("mail", { n });
    await joined(followed, "pgboss.job", "pgboss.queue");
    for (let n = 0; n < 20; n += 1) await boss["send"]?.("mail", { n });
    await boss["stop"]?.({ graceful: false });
    expect(await followed.end()).toEqual([]);
    expect(await pair.target.sql("select count(*)::int as n from pgboss.job where name = 'mail'")).toEqual([
      { n: 40 },
    ]);
  },
);
