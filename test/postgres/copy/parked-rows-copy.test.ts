import { expect, test } from "vitest";

import { replicate } from "../../support/replicate.ts";
import { compareDatabases } from "../../support/compare.ts";
import { freePair, type Pair } from "../../support/database.ts";
import { runToEnd, startRunner, type Orders } from "../../support/torture.ts";
import {
  differences,
  followUntilCaughtUp,
  onBoth,
  openCopySync,
  type CopySync,
} from "../../support/copy-setup.ts";

// Rows that the target rejects while it is filled: all others are copied, and these come once it lets them in.

interface Letter {
  key: Record<string, unknown>;
  sqlstate: string;
}

async function letters(pair: Pair): Promise<Letter[]> {
  return await pair.target.sql<Letter>("select key, sqlstate from replicate.parked order by table_name, key");
}

async function column(pair: Pair, text: string): Promise<unknown[]> {
  return (await pair.target.sql<{ v: unknown }>(text)).map(({ v }) => v);
}

/** A sync that parks, with the schema on both sides and `ofTarget` on the target alone. */
async function parking(
  pair: Pair,
  schema: string,
  ofTarget: string,
  options: Parameters<typeof openCopySync>[1] = {},
): Promise<CopySync> {
  await onBoth(pair, schema);
  await pair.target.sql(ofTarget);
  return await openCopySync(pair, { onRefusal: "park", ...options });
}

const large =
  "create table t (id int primary key, n int default 20, v text default 'ok', d numeric default 1, f text)";
/** Several parts of `partBytes`; `changes` are made before, so that the rows lie in the order of their ids. */
function fillLarge(changes: string): string {
  return `create temp table first (like t including defaults);
    insert into first (id, f) select g, repeat('x', 90) from generate_series(1, 30000) g;
    ${changes.replaceAll("update t ", "update first ")};
    insert into t select * from first order by id; analyze t`;
}
const partBytes = 1_000_000;
const adults = "alter table t add constraint adults check (n >= 18)";

test.for([
  { what: "a check constraint", alter: adults, bad: "n = 3", sqlstate: "23514" },
  {
    what: "a value too long",
    alter: `create function short(v text) returns boolean language plpgsql as
              $$ begin if length(v) > 5 then raise exception using errcode = '22001', message = 'too long'; end if; return true; end $$;
            alter table t add check (short(v))`,
    bad: "v = 'much too long'",
    sqlstate: "22001",
  },
  {
    what: "a column that is not null",
    alter: "alter table t alter v set not null",
    bad: "v = null",
    sqlstate: "23502",
  },
  {
    what: "a number too large",
    alter: "alter table t add check ((d * 1000000)::int is not null)",
    bad: "d = 12345",
    sqlstate: "22003",
  },
  {
    what: "a function of the target that raises an exception",
    alter: `create function fits(n int) returns boolean language plpgsql as
              $$ begin if n < 18 then raise exception 'too young'; end if; return true; end $$;
            alter table t add check (fits(n))`,
    bad: "n = 3",
    sqlstate: "P0001",
  },
])("$what keeps three rows of a large table away and no other", async ({ alter, bad, sqlstate }) => {
  await using pair = await freePair();
  const { sync, of } = await parking(pair, large, alter);
  await using _ = sync;
  await pair.source.sql(fillLarge(`update t set ${bad} where id in (77, 78, 25000)`));
  await sync.init();
  const report = await sync.copy({ partBytes });
  const keys = [77, 78, 25_000].map((id) => ({ key: { id }, sqlstate }));
  expect(await letters(pair)).toEqual(keys);
  expect(report).toMatchObject({ rows: 29_997, tables: [{ state: "copied", rows: 29_997, parked: 3 }] });
  expect(of("rows-parked").reduce((sum, { rows }) => sum + rows, 0)).toBe(3);
  expect(await sync.status()).toMatchObject({ parked: 3, tables: [{ parked: 3 }] });
  expect((await differences(pair)).map(({ key, kind }) => [key, kind])).toEqual(
    [25_000, 77, 78].map((id) => [`'${id}'`, "missing"]),
  );

  // Followed as any other: told apart by verify, and gone once they change on the source or are let in.
  await followUntilCaughtUp(sync);
  expect(await sync.verify()).toMatchObject({ tables: [{ differencesTotal: 3, parked: 3 }] });
  await pair.source.sql("delete from t where id = 77; update t set n = 21, v = 'fine', d = 2 where id = 78");
  await followUntilCaughtUp(sync);
  expect(await letters(pair)).toEqual([keys[2]]);
  await pair.target.sql(
    "alter table t drop constraint if exists adults, drop constraint if exists t_n_check, drop constraint if exists t_v_check, drop constraint if exists t_d_check, alter v drop not null",
  );
  await sync.parked({ retry: true });
  await followUntilCaughtUp(sync);
  expect(await letters(pair)).toEqual([]);
  expect(await differences(pair)).toEqual([]);
});

