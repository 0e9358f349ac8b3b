import { expect, test } from "vitest";

import { openSync, type Batch, type SyncEvent } from "../../../src/index.ts";
import { compareDatabases } from "../../support/compare.ts";
import { freePair } from "../../support/database.ts";
import { leastPrivilegedPair } from "../../support/least-privileged-pair.ts";
import { onBoth, startFollowed, type Side } from "../../support/follow-setup.ts";

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
  const isComputing = [pair.source, pair.target].map(async (side) =>
    (await side.sql("select current_setting('server_version_num')::int >= 120000 as yes"))[0]?.["yes"] === true); // prettier-ignore
  const doubled = (await Promise.all(isComputing)).every(Boolean)
    ? ", doubled int generated always as (parent_id * 2) stored"
    : "";
  const schema = `
    create table parent (id int primary key);
    create table t (parent_id int references parent on delete cascade, v text, n numeric(6,2), at timestamptz,
      always int generated always as identity${doubled});
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
  const [version] = await source.sql("select current_setting('server_version_num')::int >= 110000 as moves");
  const moves = version?.["moves"] === true;
  for (const statement of [
    "insert into p values (1, 'x'), (1, 'x'), (12, 'a')",
    "insert into p1 values (2, 'direct')",
    "insert into p2 values (13, 'b'), (13, 'b')",
    "insert into p2a values (14, 'a')",
    // Before 11 no row can move to another partition.
    ...(moves ? ["update p set a = 3, v = 'moved' where a = 13", "update p2 set v = 'b' where v = 'a'"] : []),
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
  // Others go on; what was recorded of the large one may be thrown away.
  await pair.source.sql("insert into t values (2); insert into large values ('newer')");
  await step();
  expect(await pair.target.sql("select from t")).toHaveLength(2);
  expect(events.filter(({ type }) => type === "reload-held")).toHaveLength(1);
  await pair.source.sql("truncate replicate.delta_1_a, replicate.delta_1_b");
  expect((await sync.status()).tables[0]).toMatchObject({ reload: { isHeld: true } });
  const { rehearsal } = await sync.cutover({ rehearse: true });
  expect(rehearsal?.parts.find(({ step }) => step === "drain")?.basis).toMatch(/^1 changes/);
  // Until somebody waits for it.
  await followed.drain();
  expect(await bag(pair.target, "large")).toEqual(await bag(pair.source, "large"));
  expect((await sync.status()).tables[0]).toMatchObject({ reload: null, pending: 0 });
  // Also when it joins.
  await sync.copy({ restart: true });
  await pair.source.sql("insert into large values ('joins')");
  await step();
  expect((await sync.status()).tables[0]).toMatchObject({ reload: { isHeld: true } });
  await followed.drain();
  expect(await sync.verify()).toMatchObject({ equal: true, tables: [{ rows: 2003, pending: 0 }, {}, {}] });
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

test("a table that is written to all the time is not read again all the time", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(
    pair,
    "create table t (v text); create table k (id int primary key); insert into t select repeat('x', 1000) from generate_series(1, 3000)",
    { keyless },
  );
  await followed.drain();
  const { sync } = followed;
  const stop = new AbortController();
  const reloads: Batch[] = [];
  const running = (async () => {
    for await (const batch of sync.follow({ signal: stop.signal }))
      if (batch.rows > 2900) reloads.push(batch);
  })();
  const startedAt = Date.now();
  let writes = 0;
  for (; Date.now() - startedAt < 5000; writes += 1) {
    await pair.source.sql(`insert into t values ('new'); insert into k values (${writes})`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  const seconds = (Date.now() - startedAt) / 1000;
  // What is put off is not forgotten.
  await expect
    .poll(async () => (await pair.target.sql("select from t")).length, { timeout: 30_000 })
    .toBe(3000 + writes);
  stop.abort();
  await running;
  expect(writes).toBeGreaterThan(50);
  expect(reloads.length).toBeGreaterThan(0);
  // The last one may come after the writes.
  const spent = reloads.slice(0, -1).reduce((sum, batch) => sum + batch.seconds, 0);
  expect(spent).toBeLessThan(seconds * 0.2);
  expect(await pair.target.sql("select from k")).toHaveLength(writes);
  // What the reloads have deleted does not pile up: some 3 MB, in two or three versions.
  const [size] = await pair.target.sql("select pg_table_size('t')::int / 1024 / 1024 as mb");
  expect(size?.["mb"]).toBeLessThan(16);
});

test("rows that move while they are copied, where a unique index would not bear it", async () => {
  // From 14 on tables are cut by pages, also those without a key.
  await using pair = await freePair({ source: "18", target: "13" });
  const schema = `create table plain (v int, pad text); create table uniq (v int, pad text, unique (v));
    create index on plain (v);`;
  await onBoth(pair, schema);
  for (const table of ["plain", "uniq"])
    await pair.source.sql(`insert into ${table} select g, repeat('x', 200) from generate_series(1, 8000) g`);
  await using sync = await openSync({ source: pair.source.url, target: pair.target.url, env: {}, keyless });
  await sync.init();
  let isDone = false;
  const mover = (async () => {
    const client = await pair.source.client();
    for (let n = 0; !isDone; n += 1)
      for (const table of ["plain", "uniq"])
        await client.query(`update ${table} set pad = pad || 'y' where v % 50 = ${n % 50}`);
  })();
  try {
    await sync.copy({ jobs: 2, partBytes: 64 * 1024 });
  } finally {
    isDone = true;
    await mover;
  }
  for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
  for (const table of ["plain", "uniq"])
    expect(await bag(pair.target, table)).toEqual(await bag(pair.source, table));
  expect(
    await pair.target.sql("select indexname from pg_indexes where schemaname = 'public' order by 1"),
  ).toEqual([{ indexname: "plain_v_idx" }, { indexname: "uniq_v_key" }]);
});

test("columns that change on the source are noticed before the table is read again", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(
    pair,
    "create table t (a int, b text); insert into t values (1, 'x'), (1, 'x')",
    {
      keyless,
      schemaChanges: "stop",
    },
  );
  await followed.drain();
  await pair.source.sql("alter table t add column c int default 7; insert into t values (2, 'y', 8)");
  await expect(followed.drain()).rejects.toMatchObject({ code: "TABLE_SHAPE_CHANGED" });
  await pair.target.sql("alter table t add column c int");
  await followed.drain();
  expect(await bag(pair.target, "t")).toEqual(await bag(pair.source, "t"));
  await pair.source.sql("alter table t rename to renamed; insert into renamed values (3)");
  await followed.drain();
  expect(await bag(pair.target, "t")).toEqual(await bag(pair.source, "renamed"));
  await pair.source.sql("alter table renamed disable trigger user; insert into renamed values (4)");
  await expect(followed.drain()).rejects.toMatchObject({ code: "CAPTURE_BROKEN" });
  await pair.source.sql(
    `do $$ declare t text; begin
       for t in select tgname from pg_trigger where tgrelid = 'renamed'::regclass loop
         execute format('alter table renamed enable always trigger %I', t); end loop; end $$`,
  );
  await followed.drain();
  expect(await bag(pair.target, "t")).toEqual(await bag(pair.source, "renamed"));
});

test("a table that has got a key is replicated by it, also while its reload is owed", async () => {
  await using pair = await freePair();
  const schema = "create table t (id int not null, v text)";
  await using followed = await startFollowed(pair, schema, { keyless, keylessLimit: 0 });
  await using other = await openSync({
    name: "other",
    source: pair.source.url,
    target: pair.target.url,
    env: {},
    keyless,
  });
  await other.init();
  await other.copy({ adopt: true });
  await followed.drain();
  const { sync } = followed;
  await pair.source.sql("insert into t select g, 'old' from generate_series(1, 1000) g");
  for await (const batch of sync.follow({ once: true })) expect(batch.rows).toBe(0);
  expect((await sync.status()).tables[0]?.reload?.isHeld).toBe(true);
  await pair.source.sql("alter table t add primary key (id)");
  await expect(sync.init()).rejects.toMatchObject({ code: "PREFLIGHT_BLOCKED" });
  await pair.target.sql("alter table t add primary key (id)");
  await sync.init();
  await pair.source.sql("update t set v = 'new' where id = 5");
  for await (const batch of sync.follow({ once: true })) expect(batch.rows).toBe(1000);
  await pair.source.sql("update t set id = 2000 where id = 6; delete from t where id = 7");
  const batches = await followed.drain();
  expect(batches.reduce((sum, batch) => sum + batch.rows, 0)).toBe(3);
  expect((await compareDatabases(pair.source.url, pair.target.url)).differences).toEqual([]);
  // The other sync reads the same capture.
  for await (const batch of other.follow({ untilCaughtUp: true })) void batch;
  expect(await other.verify()).toMatchObject({ equal: true, tables: [{ rows: 999, pending: 0 }] });
});

test("cutover and back: what is marked is reloaded and compared, also above the limit, and nothing is lost", async () => {
  await using pair = await leastPrivilegedPair();
  const schema = `create table parent (id int primary key);
    create table small (v text, parent_id int references parent); create table large (v text);`;
  await onBoth(pair, schema);
  await pair.source.sql(`insert into parent values (1), (2);
    insert into small values ('a', 1), ('a', 1); insert into large select repeat('x', 500) from generate_series(1, 2000)`);
  const events: SyncEvent[] = [];
  await using sync = await openSync({
    name: "shop", source: pair.source.url, target: pair.target.url, env: {}, keyless, keylessLimit: "512kB",
    onEvent: (event) => events.push(event),
  }); // prettier-ignore
  await sync.init();
  await sync.copy();
  const stop = new AbortController();
  const running = (async () => {
    for await (const batch of sync.follow({ signal: stop.signal })) void batch;
  })();
  const equal = async (): Promise<void> => {
    for (const table of ["parent", "small", "large"])
      expect(await bag(pair.target, table), table).toEqual(await bag(pair.source, table));
  };
  const writer = async (side: Side, n: number): Promise<void> => {
    await side.sql(
      `insert into parent values (${n}); insert into small values ('${n}', ${n}), ('${n}', ${n})`,
    );
    await side.sql(`insert into large values ('${n}')`);
  };
  await writer(pair.source, 10);
  await expect.poll(() => events.some(({ type }) => type === "reload-held"), { timeout: 20_000 }).toBe(true);
  expect((await sync.cutover({ rehearse: true })).rehearsal?.parts.map(({ step }) => step)).toContain(
    "reload",
  );
  // Changes until the fence is up.
  let isOpen = false;
  let last = 10;
  const application = (async () => {
    while (!isOpen) {
      try {
        await writer(pair.source, last + 1);
        last += 1;
      } catch (error) {
        expect((error as { code?: string }).code).toMatch(/25006/);
        // The transaction of the first statement may have been committed, and the second one refused.
        last += 1;
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  })();
  const report = await sync.cutover();
  isOpen = true;
  await application;
  expect(report).toMatchObject({ result: "switched", primary: "target" });
  expect(report.rowsCompared).toBeGreaterThan(2000);
  await equal();
  expect(await pair.target.sql("select from large")).not.toHaveLength(2000);
  await writer(pair.target, 100_000);
  await expect
    .poll(async () => (await pair.source.sql("select from small where v = '100000'")).length, {
      timeout: 20_000,
    })
    .toBe(2);
  await pair.target.sql("delete from large where v like 'x%'");
  expect(await sync.rollback()).toMatchObject({ result: "switched", primary: "source" });
  await equal();
  expect(await pair.source.sql("select from large where v like 'x%'")).toHaveLength(0);
  expect(await pair.source.sql("select from large where v = '100000'")).toHaveLength(1);
  await writer(pair.source, 200_000);
  stop.abort();
  await running;
  for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
  await equal();
  await sync.drop();
  for (const side of [pair.source, pair.target])
    expect(
      await side.sql(
        "select tgname::text from pg_trigger where tgname like 'zzz%' union all select nspname::text from pg_namespace where nspname = 'replicate'",
      ),
    ).toEqual([]);
});
