import { expect, test } from "vitest";

import { freePair } from "../../support/database.ts";
import { leastPrivilegedPair } from "../../support/least-privileged-pair.ts";
import { openFollowed, onBoth, startFollowed, type Followed } from "../../support/follow-setup.ts";
import { openSync } from "../../../src/index.ts";

// Every way in which rows change on the source reaches the target, and no way fails because of us.

/** All deltas of a capture in the order they were written, as text. */
async function deltas(
  pair: { source: { sql: (text: string) => Promise<unknown[]> } },
  id = 1,
): Promise<string[]> {
  const rows = await pair.source.sql(
    `select d::text as row from (select ctid, * from replicate.delta_${id}_a union all select ctid, * from replicate.delta_${id}_b) as d`,
  );
  return rows.map((row) => (row as { row: string }).row);
}

async function keysRecorded(pair: Parameters<typeof deltas>[0]): Promise<string[]> {
  const rows = (await pair.source.sql(
    `select k1 from (select k1, txid, ctid from replicate.delta_1_a) as d order by txid, ctid`,
  )) as { k1: string }[];
  return rows.map(({ k1 }) => k1);
}

const both = ["row", "statement"] as const;

test.for(both)("every kind of statement is captured, by %s triggers", async (method) => {
  await using pair = await freePair();
  const schema = `
    create table parent (id int primary key, name text, unique (name));
    create table child (id int primary key, parent_id int references parent on delete cascade on update cascade, note text);
    create table audit (id int primary key, said text);
    create function rename_all() returns void language sql as $$ update parent set name = name || '!' where id > 10 $$;
    create rule also as on insert to child do also insert into audit values (new.id, 'child ' || new.id);
    insert into parent select g, 'p' || g from generate_series(1, 20) g;`;
  await using followed = await startFollowed(pair, schema, {
    overrides: { "public.*": { capture: method } },
  });
  const { source } = pair;
  await source.sql(`insert into child select g, 1 + g % 20, 'c' from generate_series(1, 30) g`);
  expect(await followed.differences()).toEqual([]);
  expect((await pair.target.sql("select * from audit")).length).toBe(30);

  await source.sql(
    `insert into parent values (3, 'taken'), (21, 'new') on conflict (id) do update set name = excluded.name`,
  );
  await source.sql(`insert into parent values (3, 'not taken') on conflict do nothing`);
  await source.sql(`select rename_all()`);
  await source.sql(
    `with gone as (delete from child where id = 30 returning id) update child set note = 'cte' where id = 29`,
  );
  expect(await followed.differences()).toEqual([]);

  // Cascades are statements of the server's own.
  await source.sql(`delete from parent where id = 5; update parent set id = 100 where id = 6`);
  expect(await source.sql(`select 1 from child where parent_id = 100`)).not.toEqual([]);
  expect(await followed.differences()).toEqual([]);

  await source.sql(`copy parent (id) from program 'seq 901 909'`);
  expect(await followed.differences()).toEqual([]);
  expect((await pair.target.sql("select * from parent where id > 900")).length).toBe(9);

  // As a subscription or another replication system writes.
  await source.sql(
    `set session_replication_role = replica; insert into parent values (500, 'replicated'); reset session_replication_role`,
  );
  expect(await followed.differences()).toEqual([]);
  expect((await pair.target.sql("select * from parent where id = 500")).length).toBe(1);
});

test.for(both)("MERGE is captured by %s triggers", async (method) => {
  await using pair = await freePair({ source: "18", target: "18" });
  await using followed = await startFollowed(
    pair,
    "create table t (id int primary key, v text); insert into t select g, 'v' from generate_series(1, 10) g",
    { overrides: { "public.*": { capture: method } } },
  );
  await pair.source.sql(`merge into t using (select * from generate_series(6, 15) as g) as n on t.id = n.g
    when matched and t.id > 8 then delete
    when matched then update set v = 'merged', id = t.id + 100
    when not matched then insert values (n.g, 'new')`);
  expect(await followed.differences()).toEqual([]);
  expect((await pair.target.sql("select * from t where id > 100")).length).toBe(3);
});

