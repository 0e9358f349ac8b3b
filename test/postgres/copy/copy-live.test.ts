import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { compareDatabases } from "../../support/compare.ts";
import { freePair, type Pair } from "../../support/database.ts";
import { seededRandom, type Random } from "../../support/random.ts";
import { differences, followUntilCaughtUp, onBoth, openCopySync } from "../../support/copy-setup.ts";

// Copy while the source lives: writers, schema changes, sessions that break, other processes.

const accounts = `
  create table account (id int primary key, code int not null unique, owner text not null, balance int not null, filler text);
  create table entry (a text, b uuid, n int, filler text, primary key (b, a));
`;
const accountRows = `
  insert into account select g, g, 'owner ' || g, 100, repeat('x', 100) from generate_series(1, 12000) g;
  insert into entry select 'a' || g, md5(g::text)::uuid, g, repeat('y', 100) from generate_series(1, 12000) g;
  analyze;
`;

/** Writes until stopped: moves rows on the disk, changes keys, deletes, inserts. */
async function write(pair: Pair, random: Random, isStopped: () => boolean): Promise<number> {
  const below = (limit: number): number => random.int(0, limit - 1);
  const client = await pair.source.client();
  let transactions = 0;
  while (!isStopped()) {
    const id = 1 + below(12_000);
    const statements = [
      `update account set filler = repeat('z', ${below(300)}), balance = balance + 1 where id = ${id}`,
      `update account set id = id + 100000 * ${1 + below(9)} where id = ${id}`,
      `delete from account where id between ${id} and ${id + 3}`,
      `insert into account values (${id}, ${-id - below(1e4) * 20_000}, 'new', 0, repeat('n', 200)) on conflict do nothing`,
      `with d as (delete from account where id = ${id} returning code)
         insert into account select ${id} + 2000000 + ${below(1e6)}, code, 'heir', 0, '' from d on conflict do nothing`,
      `update entry set filler = repeat('w', ${below(300)}), a = a || 'x' where b = md5('${id}')::uuid`,
      `delete from entry where b = md5('${id}')::uuid`,
      `insert into entry values ('n', md5('${id}')::uuid, 0, repeat('m', 150)) on conflict do nothing`,
    ];
    await client.query(statements[below(statements.length)] as string);
    transactions++;
    if (transactions % 10 === 0) await sleep(1);
  }
  return transactions;
}

async function until(isTrue: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 30_000;
  while (!(await isTrue())) {
    if (Date.now() > deadline) throw new Error("waited in vain");
    await sleep(2);
  }
}

/** Waits until both tables are cut into parts and some of these are there. */
async function someParts(pair: Pair): Promise<void> {
  await until(async () => {
    const [row] = await pair.target.sql<{ done: number; tables: number }>(
      `select count(*) filter (where done)::int as done, count(distinct capture_id)::int as tables from replicate.part`,
    );
    return (row?.done ?? 0) >= 3 && row?.tables === 2;
  });
}

test.each([
  ["13", "18"],
  ["18", "18"],
])(
  "from %s to %s: parts of many snapshots under writers: keys can be built, and follow makes both sides equal",
  async (from, to) => {
    await using pair = await freePair({ source: from, target: to });
    await onBoth(pair, accounts);
    await pair.source.sql(accountRows);
    const { sync } = await openCopySync(pair);
    await using _ = sync;
    await sync.init();
    let isStopped = false;
    const random = seededRandom("writers");
    const writers = ["a", "b", "c"].map((name) => write(pair, random.fork(name), () => isStopped));
    await sync.copy({ jobs: 2, partBytes: 40_000 });
    isStopped = true;
    const transactions = await Promise.all(writers);
    expect(Math.min(...transactions)).toBeGreaterThan(20);
    const [parts] = await pair.target.sql<{ n: number }>(`select count(*)::int as n from replicate.part`);
    expect(parts?.n).toBeGreaterThan(50);
    await followUntilCaughtUp(sync);
    expect(await differences(pair)).toEqual([]);
  },
);

