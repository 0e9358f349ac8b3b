import { expect, test } from "vitest";

import { json, replicate } from "../../support/replicate.ts";
import { compareDatabases } from "../../support/compare.ts";
import { freePair, type Pair } from "../../support/database.ts";
import { seededRandom } from "../../support/random.ts";
import { dieAt, runToEnd, type Orders } from "../../support/torture.ts";
import { startFollowed, type Followed } from "../../support/follow-setup.ts";

// Rows that the target rejects: the others arrive, and these do once it lets them in.

interface Letter {
  key: Record<string, unknown>;
  sqlstate: string;
  tries: number;
}

async function letters(pair: Pair): Promise<Letter[]> {
  return await pair.target.sql<Letter>(
    "select key, sqlstate, tries from replicate.parked order by table_name, key",
  );
}

async function column(pair: Pair, text: string): Promise<unknown[]> {
  return (await pair.target.sql<{ v: unknown }>(text)).map(({ v }) => v);
}

async function parking(pair: Pair, schema: string, ofTarget: string): Promise<Followed> {
  const followed = await startFollowed(pair, schema, { onRefusal: "park" });
  await pair.target.sql(ofTarget);
  return followed;
}

/** Foreign keys of the target act also in the replica role. */
async function actAlways(pair: Pair): Promise<void> {
  await pair.target.sql(`do $$ declare t record; begin
    for t in select tgname, tgrelid::regclass::text as rel from pg_trigger where tgisinternal loop
      execute format('alter table %s enable always trigger %I', t.rel, t.tgname); end loop; end $$`);
}

test.for([
  {
    what: "a check constraint",
    alter: "add constraint adults check (n >= 18)",
    bad: "n = 3",
    sqlstate: "23514",
  },
  {
    what: "a value too long",
    alter: "add check (short(v))",
    bad: "v = 'much too long'",
    sqlstate: "22001",
  },
  { what: "a domain's check", alter: "alter v type brief", bad: "v = 'much too long'", sqlstate: "23514" },
  { what: "a domain that is not null", alter: "alter v type given", bad: "v = null", sqlstate: "23502" },
  { what: "a domain over a domain", alter: "alter d type tiny", bad: "d = 12345", sqlstate: "23514" },
  { what: "a column that is not null", alter: "alter v set not null", bad: "v = null", sqlstate: "23502" },
  {
    what: "a number too large",
    alter: "add check ((d * 1000000)::int is not null)",
    bad: "d = 12345",
    sqlstate: "22003",
  },
  {
    what: "an exclusion constraint",
    alter: "add exclude using gist (span with &&)",
    bad: "span = '[1,10)'",
    sqlstate: "23P01",
  },
  {
    what: "a trigger that raises an exception",
    alter: `alter id set not null;
      create function fits() returns trigger language plpgsql as
        $$ begin if new.n < 18 then raise exception 'too young'; end if; return new; end $$;
      create trigger fits before insert or update on t for each row execute procedure fits();
      alter table t enable always trigger fits`,
    bad: "n = 3",
    sqlstate: "P0001",
  },
  {
    what: "a value too large for an index",
    alter: "alter id set not null; create index on t (v)",
    bad: "v = (select string_agg(md5(g::text), '') from generate_series(1, 400) g)",
    sqlstate: "54000",
  },
])("$what stops one row and no other", async ({ alter, bad, sqlstate }) => {
  await using pair = await freePair();
  const columns =
    "(id int primary key, n int default 20, v text default 'ok', d numeric default 1, span int4range)";
  await using followed = await parking(
    pair,
    `create table t ${columns}`,
    `create domain brief as text check (length(value) <= 5); create domain given as text not null;
     create domain small as numeric check (value < 10000); create domain tiny as small;
     create function short(v text) returns boolean language plpgsql as
       $$ begin if length(v) > 5 then raise exception using errcode = '22001', message = 'too long'; end if; return true; end $$;
     alter table t ${alter}`,
  );
  await pair.source.sql(
    "insert into t (id) select generate_series(1, 5000); insert into t (id, span) values (6000, '[5,6)')",
  );
  await followed.drain();
  expect(await letters(pair)).toEqual([]);
  await pair.source.sql(
    "update t set n = 21 where id not in (77, 6000); insert into t (id, n) values (5001, 21)",
  );
  await pair.source.sql(`update t set ${bad} where id = 77`);
  await followed.drain();
  expect(await letters(pair)).toEqual([{ key: { id: 77 }, sqlstate, tries: 1 }]);
  // As it was before, and the others as they are.
  expect(await pair.target.sql("select n, v from t where id = 77")).toEqual([{ n: 20, v: "ok" }]);
  expect(await column(pair, "select count(*)::int as v from t where n = 21")).toEqual([5000]);
  expect(followed.events.filter(({ type }) => type === "rows-parked")).toMatchObject([
    { table: "public.t", rows: 1, key: { id: 77 } },
  ]);
  // It changes again, and is fine: settled by itself.
  await pair.source.sql("update t set n = 22, v = 'fine', d = 2, span = null where id = 77");
  expect(await followed.differences()).toEqual([]);
  expect(await letters(pair)).toEqual([]);
  expect(followed.events).toContainEqual({ type: "parked-rows-settled", table: "public.t", rows: 1 });
});

