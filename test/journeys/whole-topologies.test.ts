import { expect, test } from "vitest";

import { openSync, type Sync } from "../../src/index.ts";
import { withClient } from "../support/admin.ts";
import { compareDatabases } from "../support/compare.ts";
import { freePair } from "../support/database.ts";
import { type Random, seededRandom } from "../support/random.ts";
import { describeSchema } from "../support/schema-description.ts";
import { shopRows, shopSchema, shopTables, startShopWriters } from "../support/shop.ts";

// More than one sync, and one database on both sides.

const major = async (url: string): Promise<number> =>
  await withClient(url, async (client) => {
    const { rows } = await client.query<{ n: number }>(
      "select current_setting('server_version_num')::int / 10000 as n",
    );
    return rows[0]?.n ?? 0;
  });

/** The same tables in each database, rows in the first. */
async function makeShops(urls: readonly string[]): Promise<number> {
  const versions = await Promise.all(urls.map(major));
  for (const [index, url] of urls.entries()) {
    await withClient(url, async (client) => {
      await client.query(shopSchema(versions[index] ?? 0, Math.min(...versions)));
      if (index === 0) await client.query(shopRows(1500));
    });
  }
  return versions[0] ?? 0;
}

async function drain(sync: Sync): Promise<number> {
  let rows = 0;
  for await (const batch of sync.follow({ untilCaughtUp: true })) rows += batch.rows;
  return rows;
}

/** Follows until the returned function is called, which throws what went wrong. */
function followInBackground(sync: Sync): () => Promise<number> {
  const stop = new AbortController();
  const following = (async () => {
    let rows = 0;
    for await (const batch of sync.follow({ signal: stop.signal })) rows += batch.rows;
    return rows;
  })();
  following.catch(() => undefined);
  return async () => {
    stop.abort();
    return await following;
  };
}

const someTime = async (random: Random): Promise<void> =>
  await new Promise((resolve) => setTimeout(resolve, random.int(300, 800)));

test("one database on both sides, into tables of other names", async () => {
  await using pair = await freePair();
  const { url } = pair.source;
  const sql = async (text: string): Promise<unknown> => await pair.source.sql(text);
  await sql(`
    create schema archive;
    create table users (id int primary key, name text not null, body text);
    create index users_name on users (lower(name));
    create table "Old Stock" (sku text, place text, amount numeric, primary key (sku, place));
    create table archive.people (body text, name text not null, id bigint primary key, note text default 'copied');
    create index people_name on archive.people (lower(name));
    create unique index people_both on archive.people (name, id);
    create table stock (like "Old Stock" including all);
    insert into users select g, 'User ' || g, repeat(md5(g::text), 20) from generate_series(1, 4000) g;
    insert into "Old Stock" select 'sku ' || g % 50, 'place ' || g, g / 3.0 from generate_series(1, 500) g;`);
  const before = await describeSchema(url);
  await using sync = await openSync({
    source: url,
    target: url,
    env: {},
    tables: ["public.users", 'public."Old Stock"'],
    overrides: { "public.users": { target: "archive.people" }, 'public."Old Stock"': { target: "stock" } },
    copy: { partSize: "128kB" },
  });
  const pairs = [
    { source: "public.users", target: "archive.people" },
    { source: 'public."Old Stock"', target: "public.stock" },
  ];
  const differences = async (): Promise<unknown> => (await compareDatabases(url, url, pairs)).differences;
  await sync.init();
  await sql("update users set name = 'between' where id % 10 = 0; delete from users where id % 11 = 0");
  await sync.copy();
  await sql(`
    insert into users values (9001, 'new', null); update users set id = id + 10000 where id < 100;
    truncate "Old Stock"; insert into "Old Stock" values ('a', 'b', 1.50), ('', '', 'NaN')`);
  expect(await drain(sync)).toBeGreaterThan(100);
  expect(await differences()).toEqual([]);
  expect(await sql("select distinct note from archive.people")).toEqual([{ note: "copied" }]);
  expect((await sync.verify()).equal).toBe(true);
  // Nothing of what it writes comes back to it.
  expect(await drain(sync)).toBe(0);
  expect((await sync.status()).tables.map(({ source, target }) => [source, target])).toEqual([
    ['public."Old Stock"', "public.stock"],
    ["public.users", "archive.people"],
  ]);
  await sync.drop();
  expect(await describeSchema(url)).toEqual(before);
});

