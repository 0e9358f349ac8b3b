import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";

import { openSync, type Sync, type SyncEvent } from "../../src/index.ts";
import { connect, withClient } from "../support/admin.ts";
import { compareDatabases } from "../support/compare.ts";
import { freePair } from "../support/database.ts";
import { isWrong, startProxies, untilTold } from "../support/fault-scene.ts";
import { leastPrivilegedPair, type LeastPrivilegedPair } from "../support/least-privileged-pair.ts";
import { ownServers } from "../support/own-servers.ts";
import { smallDisk } from "../support/small-disk.ts";
import { until } from "../support/until.ts";

// Where servers allow little: short time-outs, few connections, a disk that is full.

const servers = ownServers();

const schema = `
  create table parent (id int primary key, note text);
  create table child (id int primary key, parent_id int not null references parent, body text);
  create sequence free_sequence;
`;
const rows = `
  insert into parent select g, 'p' || g from generate_series(1, 100) as g;
  insert into child select g, 1 + g % 100, repeat('x', 200) from generate_series(1, 5000) as g;
`;

/** Applies in the background until `stop`. */
function following(sync: Sync, events: SyncEvent[]): { batches: () => number; stop: () => Promise<void> } {
  const stop = new AbortController();
  let batches = 0;
  const running = (async () => {
    for await (const batch of sync.follow({ signal: stop.signal, onEvent: (event) => events.push(event) })) {
      void batch;
      batches += 1;
    }
  })();
  running.catch(() => undefined);
  return {
    batches: () => batches,
    stop: async () => {
      stop.abort();
      await running;
    },
  };
}

async function assertEqual(pair: LeastPrivilegedPair): Promise<void> {
  const { differences, rows: compared } = await compareDatabases(pair.source.adminUrl, pair.target.adminUrl);
  expect(differences).toEqual([]);
  expect(compared).toBeGreaterThan(5000);
}

test("time-outs of a second on role and database", { timeout: 240_000 }, async () => {
  await using pair = await leastPrivilegedPair(servers);
  for (const side of [pair.source, pair.target]) await side.sql(schema);
  // Each row of a batch or an index takes the target a while.
  await pair.target.sql(`
    create function slow(value int) returns int language plpgsql immutable as $$
    begin perform pg_catalog.pg_sleep(0.015); return value; end $$;
    create index parent_slow on parent (public.slow(id))`);
  await pair.source.sql(rows);
  for (const side of [pair.source, pair.target]) {
    const [{ version } = { version: 0 }] = await side.sql<{ version: number }>(
      "select current_setting('server_version_num')::int / 10000 as version",
    );
    const names = ["statement_timeout", "idle_in_transaction_session_timeout"];
    if (version >= 14) names.push("idle_session_timeout");
    if (version >= 17) names.push("transaction_timeout");
    for (const [n, name] of names.entries()) {
      const owner = n % 2 === 0 ? `role "${side.owner.name}"` : `database "${side.name}"`;
      // A session has to live until it has said that the time-out is not for it.
      const value = name === "idle_session_timeout" ? "2s" : "1s";
      await side.asAdmin(`alter ${owner} set ${name} = '${value}'`);
    }
    // They bite: a statement, and a transaction that waits.
    await withClient(side.url, async (client) => {
      const code = expect.stringMatching(/57014|25P04/) as string;
      await expect(client.query("select pg_sleep(3)")).rejects.toMatchObject({ code });
    });
    await withClient(side.url, async (client) => {
      await client.query("begin");
      await until("the server ends a session that waits in its transaction", async () => {
        await sleep(1200);
        return await client.query("select 1").then(() => false, () => true); // prettier-ignore
      });
    });
  }
  await using proxies = await startProxies(servers);
  const events: SyncEvent[] = [];
  await using sync = await openSync({
    source: proxies.ways.source(pair.source.url),
    target: proxies.ways.target(pair.target.url),
    onEvent: (event) => events.push(event),
    env: {},
  });
  await using observer = await openSync({ source: pair.source.url, target: pair.target.url, env: {} });
  const longest = watchLongest(pair);
  try {
    await sync.init();
    await sync.copy({ jobs: 2 });
    await until("a statement of ours took longer than it may", () => longest.active() > 1);
    const follower = following(sync, events);
    await until("it follows", () => follower.batches() > 0);
    // More than a second for each answer: what we leave open waits for longer than the time-outs allow.
    for (const proxy of [proxies.source, proxies.target]) proxy.setDelay(550);
    await pair.source.sql("update parent set note = note || '!'; delete from child where id < 100");
    await until("a transaction of ours waited for longer than it may", () => longest.idle() > 1);
    await untilTold(observer, "all is applied", ({ lag }) => lag.rows === 0);
    for (const proxy of [proxies.source, proxies.target]) proxy.setDelay(0);
    await follower.stop();
    await pair.source.sql("update parent set note = note || '?'");
    expect((await sync.cutover()).result).toBe("switched");
  } finally {
    await longest.stop();
  }
  expect(events.filter(({ type }) => type === "connection-lost")).toEqual([]);
  await assertEqual(pair);
  await sync.drop();
});