test.for(both)(
  "old and new keys are noted when a key changes, also by its looks alone: %s",
  async (method) => {
    await using pair = await freePair();
    await using followed = await startFollowed(
      pair,
      "create table t (amount numeric primary key, v text); insert into t values (1.0, 'a'), (2, 'b'), (3, 'c')",
      { overrides: { "public.*": { capture: method } } },
    );
    await pair.source.sql(`update t set v = 'same key' where amount = 3`);
    expect(await keysRecorded(pair)).toEqual(["3"]);
    await pair.source.sql(`update t set amount = 1.00 where amount = 1`);
    expect((await keysRecorded(pair)).slice(1).toSorted()).toEqual(["1.0", "1.00"]);
    await pair.source.sql(`update t set amount = 20 where amount = 2`);
    expect((await keysRecorded(pair)).slice(3).toSorted()).toEqual(["2", "20"]);
    expect(await followed.differences()).toEqual([]);
    expect(await pair.target.sql("select t.amount::text from t order by t.amount")).toEqual([
      { amount: "1.00" },
      { amount: "3" },
      { amount: "20" },
    ]);
  },
);

test("updates that change nothing are left out where that was asked for, once the table follows", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(
    pair,
    "create table t (id int primary key, v text); insert into t select g, 'v' from generate_series(1, 10) g",
    { overrides: { "public.t": { skipNoop: true } } },
  );
  await pair.source.sql(`update t set v = v`);
  expect((await deltas(pair)).length).toBe(10);
  await followed.drain();
  await followed.drain();
  const [before] = await pair.source.sql<{ skip_noop: boolean }>(`select skip_noop from replicate.capture`);
  expect(before?.skip_noop).toBe(true);
  const noted = (await deltas(pair)).length;
  await pair.source.sql(`update t set v = v`);
  expect((await deltas(pair)).length).toBe(noted);
  await pair.source.sql(`update t set v = v || case id when 4 then 'x' else '' end`);
  expect((await deltas(pair)).length).toBe(noted + 1);
  expect(await followed.differences()).toEqual([]);

  // Another sync is going to copy: a no-op moves a row between parts, and has to be seen.
  await using second = await openSync({
    name: "second",
    source: pair.source.url,
    target: pair.target.url,
    env: {},
  });
  await second.init();
  const more = (await deltas(pair)).length;
  await pair.source.sql(`update t set v = v`);
  expect((await deltas(pair)).length).toBe(more + 10);
});

test("TRUNCATE, alone, with rows before and after, and CASCADE", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(
    pair,
    `create table parent (id int primary key, name text);
     create table child (id int primary key, parent_id int references parent);
     create table lone (id int primary key);
     insert into parent select g, 'p' from generate_series(1, 9) g;
     insert into child select g, g from generate_series(1, 9) g;
     insert into lone select g from generate_series(1, 9) g;`,
  );
  await pair.source.sql("truncate lone");
  expect(await followed.differences()).toEqual([]);
  expect(await pair.target.sql("select * from lone")).toEqual([]);
  await pair.source.sql("insert into lone values (1), (2); truncate lone; insert into lone values (3)");
  expect(await followed.differences()).toEqual([]);
  await pair.source.sql("truncate parent cascade; insert into parent values (7, 'again')");
  expect(await followed.differences()).toEqual([]);
  expect(await pair.target.sql("select * from child")).toEqual([]);
  await pair.source.sql("begin; truncate parent, child; insert into parent values (1, 'x'); rollback");
  expect(await followed.differences()).toEqual([]);
  expect(await pair.target.sql("select id from parent")).toEqual([{ id: 7 }]);
});

const partitioned = `
  create table m (day date not null, id int not null, v text, primary key (day, id)) partition by range (day);
  create table m_1 partition of m for values from ('2020-01-01') to ('2020-02-01');
  create table m_2 partition of m for values from ('2020-02-01') to ('2020-03-01') partition by list (id);
  create table m_2_odd partition of m_2 for values in (1, 3, 5, 7, 9);
  create table m_2_rest partition of m_2 default;
`;

