import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import { expect, test } from "vitest";

import { ReplicateError } from "../../../src/errors.ts";
import { openSync, type Sync } from "../../../src/index.ts";
import { connect as connectOurs } from "../../../src/postgres/connect.ts";
import { resolveConnection } from "../../../src/postgres/conninfo.ts";
import { keepsSessions } from "../../../src/postgres/pooler.ts";
import { connect } from "../../support/admin.ts";
import { compareDatabases } from "../../support/compare.ts";
import { freePair } from "../../support/database.ts";
import { noPgBouncer, startPgBouncer, type PgBouncer, type PoolMode } from "../../support/pgbouncer.ts";

// A real pool between us and a server, with sessions that an application uses before and after us.

const withPgBouncer = test.skipIf(noPgBouncer !== undefined);
if (noPgBouncer !== undefined) process.stderr.write(`pools are not tested here: ${noPgBouncer}\n`);

const tables = `create table orders (id int primary key, v text); create table lines (id int primary key, order_id int references orders)`;

/** Whatever a client before could have left in a session. */
const state = `select pg_backend_pid() as pid,
  (select jsonb_object_agg(name, setting order by name) from pg_settings where name <> 'application_name' and name not like 'plpgsql.%') as settings,
  (select array_agg(name) from pg_prepared_statements) as prepared,
  (select array_agg(channel) from pg_listening_channels() as channel) as channels,
  (select count(*)::int from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()) as locks,
  (select count(*)::int from pg_class where relnamespace = pg_my_temp_schema()) as temporary,
  (select array_agg(name) from pg_settings where name like 'replicate.%') as ours,
  current_setting('replicate.mark', true) as mark`;

/** The state of so many sessions of the pool, all at the same time. */
async function sessions(url: string, count: number): Promise<Map<number, unknown>> {
  const clients: pg.Client[] = [];
  for (let n = 0; n < count; n += 1) {
    const client = await connect(url);
    clients.push(client);
    await client.query("begin");
  }
  const found = new Map<number, unknown>();
  for (const client of clients) {
    const { rows } = await client.query<{ pid: number }>(state);
    const { pid, ...rest } = rows[0] as { pid: number };
    found.set(pid, rest);
    await client.query("rollback");
  }
  await Promise.all(clients.map(async (client) => await client.end()));
  return found;
}

/** An application: clients that keep running short transactions. Ends with the number of those that failed. */
function startLoad(url: string, clients: number): { end: () => Promise<unknown[]> } {
  let isOver = false;
  const failures: unknown[] = [];
  const runs = Array.from({ length: clients }, async (_, n) => {
    const client = await connect(url);
    while (!isOver) {
      await client.query("select count(*) from orders").catch((error: unknown) => failures.push(error));
      await sleep(n % 3);
    }
    await client.end();
  });
  return {
    end: async () => {
      isOver = true;
      await Promise.all(runs);
      return failures;
    },
  };
}

const commands: Record<string, (sync: Sync) => Promise<unknown>> = {
  preflight: async (sync) => await sync.preflight(),
  init: async (sync) => await sync.init(),
  copy: async (sync) => await sync.copy(),
  follow: async (sync) => {
    for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
  },
  verify: async (sync) => await sync.verify(),
  compareSchemas: async (sync) => await sync.compareSchemas(),
  status: async (sync) => await sync.status(),
  sequences: async (sync) => await sync.sequences(),
  cutover: async (sync) => await sync.cutover(),
  rollback: async (sync) => await sync.rollback(),
  drop: async (sync) => await sync.drop(),
};

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return "none";
  } catch (error) {
    return error instanceof ReplicateError ? error.code : String(error);
  }
}

const idle: Record<string, { settings: Record<string, number>; warm: number; load?: number }> = {
  "one idle session": { settings: {}, warm: 1 },
  "several idle sessions": { settings: {}, warm: 4 },
  "sessions in turns": { settings: { server_round_robin: 1 }, warm: 4 },
  "two sessions in turns": { settings: { server_round_robin: 1 }, warm: 2 },
  "room for one session": { settings: { default_pool_size: 1 }, warm: 1 },
  "a busy application": { settings: { default_pool_size: 6 }, warm: 6, load: 8 },
  "sessions reset each time": { settings: { server_reset_query_always: 1 }, warm: 2 },
};

for (const side of ["source", "target"] as const) {
  for (const mode of ["transaction", "statement"] as const satisfies PoolMode[]) {
    for (const [name, { settings, warm, load = 0 }] of Object.entries(idle)) {
      withPgBouncer(`${mode} mode, ${side}, ${name}: refused, and nothing is left behind`, async () => {
        await using pair = await freePair();
        for (const each of [pair.source, pair.target]) await each.sql(tables);
        await using pool = await startPgBouncer(pair[side].url, mode, settings);
        // In statement mode no two sessions can be held at a time to be looked at.
        const held = mode === "statement" ? 0 : warm;
        const before = await sessions(pool.url, held);
        const application = startLoad(pool.url, load);
        await using sync = await openSync({
          source: pair.source.url,
          target: pair.target.url,
          [side]: pool.url,
          env: {},
        });
        const some = name === "one idle session" ? Object.keys(commands) : ["preflight", "init", "status"];
        for (const command of some) {
          const code = await codeOf((commands[command] as (sync: Sync) => Promise<unknown>)(sync));
          // Some ask the other side first.
          const isOther =
            side === "source" && code === "SYNC_UNKNOWN" && !["preflight", "init"].includes(command);
          if (!isOther) expect([command, code]).toEqual([command, "POOLER_IN_BETWEEN"]);
        }
        expect(await application.end()).toEqual([]);
        const after = await sessions(pool.url, held);
        for (const [pid, found] of after) expect(found).toEqual(before.get(pid) ?? [...before.values()][0]);
        const client = await connect(pool.url);
        const { rows } = await client.query(state);
        await client.end();
        expect(rows[0]).toMatchObject({ locks: 0, temporary: 0, prepared: null, ours: null });
        expect((rows[0] as { settings: unknown }).settings).toMatchObject({
          search_path: '"$user", public',
          session_replication_role: "origin",
          lock_timeout: "0",
          row_security: "on",
        });
      });
    }
  }
}

