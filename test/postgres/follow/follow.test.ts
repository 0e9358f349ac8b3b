import { expect, test } from "vitest";

import { openSync, type Batch } from "../../../src/index.ts";
import { compareDatabases } from "../../support/compare.ts";
import { freePair, type Pair } from "../../support/database.ts";
import { leastPrivilegedPair } from "../../support/least-privileged-pair.ts";
import { onBoth, openFollowed, startFollowed } from "../../support/follow-setup.ts";

// What arrives on the target, and when; who may follow; how a runner ends.

test("rows arrive once they are committed, not before, and nothing on the target reacts to them", async () => {
  await using pair = await freePair();
  const schema = `create table t (id int primary key, v text, raw bytea, doc jsonb, at timestamptz default now());
    create table droptest (what text);`;
  await onBoth(pair, schema);
  await pair.target.sql(`
    create function tell() returns trigger language plpgsql as $$ begin insert into droptest values (TG_OP); return new; end $$;
    create trigger told before insert or update or delete on t for each row execute procedure tell();
    create rule told as on insert to t do also insert into droptest values ('rule');`);
  await using followed = await openFollowed(pair, { tables: ["public.t"] });
  const writer = await pair.source.client();
  await writer.query("begin");
  await writer.query(
    String.raw`insert into t values (1, E'tab\t\\ "quote"', '\x005cff', '{"a": [1, null]}')`,
  );
  await followed.drain();
  expect(await pair.target.sql("select * from t")).toEqual([]);
  await writer.query("commit");
  expect(await followed.differences(["public.t"])).toEqual([]);
  await pair.source.sql("update t set v = null; insert into t (id) values (2); delete from t where id = 1");
  expect(await followed.differences(["public.t"])).toEqual([]);
  expect(await pair.target.sql("select * from droptest")).toEqual([]);
});

test("transactions that overlap: a later one that commits first does not hide an earlier one", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, "create table t (id int primary key, v text)");
  const [early, late] = [await pair.source.client(), await pair.source.client()];
  await early.query("begin; insert into t values (1, 'early')");
  await late.query("insert into t values (2, 'late')");
  await followed.drain();
  expect(await pair.target.sql("select id from t")).toEqual([{ id: 2 }]);
  await pair.source.sql("insert into t values (3, 'last')");
  await followed.drain();
  await early.query("savepoint s; insert into t values (4, 'inner'); release s; commit");
  expect(await followed.differences()).toEqual([]);
  await early.query("begin; insert into t values (5, 'prepared'); prepare transaction 'follow_test'");
  await pair.source.sql("insert into t values (6, 'meanwhile')");
  await followed.drain();
  await early.query("commit prepared 'follow_test'");
  expect(await followed.differences()).toEqual([]);
});

test("unique values and keys that are exchanged, and chains of them", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(
    pair,
    `create table t (id int primary key, email text not null, place int not null, during int4range,
       unique (email), unique (place) deferrable initially deferred, exclude using gist (during with &&));
     create unique index t_lower on t (lower(email)) where place > 0;
     insert into t select g, 'e' || g, g, int4range(g * 10, g * 10 + 10) from generate_series(1, 20) g`,
  );
  const { source } = pair;
  await source.sql(
    `begin; update t set email = 'x' where id = 1; update t set email = 'e1' where id = 2; update t set email = 'e2' where id = 1; commit`,
  );
  expect(await followed.differences()).toEqual([]);
  await source.sql(`begin; set constraints all deferred; update t set place = 21 - place; commit`);
  expect(await followed.differences()).toEqual([]);
  await source.sql(
    `begin; update t set during = null; update t set during = int4range((21 - id) * 10, (21 - id) * 10 + 10); commit`,
  );
  expect(await followed.differences()).toEqual([]);
  await source.sql(
    `begin; update t set id = -5 where id = 5; update t set id = 5 where id = 6; update t set id = 6 where id = -5; commit`,
  );
  await source.sql(`update t set id = id + 100`);
  expect(await followed.differences()).toEqual([]);
  await source.sql(
    `delete from t where id = 103; insert into t values (3, 'e3', (select 1 + max(place) from t))`,
  );
  await source.sql(`update t set email = upper(email) where id > 110`);
  expect(await followed.differences()).toEqual([]);
});

