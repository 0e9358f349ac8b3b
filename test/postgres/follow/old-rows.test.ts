import { expect, test } from "vitest";

import { openSync, type ReplicateError, type SyncEvent } from "../../../src/index.ts";
import { compareDatabases } from "../../support/compare.ts";
import { freePair } from "../../support/database.ts";
import { takeThroughOldRows } from "../../support/old-rows-cases.ts";
import { takeThroughRefits } from "../../support/refit-cases.ts";
import { until } from "../../support/until.ts";
import { onBoth, startFollowed } from "../../support/follow-setup.ts";

// Rows that nobody has written to, after tables of both sides changed: the same, or read again.

test("changes of tables that are followed", { timeout: 5 * 60_000 }, async () => {
  await takeThroughOldRows({ source: "13", target: "18" });
});

test("changes of the source alone, and the statements that are told", { timeout: 5 * 60_000 }, async () => {
  await takeThroughRefits({ source: "13", target: "18" });
});

const table = `create table t (id int primary key, name text, n int default 4);
  insert into t select g, 'Name' || g, g from generate_series(1, 200) g;`;
const partitioned = `create table p (id int primary key, name text) partition by range (id);
  create table p_1 partition of p for values from (0) to (1000);
  insert into p select g, 'Name' || g from generate_series(1, 200) g;`;

test("the target's table is altered under a runner that has not looked at it since", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, table, { schemaChanges: "stop" });
  await followed.drain();
  const stop = new AbortController();
  const following = (async () => {
    for await (const _ of followed.sync.follow({ signal: stop.signal })) void _;
  })();
  for (let round = 1; round <= 4; round += 1) {
    await pair.target.sql("alter table t drop column n, add column n int default 4");
    await pair.source.sql(`update t set name = 'round ${round}' where id = ${round}`);
    await until("the change is there", async () =>
      (await pair.target.sql(`select 1 from t where id = ${round} and name = 'round ${round}'`)).length === 1,
    ); // prettier-ignore
    // By that time the batch knew what it wrote to.
    await until("all is as it was", async () => (await pair.target.sql("select 1 from t where n is distinct from id")).length === 0); // prettier-ignore
  }
  stop.abort();
  await following;
  expect(await followed.differences()).toEqual([]);
});

test("rows are given other values between init, copy and follow", async () => {
  await using pair = await freePair();
  await onBoth(pair, table + partitioned);
  await pair.target.sql("truncate t, p");
  const events: SyncEvent[] = [];
  await using sync = await openSync({
    source: pair.source.url,
    target: pair.target.url,
    onEvent: (event) => events.push(event),
    env: {},
  });
  await sync.init();
  const change = async (side: "source" | "target", how: string): Promise<void> => {
    for (const name of ["t", "p"]) await pair[side].sql(`alter table ${name} alter column name type text using ${how}(name)`); // prettier-ignore
  };
  await change("source", "upper");
  await sync.copy();
  expect(await pair.target.sql("select name from t where id = 150")).toEqual([{ name: "NAME150" }]);
  await change("source", "lower");
  const drain = async (): Promise<void> => {
    for await (const _ of sync.follow({ untilCaughtUp: true })) void _;
  };
  const reread = (): string[] => events.splice(0).flatMap((event) => (event.type === "table-reread" ? [event.table] : [])); // prettier-ignore
  await drain();
  expect((await compareDatabases(pair.source.url, pair.target.url)).differences).toEqual([]);
  expect(reread().sort()).toEqual(["public.p", "public.t"]);
  await change("target", "upper");
  await drain();
  expect((await compareDatabases(pair.source.url, pair.target.url)).differences).toEqual([]);
  expect(reread().sort()).toEqual(["public.p", "public.t"]);
  await drain();
  expect(reread()).toEqual([]);
});

test("a sync of an earlier version: what it did not remember is read again, verified, or taken as it is", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(
    pair,
    `${table}${partitioned} create table same (id int primary key); insert into same values (1)`,
  );
  await followed.drain();
  await pair.target.sql(`update replicate.sync_table set target_fingerprint = null,
    fingerprint = ((fingerprint::jsonb - 'rows') || jsonb_build_object('file', case when source_name = 'p' then '0'::jsonb
      else (select value::jsonb from jsonb_each_text(fingerprint::jsonb -> 'rows' -> 'files')) end))::text`);
  await pair.source.sql("alter table t alter column name type text using lower(name)");
  expect(await followed.differences()).toEqual([]);
  const told = followed.events.flatMap((event) =>
    event.type === "table-reread" ? [event.table] : event.type === "warning" ? [event.message] : [],
  );
  expect(told.sort()).toEqual([
    expect.stringMatching(/^public\.p was followed by an earlier version.* run `replicate verify` once$/) as string,
    "public.t",
  ]); // prettier-ignore
  const before = followed.events.length;
  await followed.drain();
  expect(followed.events.slice(before).map(({ type }) => type)).not.toContain("table-reread");
});

