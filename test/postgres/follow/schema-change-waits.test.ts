import { expect, test } from "vitest";

import type { Sync } from "../../../src/index.ts";
import { compareDatabases } from "../../support/compare.ts";
import { freePair, type Pair } from "../../support/database.ts";
import { startFollowed } from "../../support/follow-setup.ts";
import { dieAt, runToEnd, type Orders } from "../../support/torture.ts";
import { until } from "../../support/until.ts";

// A schema change that the target does not take: nothing is applied meanwhile, it is said why, and it goes on by itself. And one in
// the middle of which the runner dies.

const schema = `
  create table t (id int primary key, name text, amount int);
  insert into t select g, 'n' || g, g from generate_series(1, 200) g;
  create table other (id int primary key);`;

interface Obstacle {
  what: string;
  /** On the target, before. */
  hinder: string;
  ddl: string;
  reason: RegExp;
  clear: string;
}

const obstacles: Obstacle[] = [
  {
    what: "a view depends on a dropped column",
    hinder: "create view v as select amount from t",
    ddl: "alter table t drop column amount",
    reason: /view public\.v depends on column amount/,
    clear: "drop view v",
  },
  {
    what: "a view depends on a retyped column",
    hinder: "create view v as select amount from t",
    ddl: "alter table t alter column amount type bigint",
    reason: /view/,
    clear: "drop view v",
  },
  {
    what: "rows of the target do not meet a check",
    hinder: "insert into t values (-5, 'theirs', 0)",
    ddl: "alter table t add constraint positive check (id > 0)",
    reason: /positive/,
    clear: "delete from t where id = -5",
  },
  {
    what: "rows of the target do not meet NOT NULL",
    hinder: "insert into t values (-5, null, 0)",
    ddl: "alter table t alter column name set not null",
    reason: /name/,
    clear: "delete from t where id = -5",
  },
  {
    what: "rows of the target are not unique",
    hinder: "insert into t values (-5, 'n7', 0)",
    ddl: "alter table t add constraint t_name unique (name)",
    reason: /t_name/,
    clear: "delete from t where id = -5",
  },
];

test.for(obstacles)("$what: it waits, and goes on by itself", async ({ hinder, ddl, reason, clear }) => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, schema);
  await followed.drain();
  await pair.target.sql(hinder);
  await using runner = follow(followed.sync);
  await pair.source.sql(`begin; insert into other values (1); ${ddl}; insert into other values (2); commit`);
  const waiting = await until("the change waits", async () => await waitingOf(followed.sync));
  expect(waiting).toMatchObject({ table: "public.t", state: "waiting", error: expect.stringMatching(reason) as string }); // prettier-ignore
  expect(waiting.statement).toMatch(/^alter table "public"\."t" /);
  await pair.source.sql("insert into other values (3)");
  await until("it was tried again", async () => (await waitingOf(followed.sync))?.noticedAt === waiting.noticedAt); // prettier-ignore
  expect(await pair.target.sql("select id from other")).toEqual([]);
  await pair.target.sql(clear);
  await until("it goes on", async () => (await pair.target.sql("select id from other")).length === 3);
  expect(await waitingOf(followed.sync)).toBeUndefined();
  await runner.stop();
  expect(await followed.differences()).toEqual([]);
  const told = followed.events.filter(({ type }) => type === "schema-change-waiting");
  expect(told).toHaveLength(1);
});

test("a reader holds the table: it is named, others read on, and the change comes when it has gone", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, schema);
  await followed.drain();
  const reader = await pair.target.client();
  await reader.query("begin; select count(*) from t");
  const { rows } = await reader.query<{ pid: number }>("select pg_backend_pid() as pid");
  await using runner = follow(followed.sync);
  await pair.source.sql(
    "alter table t add column x int default 5; update t set x = 6 where id < 5; insert into other values (1)",
  );
  const asked = { reads: 0 };
  const waiting = await until("the change waits", async () => {
    // Whoever queued behind a runner that waits for its lock would be refused.
    await pair.target.sql("begin; set local lock_timeout = '1500ms'; select count(*) from t; commit");
    asked.reads += 1;
    return await waitingOf(followed.sync);
  });
  expect(asked.reads).toBeGreaterThan(3);
  expect(waiting.error).toContain(`pid ${rows[0]?.pid} of `);
  expect(waiting.statement).toContain('add column "x" integer');
  expect(await pair.target.sql("select id from other")).toEqual([]);
  await reader.query("commit");
  await until("it goes on", async () => (await pair.target.sql("select id from other")).length === 1);
  await runner.stop();
  expect(await followed.differences()).toEqual([]);
});