test("the policy stop: nothing of the batch is applied, and the error names the row's table", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, "create table t (id int primary key, n int)");
  await pair.target.sql("alter table t add constraint adults check (n >= 18)");
  await pair.source.sql("insert into t values (1, 20), (2, 3)");
  await expect(followed.drain()).rejects.toMatchObject({
    code: "ROW_REFUSED",
    message: expect.stringContaining("in public.t") as string,
  });
  expect(await column(pair, "select id as v from t")).toEqual([]);
  expect(await letters(pair)).toEqual([]);
  await pair.target.sql("alter table t drop constraint adults");
  expect(await followed.differences()).toEqual([]);
});

test("one table parks, another stops", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(
    pair,
    "create table a (id int primary key, n int); create table b (id int primary key, n int)",
    { overrides: { "public.a": { onRefusal: "park" } } },
  );
  await pair.target.sql("alter table a add check (n > 0); alter table b add check (n > 0)");
  await pair.source.sql("insert into a values (1, 0), (2, 2); insert into b values (1, 1)");
  await followed.drain();
  expect(await letters(pair)).toMatchObject([{ key: { id: 1 } }]);
  await pair.source.sql("insert into b values (2, 0)");
  await expect(followed.drain()).rejects.toMatchObject({ code: "ROW_REFUSED" });
});

test("a label that the target's enum lacks, as a value and as a key, in small and large batches", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(
    pair,
    `create type mood as enum ('fine', 'bad');
     create table t (id int primary key, m mood, body text);
     create table k (m mood primary key, v int)`,
    { onRefusal: "park" },
  );
  await pair.source.sql("alter type mood add value 'so so'");
  await pair.source.sql(`insert into t select g, 'fine', repeat('x', 500) from generate_series(1, 10) g;
    insert into t values (11, 'so so', 'x'); insert into k values ('fine', 1), ('so so', 2)`);
  await followed.drain();
  expect(await letters(pair)).toEqual([
    { key: { m: "so so" }, sqlstate: "22P02", tries: 1 },
    { key: { id: 11 }, sqlstate: "22P02", tries: 1 },
  ]);
  expect(await column(pair, "select count(*)::int as v from t")).toEqual([10]);
  // More than is kept in memory: the rows stream into staging.
  await pair.source.sql("insert into t select g, 'bad', repeat('y', 500) from generate_series(20, 9000) g");
  await pair.source.sql("update t set m = 'so so' where id = 4000");
  await followed.drain();
  expect(await letters(pair)).toHaveLength(3);
  expect(await column(pair, "select count(*)::int as v from t")).toEqual([10 + 8980]);
  expect(followed.events.filter(({ type }) => type === "connection-lost")).toEqual([]);
  // The type gets the label: what was parked is tried again by itself.
  await pair.target.sql("alter type mood add value 'so so'");
  await followed.drain();
  expect(await followed.differences()).toEqual([]);
  expect(await letters(pair)).toEqual([]);
});