test("after a cutover, rows that the new side gives other values come back", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, table + partitioned, { schemaChanges: "stop" });
  await followed.drain();
  await followed.sync.cutover();
  for (const name of ["t", "p"]) {
    await pair.target.sql(`alter table ${name} alter column name type text using lower(name)`);
    await pair.target.sql(`alter table ${name} add column at timestamptz not null default now()`);
    await pair.source.sql(`alter table ${name} add column at timestamptz not null default now()`);
  }
  expect(await followed.differences()).toEqual([]);
  expect(await pair.source.sql("select distinct name from t where id = 150")).toEqual([{ name: "name150" }]);
});

test("where both sides are written to, a release on both leaves them equal", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, table + partitioned, {
    direction: "both",
    conflict: "source-wins",
  });
  await followed.drain();
  for (const name of ["t", "p"])
    for (const side of ["source", "target"] as const)
      await pair[side].sql(
        `alter table ${name} add column at timestamptz not null default clock_timestamp()`,
      );
  await pair.source.sql("update t set name = 'source' where id = 1");
  await pair.target.sql("update t set name = 'target' where id = 2; insert into p (id) values (500)");
  expect(await followed.differences()).toEqual([]);
  expect(await pair.source.sql("select id, name from t where id < 3 order by id")).toEqual([
    { id: 1, name: "source" },
    { id: 2, name: "target" },
  ]);
  expect(await pair.target.sql("select * from replicate.conflict")).toEqual([]);
});

test("what follow stands on is said by status, the rehearsal and preflight, with the statements", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, table + partitioned, { schemaChanges: "stop" });
  await followed.drain();
  await pair.source.sql(
    "alter table t rename column name to title; alter table t add column x int default 5 not null; alter table p drop column name; update t set n = 5; update p set id = 600 where id = 6",
  );
  const statements = [
    'alter table "public"."p" drop column "name";',
    'alter table "public"."t" rename column "name" to "title";',
    'alter table "public"."t" add column "x" integer default 5 not null;',
  ];
  await expect(followed.drain()).rejects.toMatchObject({
    code: "TABLE_SHAPE_CHANGED",
    problems: statements.map((remedy) => ({ remedy })),
  });
  expect((await followed.sync.status()).lastError).toMatchObject({
    code: "TABLE_SHAPE_CHANGED",
    hint: statements.join("\n"),
  });
  const { rehearsal } = await followed.sync.cutover({ rehearse: true });
  expect(rehearsal?.blockers.map(({ remedy }) => remedy)).toEqual(statements);
  const { findings } = await followed.sync.preflight();
  const blocking = findings.filter(({ severity }) => severity === "blocking");
  expect(blocking.map(({ remedy }) => remedy?.split("\n").at(-1))).toEqual(statements);
  // Rows differ as long as it stands, and verify does not call them equal.
  await expect(followed.sync.verify()).rejects.toMatchObject({ code: "TABLE_SHAPE_CHANGED" });
  for (const statement of statements) await pair.target.sql(statement);
  expect(await followed.differences()).toEqual([]);
  expect((await followed.sync.verify()).equal).toBe(true);
});

test("a partition that the target lacks is told with its statement when a row needs it", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, partitioned, { schemaChanges: "stop" });
  await followed.drain();
  await pair.source.sql(
    `create table p_2 partition of p for values from (1000) to (2000) partition by list (id);
     create table p_2_a partition of p_2 default; insert into p values (1500, 'new')`,
  );
  const error = await followed.drain().then(
    () => undefined,
    (thrown: unknown) => thrown as ReplicateError,
  );
  expect(error).toMatchObject({
    code: "TABLE_SHAPE_CHANGED",
    problems: [
      {
        subject: "public.p",
        remedy: [
          `create table "public"."p_2" partition of "public"."p" FOR VALUES FROM (1000) TO (2000) partition by LIST (id);`,
          `create table "public"."p_2_a" partition of "public"."p_2" DEFAULT;`,
        ].join("\n"),
      },
    ],
  }); // prettier-ignore
  for (const { remedy } of error?.problems ?? []) await pair.target.sql(remedy ?? "");
  expect(await followed.differences()).toEqual([]);
});
