import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";

import { openSync, ReplicateError, type Sync, type SyncEvent } from "../../src/index.ts";
import { freePair, type Pair } from "../support/database.ts";
import { onBoth } from "../support/follow-setup.ts";

// What a program that embeds the library is promised. That no session is left open is checked by every pair of
// databases at its end.

const schema = "create table t (id int primary key, v text); create index t_v on t (v)";

async function open(pair: Pair, events: SyncEvent[] = []): Promise<Sync> {
  return await openSync({
    name: "library",
    source: pair.source.url,
    target: pair.target.url,
    tables: ["public.*"],
    onEvent: (event) => events.push(event),
    env: {},
  });
}

test("the whole way, with what it tells", async () => {
  await using pair = await freePair();
  await onBoth(pair, schema);
  await pair.source.sql("insert into t select g, 'v' || g from generate_series(1, 1000) g");
  const events: SyncEvent[] = [];
  await using sync = await open(pair, events);
  expect(sync.name).toBe("library");
  expect((await sync.preflight()).ok).toBe(true);
  expect((await sync.init()).tables).toEqual([{ source: "public.t", target: "public.t", isNew: true }]);
  expect((await sync.init()).tables).toEqual([{ source: "public.t", target: "public.t", isNew: false }]);
  expect(await sync.copy({ jobs: 1 })).toMatchObject({
    rows: 1000,
    tables: [{ table: "public.t", state: "copied" }],
  });
  await pair.source.sql("update t set v = 'x' where id <= 10; delete from t where id = 11");
  const rows: number[] = [];
  for await (const batch of sync.follow({ untilCaughtUp: true })) {
    rows.push(batch.rows);
    expect(batch.lagSeconds).toBeGreaterThanOrEqual(0);
    expect(batch.position).toMatch(/^\d+:\d+:/);
  }
  expect(rows).toEqual([11]);
  expect(await sync.verify()).toMatchObject({ equal: true });
  expect(await sync.status()).toMatchObject({ sync: "library", runner: { alive: false } });
  expect((await sync.drop()).removed.length).toBeGreaterThan(0);
  await expect(sync.drop()).rejects.toMatchObject({ code: "SYNC_UNKNOWN", exitCode: 2 });
  await expect(sync.copy()).rejects.toMatchObject({ code: "SYNC_UNKNOWN" });
  await sync[Symbol.asyncDispose]();
  const calls: Record<string, () => Promise<unknown>> = {
    preflight: async () => await sync.preflight(),
    init: async () => await sync.init(),
    copy: async () => await sync.copy(),
    follow: async () => await sync.follow()[Symbol.asyncIterator]().next(),
    verify: async () => await sync.verify(),
    status: async () => await sync.status(),
    drop: async () => await sync.drop(),
  };
  for (const [name, call] of Object.entries(calls))
    await expect(call(), name).rejects.toMatchObject({
      code: "USAGE_INVALID",
      message: `${name}: sync library is disposed`,
      hint: "Open it again with openSync.",
    });
  const told = new Set(events.map((event) => event.type));
  for (const type of [
    "capture-installed",
    "copy-planned",
    "table-copied",
    "copy-finished",
    "batch-applied",
    "caught-up",
    "object-removed",
  ] as const) {
    expect(told, type).toContain(type);
  }
});

test("every mistake in the settings at once, as a rejection", async () => {
  const attempt = openSync({
    source: "postgresql://h:99999/x",
    target: "",
    tables: [""],
    copy: { jobs: 0 },
    env: {},
  });
  const error = await attempt.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(ReplicateError);
  const { code, problems, exitCode } = error as ReplicateError;
  expect({ code, exitCode }).toEqual({ code: "CONFIG_INVALID", exitCode: 2 });
  expect(problems.length).toBeGreaterThanOrEqual(3);
});

type Verb = (sync: Sync, signal: AbortSignal) => Promise<unknown>;

/** A signal that fires in the middle of each verb; a lock keeps it there. */
const stopped: readonly { verb: string; before?: Verb; holdOn: "source" | "target"; run: Verb }[] = [
  { verb: "init", holdOn: "source", run: async (sync, signal) => await sync.init({ signal }) },
  {
    verb: "copy",
    holdOn: "target",
    before: async (sync) => await sync.init(),
    run: async (sync, signal) => await sync.copy({ signal }),
  },
  {
    verb: "verify",
    holdOn: "target",
    before: async (sync) => {
      await sync.init();
      await sync.copy();
    },
    run: async (sync, signal) => await sync.verify({ signal }),
  },
  {
    verb: "drop",
    holdOn: "source",
    before: async (sync) => await sync.init(),
    run: async (sync, signal) => await sync.drop({ signal }),
  },
];