test("partitions: writes to root and leaf, moves, TRUNCATE of either", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, partitioned);
  const { source } = pair;
  await source.sql(`insert into m select date '2020-01-01' + g, g, 'root' from generate_series(0, 50) g;
    insert into m_1 values ('2020-01-05', 500, 'leaf'); insert into m_2_odd values ('2020-02-05', 3, 'deep leaf')`);
  expect(await followed.differences()).toEqual([]);
  await source.sql(`update m set day = '2020-02-02', id = 9 where id = 4; update m_1 set v = 'leaf' where id = 6;
    delete from m_2_rest where id = 40; update m_2 set id = id + 1000 where id = 3`);
  expect(await followed.differences()).toEqual([]);
  await source.sql(`truncate m_2_rest; insert into m values ('2020-02-07', 44, 'after')`);
  expect(await followed.differences()).toEqual([]);
  await source.sql(`truncate m_2; insert into m_2 values ('2020-02-07', 45, 'after')`);
  expect(await followed.differences()).toEqual([]);
  expect((await pair.target.sql("select * from m_1")).length).toBeGreaterThan(20);
  await source.sql(`truncate m; insert into m_1 values ('2020-01-07', 45, 'after')`);
  expect(await followed.differences()).toEqual([]);
});

test("partitions: ATTACH with rows, DETACH, and a partition put into the place of another", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, partitioned);
  const { source, target } = pair;
  await source.sql(`insert into m select date '2020-01-01' + g, g, 'x' from generate_series(0, 50) g`);
  expect(await followed.differences()).toEqual([]);

  for (let look = 0; look < 4; look += 1) await followed.drain();
  expect(await deltas(pair)).toEqual([]);
  const march = "for values from ('2020-03-01') to ('2020-04-01')";
  await target.sql(`create table m_3 partition of m ${march}`);
  await source.sql(`create table m_3 (like m including all);
    insert into m_3 select '2020-03-05', g, 'brought' from generate_series(1, 10) g;
    alter table m attach partition m_3 ${march}`);
  // Nothing else is written, and nothing is left of former deltas: the partition alone has to be noticed.
  expect(await followed.differences(["public.m"])).toEqual([]);
  expect((await target.sql("select * from m_3")).length).toBe(10);
  await source.sql(
    `insert into m_3 values ('2020-03-07', 1, 'later'); delete from m where v = 'brought' and id < 3`,
  );
  expect(await followed.differences(["public.m"])).toEqual([]);
  await source.sql(`truncate m_3`);
  expect(await followed.differences(["public.m"])).toEqual([]);

  await source.sql(`alter table m detach partition m_1`);
  expect(await followed.differences(["public.m"])).toEqual([]);
  expect(await target.sql("select * from m_1")).toEqual([]);
  await source.sql(`create table m_1b partition of m for values from ('2020-01-01') to ('2020-02-01');
    insert into m select date '2020-01-01' + g, g, 'second' from generate_series(0, 20) g`);
  expect(await followed.differences(["public.m"])).toEqual([]);
  // The old one is not the sync's business any more.
  await source.sql(`truncate m_1; insert into m values ('2020-01-03', 77, 'x')`);
  expect(await followed.differences(["public.m"])).toEqual([]);
  expect((await target.sql("select * from m_1")).length).toBe(22);
});

test("partitions: a table that is captured itself is attached to a captured one", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, `${partitioned} create table m_3 (like m including all)`);
  await pair.source.sql("insert into m_3 values ('2020-03-02', 1, 'x')");
  const attach = "alter table m attach partition m_3 for values from ('2020-03-01') to ('2020-04-01')";
  await pair.source.sql(attach);
  await pair.target.sql(attach);
  await pair.source.sql("insert into m values ('2020-03-03', 2, 'y'); update m_3 set v = 'z'");
  expect(await followed.differences()).toEqual([]);
  await pair.source.sql("truncate m_3; insert into m_3 values ('2020-03-09', 9, 'z')");
  expect(await followed.differences()).toEqual([]);
  await followed.sync.drop();
  expect(await pair.source.sql("select 1 from pg_trigger where tgname like 'zzz%'")).toEqual([]);
});

test("partitions: a leaf whose trigger was off is reported while it is, and read again afterwards", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, partitioned);
  const { source } = pair;
  await source.sql(`insert into m select date '2020-01-01' + g, g, 'x' from generate_series(0, 50) g`);
  expect(await followed.differences()).toEqual([]);
  await source.sql(
    `alter table m_1 disable trigger zzz_replicate_capture_1; delete from m_1 where id < 5; update m_1 set v = 'unseen'`,
  );
  const [broken] = await Promise.allSettled([followed.drain()]);
  expect(broken).toMatchObject({ reason: { code: "CAPTURE_BROKEN" } });
  const { problems } = (broken as PromiseRejectedResult).reason as {
    problems: { subject: string; remedy: string }[];
  };
  expect(problems[0]?.subject).toBe("public.m_1");
  await source.sql(String(problems[0]?.remedy));
  expect(await followed.differences()).toEqual([]);
  // Off and on again while nobody looked.
  await source.sql(`alter table m_1 disable trigger zzz_replicate_capture_1; delete from m_1 where id < 9;
    alter table m_1 enable always trigger zzz_replicate_capture_1`);
  expect(await followed.differences()).toEqual([]);
});