test("keys with every awkward value", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(
    pair,
    `create table words (a text, b text, v int, primary key (a, b));
     create table bytes (raw bytea primary key, v int);
     create table times (at timestamptz, day date, v int, primary key (at, day));
     create table floats (f float8 primary key, v int);
     create table arrays (a int[] primary key, v int);
     create table bools (b boolean primary key, v int);`,
  );
  const { source } = pair;
  const words = [
    "",
    "NULL",
    "\\N",
    "\\.",
    "it's",
    'q"',
    "a,b",
    "{x}",
    "tab\t",
    "line\n",
    "ü☃",
    " ",
    "x".repeat(500),
  ];
  for (const word of words)
    await source.sql("insert into words values ($1, $2, 1), ($2, $1, 1) on conflict do nothing", [
      word,
      `${word}!`,
    ]);
  await source.sql(`
    insert into bytes values ('\\x'), ('\\x00'), ('\\x5c'), ('\\xff00ff'), (decode(repeat('00ff5c', 40), 'hex'));
    set timezone = 'America/New_York';
    insert into times values ('infinity', '-infinity'), ('4000-01-01 BC', '4000-01-01 BC'), ('2020-03-08 02:30', '2020-03-08'), ('1883-11-18 12:03:57', '1883-11-18');
    set extra_float_digits = 0;
    insert into floats values ('NaN'), ('-0'), ('Infinity'), (0.1), (1e-300), (123456789.123456789);
    insert into arrays values ('{}'), ('{1,NULL}'), ('[5:6]={1,2}'), ('{{1,2},{3,4}}');
    insert into bools values (true), (false)`);
  expect(await followed.differences()).toEqual([]);
  for (const table of ["words", "bytes", "times", "floats", "arrays", "bools"])
    await source.sql(`update ${table} set v = 2`);
  await source.sql("update words set b = b || '?'; update floats set f = 0 where f = 0");
  expect(await followed.differences()).toEqual([]);
  for (const table of ["words", "bytes", "times", "floats", "arrays", "bools"])
    await source.sql(`delete from ${table}`);
  expect(await followed.differences()).toEqual([]);
  expect(
    await pair.target.sql(
      "select 1 from words union all select 1 from bytes union all select 1 from times union all select 1 from floats",
    ),
  ).toEqual([]);
});

test("identity, generated columns, a deferrable key, a table of nothing but its key", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(
    pair,
    `create table always (id bigint generated always as identity primary key, v text, doubled text generated always as (v || v) stored);
     create table other_identity (id int primary key, n int generated always as identity, v text);
     create table deferred (id int primary key deferrable initially deferred, v text);
     create table bare (id int primary key);
     create table wide (id int primary key, v text); alter table wide alter v set storage external;`,
  );
  const { source } = pair;
  await source.sql(`insert into always (v) select 'v' || g from generate_series(1, 9) g; update always set v = 'w' where id < 4; delete from always where id = 9;
    insert into other_identity (id, v) select g, 'v' from generate_series(1, 9) g; update other_identity set v = 'w';
    insert into deferred values (1, 'a'), (2, 'b'); insert into bare select g from generate_series(1, 9) g;
    insert into wide values (1, repeat('x', 100000)), (2, repeat('y', 3000000))`);
  expect(await followed.differences()).toEqual([]);
  await source.sql(`begin; update deferred set id = 3 - id; commit; update bare set id = id + 100; update wide set id = id + 100;
    update other_identity set n = default where id = 4`);
  expect(await followed.differences()).toEqual([]);
  expect(await pair.target.sql("select doubled from always where id = 1")).toEqual([{ doubled: "ww" }]);
});

