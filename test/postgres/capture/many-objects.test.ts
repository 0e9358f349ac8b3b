import { expect, test } from "vitest";
import { freePair } from "../../support/database.ts";
import { differences, openCopySync, schemaOf } from "../../support/copy-setup.ts";

// Databases with many small objects: what there is to do grows with their number, and no faster.

const partitioned = (leaves: number): string => `
  create table event (id int not null, value int, note text, primary key (id)) partition by range (id);
  do $$ begin
    for n in 0 .. ${leaves - 1} loop
      execute format('create table event_%s partition of event for values from (%s) to (%s)', n, n * 1000, (n + 1) * 1000);
    end loop;
  end $$;
  create index event_value on event (value);
  create index event_note on event (note, value);`;

test("indexes of many small partitions are restored together, each once, and as they were", async () => {
  await using pair = await freePair({ source: "18", target: "18" });
  for (const side of [pair.source, pair.target]) await side.sql(partitioned(60));
  await pair.source.sql(
    `insert into event select g, g % 7, repeat('n', 200) || g from generate_series(0, 59999) g; analyze`,
  );
  const before = await schemaOf(pair.target);
  const { sync, of } = await openCopySync(pair);
  await using _ = sync;
  await sync.init();
  await sync.copy();
  expect(await differences(pair)).toEqual([]);
  expect(await schemaOf(pair.target)).toBe(before);
  const built = of("index-built").map(({ table, index }) => `${table} ${index}`);
  expect(new Set(built).size).toBe(built.length);
  const [restored] = await pair.target.sql<{ objects: number; transactions: number }>(
    `select count(*)::int as objects, count(distinct xmin::text)::int as transactions from replicate.deferred
     where restored_at is not null and kind in ('key', 'index', 'attach')`,
  );
  expect(restored?.objects).toBeGreaterThan(180);
  expect(restored?.transactions).toBeLessThan(30);
});

test("of several objects that are restored together, one that cannot be does not keep the others away", async () => {
  await using pair = await freePair({ source: "18", target: "18" });
  for (const side of [pair.source, pair.target]) await side.sql(`create table t (id int primary key)`);
  const { sync } = await openCopySync(pair);
  await using _ = sync;
  await sync.init();
  await sync.copy();
  const owe = (from: number, to: number, statement: string): string =>
    `insert into replicate.deferred (sync, capture_id, kind, object_name, table_name, stage, statements)
     select sync, capture_id, 'index', 'i' || g, 'public.t', 10, array[${statement}]
     from replicate.sync_table, generate_series(${from}, ${to}) g;`;
  await pair.target.sql(`create table restored (n int);
    ${owe(1, 20, `'insert into public.restored values (' || g || ')'`)} ${owe(21, 21, `'select 1 / 0'`)}
    ${owe(22, 40, `'insert into public.restored values (' || g || ')'`)}`);
  await expect(sync.drop()).rejects.toMatchObject({
    code: "STATEMENT_FAILED",
    problems: [{ message: expect.stringContaining("i21") as string }],
  });
  expect(await pair.target.sql(`select count(*)::int as n, sum(n)::int as sum from restored`)).toEqual([
    { n: 39, sum: 820 - 21 },
  ]);
  await pair.target.sql(`update replicate.deferred set statements = '{select 1}' where restored_at is null`);
  await sync.drop();
});

// With a claim that compares all open objects with all others this takes longer than any test may.
test("a ledger of many objects is paid", async () => {
  await using pair = await freePair({ source: "18", target: "18" });
  for (const side of [pair.source, pair.target])
    await side.sql(`create table t (id int primary key); create table u (id int primary key)`);
  const { sync } = await openCopySync(pair);
  await using _ = sync;
  await sync.init();
  await sync.copy();
  await pair.target.sql(
    `insert into replicate.deferred (sync, capture_id, kind, object_name, table_name, stage, statements)
     select sync, capture_id, 'index', 'i' || g, source_name, 10 + g % 20, '{select 1}'
     from replicate.sync_table, generate_series(1, 5000) g`,
  );
  const { restored } = await sync.drop();
  expect(restored).toBe(10_000);
});