test.for(both)("inheritance: rows of parent and children, each in its own table: %s", async (method) => {
  await using pair = await freePair();
  await using followed = await startFollowed(
    pair,
    `create table base (id int primary key, v text);
     create table derived (extra int, primary key (id)) inherits (base);
     insert into base values (1, 'base'), (2, 'base'); insert into derived values (2, 'derived', 5), (3, 'derived', 6);`,
    { overrides: { "public.*": { capture: method } } },
  );
  // Written through the parent.
  await pair.source.sql(
    `update base set v = v || '!'; delete from base where id = 3; insert into derived values (9, 'x', 1)`,
  );
  expect(await followed.differences()).toEqual([]);
  expect(await pair.target.sql("select id, v from only base order by id")).toEqual([
    { id: 1, v: "base!" },
    { id: 2, v: "base!" },
  ]);
  await pair.source.sql(`truncate base; insert into derived values (1, 'after', 1)`);
  expect(await followed.differences()).toEqual([]);
  await pair.source.sql(`insert into base values (1, 'b'); truncate only base`);
  expect(await followed.differences()).toEqual([]);
  expect((await pair.target.sql("select * from derived")).length).toBe(1);
});

test("a publication FOR ALL TABLES on the source hinders neither the application nor us", async () => {
  await using pair = await freePair();
  await pair.source.sql("create publication everything for all tables");
  await using followed = await startFollowed(
    pair,
    "create table t (id int primary key, v text); insert into t select g, 'v' from generate_series(1, 10) g",
  );
  await pair.source.sql(
    "update t set v = 'x' where id < 5; delete from t where id = 9; truncate t; insert into t values (1, 'y')",
  );
  expect(await followed.differences()).toEqual([]);
  await pair.source.sql("insert into t select g, 'z' from generate_series(100, 200) g");
  expect(await followed.differences()).toEqual([]);
  await followed.sync.drop();
  expect(await pair.source.sql("select 1 from pg_namespace where nspname = 'replicate'")).toEqual([]);
});

test("names that no one should give", async () => {
  await using pair = await freePair();
  const long = "x".repeat(57);
  const names = ["Mixed Case", 'quo"te', "do.t", "da-sh", "naïve ☃", "select", "$capture$", "%I {{id}} $1", "y".repeat(63), `${long}_first`, `${long}_other`, "tab\\slash'", "zzz_replicate_capture"]; // prettier-ignore
  const quoted = names.map((name) => `"${name.replaceAll('"', '""')}"`);
  const schema = [
    `create schema "a"; create schema "a_b"; create schema "a.b"; create schema "Sch ema"`,
    `create table "a.b"."c" (id int primary key); create table "a"."b.c" (id int primary key)`,
    `create table "a.b"."_c" (id int primary key); create table "a"."b_c" (id int primary key); create table "a_b"."c" (id int primary key)`,
    ...quoted.map((name) => `create table ${name} (${name} int primary key, other text)`),
    ...quoted
      .slice(0, 6)
      .map((name) => `create table "Sch ema".${name} (id int, ${name} text, primary key (${name}, id))`),
  ].join(";\n");
  await using followed = await startFollowed(pair, schema);
  const tables = await pair.source.sql<{ name: string; columns: number }>(
    `select format('%I.%I', n.nspname, c.relname) as name, c.relnatts as columns
     from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where relkind = 'r' and nspname in ('public', 'a', 'a_b', 'a.b', 'Sch ema')`,
  );
  expect(tables.length).toBe(24);
  for (const { name, columns } of tables) {
    await pair.source.sql(
      `insert into ${name} select 1${columns > 1 ? ", '1'" : ""}; insert into ${name} select 2${columns > 1 ? ", '2'" : ""};`,
    );
  }
  expect(await followed.differences()).toEqual([]);
  for (const { name } of tables) await pair.source.sql(`delete from ${name} where ctid = '(0,1)'`);
  expect(await followed.differences()).toEqual([]);
  for (const { name } of tables)
    expect((await pair.target.sql(`select * from ${name}`)).length, name).toBe(1);
  for (const { name } of tables) await pair.source.sql(`truncate ${name}`);
  expect(await followed.differences()).toEqual([]);
});