test("a label that the target's enum lacks, as a value and as a key", async () => {
  await using pair = await freePair();
  const { sync } = await parking(
    pair,
    `create type mood as enum ('fine', 'bad');
     create table t (id int primary key, m mood, f text); create table k (m mood primary key, v int)`,
    "",
  );
  await using _ = sync;
  await pair.source.sql("alter type mood add value 'so so'");
  await pair.source
    .sql(`insert into t select g, case g when 9000 then 'so so' else 'fine' end::mood, repeat('x', 150)
    from generate_series(1, 10000) g; insert into k values ('fine', 1), ('so so', 2)`);
  await sync.init();
  await sync.copy();
  expect(await letters(pair)).toEqual([
    { key: { m: "so so" }, sqlstate: "22P02" },
    { key: { id: 9000 }, sqlstate: "22P02" },
  ]);
  expect(await column(pair, "select count(*)::int as v from t")).toEqual([9999]);
  await pair.target.sql("alter type mood add value 'so so'");
  // The first runner finds out by itself.
  await followUntilCaughtUp(sync);
  await followUntilCaughtUp(sync);
  expect(await letters(pair)).toEqual([]);
  expect(await differences(pair)).toEqual([]);
});

test("small tables, whose indexes stay: keys of all kinds, an identity, a value too large for an index", async () => {
  await using pair = await freePair();
  const { sync } = await parking(
    pair,
    `create table t (c char(5), "Na'me" text, n int, primary key (c, "Na'me"));
     create table u (id int generated always as identity primary key, n int);
     create table w (id int primary key, v text);
     create table g (n int, f float8 primary key, at timestamptz, b bytea)`,
    `alter table t add check (n >= 18); alter table u add check (n >= 18); create index on w (v); alter table g add check (n >= 18)`,
  );
  await using _ = sync;
  await pair.source
    .sql(`insert into t values ('a', 'x', 20), ('b', 'it''s "so"', 3), ('c', E'tab\\there \\\\ {,}', 4);
    insert into u (n) select 15 + g from generate_series(1, 5) g;
    insert into w values (1, 'short'), (2, (select string_agg(md5(g::text), '') from generate_series(1, 400) g));
    insert into g values (20, 1e-7, now(), '\\x00ff'), (1, 0.1, now(), '\\x5c'), (30, 'Infinity', 'infinity', '')`);
  await sync.init();
  await sync.copy();
  expect(await letters(pair)).toEqual([
    { key: { f: 0.1 }, sqlstate: "23514" },
    { key: { c: "b    ", "Na'me": `it's "so"` }, sqlstate: "23514" },
    { key: { c: "c    ", "Na'me": "tab\there \\ {,}" }, sqlstate: "23514" },
    { key: { id: 1 }, sqlstate: "23514" },
    { key: { id: 2 }, sqlstate: "23514" },
    { key: { id: 2 }, sqlstate: "54000" },
  ]);
  await followUntilCaughtUp(sync);
  const report = await sync.verify();
  expect(report.tables.map(({ differencesTotal, parked }) => [differencesTotal, parked])).toEqual([
    [1, 1],
    [2, 2],
    [2, 2],
    [1, 1],
  ]);
  await pair.target.sql(`alter table t drop constraint t_n_check; alter table u drop constraint u_n_check;
    alter table g drop constraint g_n_check; drop index w_v_idx`);
  await sync.parked({ retry: true });
  await followUntilCaughtUp(sync);
  expect(await letters(pair)).toEqual([]);
  expect(await differences(pair)).toEqual([]);
});

