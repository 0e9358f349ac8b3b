import { afterAll, beforeAll, expect, test } from "vitest";
import { asReplicateError } from "../../../src/postgres/sqlstate.ts";
import { startCluster, type Cluster } from "../../support/cluster.ts";
import { freePair } from "../../support/database.ts";
import { openCopySync } from "../../support/copy-setup.ts";
import { startFollowed, type Followed } from "../../support/follow-setup.ts";

// What a source has to hold for us does not grow with the tables that have changed, and of a target it is said by name: the lock
// table is small here.

let small: Cluster;

beforeAll(async () => {
  small = await startCluster({
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
  await small.stop();
});

const TABLES = 160;

const schema = `do $$ begin
  for n in 1 .. ${TABLES} loop
    execute format('create table t%s (id int primary key, a int, b text)', n);
    for i in 1 .. 6 loop execute format('create index on t%s (a, b, (a + %s))', n, i); end loop;
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
  await using pair = await freePair({ source: small });
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

test("preflight tells of a server without room for the locks of a batch, and of how much it needs", async () => {
  await using pair = await freePair({ target: small });
  for (const side of [pair.source, pair.target]) await side.sql(schema);
  const { sync } = await openCopySync(pair);
  await using _ = sync;
  const { findings } = await sync.preflight();
  expect(findings.filter(({ subject }) => subject.startsWith("locks of"))).toEqual([
    expect.objectContaining({
      severity: "warning",
      subject: "locks of the target",
      side: "target",
      // The tables, seven indexes each, and staging; in steps of 64 for 12 sessions.
      message: expect.stringContaining(`up to ${TABLES * (1 + 7 + 3)} tables`) as string,
      remedy: expect.stringContaining("set max_locks_per_transaction = 192;") as string,
    }),
  ]);
});

test("a server that has no room for more locks is told by name", async () => {
  await using pair = await freePair({ target: small });
  const failure = await pair.target
    .sql(`do $$ begin for n in 1 .. 100000 loop perform pg_advisory_xact_lock(n); end loop; end $$`)
    .catch((error: unknown) => asReplicateError(error, "it"));
  expect(failure).toMatchObject({
    code: "OUT_OF_LOCKS",
    hint: expect.stringContaining("max_locks_per_transaction") as string,
  });
});
