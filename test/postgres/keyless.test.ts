import { expect, test } from "vitest";

import { openSync, type SyncEvent } from "../../src/index.ts";
import { compareDatabases } from "../support/compare.ts";
import { freePair } from "../support/database.ts";
import { leastPrivilegedPair } from "../support/least-privileged-pair.ts";
import { onBoth, startFollowed, type Side } from "./follow-setup.ts";

// Tables without a key: any change has them read again as a whole, when that is allowed, and not lost when it is not.

const keyless = "reload" as const;

/** Rows of a table as text with how often each is there, in an order that needs no key. */
async function bag(side: Side, table: string): Promise<unknown[]> {
  return await side.sql(`select t::text as row, count(*)::int as n from ${table} as t group by 1 order by 1`);
}

test("refused by default, with every way out; taken in where the settings say so", async () => {
  await using pair = await freePair();
  await onBoth(pair, "create table t (v int); create table u (v int)");
  const sides = { source: pair.source.url, target: pair.target.url, env: {} };
  await using plain = await openSync(sides);
  const { findings } = await plain.preflight();
  expect(findings.filter(({ severity }) => severity === "blocking").map(({ subject }) => subject)).toEqual([
    "public.t",
    "public.u",
  ]);
  expect(findings[0]?.remedy).toMatch(/add primary key[^]*--exclude-tables 'public.t'[^]*--keyless reload/);
  await using partly = await openSync({ ...sides, overrides: { "public.t": { keyless } } });
  await expect(partly.init()).rejects.toMatchObject({
    code: "PREFLIGHT_BLOCKED",
    problems: [{ subject: "public.u" }],
  });
  await using whole = await openSync({
    ...sides,
    keyless,
    keylessLimit: 0,
    overrides: { "public.u": { keyless: "refuse" } },
  });
  await expect(whole.init()).rejects.toMatchObject({ problems: [{ subject: "public.u" }] });
  await using both = await openSync({ ...sides, keyless });
  expect((await both.init()).findings).toMatchObject([
    { severity: "note", subject: "public.t" },
    { severity: "note", subject: "public.u" },
  ]);
  // Known by now: nobody has to say it again.
  expect((await plain.init()).tables).toHaveLength(2);
});

test("every kind of write arrives, duplicates included, whoever may do what", async () => {
  await using pair = await leastPrivilegedPair();
  const schema = `
    create table parent (id int primary key);
    create table t (parent_id int references parent on delete cascade, v text, n numeric(6,2), at timestamptz,
      always int generated always as identity, doubled int generated always as (parent_id * 2) stored);
    create table empty ();`;
  await onBoth(pair, schema);
  await pair.source.sql(`insert into parent select generate_series(1, 5);
    insert into t (parent_id, v, n) select g % 5 + 1, 'same', 1 from generate_series(1, 50) g;
    insert into empty default values; insert into empty default values`);
  const events: SyncEvent[] = [];
  await using sync = await openSync({
    source: pair.source.url, target: pair.target.url, env: {}, keyless, onEvent: (event) => events.push(event),
  }); // prettier-ignore
  await sync.init();
  await sync.copy();
  const settle = async (): Promise<number> => {
    let rows = 0;
    for await (const batch of sync.follow({ untilCaughtUp: true })) rows += batch.rows;
    for (const table of ["t", "empty", "parent"])
      expect(await bag(pair.target, table), table).toEqual(await bag(pair.source, table));
    return rows;
  };
  await settle();
  expect(await sync.verify()).toMatchObject({
    equal: true,
    tables: [{ rows: 2 }, { rows: 5 }, { rows: 50 }],
  });
  // The application's role, and its own transactions.
  await pair.source.asWriter(
    "insert into t (parent_id, v) values (1, 'written'), (1, null), (null, E'tab\\t')",
  );
  expect(await settle()).toBe(53);
  await pair.source.asWriter("update t set n = -1 where v = 'same' and parent_id = 2");
  await settle();
  await pair.source.asWriter("delete from parent where id = 3");
  await settle();
  await pair.source.sql("copy t (parent_id, v) from program 'true'").catch(() => undefined);
  await pair.source.asAdmin(
    "set session_replication_role = replica; insert into t (v) values ('replica'); reset session_replication_role",
  );
  await settle();
  await pair.source.sql("insert into empty default values; delete from t where v = 'written'");
  expect(await settle()).toBe(3 + (await pair.source.sql("select from t")).length);
  await pair.source.sql("truncate t");
  await settle();
  expect(await pair.target.sql("select from t")).toHaveLength(0);
  // Statements that touch no row have nobody read anything.
  await pair.source.asWriter("update t set v = 'x' where false; delete from t where v = 'nobody'");
  expect(await settle()).toBe(0);
  const client = await pair.source.client("writer");
  await client.query("begin; insert into t (v) values ('late')");
  await pair.source.sql("insert into parent values (9)");
  await settle().catch(() => undefined);
  await client.query("commit");
  expect(await settle()).toBe(1);
  expect(await sync.verify()).toMatchObject({ equal: true });
  expect((await sync.status()).tables.map(({ reload }) => reload)).toEqual([null, null, null]);
  await sync.drop();
  expect(
    await pair.source.sql(
      "select 1 from pg_trigger where tgname like 'zzz%' union all select 1 from pg_namespace where nspname = 'replicate'",
    ),
  ).toEqual([]);
});