test("a chain: what arrives at the second is passed on to the third", async () => {
  await using pair = await freePair();
  await using other = await freePair();
  const [first, second, third] = [pair.source.url, pair.target.url, other.target.url];
  const random = seededRandom("chain");
  const version = await makeShops([first, second, third]);
  const before = await Promise.all([first, second, third].map(describeSchema));
  await using ab = await openSync({ name: "ab", source: first, target: second, env: {} });
  await using bc = await openSync({ name: "bc", source: second, target: third, env: {} });
  const writers = await startShopWriters(first, { random: random.fork("writers"), version });
  await ab.init();
  await ab.copy();
  const stopFirst = followInBackground(ab);
  await someTime(random);
  await bc.init();
  await bc.copy();
  const stopSecond = followInBackground(bc);
  await someTime(random);
  for (const sync of [ab, bc]) expect((await sync.verify()).equal).toBe(true);
  await writers.stop();
  expect(await stopFirst()).toBeGreaterThan(0);
  await stopSecond();
  await drain(ab);
  await drain(bc);
  for (const target of [second, third]) {
    expect((await compareDatabases(first, target, shopTables)).differences).toEqual([]);
  }
  expect((await bc.verify()).equal).toBe(true);
  // The second database is both; what one sync leaves behind there, the other still needs.
  await ab.drop();
  await pair.target.sql(
    "update setting set value = 'from the second'; insert into account (id, label) values (md5('')::uuid, 'last')",
  );
  expect(await drain(bc)).toBeGreaterThan(0);
  expect((await compareDatabases(second, third, shopTables)).differences).toEqual([]);
  await bc.drop();
  expect(await Promise.all([first, second, third].map(describeSchema))).toEqual(before);
});

test("two syncs from one source share what is recorded, each at its own pace", async () => {
  await using pair = await freePair();
  await using other = await freePair();
  const [source, near, far] = [pair.source.url, pair.target.url, other.target.url];
  const random = seededRandom("two targets");
  const version = await makeShops([source, near, far]);
  const before = await Promise.all([source, near, far].map(describeSchema));
  await using one = await openSync({ name: "one", source, target: near, env: {} });
  const some = ["public.account", "public.customer", "public.setting", "public.visit"];
  await using two = await openSync({ name: "two", source, target: far, env: {}, tables: some });
  const writers = await startShopWriters(source, { random: random.fork("writers"), version });
  await one.init();
  await one.copy();
  const stopOne = followInBackground(one);
  await two.init();
  expect(await pair.source.sql("select count(*)::int as n from replicate.capture")).toEqual([
    { n: shopTables.length },
  ]);
  await someTime(random);
  await two.copy();
  await someTime(random);
  // The first has gone on and thrown away what it has applied, as far as the second allows.
  await drain(two);
  expect((await two.verify()).equal).toBe(true);
  const stopTwo = followInBackground(two);
  await someTime(random);
  await stopTwo();
  await someTime(random);
  await writers.stop();
  await stopOne();
  await drain(one);
  await drain(two);
  expect((await compareDatabases(source, near, shopTables)).differences).toEqual([]);
  expect((await compareDatabases(source, far, some)).differences).toEqual([]);
  await one.drop();
  await pair.source.sql("update setting set value = 'for the second'; delete from visit where id % 2 = 0");
  expect(await drain(two)).toBeGreaterThan(100);
  expect((await compareDatabases(source, far, some)).differences).toEqual([]);
  await two.drop();
  expect(await Promise.all([source, near, far].map(describeSchema))).toEqual(before);
});

test("two sources into one target", async () => {
  await using pair = await freePair();
  await using other = await freePair();
  await pair.source.sql(
    "create table a (id int primary key, v text); insert into a select g, 'a' from generate_series(1, 300) g",
  );
  await other.source.sql(
    "create table b (id int primary key, v text); insert into b select g, 'b' from generate_series(1, 300) g",
  );
  await pair.target.sql(
    "create table a (id int primary key, v text); create table b (id int primary key, v text)",
  );
  const before = await describeSchema(pair.target.url);
  // Names belong to the target: two syncs there may not have the same one.
  await using left = await openSync({
    name: "left",
    source: pair.source.url,
    target: pair.target.url,
    env: {},
  });
  await using right = await openSync({
    name: "right",
    source: other.source.url,
    target: pair.target.url,
    env: {},
  });
  // Names belong to the target: two syncs there may not have the same one.
  await using same = await openSync({
    name: "left",
    source: other.source.url,
    target: pair.target.url,
    env: {},
  });
  await left.init();
  await expect(same.init()).rejects.toMatchObject({ code: "SYNC_MISMATCH", exitCode: 2 });
  expect(await other.source.sql("select 1 from pg_namespace where nspname = 'replicate'")).toEqual([]);
  await right.init();
  await Promise.all([left.copy(), right.copy()]);
  await pair.source.sql("update a set v = 'x' where id % 2 = 0");
  await other.source.sql("delete from b where id % 2 = 0");
  await Promise.all([drain(left), drain(right)]);
  expect((await compareDatabases(pair.source.url, pair.target.url, ["public.a"])).differences).toEqual([]);
  expect((await compareDatabases(other.source.url, pair.target.url, ["public.b"])).differences).toEqual([]);
  await left.drop();
  await other.source.sql("insert into b values (0, 'still')");
  await drain(right);
  expect((await right.verify()).equal).toBe(true);
  await right.drop();
  expect(await describeSchema(pair.target.url)).toEqual(before);
});