test("thousands of rows among others, each found", async () => {
  await using pair = await freePair();
  const { sync } = await parking(pair, large, adults);
  await using _ = sync;
  await pair.source.sql(fillLarge("update t set n = 3 where id % 10 = 0"));
  await sync.init();
  expect(await sync.copy({ partBytes })).toMatchObject({ rows: 27_000, tables: [{ parked: 3000 }] });
  expect(await column(pair, "select (key ->> 'id')::int as v from replicate.parked order by 1")).toEqual(
    Array.from({ length: 3000 }, (_each, n) => (n + 1) * 10),
  );
  expect(await column(pair, "select count(*)::int as v from t where n >= 18")).toEqual([27_000]);
  await followUntilCaughtUp(sync);
  expect(await sync.verify()).toMatchObject({ tables: [{ differencesTotal: 3000, parked: 3000 }] });
});

test("more than are put aside: the copy stops, and goes on when that is repaired", async () => {
  await using pair = await freePair();
  const { sync } = await parking(pair, large, adults);
  await using _ = sync;
  await pair.source.sql(fillLarge("update t set n = 3 where id > 15000"));
  await sync.init();
  await expect(sync.copy({ partBytes, jobs: 1 })).rejects.toMatchObject({
    code: "ROW_REFUSED",
    message: expect.stringContaining("more rows than may be parked (10000 of a sync)") as string,
  });
  // What is done is done as a whole.
  const [rows, parked, told] = await column(
    pair,
    `select count(*)::int as v from t union all select count(*)::int from replicate.parked
     union all select coalesce(sum(rows), 0)::int from replicate.part where done`,
  );
  expect(rows).toBe(told);
  expect(parked).toBeLessThanOrEqual(10_000);
  await pair.target.sql("alter table t drop constraint adults");
  await sync.copy({ partBytes });
  await sync.parked({ retry: true });
  await followUntilCaughtUp(sync);
  expect(await letters(pair)).toEqual([]);
  expect(await differences(pair)).toEqual([]);
});

test("what stops it still: the policy stop, a table without a key, a second row with a unique value", async () => {
  await using pair = await freePair();
  const { sync } = await parking(
    pair,
    "create table a (id int primary key, n int); create table b (n int); create table c (id int primary key, n int)",
    "alter table a add check (n >= 18); alter table b add check (n >= 18); create unique index on c (n)",
    { keyless: "reload", overrides: { "public.a": { onRefusal: "stop" } } },
  );
  await using _ = sync;
  await pair.source.sql(
    "insert into a values (1, 3); insert into b values (3); insert into c values (1, 1), (2, 1)",
  );
  await sync.init();
  const copyOf = async (table: string): Promise<unknown> => await sync.copy({ tables: [table] });
  await expect(copyOf("public.a")).rejects.toMatchObject({ code: "ROW_REFUSED", sqlstate: "23514" });
  await expect(copyOf("public.b")).rejects.toMatchObject({
    code: "ROW_REFUSED",
    hint: expect.stringContaining("no key") as string,
  });
  await expect(copyOf("public.c")).rejects.toMatchObject({ code: "ROW_REFUSED", sqlstate: "23505" });
  expect(await letters(pair)).toEqual([]);
  expect(await column(pair, "select count(*)::int as v from c")).toEqual([0]);
});

