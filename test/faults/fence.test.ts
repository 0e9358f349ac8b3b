import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import { expect, test } from "vitest";

import { coverTables, findGaps, raiseFence } from "../../src/fence/raise.ts";
import { resolveConfig } from "../../src/config/options.ts";
import { connect as connectSession, type Connection } from "../../src/postgres/connect.ts";
import { liftFence, removeFence, sealFence } from "../../src/fence/fence.ts";
import { migrate } from "../../src/state/migrate.ts";
import { connect } from "../support/admin.ts";
import { freePair } from "../support/database.ts";
import { leastPrivilegedPair } from "../support/least-privileged-pair.ts";
import { seededRandom, type Random } from "../support/random.ts";

// The fence is raised again and again while every kind of transaction writes. Once it is said to stand, nothing may be
// committed any more that was not before; and nobody may be killed or kept waiting for it to be raised.

const schema = `
  create table outside (id serial primary key, own int);
  create table a (id int primary key, v int not null default 0);
  create table b (id int primary key, v int not null default 0);
  create table child (id int primary key, outside_id int references outside on delete cascade);
  create table part (id int not null, k int not null, v int not null default 0, primary key (id, k)) partition by list (k);
  create table part_1 partition of part for values in (1);
  create table part_2 partition of part for values in (2);
  create table late (id int primary key, n int not null);
  insert into a select g from generate_series(1, 1000) g;
  insert into b select g from generate_series(1, 1000) g;
  insert into part select g, 1 + g % 2 from generate_series(1, 1000) g;
  insert into late select g, 0 from generate_series(1, 100) g;
  create function touch(i int) returns void language plpgsql as $$ begin
    update a set v = v + 1 where id = i; perform pg_sleep(0.002); update b set v = v + 1 where id = i; end $$;
  create function at_commit() returns trigger language plpgsql as $$ begin
    update late set n = n + 1 where id = 1 + new.own % 100; return null; end $$;
  create constraint trigger at_commit after insert on outside deferrable initially deferred
    for each row execute procedure at_commit();
`;
const tables = ["a", "b", "child", "part", "late"];

/** One transaction of an application. Rows are its own, so that none is in another's way. */
type Kind = (client: pg.Client, own: number, random: Random) => Promise<void>;

const within = (statements: string): string => `begin; ${statements}; commit`;
const pause = async (random: Random): Promise<void> => {
  await sleep(random.int(0, 30));
};

const kinds: Readonly<Record<string, Kind>> = {
  "a statement alone": async (client, own) =>
    void (await client.query(`update a set v = v + 1 where id = ${own}`)),
  "a statement prepared before": async (client, own) =>
    void (await client.query({
      name: "prepared",
      text: "update b set v = v + 1 where id = $1",
      values: [own],
    })),
  "a long statement": async (client, own) =>
    void (await client.query(
      `update a set v = v + 1 from (select pg_sleep(0.05)) as wait where id = ${own}`,
    )),
  "one table after the other, slowly": async (client, own, random) => {
    await client.query(`begin; update b set v = v + 1 where id = ${own}`);
    await pause(random);
    await client.query(`update a set v = v + 1 where id = ${own}`);
    await pause(random);
    await client.query(`update part set v = v + 1 where id = ${own}; commit`);
  },
  "an id long before the first write": async (client, own, random) => {
    await client.query("begin; select txid_current()");
    await sleep(random.int(0, 80));
    await client.query(`update a set v = v + 1 from (select pg_sleep(0.03)) as wait where id = ${own}`);
    await client.query("commit");
  },
  "a snapshot of before": async (client, own, random) => {
    await client.query("begin isolation level repeatable read; select count(*) from outside");
    await pause(random);
    await client.query(`update a set v = v + 1 where id = ${own}; commit`);
  },
  savepoints: async (client, own, random) => {
    await client.query(`begin; savepoint one; update a set v = v + 1 where id = ${own}; rollback to one`);
    await pause(random);
    await client.query(`savepoint two; update b set v = v + 1 where id = ${own}; release two; commit`);
  },
  "two phases": async (client, own, random) => {
    const name = `fence_${process.pid}_${own}_${Math.floor(performance.now() * 1000)}`;
    await client.query(`begin; update a set v = v + 1 where id = ${own}`);
    await client.query(`prepare transaction '${name}'`);
    await pause(random);
    await client.query(`commit prepared '${name}'`);
  },
  "a function": async (client, own) => void (await client.query("select touch($1)", [own])),
  "a cascade from a table without a fence": async (client, own) =>
    void (await client.query(
      within(`insert into outside (own) values (${own});
        insert into child select id, id from outside where own = ${own} on conflict do nothing;
        delete from outside where own = ${own}`),
    )),
  "a trigger at the commit": async (client, own) =>
    void (await client.query(within(`insert into outside (own) values (${own})`))),
  "a leaf by its own name": async (client, own) =>
    void (await client.query(
      `update part_1 set v = v + 1 where id = ${own}; update part_2 set v = v + 1 where id = ${own}`,
    )),
  "writes in a query": async (client, own) =>
    void (await client.query(
      `with x as (update a set v = v + 1 where id = ${own} returning id) update b set v = v + 1 from x where b.id = x.id`,
    )),
  "nothing that it finds": async (client, own) =>
    void (await client.query(`delete from a where id = -${own}`)),
};