test("the source wins over what was written on the target", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(
    pair,
    `create table t (id int primary key, email text unique, v text);
     insert into t select g, 'e' || g, 'v' from generate_series(1, 10) g`,
  );
  // Deleted here, updated there; updated on both; inserted on both; deleted there, updated here.
  await pair.target.sql(
    "delete from t where id = 1; update t set v = 'target' where id in (2, 4); insert into t values (11, 'e11', 'target')",
  );
  await pair.source.sql(
    "update t set v = 'source' where id in (1, 2); insert into t values (11, 'e11b', 'source'); delete from t where id = 4",
  );
  expect(await followed.differences()).toEqual([]);
  // A row that only the target has holds a unique value that the source gives away now.
  await pair.target.sql(
    "insert into t values (50, 'wanted', 'extra'), (51, 'wanted too', 'extra'), (52, 'stays', 'extra')",
  );
  await pair.source.sql(
    "insert into t values (12, 'wanted', 'source'); update t set email = 'wanted too' where id = 3",
  );
  expect(await followed.differences()).toMatchObject([{ key: "'52'", kind: "extra" }]);
  // And one that has an old value under another key.
  await pair.target.sql("delete from t where id = 5; update t set id = 5 where id = 52");
  await pair.source.sql("update t set v = 'again' where id = 5");
  expect(await followed.differences()).toEqual([]);
});

test("a row that the target refuses is told with the server's words, and nothing of its batch is there", async () => {
  await using pair = await freePair();
  await onBoth(pair, "create table t (id int primary key, v text); create table u (id int primary key)");
  await pair.target.sql("alter table t add constraint short check (length(v) < 5)");
  await using followed = await openFollowed(pair);
  await pair.source.sql("begin; insert into u values (1); insert into t values (1, 'far too long'); commit");
  await expect(followed.drain()).rejects.toMatchObject({
    code: "ROW_REFUSED",
    message: expect.stringMatching(/public\.t.*short/) as string,
  });
  expect(await pair.target.sql("select * from u")).toEqual([]);
  await pair.target.sql("alter table t drop constraint short");
  expect(await followed.differences()).toEqual([]);
});

test("foreign keys with actions on the target do nothing of their own: parents are never deleted to be updated", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(
    pair,
    `create table parent (id int primary key, code text unique);
     create table child (id int primary key, parent_id int references parent on delete cascade on update cascade, code text references parent (code) on update set null);
     insert into parent select g, 'c' || g from generate_series(1, 10) g;
     insert into child select g, g, 'c' || g from generate_series(1, 10) g`,
  );
  await pair.source.sql(
    "update parent set code = 'x' where id = 1; update parent set code = 'c1' where id = 2; update parent set id = 50 where id = 3",
  );
  expect(await followed.differences()).toEqual([]);
  expect((await pair.target.sql("select * from child")).length).toBe(10);
  await pair.source.sql("delete from parent where id > 5");
  expect(await followed.differences()).toEqual([]);
});

test("within one database, into another schema", async () => {
  await using pair = await freePair();
  await pair.source.sql(
    "create schema copy; create table t (id int primary key, v text); create table copy.t_copy (v text, id int primary key)",
  );
  await using sync = await openSync({
    source: pair.source.url,
    target: pair.source.url,
    tables: ["public.t"],
    overrides: { "public.t": { target: "copy.t_copy" } },
    env: {},
  });
  await pair.source.sql("insert into t values (1, 'before')");
  await sync.init();
  await sync.copy();
  await pair.source.sql("insert into t values (2, 'after'); update t set v = 'x' where id = 1");
  for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
  expect(await pair.source.sql("select id, v from copy.t_copy order by id")).toEqual([
    { id: 1, v: "x" },
    { id: 2, v: "after" },
  ]);
  await sync.drop();
  expect(await pair.source.sql("select 1 from pg_namespace where nspname = 'replicate'")).toEqual([]);
});

test("a table that is copied later joins a running sync", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, "create table t (id int primary key)", {
    tables: ["public.t"],
  });
  await onBoth(pair, "create table later (id int primary key, v text)");
  await pair.source.sql("insert into later select g, 'copied' from generate_series(1, 100) g");
  const stop = new AbortController();
  const runner = follow(followed.sync.follow({ signal: stop.signal }));
  await using wider = await openSync({
    source: pair.source.url,
    target: pair.target.url,
    tables: ["public.*"],
    env: {},
  });
  await wider.init();
  await pair.source.sql("update later set v = 'changed' where id < 10; insert into t values (1)");
  await wider.copy();
  await pair.source.sql("delete from later where id = 50; insert into t values (2)");
  await waitFor(pair, "select count(*) = 99 and count(*) filter (where v = 'changed') = 9 as ok from later");
  stop.abort();
  await runner;
  expect((await compareDatabases(pair.source.url, pair.target.url)).differences).toEqual([]);
});