test("a unique value that two rows of a refused part have stops it as well", async () => {
  await using pair = await freePair();
  const { sync } = await parking(
    pair,
    "create table t (id int primary key, n int, m int)",
    `${adults}; create unique index on t (m)`,
  );
  await using _ = sync;
  await pair.source.sql("insert into t values (1, 3, 1), (2, 20, 2), (3, 20, 2)");
  await sync.init();
  await expect(sync.copy()).rejects.toMatchObject({
    code: "ROW_REFUSED",
    sqlstate: "23505",
    message: expect.stringContaining("a row of public.t") as string,
  });
  expect(await letters(pair)).toEqual([]);
  expect(await column(pair, "select count(*)::int as v from t")).toEqual([0]);
});

test("copied again, or adopted: what was parked before is forgotten", async () => {
  await using pair = await freePair();
  const { sync } = await parking(pair, "create table t (id int primary key, n int)", adults);
  await using _ = sync;
  await pair.source.sql("insert into t select g, g from generate_series(16, 20) g");
  await sync.init();
  await sync.copy();
  expect(await letters(pair)).toMatchObject([{ key: { id: 16 } }, { key: { id: 17 } }]);
  await pair.source.sql("delete from t where id = 16; insert into t values (15, 15)");
  await sync.copy({ restart: true });
  // A row that has changed since the beginning comes with the first batch.
  expect(await letters(pair)).toMatchObject([{ key: { id: 17 } }]);
  await followUntilCaughtUp(sync);
  expect(await letters(pair)).toMatchObject([{ key: { id: 15 } }, { key: { id: 17 } }]);
  await sync.copy({ restart: true });
  await followUntilCaughtUp(sync);
  expect(await letters(pair)).toMatchObject([{ key: { id: 15 } }, { key: { id: 17 } }]);
  await pair.target.sql("alter table t drop constraint adults");
  await sync.copy({ restart: true });
  expect(await letters(pair)).toEqual([]);
  await followUntilCaughtUp(sync);
  expect(await differences(pair)).toEqual([]);
});

test("mapped: another name, a filter, a computed value that is too long, as text", async () => {
  await using pair = await freePair();
  await pair.source.sql("create table person (id bigint primary key, name text, region text, filler text)");
  await pair.target.sql(
    "create table people (id numeric primary key, tag varchar(12), region text, home text default 'here', filler text)",
  );
  await pair.source
    .sql(`insert into person select g, 'p' || g, case g % 2 when 0 then 'eu' else 'us' end, repeat('x', 90)
    from generate_series(1, 20000) g;
    update person set name = 'a much longer name' where id in (500, 501, 15000); analyze`);
  const { sync } = await openCopySync(pair, {
    onRefusal: "park",
    overrides: {
      "public.person": {
        target: "public.people",
        where: "region = 'eu'",
        columns: { name: { to: "tag", as: "upper(name)" } },
      },
    },
  });
  await using _ = sync;
  await sync.init();
  expect(await sync.copy({ partBytes: 400_000 })).toMatchObject({ rows: 9998, tables: [{ parked: 2 }] });
  expect(await letters(pair)).toEqual([500, 15_000].map((id) => ({ key: { id }, sqlstate: "22001" })));
  expect(
    await column(pair, "select count(*)::int as v from people where tag = 'P' || id and home = 'here'"),
  ).toEqual([9998]);
  await followUntilCaughtUp(sync);
  expect(await sync.verify()).toMatchObject({ tables: [{ differencesTotal: 2, parked: 2 }] });
  // One leaves the filter, the other is repaired.
  await pair.source.sql(
    "update person set region = 'us' where id = 500; update person set name = 'short' where id = 15000",
  );
  await followUntilCaughtUp(sync);
  expect(await letters(pair)).toEqual([]);
  expect(await sync.verify()).toMatchObject({ equal: true });
});