test("partitions, also written to directly and attached later, and inheritance", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(
    pair,
    `create table p (a int, v text) partition by range (a);
     create table p1 partition of p for values from (0) to (10);
     create table p2 partition of p for values from (10) to (20) partition by list (v);
     create table p2a partition of p2 for values in ('a');
     create table p2b partition of p2 for values in ('b');
     create table base (a int, v text);
     create table child (w text) inherits (base);`,
    { keyless },
  );
  const { source } = pair;
  const equal = async (): Promise<void> => {
    await followed.drain();
    for (const table of ["p", "p1", "p2", "only base", "only child"])
      expect(await bag(pair.target, table), table).toEqual(await bag(source, table));
  };
  for (const statement of [
    "insert into p values (1, 'x'), (1, 'x'), (12, 'a')",
    "insert into p1 values (2, 'direct')",
    "insert into p2 values (13, 'b'), (13, 'b')",
    "insert into p2a values (14, 'a')",
    "update p set a = 3, v = 'moved' where a = 13",
    "update p2 set v = 'b' where v = 'a'",
    "truncate p1",
    "delete from p2b where a = 12",
    "insert into base values (1, 'x'), (1, 'x'); insert into child values (2, 'y', 'z')",
    "update base set v = 'through the parent'",
    "delete from base where a = 2",
    "truncate base",
  ]) {
    await source.sql(statement);
    await equal();
  }
  await onBoth(pair, "create table p3 (a int, v text)");
  await source.sql("insert into p3 values (25, 'before'), (25, 'before')");
  await onBoth(pair, "alter table p attach partition p3 for values from (20) to (30)");
  await source.sql("insert into p3 values (26, 'after')");
  await equal();
  await source.sql("alter table p detach partition p3");
  await pair.target.sql("alter table p detach partition p3");
  await equal();
});

test("a table above the limit waits, the position goes on, and status says so", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(
    pair,
    `create table large (v text); create table small (v text); create table t (id int primary key, v text);
     insert into large select repeat('x', 500) from generate_series(1, 2000)`,
    { keyless, keylessLimit: "256kB" },
  );
  const { sync, events } = followed;
  await followed.drain();
  events.length = 0;
  await pair.source.sql(
    "insert into large values ('new'); insert into small values ('new'); insert into t values (1)",
  );
  const step = async (): Promise<number> => {
    let rows = 0;
    for await (const batch of sync.follow({ once: true })) rows += batch.rows;
    return rows;
  };
  expect(await step()).toBe(2);
  expect(await bag(pair.target, "small")).toEqual(await bag(pair.source, "small"));
  expect(await pair.target.sql("select from large where v = 'new'")).toHaveLength(0);
  expect(events.filter(({ type }) => type === "reload-held")).toMatchObject([
    { table: "public.large", limitBytes: 256 * 1024 },
  ]);
  const { tables, lag } = await sync.status();
  expect(tables[0]).toMatchObject({ source: "public.large", pending: 1, reload: { isHeld: true } });
  expect(tables[0]?.reload?.bytes).toBeGreaterThan(1_000_000);
  expect(lag.rows).toBe(0);
  // Not different, not equal: pending.
  const report = await sync.verify();
  expect(report).toMatchObject({
    equal: true,
    tables: [{ table: "public.large", rows: 0, pending: 2001 }, { pending: 0 }, { pending: 0 }],
  });
  // Others go on; what was noted of the large one may be thrown away.
  await pair.source.sql("insert into t values (2); insert into large values ('newer')");
  await step();
  expect(await pair.target.sql("select from t")).toHaveLength(2);
  expect(events.filter(({ type }) => type === "reload-held")).toHaveLength(1);
  await pair.source.sql("truncate replicate.delta_1_a, replicate.delta_1_b");
  expect((await sync.status()).tables[0]).toMatchObject({ reload: { isHeld: true } });
  // Until somebody waits for it.
  await followed.drain();
  expect(await bag(pair.target, "large")).toEqual(await bag(pair.source, "large"));
  expect((await sync.status()).tables[0]).toMatchObject({ reload: null, pending: 0 });
  expect(await sync.verify()).toMatchObject({ equal: true, tables: [{ rows: 2002, pending: 0 }, {}, {}] });
});

test("differences are counted as what they are, and repaired by a reload", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(
    pair,
    "create table t (v int, w text); insert into t select g % 3, 'x' from generate_series(1, 3000) g",
    { keyless, keylessLimit: 0 },
  );
  await followed.drain();
  // One copy more of a row there is, one less of another, and one that is changed.
  await pair.target.sql(`insert into t values (1, 'x');
    delete from t where ctid = (select min(ctid) from t where v = 2);
    update t set w = 'y' where ctid = (select min(ctid) from t where v = 0)`);
  const { sync } = followed;
  const report = await sync.verify();
  expect(report).toMatchObject({
    equal: false,
    tables: [{ rows: 3000, differencesTotal: 4, differences: [], unpaired: { missing: 2, extra: 2 } }],
  });
  expect(await sync.verify({ repair: true })).toMatchObject({ equal: false, tables: [{ repaired: 4 }] });
  expect(await sync.verify()).toMatchObject({ equal: true, tables: [{ pending: 3000 }] });
  // Asked for, so it does not wait for the limit.
  for await (const batch of sync.follow({ once: true })) expect(batch.rows).toBe(3000);
  expect(await sync.verify()).toMatchObject({ equal: true, tables: [{ rows: 3000, pending: 0 }] });
  expect((await compareDatabases(pair.source.url, pair.target.url)).differences).toEqual([]);
});