interface Longest {
  /** Seconds that a session of ours was seen idle in its transaction. */
  idle: () => number;
  /** Seconds that a statement of ours was seen to take. */
  active: () => number;
  stop: () => Promise<void>;
}

function watchLongest(pair: LeastPrivilegedPair): Longest {
  const seen = { idle: 0, active: 0 };
  let isStopping = false;
  const running = (async () => {
    while (!isStopping) {
      for (const side of [pair.source, pair.target]) {
        const [row] = await side.asAdmin<{ idle: number | null; active: number | null }>(
          `select max(age) filter (where state like 'idle in transaction%') as idle,
                  max(age) filter (where state = 'active') as active
           from (select state, extract(epoch from clock_timestamp() - state_change)::float8 as age
                 from pg_stat_activity where application_name like 'replicate %' and datname = current_database()) as s`,
        );
        seen.idle = Math.max(seen.idle, row?.idle ?? 0);
        seen.active = Math.max(seen.active, row?.active ?? 0);
      }
      await sleep(50);
    }
  })();
  return {
    idle: () => seen.idle,
    active: () => seen.active,
    stop: async () => {
      isStopping = true;
      await running;
    },
  };
}

test("two connections on each side", { timeout: 240_000 }, async () => {
  await using pair = await leastPrivilegedPair(servers);
  for (const side of [pair.source, pair.target]) await side.sql(schema);
  await pair.source.sql(rows);
  // The sessions that the test itself has as these roles are not counted.
  const owners = { source: pair.source.owner.name, target: pair.target.owner.name };
  for (const side of [pair.source, pair.target])
    await side.asAdmin(
      `select pg_terminate_backend(pid) from pg_stat_activity where usename = '${side.owner.name}'`,
    );
  const limit = async (connections: number): Promise<void> => {
    for (const side of ["source", "target"] as const)
      await pair[side].asAdmin(`alter role "${owners[side]}" connection limit ${connections}`);
  };
  await limit(2);
  for (const side of [pair.source, pair.target]) {
    const clients = await Promise.all([connect(side.url), connect(side.url)]);
    await expect(connect(side.url)).rejects.toMatchObject({ code: "53300" });
    await Promise.all(clients.map(async (client) => await client.end()));
  }
  const events: SyncEvent[] = [];
  await using sync = await openSync({
    source: pair.source.url,
    target: pair.target.url,
    onEvent: (event) => events.push(event),
    env: {},
  });
  expect((await sync.preflight()).ok).toBe(true);
  await sync.init();
  // Somebody who is just leaving is waited for.
  const leaving = await Promise.all([connect(pair.target.url), connect(pair.target.url)]);
  const asked = sync.status();
  await sleep(300);
  await Promise.all(leaving.map(async (client) => await client.end()));
  expect((await asked).phase).toBe("initialised");

  await limit(1);
  await expect(sync.copy({ jobs: 1 })).rejects.toMatchObject({
    code: "TOO_MANY_CONNECTIONS",
    message: expect.stringContaining("copy needs 2 connections to the"),
  });
  await limit(2);
  // As many as by default: those beyond the limit stay away, and say so.
  await sync.copy({ partBytes: 64 * 1024 });
  expect(events).toContainEqual({
    type: "warning",
    message: expect.stringContaining("goes on with fewer connections than asked for"),
  });
  expect(events.filter(({ type }) => type === "connection-lost")).toEqual([]);
  const follower = following(sync, events);
  await until("it follows", () => follower.batches() > 0);
  await pair.source.asAdmin("update public.parent set note = note || '!'");
  const before = follower.batches();
  await until("a batch", () => follower.batches() > before);
  // One of each side is left for whoever wants to know.
  const status = await untilTold(sync, "all is applied", ({ lag }) => lag.rows === 0);
  expect(status.runner.alive).toBe(true);
  // The same in the middle of a batch that takes long, whose signs of life need a session of their own.
  await pair.target.asAdmin(`
    create function public.slow(value int) returns int language plpgsql immutable as $$
    begin perform pg_catalog.pg_sleep(0.08); return value; end $$;
    create index parent_slow on public.parent (public.slow(id)) where id < 0`);
  await pair.source.asAdmin("insert into public.parent select -g, 'slow' from generate_series(1, 100) as g");
  await until("the batch is told", async () => {
    // Whoever asks all the time has the last connection all the time.
    await sleep(400);
    return (await sync.status()).runner.batch !== null;
  });
  await untilTold(sync, "the slow batch is applied", ({ lag }) => lag.rows === 0);
  await expect(sync.verify()).rejects.toMatchObject({
    code: "TOO_MANY_CONNECTIONS",
    message: expect.stringContaining("verify needs 2 connections to the"),
  });
  await follower.stop();
  expect((await sync.verify()).equal).toBe(true);
  expect((await sync.sequences()).missing).toEqual([]);

  // Refused before anything is begun, with the number that suffices.
  const refusal = await sync.cutover().then(() => undefined, (error: unknown) => error as Error); // prettier-ignore
  expect(refusal).toMatchObject({ code: "TOO_MANY_CONNECTIONS" });
  expect(await sync.status()).toMatchObject({ phase: "following", switch: null, fence: null });
  const needed = Number(/cutover needs (\d+) connections/.exec(refusal?.message ?? "")?.[1]);
  await limit(needed);
  expect((await sync.cutover()).result).toBe("switched");
  expect((await sync.rollback()).result).toBe("switched");
  await limit(2);
  for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
  await assertEqual(pair);
  await sync.drop();
});