test("under the policy stop, a label that is missing stops a large batch at once", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(
    pair,
    "create type mood as enum ('fine'); create table t (id int primary key, m mood, body text)",
  );
  await pair.source.sql("alter type mood add value 'so so'");
  await pair.source.sql(
    "insert into t select g, case g when 2 then 'so so' else 'fine' end::mood, repeat('x', 500) from generate_series(1, 60000) g",
  );
  await expect(followed.drain()).rejects.toMatchObject({
    code: "ROW_REFUSED",
    hint: expect.stringContaining("alter type") as string,
  });
});

const adults = "alter table t add constraint adults check (n >= 18)";

test("repaired, then tried again: by id, by table, by itself; told by status and verify", async () => {
  await using pair = await freePair();
  await using followed = await parking(pair, "create table t (id int primary key, n int)", adults);
  const { sync, drain } = followed;
  await pair.source.sql(
    "insert into t select g, case when g % 10 = 0 then 3 else 20 end from generate_series(1, 100) g",
  );
  await drain();
  expect(await sync.status()).toMatchObject({
    parked: 10,
    tables: [{ parked: 10, pending: 0 }],
    lag: { rows: 0 },
  });
  const report = await sync.verify();
  expect(report).toMatchObject({ equal: false, tables: [{ differencesTotal: 10, parked: 10 }] });
  expect(report.tables[0]?.differences[0]).toEqual({
    key: { id: 10 },
    kind: "missing",
    columns: [],
    parked: true,
  });

  const { rows } = await sync.parked();
  expect(rows).toHaveLength(10);
  expect(rows[0]).toMatchObject({
    table: "public.t",
    key: { id: 10 },
    error: 'new row for relation "t" violates check constraint "adults"',
    sqlstate: "23514",
    constraint: "adults",
    tries: 1,
  });
  await expect(sync.parked({ ids: [999_999] })).rejects.toMatchObject({ code: "USAGE_INVALID" });
  await expect(sync.parked({ tables: ["public.x"] })).rejects.toMatchObject({
    code: "PATTERN_MATCHES_NOTHING",
  });
  // Nothing is repaired: the same again, and once more counted.
  expect(await sync.parked({ ids: [rows[0]?.id ?? 0], retry: true })).toMatchObject({ retried: 1 });
  await drain();
  expect((await letters(pair)).map(({ tries }) => tries)).toEqual([2, ...Array<number>(9).fill(1)]);
  // It is no news.
  expect(followed.events.filter(({ type }) => type === "rows-parked")).toHaveLength(1);
  // Repaired: the next runner tries all of them by itself.
  await pair.target.sql("alter table t drop constraint adults");
  await drain();
  await drain();
  expect(await letters(pair)).toEqual([]);
  expect(await followed.differences()).toEqual([]);
  expect((await sync.verify()).equal).toBe(true);
});