test("one runner at a time", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, "create table t (id int primary key)");
  const stop = new AbortController();
  const first = follow(followed.sync.follow({ signal: stop.signal }));
  await pair.source.sql("insert into t values (1)");
  await waitFor(pair, "select count(*) = 1 as ok from t");
  await using second = await openSync({ source: pair.source.url, target: pair.target.url, env: {} });
  await expect(follow(second.follow())).rejects.toMatchObject({ code: "RUNNER_ACTIVE", exitCode: 4 });
  await expect(second.drop()).rejects.toMatchObject({ code: "RUNNER_ACTIVE" });
  await pair.source.sql("insert into t values (2)");
  await waitFor(pair, "select count(*) = 2 as ok from t");
  stop.abort();
  const batches = await first;
  expect(batches.length).toBeGreaterThan(1);
  // Free again at once.
  await follow(second.follow({ untilCaughtUp: true }));
});

test("a position that another moved stops the runner instead of applying a batch twice", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, "create table t (id int primary key, v text)");
  await pair.source.sql("insert into t values (1, 'x')");
  await followed.drain();
  const seen: Batch[] = [];
  const run = (async () => {
    for await (const batch of followed.sync.follow()) {
      seen.push(batch);
      await pair.target.sql("update replicate.sync set position = '9:9:'");
      await pair.source.sql("insert into t values (3, 'y')");
    }
  })();
  await pair.source.sql("insert into t values (2, 'x')");
  await expect(run).rejects.toMatchObject({ code: "RUNNER_ACTIVE" });
  expect(await pair.target.sql("select id from t order by id")).toEqual([{ id: 1 }, { id: 2 }]);
});

test("a source that lacks what was applied is not followed", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, "create table t (id int primary key)");
  await pair.source.sql("insert into t values (1)");
  await followed.drain();
  // The token before the last is known as well: the runner may have died between both sides' commits.
  await pair.source.sql(
    "update replicate.source_sync set previous_token = token, token = 'of a batch that was not applied'",
  );
  await followed.drain();
  await pair.source.sql("update replicate.source_sync set token = 'other', previous_token = 'other'");
  await expect(followed.drain()).rejects.toMatchObject({ code: "SOURCE_LOST", exitCode: 3 });
});

test("time-outs of role and database do not end our sessions", async () => {
  await using pair = await leastPrivilegedPair();
  for (const side of [pair.source, pair.target]) {
    await side.asAdmin(`alter role "${side.owner.name}" set statement_timeout = '300ms';
      alter role "${side.owner.name}" set idle_in_transaction_session_timeout = '300ms';
      alter role "${side.owner.name}" set lock_timeout = '1ms';
      alter role "${side.owner.name}" set default_transaction_read_only = on;
      alter role "${side.owner.name}" set default_transaction_isolation = 'serializable'`);
  }
  const admin = {
    source: { url: pair.source.url, sql: pair.source.asAdmin },
    target: { url: pair.target.url, sql: pair.target.asAdmin },
  };
  await onBoth(admin, `create table t (id int primary key, v text); alter table t owner to current_user`);
  for (const side of [pair.source, pair.target])
    await side.asAdmin(`alter table t owner to "${side.owner.name}"`);
  await using followed = await openFollowed(pair);
  await pair.source.asAdmin("insert into t select g, repeat('x', 300) from generate_series(1, 60000) g");
  const batches = await followed.drain();
  expect(batches[0]?.rows).toBe(60_000);
  expect((await compareDatabases(pair.source.adminUrl, pair.target.adminUrl)).differences).toEqual([]);
  await followed.sync.drop();
});

async function follow(batches: AsyncIterable<Batch>): Promise<Batch[]> {
  const all: Batch[] = [];
  for await (const batch of batches) all.push(batch);
  return all;
}

async function waitFor(pair: Pair, query: string): Promise<void> {
  const deadline = Date.now() + 60_000;
  for (;;) {
    const [row] = await pair.target.sql<{ ok: boolean }>(query);
    if (row?.ok === true) return;
    if (Date.now() > deadline) throw new Error(`it does not come true: ${query}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
