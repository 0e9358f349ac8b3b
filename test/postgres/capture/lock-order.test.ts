import { expect, test } from "vitest";

import { openSync, type Sync, type SyncOptions } from "../../../src/index.ts";
import { freePair, type Pair } from "../../support/database.ts";
import { until } from "../../support/until.ts";

// Who has an application's table keeps its writers waiting: so nobody of ours waits for something else of ours meanwhile. Around a
// capture that is its row, which another sync may have for as long as it waits for the table.

const schema = `create table t (id int primary key, v text);
  create table p (id int primary key, v text) partition by range (id);
  create table p1 partition of p for values from (0) to (100)`;

const open = async (pair: Pair, options: Partial<SyncOptions> = {}): Promise<Sync> =>
  await openSync({
    source: pair.source.url,
    target: pair.target.url,
    tables: ["public.t", "public.p"],
    overrides: { "public.t": { capture: "statement" } },
    env: {},
    ...options,
  });

const drain = async (sync: Sync): Promise<void> => {
  for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
};

/** What has to have both the row of a capture and its table; of the sync that is there, or of another one. */
const works: Record<string, { before?: string; run: (sync: Sync, other: Sync) => Promise<unknown> }> = {
  "attaching a capture that tells nothing yet": { run: async (_, other) => await other.init() },
  "holding it for a new copy": { run: async (sync) => await sync.copy({ restart: true, overwrite: true }) },
  "turning it to row triggers": { before: "create table above (id int not null, v text); alter table t inherit above", run: drain }, // prettier-ignore
  "taking a partition in": { before: "create table p2 (id int primary key, v text); insert into p2 values (150, 'x'); alter table p attach partition p2 for values from (100) to (200)", run: drain }, // prettier-ignore
  "letting a partition go": { before: "alter table p detach partition p1", run: drain },
  "detaching it": { run: async (sync) => await sync.drop() },
};

test.each(Object.entries(works))(
  "%s waits for the row before it has the table",
  async (_, { before, run }) => {
    await using pair = await freePair();
    await using elsewhere = await freePair();
    for (const side of [pair.source, pair.target, elsewhere.target]) await side.sql(schema);
    await pair.target.sql("create table p2 partition of p for values from (100) to (200)");
    await pair.source.sql("insert into t values (1, 'x'); insert into p values (1, 'x')");
    await using sync = await open(pair);
    await using other = await open(pair, { name: "other", target: elsewhere.target.url, direction: "both" });
    await sync.init();
    await sync.copy();
    await drain(sync);
    if (before !== undefined) await pair.source.sql(before);
    const holder = await pair.source.client();
    await holder.query("begin; select 1 from replicate.capture for update");
    let isOver = false;
    const running = run(sync, other).finally(() => (isOver = true));
    running.catch(() => undefined);
    let seen = 0;
    await until("it waits for the row, and for nothing with a table in its hands", async () => {
      if (isOver) await running;
      const [found] = await pair.source.sql<{ waits: boolean; holds: boolean }>(
        `select coalesce(bool_or(not l.granted and l.locktype in ('transactionid', 'tuple')), false) as waits,
              coalesce(bool_or(l.granted and l.mode in ('ShareRowExclusiveLock', 'AccessExclusiveLock')
                and l.relation in (select oid from pg_class where relnamespace = 'public'::regnamespace)), false) as holds
       from pg_locks l join pg_stat_activity a on a.pid = l.pid
       where a.datname = current_database() and a.application_name like 'replicate %'`,
      );
      if (found?.waits !== true) return false;
      expect(found.holds).toBe(false);
      seen += 1;
      return seen === 3;
    });
    await holder.query("commit");
    await running;
  },
);