test("installing waits out a long transaction without making others wait for it", async () => {
  await using pair = await freePair();
  await onBoth(pair, "create table t (id int primary key, v text)");
  const long = await pair.source.client();
  await long.query("begin; insert into t values (1, 'before the trigger')");
  await using sync = await openSync({ source: pair.source.url, target: pair.target.url, env: {} });
  let isDone = false;
  const waits: string[] = [];
  const init = sync
    .init({ onEvent: (event) => void (event.type === "capture-waiting" && waits.push(event.blockedBy)) })
    .then(() => (isDone = true));
  const started = Date.now();
  // The application goes on, again and again, while init waits: many more writes than could pass if they queued.
  for (let id = 2; waits.length < 4 || id < 60; id += 1) {
    await pair.source.sql(
      "set lock_timeout = '4s'; insert into t values ($$0$$::int + " + String(id) + ", 'meanwhile')",
    );
    if (Date.now() - started > 60_000) throw new Error("init did not wait for the long transaction");
  }
  expect(isDone).toBe(false);
  expect(waits[0]).toMatch(/oldest transaction is pid \d+/);
  await long.query("commit");
  await init;
  // Those who had written before the trigger are part of the copy.
  await sync.copy();
  await pair.source.sql("update t set v = 'after' where id = 1");
  for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
  const rows = "select id, v from t order by id";
  expect(await pair.target.sql(rows)).toEqual(await pair.source.sql(rows));
});

test("two syncs share a capture; deltas stay until the slower has them", async () => {
  await using pair = await freePair();
  await using other = await freePair();
  const schema = "create table t (id int primary key, v text)";
  await other.target.sql(schema);
  await using fast = await startFollowed(pair, schema, { name: "fast" });
  await using slow = await openFollowed({ source: pair.source, target: other.target }, { name: "slow" });
  expect(await pair.source.sql("select 1 from replicate.capture")).toHaveLength(1);
  await slow.drain();
  const size = async (): Promise<number> => (await deltas(pair)).length;
  for (let round = 0; round < 4; round += 1) {
    await pair.source.sql(
      `insert into t select g, 'v' from generate_series(${round * 100 + 1}, ${round * 100 + 100}) g`,
    );
    expect(await fast.differences()).toEqual([]);
  }
  expect(await size()).toBeGreaterThanOrEqual(400);
  expect(await slow.differences()).toEqual([]);
  // Both have everything: a few looks later nothing is left.
  for (let look = 0; look < 4; look += 1) for (const each of [fast, slow]) await each.drain();
  expect(await size()).toBe(0);

  // One leaves; the capture stays for the other.
  await fast.sync.drop();
  await pair.source.sql("update t set v = 'left' where id = 5");
  expect(await slow.differences()).toEqual([]);
  await slow.sync.drop();
  expect(await pair.source.sql("select 1 from pg_trigger where tgname like 'zzz%'")).toEqual([]);
});

test("one name, one target: a second target does not take the sync away", async () => {
  await using pair = await freePair();
  await using other = await freePair();
  const schema = "create table t (id int primary key, v text)";
  await other.target.sql(schema);
  await using first = await startFollowed(pair, schema);
  await using second = await openSync({ source: pair.source.url, target: other.target.url, env: {} });
  await expect(second.init()).rejects.toMatchObject({ code: "SYNC_MISMATCH" });
  await pair.source.sql("insert into t values (1, 'x')");
  expect(await first.differences()).toEqual([]);
  // The target is gone for good: said so, the name is free.
  await second.drop({ sourceOnly: true });
  await second.init();
});