async function digest(client: pg.Client): Promise<string> {
  const each = tables.map(
    (table) => `(select md5(coalesce(string_agg(t::text, ';' order by t::text), '')) from ${table} t)`,
  );
  const { rows } = await client.query<{ digest: string }>(
    `select concat_ws(' ', ${each.join(", ")}) as digest`,
  );
  return rows[0]?.digest ?? "";
}

interface Writers {
  readonly done: Map<string, number>;
  readonly refused: () => number;
  readonly failures: unknown[];
  readonly stop: () => Promise<void>;
}

function startWriters(url: string, random: Random, count: number): Writers {
  const done = new Map<string, number>();
  const failures: unknown[] = [];
  let refused = 0;
  let isStopping = false;
  const all = Array.from({ length: count }, async (_, writer) => {
    const own = random.fork(String(writer));
    const client = await connect(url);
    for (let number = 0; !isStopping; number += 1) {
      const kind = own.pick(Object.keys(kinds));
      try {
        await kinds[kind]?.(client, 1 + writer * 50 + (number % 50), own);
        done.set(kind, (done.get(kind) ?? 0) + 1);
      } catch (error) {
        await client.query("rollback");
        if ((error as { code?: string }).code === "25006") refused += 1;
        else failures.push([kind, error]);
        await sleep(5);
      }
    }
    await client.end();
  });
  return {
    done,
    refused: () => refused,
    failures,
    stop: async () => {
      isStopping = true;
      await Promise.all(all);
    },
  };
}

async function relidsOf(session: Connection): Promise<number[]> {
  const rows = await session.rows<{ oid: number }>(
    `select c.oid::bigint::float8 as oid from pg_class c where relname = any ($1) and relnamespace = 'public'::regnamespace`,
    [tables],
  );
  return rows.map(({ oid }) => oid);
}

const options = { signal: new AbortController().signal, budgetMs: 30_000, onWait: () => undefined };

for (const role of ["superuser", "owner of the tables"] as const) {
  test(`nothing slips through a fence that stands; raised by a ${role}`, { timeout: 180_000 }, async () => {
    const random = seededRandom(`fence ${role}`);
    await using pair = role === "superuser" ? await freePair() : await leastPrivilegedPair();
    await pair.source.sql(schema);
    const { source } = resolveConfig({ source: pair.source.url, target: pair.target.url }, {});
    await using session = await connectSession(source, { side: "source", purpose: "fence test" });
    await migrate(session);
    const relids = await relidsOf(session);
    const reader = await connect(pair.source.url);
    const writers = startWriters(pair.source.url, random, 8);
    let rounds = 0;
    try {
      for (const end = Date.now() + 25_000; Date.now() < end; rounds += 1) {
        if (random.bool(0.2)) await removeFence(session, "torture", options);
        await coverTables(session, "torture", relids, options);
        await sleep(random.int(0, 100));
        await raiseFence(session, "torture", relids, options);
        const before = await digest(reader);
        await sleep(random.int(50, 150));
        expect(await digest(reader)).toBe(before);
        expect(await findGaps(session, "torture", relids)).toEqual([]);
        expect(await liftFence(session, "torture")).toBe("lifted");
        await sleep(random.int(10, 100));
      }
    } finally {
      await writers.stop();
      await reader.end();
    }
    process.stderr.write(
      `${rounds} rounds, ${writers.refused()} refused, ${JSON.stringify(Object.fromEntries(writers.done))}\n`,
    );
    expect(writers.failures).toEqual([]);
    expect([...writers.done.keys()].toSorted()).toEqual(Object.keys(kinds).toSorted());
    expect(writers.refused()).toBeGreaterThan(rounds);
    expect(rounds).toBeGreaterThan(10);
    await removeFence(session, "torture", options);
    const left = await pair.source.sql("select tgname from pg_trigger where tgname like '%fence%'");
    expect(left).toEqual([]);
  });
}