test("partitions: rows that the target has no partition for, and those that one of them refuses", async () => {
  await using pair = await freePair();
  const { sync } = await parking(
    pair,
    `create table log (id int, at date, filler text, primary key (id, at)) partition by range (at);
     create table log_1 partition of log for values from ('2020-01-01') to ('2020-07-01')`,
    "alter table log_1 add check (id <> 30)",
  );
  await using _ = sync;
  await pair.source.sql(`create table log_2 partition of log for values from ('2020-07-01') to ('2021-01-01');
    insert into log select g, date '2020-01-01' + g % 30, repeat('x', 90) from generate_series(1, 20000) g;
    insert into log values (1, '2020-08-01'), (2, '2020-09-01'); analyze`);
  await sync.init();
  expect(await sync.copy({ partBytes: 500_000 })).toMatchObject({ rows: 19_999, tables: [{ parked: 3 }] });
  expect(await letters(pair)).toMatchObject(
    [[30, "2020-01-01"], [1, "2020-08-01"], [2, "2020-09-01"]].map(([id, at]) => ({ key: { id, at } })),
  ); // prettier-ignore
  await pair.target.sql(
    "create table log_2 partition of log for values from ('2020-07-01') to ('2021-01-01'); alter table log_1 drop constraint log_1_id_check",
  );
  await followUntilCaughtUp(sync);
  await sync.parked({ retry: true });
  await followUntilCaughtUp(sync);
  expect(await letters(pair)).toEqual([]);
  expect(await differences(pair)).toEqual([]);
});

test("a parked row that others refer to: they are there, and the foreign key is told", async () => {
  await using pair = await freePair();
  const { sync } = await parking(
    pair,
    "create table parent (id int primary key, n int); create table child (id int primary key, parent_id int references parent)",
    "alter table parent add check (n >= 18)",
  );
  await using _ = sync;
  await pair.source.sql("insert into parent values (1, 20), (2, 3); insert into child values (1, 1), (2, 2)");
  await sync.init();
  await sync.copy();
  expect(await letters(pair)).toEqual([{ key: { id: 2 }, sqlstate: "23514" }]);
  await followUntilCaughtUp(sync);
  expect(await column(pair, "select id as v from child order by id")).toEqual([1, 2]);
  expect(
    await column(pair, "select convalidated as v from pg_constraint where conname = 'child_parent_id_fkey'"),
  ).toEqual([false]);
  expect((await sync.status()).owed.leftInvalid).toMatchObject([{ table: "public.child" }]);
});

test("the hook decides: tried again, put aside, or stopped; transformed rows are parked as they come", async () => {
  await using pair = await freePair();
  await onBoth(pair, "create table t (id int primary key, n int, v text)");
  await pair.target.sql(adults);
  await pair.source.sql("insert into t select g, g, 'v' || g from generate_series(16, 40) g");
  const asked: unknown[] = [];
  const { sync } = await openCopySync(pair, {
    hooks: {
      transformRow: (row) => (row["id"] === "40" ? null : { v: `${row["v"]}!` }),
      onError: (error, { table, key, attempt }) => {
        asked.push([error.code, error.sqlstate, table, key, attempt]);
        return attempt === 1 ? "retry" : "skip";
      },
    },
    overrides: { "public.t": { transform: true } },
  });
  await using _ = sync;
  await sync.init();
  expect(await sync.copy()).toMatchObject({ rows: 22, tables: [{ parked: 2 }] });
  expect(asked).toEqual(
    [1, 2].flatMap((attempt) => [16, 17].map((id) => ["ROW_REFUSED", "23514", "public.t", { id }, attempt])),
  );
  expect(await column(pair, "select v from t order by id limit 1")).toEqual(["v18!"]);
  const { sync: other } = await openCopySync(pair, { hooks: { onError: () => "stop" } });
  await using __ = other;
  await expect(other.copy({ restart: true })).rejects.toMatchObject({
    code: "ROW_REFUSED",
    sqlstate: "23514",
    message: expect.stringContaining("public.t") as string,
  });
});

