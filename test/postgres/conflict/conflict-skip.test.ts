import { expect, test } from "vitest";

import type { Sync, SyncOptions } from "../../../src/index.ts";
import { freePair, type Pair } from "../../support/database.ts";
import { startFollowed, type Followed } from "../../support/follow-setup.ts";

// A skipped conflict from its beginning to its end, with a runner.

/** What each side has in the row. */
async function values(pair: Pair): Promise<unknown[]> {
  return await Promise.all(
    [pair.source, pair.target].map(
      async (side) => (await side.sql("select v from t where id = 1"))[0]?.["v"],
    ),
  );
}

/** A conflict that is met and skipped: row 1 is `s1` on the source and `t1` on the target. */
async function startSkipped(
  options: Partial<SyncOptions> = {},
): Promise<AsyncDisposable & { pair: Pair; followed: Followed; sync: Sync }> {
  const pair = await freePair();
  const followed = await startFollowed(
    pair,
    `create table t (id int primary key, v text); insert into t values (1, 'v')`,
    { direction: "both", conflict: "skip", ...options },
  );
  await followed.drain();
  await pair.source.sql("update t set v = 's1' where id = 1");
  await pair.target.sql("update t set v = 't1' where id = 1");
  await followed.drain();
  return {
    pair,
    followed,
    sync: followed.sync,
    [Symbol.asyncDispose]: async () => {
      await followed[Symbol.asyncDispose]();
      await pair.dispose();
    },
  };
}

test.for(["source", "target"] as const)("it waits until it is resolved with the %s", async (winner) => {
  await using pair = await freePair();
  await using followed = await startFollowed(
    pair,
    `create table t (id int primary key, v text); insert into t select g, 'v' from generate_series(1, 3) g`,
    { direction: "both", conflict: "skip" },
  );
  const { sync } = followed;
  await followed.drain();
  await pair.source.sql("update t set v = 's1' where id < 3");
  await pair.target.sql("update t set v = 't1' where id = 1");
  await followed.drain();
  expect(await values(pair)).toEqual(["s1", "t1"]);
  const [entry, ...more] = await sync.conflicts();
  expect(more).toEqual([]);
  expect(entry).toMatchObject({
    table: "public.t",
    key: { id: 1 },
    kind: "update_origin_differs",
    policy: "skip",
    winner: "skip",
    resolved: false,
    source: { image: { id: 1, v: "s1" } },
    target: { image: { id: 1, v: "t1" } },
  });
  // Other rows go on, this one stays as each side has it, whatever they do to it.
  expect(await pair.target.sql("select v from t where id = 2")).toEqual([{ v: "s1" }]);
  await pair.source.sql("update t set v = 's2' where id = 1");
  await followed.drain();
  await pair.target.sql("update t set v = 't2' where id = 1");
  await followed.drain();
  expect(await values(pair)).toEqual(["s2", "t2"]);
  await pair.source.sql("update t set v = 's3' where id = 1");
  await pair.target.sql("update t set v = 't3' where id = 1");
  await followed.drain();
  expect(await values(pair)).toEqual(["s3", "t3"]);
  expect((await sync.status()).conflicts).toBe(1);

  await sync.resolveConflict(entry?.id ?? 0, winner);
  await followed.drain();
  const [won, lost] = winner === "source" ? ["s3", "t3"] : ["t3", "s3"];
  expect(await values(pair)).toEqual([won, won]);
  // What was overwritten is in the log, as it was then.
  const [resolved] = await sync.conflicts();
  expect(resolved).toMatchObject({ id: entry?.id, winner, resolved: true });
  expect(resolved?.[winner === "source" ? "target" : "source"]).toMatchObject({
    change: "update",
    at: null,
    image: { id: 1, v: lost },
  });
  expect(await sync.conflicts({ state: "pending" })).toEqual([]);
  expect(await followed.differences()).toEqual([]);
  // The row is one like any other again.
  await pair.target.sql("update t set v = 't4' where id = 1");
  await followed.drain();
  expect(await values(pair)).toEqual(["t4", "t4"]);
});

test.for([
  ["update t set v = 't2' where id = 1", "update t set v = 's2' where id = 1"],
  ["delete from t where id = 1", "update t set v = 's2' where id = 1"],
  ["update t set v = 't2' where id = 1", "delete from t where id = 1"],
])(
  "a row that is changed while a runner works and somebody resolves ends equal: %s",
  async ([ours, theirs]) => {
    await using met = await startSkipped();
    const { pair, followed, sync } = met;
    const stop = new AbortController();
    const running = (async () => {
      for await (const _ of sync.follow({ signal: stop.signal })) continue;
    })();
    await pair.target.sql(ours ?? "");
    await pair.source.sql(theirs ?? "");
    // Whoever writes while it is resolved may make the next conflict, which is resolved in its turn.
    await expect
      .poll(
        async () => {
          for (const { id } of await sync.conflicts({ state: "pending" }))
            await sync.resolveConflict(id, "source");
          const [source, target] = await values(pair);
          return source === target && (await sync.conflicts({ state: "pending" })).length === 0;
        },
        { timeout: 30_000, interval: 300 },
      )
      .toBe(true);
    stop.abort();
    await running;
    expect(await followed.differences()).toEqual([]);
  },
);