test("the application's role needs no right on schema replicate", async () => {
  await using pair = await leastPrivilegedPair();
  const schema = "create table t (id int primary key, v text); create table s (id int primary key, v text)";
  await using followed = await startFollowed(pair, schema, {
    overrides: { "public.s": { capture: "statement" } },
  });
  for (const table of ["t", "s"]) {
    await pair.source.asWriter(`insert into ${table} select g, 'v' from generate_series(1, 20) g`);
    await pair.source.asWriter(
      `update ${table} set id = id + 100 where id < 5; delete from ${table} where id = 9`,
    );
  }
  await expect(pair.source.asWriter("select * from replicate.delta_1_a")).rejects.toMatchObject({
    code: "42501",
  });
  await expect(pair.source.asWriter("select replicate.capture_1()")).rejects.toThrow();
  await followed.drain();
  for (const table of ["t", "s"]) {
    const rows = `select * from ${table} order by id`;
    expect(await pair.target.sql(rows)).toEqual(await pair.source.sql(rows));
  }
});

const widening = [
  ["int to bigint", "int", "alter table t alter id type bigint", "3000000000"],
  ["bigint to numeric", "bigint", "alter table t alter id type numeric", "1.5"],
  ["varchar(5) to text", "varchar(5)", "alter table t alter id type text", "'longer than five'"],
  ["int to text", "int", "alter table t alter id type text using 'k' || id", "'words'"],
  [
    "timestamp to timestamptz",
    "timestamp",
    "alter table t alter id type timestamptz",
    "'2020-01-01 12:00+02'",
  ],
  ["date to text", "date", "alter table t alter id type text", "'no date'"],
] as const;

test.for(both.flatMap((method) => widening.map((each) => [method, ...each] as const)))(
  "a key is retyped under an open session, %s triggers: %s",
  async ([method, , type, alter, value]) => {
    await using pair = await freePair();
    const first = type === "timestamp" || type === "date" ? "'2019-05-05'" : "'1'";
    await using followed = await startFollowed(
      pair,
      `create table t (id ${type} primary key, v text); insert into t values (${first}, 'old')`,
      { overrides: { "public.*": { capture: method } } },
    );
    const open = await pair.source.client();
    await open.query("set timezone = 'Asia/Tokyo'; update t set v = 'plan is cached'");
    await open.query("update t set v = 'plan is cached'");
    await followed.drain();
    await pair.source.sql(alter);
    await open.query(`insert into t values (${value}, 'new type')`);
    await open.query(`update t set v = 'touched'`);
    await open.query(`delete from t where id::text = '1'`);
    await retryAfterRemedies(followed, pair);
    expect(await followed.differences()).toEqual([]);
    await open.query(`update t set v = 'and again'`);
    expect(await followed.differences()).toEqual([]);
  },
);

test.for(both)("a key column is renamed, and dropped, under an open session: %s triggers", async (method) => {
  await using pair = await freePair();
  await using followed = await startFollowed(
    pair,
    `create table t (a int, b int not null, v text, primary key (a, b)); insert into t select g, g, 'v' from generate_series(1, 9) g`,
    { overrides: { "public.*": { capture: method } } },
  );
  const open = await pair.source.client();
  await open.query("update t set v = 'x'");
  await followed.drain();
  await pair.source.sql("alter table t rename a to renamed");
  await open.query(
    "update t set v = 'renamed' where b < 4; insert into t values (77, 77, 'n'); delete from t where b = 9",
  );
  await retryAfterRemedies(followed, pair);
  expect(await followed.differences()).toEqual([]);

  // The key goes with its column: the application's writes go on, and we say what is needed.
  await pair.source.sql("alter table t drop column renamed");
  await open.query(
    "insert into t values (88, 'without'); update t set v = 'y' where b = 2; delete from t where b = 3",
  );
  await expect(followed.drain()).rejects.toMatchObject({ code: "TABLE_SHAPE_CHANGED" });
  await open.query("insert into t values (89, 'and on')");
});

/** Follow stops with a statement for the target; run, it goes on. */
async function retryAfterRemedies(
  followed: Followed,
  pair: {
    source: { sql: (text: string) => Promise<unknown> };
    target: { sql: (text: string) => Promise<unknown> };
  },
): Promise<void> {
  for (let attempt = 0; attempt < 3; attempt += 1) {
    try {
      await followed.drain();
      return;
    } catch (error) {
      const { code, problems } = error as { code: string; problems: { subject: string; remedy?: string }[] };
      if (code !== "TABLE_SHAPE_CHANGED") throw error;
      expect(problems).toMatchObject([{ subject: "public.t" }]);
      await pair.target.sql(String(problems[0]?.remedy));
    }
  }
  throw new Error("the remedies do not help");
}