test("one hub and eight leaves, which join under writes and are left one by one", async () => {
  const random = seededRandom("hub");
  const owned: AsyncDisposable[] = [];
  const own = <T extends AsyncDisposable>(each: T): T => {
    owned.push(each);
    return each;
  };
  await using _ = {
    [Symbol.asyncDispose]: async () => {
      for (const each of owned.toReversed()) await each[Symbol.asyncDispose]();
    },
  };
  const pairs = await Promise.all(
    Array.from({ length: 5 }, async () => own(await freePair({ leaks: "ignore" }))),
  );
  const [first, ...rest] = pairs.flatMap((pair) => [pair.source, pair.target]);
  const hub = first as NonNullable<typeof first>;
  const leaves = rest.slice(0, 8);
  for (const side of [hub, ...leaves]) {
    await side.sql(`
      create table node (id int primary key, at int not null, text text);
      create table link (a int, b int, weight numeric, primary key (a, b));`);
  }
  await hub.sql(`
    insert into node select g, g % 7, repeat('x', g % 100) from generate_series(1, 2000) g;
    insert into link select g, g * 2, g / 7.0 from generate_series(1, 2000) g`);
  const before = await Promise.all([hub, ...leaves].map(async ({ url }) => await describeSchema(url)));
  const stop = new AbortController();
  let writes = 0;
  const writers = [1, 2].map(async (number) => {
    const chance = random.fork(String(number));
    const client = await hub.client();
    while (!stop.signal.aborted) {
      const [a, b] = [chance.int(1, 2500), chance.int(1, 2500)];
      await client.query(`
        begin; insert into node values (${a}, ${b}, 'w') on conflict (id) do update set at = ${b};
        delete from link where a = ${a}; insert into link values (${a}, ${b}, 1) on conflict (a, b) do update set weight = link.weight + 1;
        delete from node where id = ${b}; commit`);
      writes += 1;
      await new Promise((resolve) => setTimeout(resolve, chance.int(2, 20)));
    }
  });
  const syncs: Sync[] = [];
  const stops: (() => Promise<number>)[] = [];
  for (const [index, leaf] of leaves.entries()) {
    const sync = own(
      await openSync({
        name: `leaf_${index}`,
        source: hub.url,
        target: leaf.url,
        env: {},
        copy: { jobs: 1 },
      }),
    );
    await sync.init();
    await sync.copy();
    syncs.push(sync);
    stops.push(followInBackground(sync));
  }
  expect(await hub.sql("select count(*)::int as n from replicate.capture")).toEqual([{ n: 2 }]);
  await someTime(random);
  stop.abort();
  await Promise.all(writers);
  expect(writes).toBeGreaterThan(20);
  const tables = ["public.node", "public.link"];
  for (const leaf of leaves) {
    await expect
      .poll(async () => (await compareDatabases(hub.url, leaf.url, tables)).differences, { timeout: 60_000 })
      .toEqual([]);
  }
  // All have taken it, so nothing is kept.
  const kept = async (): Promise<unknown> =>
    await hub.sql(
      "select sum(pg_relation_size(delta_a) + pg_relation_size(delta_b))::int as n from replicate.capture",
    );
  await expect.poll(kept, { timeout: 60_000 }).toEqual([{ n: 0 }]);
  // Halfway through, the others go on.
  for (const [index, sync] of syncs.entries()) {
    if (index === 4) {
      await hub.sql("update node set text = 'half'; delete from link where a % 2 = 0");
      for (const leaf of leaves.slice(4)) {
        await expect
          .poll(async () => (await compareDatabases(hub.url, leaf.url, tables)).differences, {
            timeout: 60_000,
          }) // prettier-ignore
          .toEqual([]);
      }
    }
    await stops[index]?.();
    await sync.drop();
  }
  expect(await Promise.all([hub, ...leaves].map(async ({ url }) => await describeSchema(url)))).toEqual(
    before,
  );
});