test("who was writing when the fence was raised may finish; who begins afterwards is refused", async () => {
  await using pair = await freePair();
  await pair.source.sql(schema);
  const { source } = resolveConfig({ source: pair.source.url, target: pair.target.url }, {});
  await using session = await connectSession(source, { side: "source", purpose: "fence test" });
  await migrate(session);
  const relids = await relidsOf(session);
  await coverTables(session, "torture", relids, options);
  const open = async (statements: string): Promise<pg.Client> => {
    const client = await pair.source.client();
    await client.query(statements);
    return client;
  };
  // It has an id, but has not touched a table that is fenced.
  const idle = await open("begin; insert into outside (own) values (1)");
  const writing = await open("begin; update a set v = 100 where id = 1");
  const prepared = await open("begin; update b set v = 100 where id = 1; prepare transaction 'fence_waits'");
  const without = await open("begin; select count(*) from a");
  const raising = raiseFence(session, "torture", relids, options);
  let isUp = false;
  void raising.then(() => (isUp = true));
  const refused = { code: "25006" };
  await expect.poll(async () => {
    return await pair.source.sql("update late set n = 1").then(() => undefined, (error: unknown) => error);
  }).toMatchObject(refused); // prettier-ignore
  await expect(without.query("update a set v = 1 where id = 2")).rejects.toMatchObject(refused);
  await without.query("rollback");
  await writing.query("update b set v = 100 where id = 2; insert into part values (-1, 1)");
  await idle.query("update late set n = 100 where id = 1");
  await writing.query("commit");
  await sleep(300);
  expect(isUp).toBe(false);
  await prepared.query("commit prepared 'fence_waits'");
  await sleep(300);
  expect(isUp).toBe(false);
  await idle.query("commit");
  await raising;
  expect(
    await pair.source.sql(`select (select v from a where id = 1) as a, (select sum(v)::int from b) as b,
      (select n from late where id = 1) as late, (select count(*)::int from part where id = -1) as part`),
  ).toEqual([{ a: 100, b: 200, late: 100, part: 1 }]);
  // From here on nobody, however old.
  const old = await open("begin; insert into outside (own) values (2)");
  await expect(old.query("update a set v = 1 where id = 3")).rejects.toMatchObject(refused);
  await old.query("rollback");
  // A partition that comes under the fence is seen.
  await pair.source.sql("create table part_3 partition of part for values in (3)");
  expect(await findGaps(session, "torture", relids)).toEqual(["public.part_3"]);
  await raiseFence(session, "torture", relids, options);
  expect(await findGaps(session, "torture", relids)).toEqual([]);
  await expect(pair.source.sql("insert into part_3 values (1, 3)")).rejects.toMatchObject(refused);
  // Sealed, it is not lifted by who does not know.
  expect(await sealFence(session, "torture")).toBe(true);
  expect(await liftFence(session, "torture")).toBe("sealed");
  await expect(pair.source.sql("update a set v = 1")).rejects.toMatchObject(refused);
  expect(await liftFence(session, "torture", { evenSealed: true })).toBe("lifted");
  expect(await sealFence(session, "torture")).toBe(false);
  await pair.source.sql("update a set v = 1");
});