test.for(stopped)(
  "a signal stops $verb, and the same call carries on later",
  async ({ before, holdOn, run }) => {
    await using pair = await freePair();
    await onBoth(pair, schema);
    await pair.source.sql("insert into t select g, 'v' || g from generate_series(1, 1000) g");
    await using sync = await open(pair);
    await before?.(sync, new AbortController().signal);
    const holder = await pair[holdOn].client();
    await holder.query("begin; lock table t in access exclusive mode");
    const abort = new AbortController();
    const running = run(sync, abort.signal).then(
      () => "done",
      (error: unknown) => error,
    );
    await untilWaiting(pair, holdOn);
    abort.abort();
    expect(await running).toMatchObject({ code: "ABORTED" });
    await holder.query("commit");
    await run(sync, new AbortController().signal);
    // One that has fired already stops it before anything.
    const again = run(sync, AbortSignal.abort());
    await expect(again).rejects.toMatchObject({ code: expect.stringMatching(/ABORTED/) as string });
  },
);

async function untilWaiting(pair: Pair, side: "source" | "target"): Promise<void> {
  for (let look = 0; look < 3000; look += 1) {
    const rows = await pair[side].sql(
      `select 1 from pg_stat_activity where application_name like 'replicate %' and datname = current_database()
         and wait_event_type = 'Lock'`,
    );
    if (rows.length > 0) return;
    await sleep(10);
  }
  throw new Error("it does not come to the lock");
}

test("follow ends by its signal without an error, between batches and within one", async () => {
  await using pair = await freePair();
  await onBoth(pair, schema);
  await using sync = await open(pair);
  await sync.init();
  await sync.copy();
  const abort = new AbortController();
  for await (const batch of follow(sync, abort, pair)) {
    expect(batch.rows).toBe(1);
    abort.abort();
  }
  // A batch that waits for a lock on the target is given up; its rows come with the next run.
  const holder = await pair.target.client();
  await holder.query("begin; lock table t in access exclusive mode");
  await pair.source.sql("insert into t values (2, 'waits')");
  const second = new AbortController();
  const run = (async () => {
    for await (const batch of sync.follow({ signal: second.signal })) void batch;
  })();
  await untilWaiting(pair, "target");
  second.abort();
  await run;
  await holder.query("commit");
  for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
  expect(await pair.target.sql("select id from t order by id")).toEqual([{ id: 1 }, { id: 2 }]);
});

async function* follow(sync: Sync, abort: AbortController, pair: Pair): AsyncGenerator<{ rows: number }> {
  await pair.source.sql("insert into t values (1, 'first')");
  yield* sync.follow({ signal: abort.signal });
}

test("leaving the loop ends the runner, and disposing closes what is open", async () => {
  await using pair = await freePair();
  await onBoth(pair, schema);
  const sync = await open(pair);
  await sync.init();
  await sync.copy();
  await pair.source.sql("insert into t values (1, 'x')");
  for await (const batch of sync.follow()) if (batch.rows > 0) break;
  expect((await sync.status()).runner.alive).toBe(false);
  // Abandoned in the middle, without anybody to end it.
  const batches = sync.follow()[Symbol.asyncIterator]();
  await pair.source.sql("insert into t values (2, 'x')");
  await batches.next();
  await sync[Symbol.asyncDispose]();
});

test("stopping does not wait for a foreign key that is being validated", async () => {
  await using pair = await freePair();
  await onBoth(
    pair,
    "create table p (id int primary key); create table c (id int primary key, p_id int references p)",
  );
  await pair.source.sql("insert into p values (1); insert into c values (1, 1)");
  await using sync = await open(pair);
  await sync.init();
  await sync.copy();
  // Whoever holds the table keeps the foreign key from coming back.
  const holder = await pair.target.client();
  await holder.query("begin; lock table p in row exclusive mode");
  const abort = new AbortController();
  const run = (async () => {
    for await (const batch of sync.follow({ signal: abort.signal })) void batch;
  })();
  await untilWaiting(pair, "target");
  abort.abort();
  await run;
  await holder.query("commit");
  for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
  expect(
    await pair.target.sql(
      "select convalidated from pg_constraint where contype = 'f' and conrelid = 'c'::regclass",
    ),
  ).toEqual([{ convalidated: true }]);
});