test("at the command line", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, "create table t (id int primary key, n int)", {
    name: "cli",
  });
  await pair.target.sql(adults);
  await pair.source.sql("insert into t values (1, 20), (2, 3)");
  const flags = ["--name", "cli", "--source", pair.source.url, "--target", pair.target.url];
  expect((await replicate(["follow", "--until-caught-up", ...flags])).code).toBe(3);
  const follow = await replicate(["follow", "--until-caught-up", "--on-refusal", "park", ...flags]);
  expect(follow.stderr).toContain("public.t: the target rejects 1 row, which is parked");
  expect((await replicate(["status", ...flags])).stdout).toMatch(
    /parked +1 row that the target rejects: replicate parked --name cli/,
  );
  const listed = await replicate(["parked", ...flags]);
  expect(listed.stdout).toMatch(
    /public\.t \{ ?"id": ?2 ?\}, since .*, tried 1 time\n.*"adults"\n1 row parked\n/,
  );
  expect(listed.stdout).toContain("when that is repaired: replicate parked --retry --name cli");
  expect((await replicate(["verify", ...flags])).stdout).toContain('missing {"id":2}, parked');
  await pair.source.sql("delete from t where id = 2");
  await replicate(["parked", "--retry", "--tables", "public.t", ...flags]);
  expect((await replicate(["follow", "--until-caught-up", ...flags])).code).toBe(0);
  const after = await replicate(["parked", "--json", ...flags]);
  expect(json<{ rows: unknown[] }>(after)).toEqual({ rows: [], retried: 0 });
  expect((await replicate(["parked", "--ids", "x", ...flags])).code).toBe(2);
  void followed;
});

test("deleted, truncated, and a new key on the source", async () => {
  await using pair = await freePair();
  await using followed = await parking(
    pair,
    "create table t (id int primary key, n int); insert into t values (1, 20), (2, 20), (3, 20)",
    adults,
  );
  await pair.source.sql("update t set n = 3");
  await followed.drain();
  expect(await letters(pair)).toHaveLength(3);
  await pair.source.sql("delete from t where id = 1; update t set id = 20, n = 20 where id = 2");
  await followed.drain();
  expect(await letters(pair)).toMatchObject([{ key: { id: 3 } }]);
  expect(await column(pair, "select id as v from t order by id")).toEqual([3, 20]);
  await pair.source.sql("truncate t; insert into t values (4, 4)");
  await followed.drain();
  expect(await letters(pair)).toMatchObject([{ key: { id: 4 } }]);
  expect(await column(pair, "select id as v from t")).toEqual([]);
});

test("rows that swap a unique value, one of which is refused; a value that a refused row keeps", async () => {
  await using pair = await freePair();
  await using followed = await parking(
    pair,
    `create table t (id int primary key, mail text unique, n int);
     insert into t select g, 'm' || g, 20 from generate_series(1, 50) g`,
    adults,
  );
  await pair.source.sql(`begin; update t set mail = 'x' || id; update t set mail = 'm' || 51 - id;
    update t set n = 3 where id = 7; commit`);
  await followed.drain();
  // The rejected row keeps its m7, so the row that wants it has to wait as well.
  expect(await letters(pair)).toMatchObject([
    { key: { id: 7 }, sqlstate: "23514" },
    { key: { id: 44 }, sqlstate: "23505" },
  ]);
  expect(await column(pair, "select count(*)::int as v from t where mail = 'm' || 51 - id")).toEqual([48]);
  await pair.source.sql("update t set n = 30 where id = 7");
  await followed.sync.parked({ retry: true });
  expect(await followed.differences()).toEqual([]);
  expect(await letters(pair)).toEqual([]);
});

test("a unique value that two rows of the source have", async () => {
  await using pair = await freePair();
  await using followed = await parking(
    pair,
    "create table t (id int primary key, mail text)",
    "create unique index on t (mail)",
  );
  await pair.source.sql("insert into t values (1, 'a'), (2, 'b')");
  await followed.drain();
  await pair.source.sql("insert into t values (3, 'a'), (4, 'c'), (5, 'c')");
  await followed.drain();
  expect(await letters(pair)).toMatchObject([{ key: { id: 3 }, sqlstate: "23505" }, { key: { id: 5 } }]);
  expect(await column(pair, "select id as v from t order by id")).toEqual([1, 2, 4]);
});