for (const sides of [["source"], ["target"], ["source", "target"]] as const) {
  for (const reset of ["DISCARD ALL", ""]) {
    const title = `session mode, ${sides.join(" and ")}, server_reset_query = '${reset}': all works, and nothing is left behind`;
    withPgBouncer(title, async () => {
      await using pair = await freePair();
      for (const each of [pair.source, pair.target]) await each.sql(tables);
      await pair.source.sql(
        "insert into orders select g, 'x' from generate_series(1, 500) g; insert into lines select g, g from generate_series(1, 500) g",
      );
      const urls = { source: pair.source.url, target: pair.target.url };
      const started: PgBouncer[] = [];
      await using _ = { [Symbol.asyncDispose]: async () => void (await Promise.all(started.map(async (pool) => await pool[Symbol.asyncDispose]()))) }; // prettier-ignore
      const pools: string[] = [];
      for (const side of sides) {
        const pool = await startPgBouncer(pair[side].url, "session", {
          server_reset_query: reset,
          ignore_startup_parameters: "extra_float_digits",
        });
        started.push(pool);
        urls[side] = pool.url;
        pools.push(pool.url);
      }
      const before = await Promise.all(pools.map(async (url) => [...(await sessions(url, 1)).values()][0]));
      await using sync = await openSync({ ...urls, env: {} });
      expect((await sync.preflight()).ok).toBe(true);
      await sync.init();
      await sync.copy();
      await pair.source.sql("update orders set v = 'y' where id < 100; delete from lines where id > 400");
      await commands["follow"]?.(sync);
      expect((await sync.verify()).equal).toBe(true);
      const compared = await compareDatabases(pair.source.url, pair.target.url, [
        "public.orders",
        "public.lines",
      ]);
      expect(compared).toEqual({ rows: 900, differences: [] });
      expect((await sync.cutover()).result).toBe("switched");
      await pair.target.sql("insert into orders values (1000, 'new')");
      await commands["follow"]?.(sync);
      expect(await pair.source.sql("select v from orders where id = 1000")).toEqual([{ v: "new" }]);
      expect((await sync.rollback()).result).toBe("switched");
      await sync.drop();
      await sync[Symbol.asyncDispose]();
      for (const [n, url] of pools.entries()) {
        const left = await sessions(url, 12);
        expect(left.size).toBe(12);
        for (const found of left.values()) expect(found).toEqual(before[n]);
      }
    });
  }
}

withPgBouncer("a pool that is busy is told from one that keeps sessions, every time", async () => {
  await using pair = await freePair();
  await pair.source.sql(tables);
  await using shared = await startPgBouncer(pair.source.url, "transaction", { default_pool_size: 8 });
  await using kept = await startPgBouncer(pair.source.url, "session");
  const pidOf = (client: pg.Client) => async (): Promise<number> =>
    (await client.query<{ pid: number }>("select pg_backend_pid() as pid")).rows[0]?.pid as number;
  for (const [url, expected] of [
    [shared.url, false],
    [kept.url, true],
  ] as const) {
    const application = startLoad(url, 10);
    for (let n = 0; n < 60; n += 1) {
      const [first, second] = [pidOf(await held(url)), pidOf(await held(url))];
      expect(await keepsSessions(await first(), first, second)).toBe(expected);
      await leave();
    }
    expect(await application.end()).toEqual([]);
  }
});

const open: pg.Client[] = [];
async function held(url: string): Promise<pg.Client> {
  const client = await connect(url);
  open.push(client);
  return client;
}
async function leave(): Promise<void> {
  await Promise.all(open.splice(0).map(async (client) => await client.end()));
}

withPgBouncer("no room in the pool for two of our sessions", async () => {
  await using pair = await freePair();
  await using pool = await startPgBouncer(pair.source.url, "session", { default_pool_size: 1 });
  const work = connectOurs(resolveConnection(pool.url, {}), {
    side: "source",
    purpose: "test",
    isSpare: true,
  });
  expect(await codeOf(work)).toBe("TOO_MANY_CONNECTIONS");
});

test("without a pool a session costs one round trip", async () => {
  await using pair = await freePair();
  await using connection = await connectOurs(resolveConnection(pair.source.url, {}), {
    side: "source",
    purpose: "test",
    isReplicaRole: true,
    isSerial: true,
  });
  expect(connection.isPooled).toBe(false);
  expect(connection.isReplicaRole).toBe(true);
  const [last] = await pair.source.sql<{ query: string }>(
    "select query from pg_stat_activity where pid = $1",
    [connection.pid],
  );
  // The string that asked who it is has done all the rest.
  expect(last?.query).toMatch(/^select pg_catalog.current_setting\('server_version_num'\)/);
  const [settings] = await connection.rows(
    `select current_setting('search_path') as path, current_setting('max_parallel_workers_per_gather') as workers`,
  );
  expect(settings).toEqual({ path: "pg_catalog", workers: "0" });
});