test("a table that is rewritten or truncated between two parts starts over", async () => {
  await using pair = await freePair();
  await onBoth(pair, accounts);
  await pair.source.sql(accountRows);
  const { sync, of } = await openCopySync(pair);
  await using _ = sync;
  await sync.init();
  const stop = new AbortController();
  let copied = 0;
  // The first run is stopped after some parts; then the tables change; the second run finds that out.
  const first = sync.copy({
    jobs: 1,
    partBytes: 100_000,
    signal: stop.signal,
    onEvent: (event) => {
      if (event.type === "copy-planned") copied = event.parts;
    },
  });
  const failure = first.catch((error: unknown) => error);
  await someParts(pair);
  stop.abort();
  expect(await failure).toMatchObject({ code: "ABORTED" });
  expect(copied).toBeGreaterThan(10);
  await pair.source.sql(`vacuum full account`);
  await pair.source.sql(`truncate entry`);
  await pair.source.sql(`insert into entry values ('after', md5('x')::uuid, 1, '')`);

  const report = await sync.copy({ jobs: 2, partBytes: 100_000 });
  expect(of("table-restarted").map(({ table, reason }) => `${table}: ${reason}`).sort()).toEqual([
    "public.account: it was rewritten or truncated",
    "public.entry: it was rewritten or truncated",
  ]); // prettier-ignore
  expect(report.tables.find(({ table }) => table === "public.account")?.rows).toBe(12_000);
  await followUntilCaughtUp(sync);
  expect(await differences(pair)).toEqual([]);
});

test("columns that change between two parts: refused with the statement, then the table starts over", async () => {
  await using pair = await freePair();
  await onBoth(pair, accounts);
  await pair.source.sql(accountRows);
  const { sync, of } = await openCopySync(pair);
  await using _ = sync;
  await sync.init();
  const stop = new AbortController();
  const first = sync
    .copy({ jobs: 1, partBytes: 100_000, signal: stop.signal })
    .catch((error: unknown) => error);
  await someParts(pair);
  stop.abort();
  await first;
  await pair.source.sql(
    `alter table account add column since int not null default 7; alter table entry rename to entries`,
  );
  await expect(sync.copy({ partBytes: 100_000 })).rejects.toMatchObject({
    code: "TABLE_SHAPE_CHANGED",
    problems: [{ remedy: `alter table "public"."account" add column "since" integer default 7 not null;` }],
  });
  await pair.target.sql(`alter table account add column since int`);
  await sync.copy({ partBytes: 100_000 });
  expect(of("table-restarted").map(({ table, reason }) => `${table}: ${reason}`)).toEqual([
    "public.account: its columns changed",
  ]);
  const { differences: found } = await compareDatabases(pair.source.url, pair.target.url, [
    "public.account",
    { source: "public.entries", target: "public.entry" },
  ]);
  expect(found).toEqual([]);
});

test("an ALTER TABLE on the source does not wait behind a part, nor does anybody behind it", async () => {
  await using pair = await freePair();
  await onBoth(pair, accounts);
  await pair.source.sql(accountRows);
  const { sync } = await openCopySync(pair);
  await using _ = sync;
  await sync.init();
  const copying = sync.copy({ jobs: 1, partBytes: 100_000, tables: ["public.account"] });
  await until(async () => {
    const [table] = await pair.target.sql(
      `select 1 from replicate.sync_table where source_name = 'account' and state = 'copying'`,
    );
    return table !== undefined;
  });
  // A part that cannot write holds its snapshot and its lock on the source, unless it gives them up.
  const holder = await pair.target.client();
  await holder.query(`begin; lock table account in exclusive mode`);
  await until(async () => {
    const [reading] = await pair.source.sql(
      `select 1 from pg_locks where relation = 'account'::regclass and mode = 'AccessShareLock' and pid <> pg_backend_pid()`,
    );
    return reading !== undefined;
  });
  const startedAt = Date.now();
  const altering = pair.source.sql(`alter table account add constraint small check (balance < 1000000)`);
  const client = await pair.source.client();
  await client.query(`select count(*) from account`);
  await altering;
  expect(Date.now() - startedAt).toBeLessThan(2500);
  await holder.query(`rollback`);
  await copying;
  expect((await compareDatabases(pair.source.url, pair.target.url, ["public.account"])).differences).toEqual(
    [],
  );
});