test("the target's disk is full", { timeout: 240_000 }, async (context) => {
  if (servers.target.dataDir === undefined) return context.skip("the server runs in a container");
  await using disk = await smallDisk(8);
  if (disk === undefined) return context.skip("nothing can be mounted here");
  const pair = await freePair({ ...servers, leaks: "ignore" });
  try {
    const columns = "(id int primary key, body text)";
    await pair.source.sql(`create table heavy ${columns}; create table light ${columns};
      alter table heavy alter body set storage plain;
      insert into heavy select g, repeat(md5(g::text), 20) from generate_series(1, 16000) as g;
      insert into light select g, 'x' from generate_series(1, 1000) as g`);
    await pair.target.sql(`create tablespace small_disk location '${disk.path}'`);
    await pair.target.sql(`create table heavy ${columns} tablespace small_disk; create table light ${columns};
      alter table heavy alter body set storage plain`);
    const events: SyncEvent[] = [];
    const full = (): number =>
      events.filter(
        (event) =>
          event.type === "connection-lost" && event.side === "target" && /No space left/.test(event.message),
      ).length;
    await using sync = await openSync({
      source: pair.source.url,
      target: pair.target.url,
      onEvent: (event) => events.push(event),
      env: {},
    });
    await sync.init();
    const copying = sync.copy({ jobs: 1, partBytes: 1024 ** 2 });
    copying.catch(() => undefined);
    await until("the copy finds the disk full, again and again", () => full() >= 2);
    const status = await untilTold(sync, "what is wrong", isWrong);
    expect(status).toMatchObject({ phase: "copying", lastError: { code: "OUT_OF_RESOURCES" } });
    await disk.resize(32);
    await copying;
    expect(await sync.status()).toMatchObject({ phase: "copied", lastError: { cleared: true } });

    const follower = following(sync, events);
    await until("it follows", () => follower.batches() > 0);
    const copied = full();
    await disk.resize(20);
    // A transaction over both tables, larger than what is kept in memory: all of it or nothing.
    await pair.source.sql(`begin; update light set body = 'y';
      insert into heavy select g, repeat(md5(g::text), 20) from generate_series(20001, 40000) as g; commit`);
    await until("the batch finds the disk full, again and again", () => full() >= copied + 2);
    const [light] = await pair.target.sql("select count(*)::int as n from light where body = 'y'");
    expect(light).toEqual({ n: 0 });
    const told = await untilTold(sync, "what is wrong", isWrong);
    expect(told).toMatchObject({
      phase: "catching-up",
      runner: { alive: true },
      lastError: { code: "OUT_OF_RESOURCES" },
    });
    const before = follower.batches();
    await disk.resize(128);
    await until("the batch is applied", () => follower.batches() > before);
    await untilTold(sync, "all is well", ({ lastError }) => lastError?.cleared === true);
    await follower.stop();
    for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
    const { differences, rows: compared } = await compareDatabases(pair.source.url, pair.target.url);
    expect(differences).toEqual([]);
    expect(compared).toBe(37_000);
    await sync.drop();
  } finally {
    await pair.target.sql("drop table if exists heavy");
    await pair.target.sql("drop tablespace if exists small_disk");
    await pair.dispose();
  }
});