test("with --until-caught-up it ends with the statement and the reason", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, schema);
  await followed.drain();
  await pair.target.sql("create view v as select amount from t");
  await pair.source.sql("alter table t drop column amount");
  await expect(followed.drain()).rejects.toMatchObject({
    code: "SCHEMA_CHANGE_REFUSED",
    problems: [{ subject: "public.t", remedy: 'alter table "public"."t" drop column "amount";' }],
  });
  // Somebody makes it by hand.
  await pair.target.sql("drop view v; alter table t drop column amount");
  expect(await followed.differences()).toEqual([]);
  expect(await waitingOf(followed.sync)).toBeUndefined();
});

test.for(["schema.changed", "schema.recorded", "batch.committed", "schema.built", "batch.staged"])(
  "a death at %s",
  async (step) => {
    await using pair = await freePair({ leaks: "ignore" });
    await pair.source.sql(schema);
    await pair.target.sql(schema);
    const orders: Orders = {
      sync: { name: "crash", source: pair.source.url, target: pair.target.url },
      verbs: ["follow"],
    };
    await runToEnd({
      ...orders,
      verbs: ["init", "copy", "follow"],
      copy: { overwrite: true },
      follow: { untilCaughtUp: true },
    });
    await pair.source.sql(
      `begin; insert into t values (501, 'before', 1); alter table t add column x int not null default 5;
       alter table t drop column amount; alter table t alter column name type varchar(20) using 'new ' || name; update t set x = id where id < 9;
       alter table t add constraint t_x check (x > 0); create index t_name on t (name, x); insert into t values (502, 'after', 7); commit`,
    ); // prettier-ignore
    await dieAt(step, orders);
    await runToEnd({ ...orders, follow: { untilCaughtUp: true } });
    expect((await compareDatabases(pair.source.url, pair.target.url)).differences).toEqual([]);
    expect(await shapeOf(pair, "target")).toEqual(await shapeOf(pair, "source"));
    // Neither twice, nor left.
    const rows = await pair.target.sql<{ statement: string; n: number; state: string }>(
      "select statement, state, count(*)::int as n from replicate.schema_change group by 1, 2",
    );
    expect(rows.filter(({ n, state }) => n > 1 || state !== "applied")).toEqual([]);
    expect(rows.length).toBeGreaterThan(3);
  },
);

function follow(sync: Sync): AsyncDisposable & { stop: () => Promise<void> } {
  const stopping = new AbortController();
  const done = (async () => {
    for await (const _ of sync.follow({ signal: stopping.signal }));
  })();
  done.catch(() => undefined);
  const stop = async (): Promise<void> => {
    stopping.abort();
    await done;
  };
  return { stop, [Symbol.asyncDispose]: async () => await stop().catch(() => undefined) };
}

async function waitingOf(sync: Sync) {
  return (await sync.status()).schemaChanges.find(({ state }) => state === "waiting");
}

async function shapeOf(pair: Pair, side: "source" | "target"): Promise<unknown> {
  return [
    await pair[side].sql(
      `select attname, format_type(atttypid, atttypmod), attnotnull from pg_attribute
       where attrelid = 't'::regclass and attnum > 0 and not attisdropped order by 1`,
    ),
    await pair[side].sql(
      "select conname, contype from pg_constraint where conrelid = 't'::regclass and contype <> 'n' order by 1",
    ),
    await pair[side].sql(
      "select indexrelid::regclass::text, indisvalid from pg_index where indrelid = 't'::regclass order by 1",
    ),
  ];
}