test("sessions that break on either side are opened again, and the work goes on", async () => {
  await using pair = await freePair();
  await onBoth(pair, accounts);
  await pair.source.sql(accountRows);
  const { sync, of } = await openCopySync(pair);
  await using _ = sync;
  await sync.init();
  let isDone = false;
  const copying = sync.copy({ jobs: 2, partBytes: 40_000 }).finally(() => (isDone = true));
  // While nothing has begun, a server that cannot be reached is an error at once.
  await until(async () => (await pair.target.sql(`select 1 from replicate.part limit 1`)).length > 0);
  let killed = 0;
  for (let round = 0; !isDone && round < 12; round++) {
    await sleep(60);
    for (const side of [pair.source, pair.target]) {
      const rows = await side.sql(
        `select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and application_name like 'replicate copy%'`,
      );
      killed += rows.length;
    }
  }
  await copying;
  expect(killed).toBeGreaterThan(2);
  expect(of("connection-lost").length).toBeGreaterThan(0);
  expect(await differences(pair)).toEqual([]);
});

test("several runs at once share the work", async () => {
  await using pair = await freePair();
  await onBoth(pair, accounts);
  await pair.source.sql(accountRows);
  const runs = await Promise.all([1, 2, 3].map(() => openCopySync(pair)));
  await runs[0]?.sync.init();
  const reports = await Promise.all(runs.map(({ sync }) => sync.copy({ jobs: 1, partBytes: 40_000 })));
  for (const report of reports) expect(report.rows).toBe(24_000);
  // Each table is announced once, by whoever finished it.
  expect(runs.flatMap(({ of }) => of("table-copied")).map(({ table }) => table).sort()).toEqual(["public.account", "public.entry"]); // prettier-ignore
  expect(runs.flatMap(({ of }) => of("index-built"))).toHaveLength(3);
  expect(await differences(pair)).toEqual([]);
  for (const { sync } of runs) await sync[Symbol.asyncDispose]();
});

test("partitions are written directly where the target has the same one, through the root where not", async () => {
  await using pair = await freePair();
  const root = `create table event (id int, at date, kind text, filler text, primary key (id, at)) partition by range (at);
    create table event_2020 partition of event for values from ('2020-01-01') to ('2021-01-01');`;
  await pair.source.sql(`${root}
    create table event_2021 partition of event for values from ('2021-01-01') to ('2022-01-01') partition by range (at);
    create table event_2021_h1 partition of event_2021 for values from ('2021-01-01') to ('2021-07-01');
    create table event_2021_h2 partition of event_2021 for values from ('2021-07-01') to ('2022-01-01');
    create table event_rest partition of event default;`);
  await pair.target.sql(`${root}
    create table event_2021 partition of event for values from ('2021-01-01') to ('2022-01-01');
    create table event_2021_h1 partition of event for values from ('2022-01-01') to ('2022-07-01');
    create table event_rest partition of event default;`);
  await pair.source.sql(`insert into event select g, date '2020-01-01' + g % 1500, 'k', repeat('x', 100) from generate_series(1, 30000) g; analyze`); // prettier-ignore
  const { sync } = await openCopySync(pair);
  await using _ = sync;
  await sync.init();
  await sync.copy({ partBytes: 300_000 });
  const parts = await pair.target.sql(
    `select p.source_relid::text, p.target_relid::regclass::text as target from replicate.part p`,
  );
  const names = await pair.source.sql<{ oid: string; name: string }>(
    `select oid::text, relname::text as name from pg_class where relname like 'event%'`,
  );
  const mapping = new Set(
    parts.map(
      (part) => `${names.find(({ oid }) => oid === part["source_relid"])?.name} > ${String(part["target"])}`,
    ),
  );
  // The default partition takes other rows there, where there is a partition more.
  expect([...mapping].sort()).toEqual([
    "event_2020 > event_2020",
    "event_2021_h1 > event",
    "event_2021_h2 > event",
    "event_rest > event",
  ]);
  expect((await compareDatabases(pair.source.url, pair.target.url, ["public.event"])).differences).toEqual(
    [],
  );
});