test("foreign keys that act on our rows: a parent that is refused, its children, a parent that something refers to", async () => {
  await using pair = await freePair();
  // In the order of their names, the children come first.
  await using followed = await parking(
    pair,
    "create table parent (id int primary key, n int); create table child (id int primary key, parent_id int, v text)",
    `alter table parent add check (n >= 18);
     alter table child add constraint child_parent foreign key (parent_id) references parent;
     create table here (parent_id int constraint here_parent references parent)`,
  );
  await actAlways(pair);
  await pair.source
    .sql(`insert into parent select g, case g when 7 then 3 else 20 end from generate_series(1, 10) g;
    insert into child select g, 1 + g % 10 from generate_series(1, 40) g`);
  await followed.drain();
  await followed.drain();
  expect(await letters(pair)).toMatchObject([
    ...[6, 16, 26, 36].map((id) => ({ key: { id }, sqlstate: "23503" })),
    { key: { id: 7 }, sqlstate: "23514" },
  ]);
  expect(await column(pair, "select count(*)::int as v from child")).toEqual([36]);
  // The children follow their parent by themselves.
  await pair.source.sql("update parent set n = 30 where id = 7");
  await followed.drain();
  await followed.drain();
  expect(await letters(pair)).toEqual([]);
  expect(await followed.differences(["public.parent", "public.child"])).toEqual([]);

  await pair.target.sql("insert into here values (3)");
  await pair.source.sql("delete from child where parent_id in (3, 4); delete from parent where id in (3, 4)");
  await followed.drain();
  await followed.drain();
  expect(await letters(pair)).toMatchObject([{ key: { id: 3 }, sqlstate: "23503" }]);
  expect(await column(pair, "select id as v from parent where id in (3, 4)")).toEqual([3]);
  await pair.target.sql("delete from here");
  await followed.sync.parked({ retry: true });
  expect(await followed.differences(["public.parent", "public.child"])).toEqual([]);
  expect(await letters(pair)).toEqual([]);
});

test("a child of a parent that comes with the same batch arrives with it", async () => {
  await using pair = await freePair();
  await using followed = await parking(
    pair,
    "create table ancestor (id int primary key, n int); create table child (id int primary key, parent_id int)",
    "alter table ancestor add check (n >= 18); alter table child add foreign key (parent_id) references ancestor",
  );
  await actAlways(pair);
  await pair.source
    .sql(`insert into ancestor select g, case g when 7 then 3 else 20 end from generate_series(1, 10) g;
    insert into child select g, g from generate_series(1, 10) g`);
  await followed.drain();
  expect(followed.events.filter(({ type }) => type === "rows-parked")).toMatchObject([
    { table: "public.ancestor", rows: 1, key: { id: 7 } },
    { table: "public.child", rows: 1, key: { id: 7 } },
  ]);
});

test("too many rows: something is wrong with more than a row", async () => {
  await using pair = await freePair();
  await using followed = await parking(pair, "create table t (id int primary key, n int)", adults);
  await pair.source.sql("insert into t select g, 3 from generate_series(1, 1500) g");
  await expect(followed.drain()).rejects.toMatchObject({
    code: "ROW_REFUSED",
    message: expect.stringContaining("more rows than may be parked") as string,
  });
  expect(await letters(pair)).toEqual([]);
});

test("a cutover does not go on without the rows, unless it is told to", async () => {
  await using pair = await freePair();
  await using followed = await parking(pair, "create table t (id int primary key, n int)", adults);
  await pair.source.sql("insert into t values (1, 20), (2, 3)");
  await followed.drain();
  await expect(followed.sync.cutover()).rejects.toMatchObject({
    code: "ROWS_PARKED",
    exitCode: 1,
    message: expect.stringContaining("1 row is parked") as string,
  });
  // The source takes writes.
  await pair.source.sql("insert into t values (3, 20), (4, 4)");
  expect((await followed.sync.cutover({ acceptParked: true })).result).toBe("switched");
  expect(await column(pair, "select id as v from t order by id")).toEqual([1, 3]);
  await followed.sync.drop();
});

