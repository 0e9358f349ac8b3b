import { expect, test } from "vitest";
import { startCluster } from "../../support/cluster.ts";
import { withClient } from "../../support/admin.ts";
import { freePair } from "../../support/database.ts";
import { until } from "../../support/until.ts";
import { onBoth, openFollowed } from "../../support/follow-setup.ts";

// A lock table belongs to all databases of a server: a batch that would fill it is not begun, nobody else fails, and it goes on
// once there is room.

const TABLES = 60;
/** Few at a time: who creates and who compares has to hold locks too. */
const dozens = Array.from({ length: TABLES / 12 }, (_, n) =>
  Array.from({ length: 12 }, (_each, m) => `t${n * 12 + m + 1}`),
);

test.each(["13", "18"])("version %s: a batch without room for its locks is not begun", async (version) => {
  await using server = await startCluster({
    version,
    settings: {
      max_locks_per_transaction: "10",
      max_connections: "20",
      max_prepared_transactions: "0",
      max_worker_processes: "0",
      max_wal_senders: "0",
      autovacuum_max_workers: "1",
      ...(version === "18" ? { autovacuum_worker_slots: "1" } : {}),
    },
  });
  await using pair = await freePair({ target: server });
  for (const names of dozens)
    await onBoth(
      pair,
      names
        .map((name) => `create table ${name} (id int primary key, note text); insert into ${name} values (1, 'a');`)
        .join("\n"),
    ); // prettier-ignore
  await using followed = await openFollowed(pair);
  await pair.source.sql(dozens.flat().map((name) => `update ${name} set note = 'c' where id = 1`).join(";\n")); // prettier-ignore
  followed.events.length = 0;
  const end = new AbortController();
  const following = (async () => {
    for await (const _ of followed.sync.follow({ signal: end.signal }));
  })();
  const refusals = () => followed.events.filter(({ type }) => type === "connection-lost");
  await until("the batch is refused", () => refusals().length > 0);
  const told = followed.events.find((event) => event.type === "connection-lost");
  // Each with an index, and staging. It is not tried again in a hurry.
  expect(told).toMatchObject({ side: "target", retryInMs: 10_000 });
  const needed = TABLES * (1 + 1 + 3);
  expect(told?.message).toContain(
    `a batch of ${TABLES} tables needs ${needed} locks, and the server of the target`,
  );
  // Whoever comes meanwhile in another database has the room that there was before.
  await withClient(server.adminUrl, async (other) => {
    await other.query("begin");
    await other.query("select pg_advisory_xact_lock(n) from generate_series(1, 150) n");
    await until("it is refused again", () => refusals().length > 1);
    await other.query("select pg_advisory_xact_lock(n) from generate_series(151, 170) n; commit");
  });
  const stages = `select relname from pg_class where relname ~ '^stage_' and relkind = 'r'`;
  expect(await pair.target.sql(stages)).toEqual([]);

  const [, wanted] = /until max_locks_per_transaction is at least (\d+)/.exec(told?.message ?? "") ?? [];
  expect(wanted).toBe("64");
  await pair.target.sql(`alter system set max_locks_per_transaction = ${wanted}`);
  await server.restart();
  await until("it goes on", () => followed.events.some(({ type }) => type === "batch-applied"));
  end.abort();
  await following;
  for (const names of dozens)
    expect(await followed.differences(names.map((name) => `public.${name}`))).toEqual([]);
});