test.for(["copy.part.loaded", "parked.written", "copy.part.committed"])(
  "a death at %s of a refused part: its rows and what is parked of them are there, or neither",
  async (name) => {
    await using pair = await freePair({ leaks: "ignore" });
    const { sync } = await parking(pair, large, adults);
    await using _ = sync;
    await pair.source.sql(fillLarge("update t set n = 3 where id % 1000 = 0"));
    await sync.init();
    const orders: Orders = {
      sync: { source: pair.source.url, target: pair.target.url, onRefusal: "park" },
      verbs: ["copy"],
      copy: { partBytes, jobs: 2 },
    };
    const dead = await startRunner(orders, { REPLICATE_FAILPOINT: `${name}:2` }).ended;
    expect(dead.signal).toBe("SIGKILL");
    await expect
      .poll(() =>
        column(
          pair,
          "select count(*)::int as v from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and application_name like 'replicate%'",
        ),
      )
      .toEqual([0]);
    const [rows, parked, told] = await column(
      pair,
      `select count(*)::int as v from t union all select count(*)::int from replicate.parked
       union all select coalesce(sum(rows), 0)::int from replicate.part where done`,
    );
    expect(rows).toBe(told);
    // What is parked is of the parts that are there: a neighbour is there too; of the others one neighbour at least is not.
    expect(
      await column(
        pair,
        `select g as v from generate_series(1000, 30000, 1000) g
         cross join lateral (select count(*) as n from t where id in (g - 1, g + 1)) as near
         where case when exists (select from replicate.parked where key ->> 'id' = g::text) then near.n = 0 else near.n = 2 end`,
      ),
    ).toEqual([]);
    if (name === "copy.part.committed") expect(parked).toBeGreaterThan(0);
    // A row that was parked changes before the next run, another one is deleted.
    await pair.source.sql("update t set n = 30 where id = 1000; delete from t where id = 2000");
    await runToEnd(orders);
    await followUntilCaughtUp(sync);
    const expected = Array.from({ length: 28 }, (_each, n) => ({
      key: { id: (n + 3) * 1000 },
      sqlstate: "23514",
    }));
    expect((await letters(pair)).toSorted((a, b) => Number(a.key["id"]) - Number(b.key["id"]))).toEqual(
      expected,
    );
    const { differences: left } = await compareDatabases(pair.source.url, pair.target.url);
    expect(left.map(({ kind }) => kind)).toEqual(Array<string>(28).fill("missing"));
  },
);

test("a table that joins while the others are followed: its rows come as soon as they are let in", async () => {
  await using pair = await freePair();
  const { sync, events } = await parking(
    pair,
    "create table a (id int primary key, n int); create table t (id int primary key, n int)",
    adults,
  );
  await using _ = sync;
  await pair.source.sql("insert into a values (1, 1); insert into t values (1, 20), (2, 3)");
  await sync.init();
  await sync.copy({ tables: ["public.a"] });
  const stop = new AbortController();
  const running = (async () => {
    for await (const batch of sync.follow({ signal: stop.signal })) void batch;
  })();
  await sync.copy({ tables: ["public.t"] });
  await expect
    .poll(() => column(pair, "select state as v from replicate.sync_table order by 1"), { timeout: 30_000 })
    .toEqual(["following", "following"]);
  expect(await letters(pair)).toHaveLength(1);
  await pair.source.sql("update t set n = 21 where id = 2");
  await expect.poll(() => letters(pair), { timeout: 30_000 }).toEqual([]);
  expect(events).toContainEqual({ type: "parked-rows-settled", table: "public.t", rows: 1 });
  stop.abort();
  await running;
  expect(await differences(pair)).toEqual([]);
});

test("at the command line", async () => {
  await using pair = await freePair();
  await onBoth(pair, "create table t (id int primary key, n int)");
  await pair.target.sql(adults);
  await pair.source.sql("insert into t values (1, 20), (2, 3)");
  const flags = ["--name", "cli", "--source", pair.source.url, "--target", pair.target.url];
  expect((await replicate(["init", ...flags])).code).toBe(0);
  expect((await replicate(["copy", ...flags])).code).toBe(3);
  const copy = await replicate(["copy", "--on-refusal", "park", ...flags]);
  expect(copy.code).toBe(0);
  expect(copy.stderr).toContain("public.t: the target rejects 1 row, which is parked");
  expect(copy.stdout).toContain("1 row that the target rejects: replicate parked --name cli\n");
  expect((await replicate(["parked", ...flags])).stdout).toMatch(/public\.t \{ ?"id": ?2 ?\}/);
});