test.for(["batch.read", "batch.staged", "parked.written", "batch.committed"])(
  "a death at %s",
  async (name) => {
    await using pair = await freePair();
    await using followed = await startFollowed(pair, "create table t (id int primary key, n int, body text)");
    await pair.target.sql(adults);
    const orders: Orders = {
      sync: { source: pair.source.url, target: pair.target.url, onRefusal: "park" },
      verbs: ["follow"],
      follow: { untilCaughtUp: true },
    };
    await pair.source.sql(`insert into t select g, case when g % 1000 = 0 then 3 else 20 end, repeat('x', 500)
    from generate_series(1, 5000) g`);
    await dieAt(name, orders);
    const parked = await letters(pair);
    // All of the batch, or nothing.
    const [rows] = await column(pair, "select count(*)::int as v from t");
    expect([rows, parked.length]).toEqual(name === "batch.committed" ? [4995, 5] : [0, 0]);
    await runToEnd(orders);
    expect(await letters(pair)).toHaveLength(5);
    expect(await column(pair, "select count(*)::int as v from t")).toEqual([4995]);
    void followed;
  },
);

test("a random mix: in the end nothing is missing but what is refused", { timeout: 120_000 }, async () => {
  const random = seededRandom("dead letters");
  await using pair = await freePair();
  const tables = ["t", "u"];
  const columns = "(id int primary key, n int, v text)";
  await using followed = await startFollowed(
    pair,
    tables.map((t) => `create table ${t} ${columns}`).join(";"),
    { onRefusal: "park" },
  );
  await pair.target.sql("alter table t add check (n >= 0); alter table u alter v set not null");
  const isBad = { t: "n < 0", u: "v is null" } as const;
  for (let round = 0; round < 25; round += 1) {
    for (let write = 0; write < 20; write += 1) {
      const t = random.pick(tables);
      const id = random.int(1, 200);
      const n = random.int(-2, 20);
      const v = random.int(1, 10) === 1 ? "null" : `'v${random.int(1, 1000)}'`;
      await pair.source.sql(
        random.pick([
          `insert into ${t} select g, ${n}, ${v} from generate_series(${id}, ${id + random.int(0, 30)}) g on conflict (id) do update set n = excluded.n`,
          `update ${t} set n = ${n}, v = ${v} where id between ${id} and ${id + random.int(0, 5)}`,
          `delete from ${t} where id between ${id} and ${id + 3}`,
          `update ${t} set id = id + 1000 where id = ${id} and not exists (select from ${t} as o where o.id = ${id + 1000})`,
        ]),
      );
    }
    if (random.int(1, 3) === 1) await followed.sync.parked({ retry: true });
    await followed.drain();
  }
  for (const t of ["t", "u"] as const) {
    const bad = (await pair.source.sql<{ id: number }>(`select id from ${t} where ${isBad[t]}`)).map(
      ({ id }) => id,
    );
    const parked = await pair.target.sql<{ id: number }>(
      `select (key ->> 'id')::int as id from replicate.parked where table_name = 'public.${t}'`,
    );
    expect(new Set(parked.map(({ id }) => id))).toEqual(new Set(bad));
    expect(parked).toHaveLength(bad.length);
  }
  const { differences } = await compareDatabases(pair.source.url, pair.target.url);
  const wrong = await pair.source.sql<{ n: number }>(
    `select (select count(*) from t where ${isBad.t})::int + (select count(*) from u where ${isBad.u})::int as n`,
  );
  expect(wrong[0]?.n).toBeGreaterThan(5);
  expect(differences.length).toBe(wrong[0]?.n);
  await pair.target.sql("alter table t drop constraint t_n_check; alter table u alter v drop not null");
  await followed.sync.parked({ retry: true });
  expect(await followed.differences()).toEqual([]);
  expect(await letters(pair)).toEqual([]);
});