test("a runner completes what was interrupted, and forgets what is old", async () => {
  await using met = await startSkipped({ conflictLog: { keep: "1h" } });
  const { pair, followed, sync } = met;
  const [entry] = await sync.conflicts();
  const side = (entry?.id ?? 0) % 2 === 0 ? pair.target : pair.source;
  // As by a death after the first step.
  const winner = side === pair.target ? "source" : "target";
  await side.sql("update replicate.conflict set winner = $1", [winner]);
  for (const each of [pair.source, pair.target])
    await each.sql(`insert into replicate.conflict (sync, way, relid, table_name, key, key_texts, kind, source_change,
        target_change, source_node, target_node, policy, winner, resolved_at)
      values ('default', 'forward', 't'::regclass, 'public.t', '{}', '{}', 'insert_exists', 'insert', 'insert', 'a', 'b', 'latest',
        'source', now() - interval '2 hours')`);
  expect(await sync.conflicts()).toHaveLength(3);
  await followed.drain();
  await followed.drain();
  expect((await sync.conflicts()).map(({ id, resolved }) => [id, resolved])).toEqual([[entry?.id, true]]);
  const won = winner === "source" ? "s1" : "t1";
  expect(await values(pair)).toEqual([won, won]);
});

test("what a resolution has noted is applied before it has ended", async () => {
  await using met = await startSkipped();
  const { pair, sync } = met;
  const [{ id } = { id: 0 }] = await sync.conflicts();
  const side = id % 2 === 0 ? pair.target : pair.source;
  const winner = id % 2 === 0 ? "source" : "target";
  // Nobody can end it as long as the lock is held.
  await side.sql(`
    create function wait() returns trigger language plpgsql as $$ begin
      if new.resolved_at is not null then perform pg_advisory_xact_lock(42); end if;
      return new;
    end $$;
    create trigger wait before update on replicate.conflict for each row execute procedure wait();
    alter table replicate.conflict enable always trigger wait`);
  const holder = await side.client();
  await holder.query("select pg_advisory_lock(42)");
  const stop = new AbortController();
  const running = (async () => {
    for await (const _ of sync.follow({ signal: stop.signal })) continue;
  })();
  const resolving = sync.resolveConflict(id, winner).catch((error: unknown) => error);
  const won = winner === "source" ? "s1" : "t1";
  await expect.poll(async () => await values(pair), { timeout: 30_000, interval: 100 }).toEqual([won, won]);
  expect(await sync.conflicts()).toMatchObject([{ id, winner, resolved: false }]);
  await holder.end();
  // It may have waited for too long.
  await resolving;
  await sync.resolveConflict(id, winner);
  stop.abort();
  await running;
  expect(await values(pair)).toEqual([won, won]);
});

test.for(["source", "target"] as const)(
  "of two rows with one unique value, that of the %s stays",
  async (winner) => {
    await using pair = await freePair();
    await using followed = await startFollowed(
      pair,
      `create table t (id int primary key, v text unique); insert into t values (1, 'v')`,
      { direction: "both", conflict: "skip" },
    );
    const { sync } = followed;
    const rows = async (): Promise<unknown[]> =>
      await Promise.all(
        [pair.source, pair.target].map(
          async (side) => await side.sql("select id, v from t where id > 1 order by id"),
        ),
      );
    await followed.drain();
    await pair.source.sql("insert into t values (10, 'same')");
    await pair.target.sql("insert into t values (11, 'same')");
    await followed.drain();
    const ours = [{ id: 10, v: "same" }];
    const theirs = [{ id: 11, v: "same" }];
    expect(await rows()).toEqual([ours, theirs]);
    const [entry, ...more] = await sync.conflicts({ state: "pending" });
    expect(more).toEqual([]);
    expect(entry).toMatchObject({
      kind: "multiple_unique_conflicts",
      constraint: "t_v_key",
      source: { image: ours[0] },
      target: { image: theirs[0] },
    });
    // The value is still wanted by both, whatever else becomes of the rows.
    await pair.source.sql("update t set v = v where id = 10");
    await pair.target.sql("update t set v = v where id = 11");
    await followed.drain();
    expect(await rows()).toEqual([ours, theirs]);
    await sync.resolveConflict({}, winner);
    await followed.drain();
    const won = winner === "source" ? ours : theirs;
    expect(await rows()).toEqual([won, won]);
    expect(await sync.conflicts({ state: "pending" })).toEqual([]);
    expect(await sync.conflicts()).toMatchObject([
      { source: { image: ours[0] }, target: { image: theirs[0] } },
    ]);
    expect(await followed.differences()).toEqual([]);
  },
);

test("one way: the target keeps its row, or gets the source's", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(
    pair,
    `create table t (id int primary key, v text); insert into t values (1, 'v')`,
    { conflict: "skip" },
  );
  const { sync } = followed;
  const resolve = async (winner: "source" | "target"): Promise<void> => {
    const [entry, ...more] = await sync.conflicts({ state: "pending" });
    expect([entry?.table, more]).toEqual(["public.t", []]);
    await sync.resolveConflict(entry?.id ?? 0, winner);
    await followed.drain();
    expect(await sync.conflicts({ state: "pending" })).toEqual([]);
  };
  await followed.drain();
  await pair.source.sql("update t set v = 's1'");
  await pair.target.sql("update t set v = 't1'");
  await followed.drain();
  await resolve("target");
  expect(await values(pair)).toEqual(["s1", "t1"]);
  // The target still has what the source does not know of.
  await pair.source.sql("update t set v = 's2'");
  await followed.drain();
  expect(await values(pair)).toEqual(["s2", "t1"]);
  await resolve("source");
  expect(await values(pair)).toEqual(["s2", "s2"]);
  await pair.source.sql("update t set v = 's3'");
  expect(await followed.differences()).toEqual([]);
});
