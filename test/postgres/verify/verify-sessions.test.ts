import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";

import { LockWatch } from "../../../src/postgres/lock-watch.ts";
import { freePair, type Pair } from "../../support/database.ts";
import { leastPrivilegedPair } from "../../support/least-privileged-pair.ts";
import { startVerifiedSync } from "../../support/verified-sync.ts";

/** Small on disk, because it is compressed, and slow to hash: a second or more. */
const slowSql = `
  create temporary table one as select repeat('x', 7000000) as v;
  create table slow (id int primary key, v text);
  insert into slow select g, v from one, generate_series(1, 50) g`;

async function onBoth(pair: Pair, text: string): Promise<void> {
  await Promise.all([pair.source.sql(text), pair.target.sql(text)]);
}

/** Waits until verify is hashing on one side. */
async function untilHashing(side: Pair["source"]): Promise<void> {
  const hashing = `select 1 from pg_stat_activity
    where datname = current_database() and application_name = 'replicate verify' and state = 'active' and query like '%count(*)%slow%'`;
  while ((await side.sql(hashing)).length === 0) await sleep(10);
}

for (const side of ["source", "target"] as const) {
  test(`who wants a strong lock on the ${side} does not wait for verify to end`, async () => {
    await using pair = await freePair();
    await onBoth(pair, slowSql);
    await using sync = await startVerifiedSync(pair);
    const started = performance.now();
    const verifying = sync.verify();
    await untilHashing(pair[side]);
    const holder = await pair[side].client();
    const asked = performance.now();
    await holder.query("begin; lock table slow in access exclusive mode");
    const waitedMs = performance.now() - asked;
    await holder.query("commit");
    expect(await verifying).toMatchObject({ equal: true, tables: [{ rows: 50 }] });
    const tookMs = performance.now() - started;
    expect(waitedMs).toBeLessThan(2500);
    // Otherwise this would have proven nothing.
    expect(tookMs).toBeGreaterThan(waitedMs + 500);
  });
}

test("a table that stays locked for longer than we wait for it is compared later", async () => {
  await using pair = await freePair();
  await onBoth(
    pair,
    "create table t (id int primary key); insert into t values (1); create table u (id int primary key)",
  );
  await using sync = await startVerifiedSync(pair);
  const holder = await pair.source.client();
  await holder.query("begin; lock table t in access exclusive mode");
  const verifying = sync.verify();
  await sleep(4500);
  await holder.query("commit");
  expect(await verifying).toMatchObject({ equal: true, tables: [{ rows: 1 }, { rows: 0 }] });
});

test("the watch cancels who is in the way, and nobody else", async () => {
  await using pair = await freePair();
  await onBoth(pair, "create table t (id int primary key)");
  await using sync = await startVerifiedSync(pair);
  const context = sync.context();
  await using blocker = await context.source("verify");
  await using bystander = await context.source("verify");
  await using watch = new LockWatch(() => context.source("watch"));
  watch.watch(blocker);
  watch.watch(bystander);
  const outcomes = [blocker, bystander].map((connection) =>
    connection
      .script(
        `begin; lock table ${connection === blocker ? "public.t" : "replicate.capture"} in access share mode; select pg_sleep(1.5)`,
      )
      .then(
        () => "slept",
        (error: unknown) => (error as { code: string }).code,
      ),
  );
  await sleep(300);
  const holder = await pair.source.client();
  await holder.query("begin; lock table t in access exclusive mode; commit");
  expect(await Promise.all(outcomes)).toEqual(["57014", "slept"]);
});

test("stops when it is told to, on both servers", async () => {
  await using pair = await freePair();
  await onBoth(pair, slowSql);
  await using sync = await startVerifiedSync(pair);
  const stop = new AbortController();
  const verifying = sync.verify({ signal: stop.signal });
  await untilHashing(pair.source);
  await sleep(200);
  const asked = performance.now();
  stop.abort();
  await expect(verifying).rejects.toMatchObject({ code: "ABORTED" });
  expect(performance.now() - asked).toBeLessThan(1500);
  await sleep(500);
  for (const side of [pair.source, pair.target]) {
    expect(
      await side.sql(
        "select query from pg_stat_activity where datname = current_database() and application_name like 'replicate%'",
      ),
    ).toEqual([]);
  }
});

test("goes on after its sessions broke", async () => {
  await using pair = await freePair();
  await onBoth(pair, slowSql);
  await using sync = await startVerifiedSync(pair);
  const verifying = sync.verify();
  const isRestored = (name: string): boolean =>
    sync.events.some((event) => event.type === "connection-restored" && event.side === name);
  for (const name of ["target", "source"] as const) {
    await untilHashing(pair[name]);
    await pair[name].sql(
      `select pg_terminate_backend(pid) from pg_stat_activity
       where datname = current_database() and application_name like 'replicate verify%'`,
    );
    while (!isRestored(name)) await sleep(20);
  }
  expect(await verifying).toMatchObject({ equal: true, tables: [{ rows: 50 }] });
  const kinds = sync.events.flatMap((event) => ("side" in event ? [`${event.type} ${event.side}`] : []));
  expect(kinds).toEqual([
    "connection-lost target",
    "connection-restored target",
    "connection-lost source",
    "connection-restored source",
  ]);
});

test("a failure ends the other comparisons at once", async () => {
  await using pair = await leastPrivilegedPair();
  for (const side of [pair.source, pair.target]) {
    await side.sql(`${slowSql}; create table closed (id int primary key); insert into closed values (1)`);
  }
  await using sync = await startVerifiedSync(pair);
  await pair.target.sql(`revoke all on closed from current_user`);
  const started = performance.now();
  await expect(sync.verify({ jobs: 2 })).rejects.toMatchObject({
    code: "PERMISSION_DENIED",
    message: expect.stringContaining("public.closed") as string,
  });
  expect(performance.now() - started).toBeLessThan(2500);
});
