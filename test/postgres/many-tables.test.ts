import { afterAll, beforeAll, expect, test } from "vitest";
import { startCluster, type Cluster } from "../support/cluster.ts";
import { freePair } from "../support/database.ts";
import { startFollowed, type Followed } from "./follow-setup.ts";

// What a source has to hold for us does not grow with the tables that have changed: its lock table is small here.

let source: Cluster;

beforeAll(async () => {
  source = await startCluster({
    version: "18",
    settings: {
      max_locks_per_transaction: "10",
      max_connections: "12",
      max_prepared_transactions: "0",
      max_worker_processes: "0",
      max_wal_senders: "0",
      autovacuum_worker_slots: "1",
      autovacuum_max_workers: "1",
    },
  });
});

afterAll(async () => {
  await source.stop();
});

const TABLES = 160;

const schema = `do $$ begin
  for n in 1 .. ${TABLES} loop
    execute format('create table t%s (id int primary key, a int, b text)', n);
    execute format('create index on t%s (a); create index on t%1$s (b)', n);
    if n % 40 = 0 then commit; end if;
  end loop;
end $$`;

const inTurns = (statement: string): string => `do $$ begin
  for n in 1 .. ${TABLES} loop
    execute format('${statement}', n);
    if n % 20 = 0 then commit; end if;
  end loop;
end $$`;

/** A few at a time: who compares has to hold locks too. */
async function allDifferences({ differences }: Followed): Promise<unknown[]> {
  const found: unknown[] = [];
  for (let at = 1; at <= TABLES; at += 20)
    found.push(...(await differences(Array.from({ length: 20 }, (_, n) => `public.t${at + n}`))));
  return found;
}

test("tables beyond what the source's lock table holds change, and a batch brings them all", async () => {
  await using pair = await freePair({ source });
  await using followed = await startFollowed(pair, schema);
  await followed.drain();
  await pair.source.sql(
    inTurns("insert into t%s select g, g, repeat(''x'', 100) from generate_series(1, 3) g"),
  );
  expect(await allDifferences(followed)).toEqual([]);
  await pair.source.sql(inTurns("update t%s set b = ''y'' where id = 2"));
  const [batch, ...more] = await followed.drain();
  // At one snapshot: all of them in one batch.
  expect(batch?.tables).toBe(TABLES);
  expect(more).toEqual([]);
  expect(await allDifferences(followed)).toEqual([]);
  expect(followed.events.filter(({ type }) => type === "connection-lost")).toEqual([]);
});
