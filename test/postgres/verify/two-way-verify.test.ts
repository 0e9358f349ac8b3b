import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";

import { openSync, type VerifyReport } from "../../../src/index.ts";
import { compareDatabases } from "../../support/compare.ts";
import { freePair, type Database } from "../../support/database.ts";
import { startProxy } from "../../support/proxy.ts";
import { seededRandom, type Random } from "../../support/random.ts";
import { onBoth, startFollowed } from "../../support/follow-setup.ts";

// Comparing, and settling differences, where both sides are written to.

const schema = "create table t (region text, id int, v text, primary key (id, region))";

async function write(side: Database, random: Random, isOver: () => boolean): Promise<void> {
  const client = await side.client();
  for (let n = 0; !isOver(); n += 1) {
    const id = random.int(1, 300);
    const statement = [
      `insert into t values ('r', ${id}, '${side.name} ${n}') on conflict (id, region) do update set v = excluded.v`,
      `update t set v = '${side.name} ${n}' where id between ${id} and ${id + 3}`,
      `delete from t where id = ${id}`,
    ][random.int(0, 2)];
    // Writers of one side may wait for each other, and give way.
    await client.query(statement ?? "").catch(() => undefined);
  }
}

test("nothing is reported that does not differ, and what differs is found, while both sides are written to", async () => {
  const random = seededRandom("two-way-verify");
  await using pair = await freePair();
  await using followed = await startFollowed(
    pair,
    `${schema}; create table still (id int primary key, v text); insert into still select g, 'v' from generate_series(1, 1000) g`,
    { direction: "both", conflict: "latest" },
  );
  await followed.drain();
  // Behind the back of all triggers.
  await pair.target.sql(
    "set session_replication_role = replica; insert into replicate.applying values ('test', pg_backend_pid()); set replicate.applying = 'test'; delete from still where id = 7",
  );
  const stop = new AbortController();
  const following = (async () => {
    for await (const batch of followed.sync.follow({ signal: stop.signal })) void batch;
  })();
  let isOver = false;
  const writers = [pair.source, pair.target].map(async (side) => await write(side, random, () => isOver));
  const reports: VerifyReport[] = [];
  let pending = 0;
  try {
    const until = Date.now() + 6000;
    while (Date.now() < until) {
      const report = await followed.sync.verify();
      reports.push(report);
      pending += report.tables.find(({ table }) => table === "public.t")?.pending ?? 0;
      await sleep(random.int(0, 50));
    }
  } finally {
    isOver = true;
    await Promise.all(writers);
    stop.abort();
    await following;
  }
  for (const { tables } of reports) {
    expect(
      tables.map(({ table, differences }) => ({
        table,
        differences: differences.map(({ key, kind }) => ({ key, kind })),
      })),
    ).toEqual([
      { table: "public.still", differences: [{ key: { id: 7 }, kind: "missing" }] },
      { table: "public.t", differences: [] },
    ]);
  }
  expect(reports.length).toBeGreaterThan(2);
  expect(pending).toBeGreaterThan(0);
});

test("what comes back between the two snapshots of a comparison is not taken for a difference", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, `${schema}; insert into t select 'r', g, 'v' from generate_series(1, 1000) g`, {
    name: "brake", direction: "both", conflict: "latest",
  }); // prettier-ignore
  await followed.drain();
  const stop = new AbortController();
  const following = (async () => {
    for await (const batch of followed.sync.follow({ signal: stop.signal })) void batch;
  })();
  let writes = 0;
  const writing = (async () => {
    const client = await pair.target.client();
    // Every row is still for most of the time: what is known to be on its way is left out.
    for (; !stop.signal.aborted; writes += 1)
      await client.query("update t set v = $1 where id = $2", [`target ${writes}`, (writes % 1000) + 1]);
  })();
  // Far away from the source, whose snapshot is the later one.
  const url = new URL(pair.source.url);
  await using proxy = await startProxy({ targetPort: Number(url.port), delayMs: 40 });
  url.port = String(proxy.port);
  await using far = await openSync({
    name: "brake", source: url.toString(), target: pair.target.url, direction: "both", conflict: "latest", env: {},
  }); // prettier-ignore
  const reports: VerifyReport[] = [];
  try {
    for (let round = 0; round < 3; round += 1) reports.push(await far.verify());
  } finally {
    stop.abort();
    await Promise.all([writing, following]);
  }
  expect(writes).toBeGreaterThan(20);
  expect(reports.flatMap(({ tables }) => tables.flatMap(({ differences }) => differences))).toEqual([]);
});

test("two databases that are both filled: differences are settled by the policy, row by row, and logged", async () => {
  await using pair = await freePair();
  await onBoth(pair, `${schema}; insert into t values ('r', 1, 'same'), ('r', 2, 'same')`);
  await pair.source.sql("update t set v = 'source' where id = 2; insert into t values ('r', 3, 'source')");
  await pair.target.sql("update t set v = 'target' where id = 2; insert into t values ('r', 4, 'target')");
  await using sync = await openSync({
    source: pair.source.url,
    target: pair.target.url,
    direction: "both",
    conflict: "latest",
    nodes: { source: "a", target: "b" },
    env: {},
  });
  await sync.init();
  await sync.copy({ adopt: true });
  const drain = async (): Promise<void> => {
    for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
  };
  await drain();
  const report = await sync.verify({ repair: true });
  expect(report.tables[0]?.differences).toHaveLength(3);
  await drain();
  expect((await sync.verify()).equal).toBe(true);
  expect((await compareDatabases(pair.source.url, pair.target.url)).differences).toEqual([]);
  // Nobody knows when: rows stay, and of two the one of the greater name.
  expect(await pair.source.sql("select id, v from t order by id")).toEqual([
    { id: 1, v: "same" },
    { id: 2, v: "target" },
    { id: 3, v: "source" },
    { id: 4, v: "target" },
  ]);
  expect(await sync.conflicts({ state: "all" })).toHaveLength(3);
});

test("a table that joins later and is filled on both sides: what differs stays as it is until verify has it settled", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, schema, { direction: "both", conflict: "target-wins" });
  await followed.drain();
  await onBoth(pair, "create table later (id int primary key, v text); insert into later values (1, 'same')");
  await pair.source.sql("insert into later values (2, 'source'), (3, 'source')");
  await pair.target.sql("insert into later values (2, 'target'), (4, 'target')");
  await followed.sync.init();
  await followed.sync.copy({ adopt: true });
  await pair.target.sql("insert into later values (5, 'new')");
  await followed.drain();
  const rows = "select id, v from later order by id";
  const [one, two, three, four, five] = [
    { id: 1, v: "same" },
    { id: 2, v: "target" },
    { id: 3, v: "source" },
    { id: 4, v: "target" },
    { id: 5, v: "new" },
  ];
  expect(await pair.source.sql(rows)).toEqual([one, { id: 2, v: "source" }, three, five]);
  expect(await pair.target.sql(rows)).toEqual([one, two, four, five]);
  const { tables } = await followed.sync.verify({ repair: true });
  expect(tables.find(({ table }) => table === "public.later")?.differences).toHaveLength(3);
  expect(await followed.differences()).toEqual([]);
  expect(await pair.source.sql(rows)).toEqual([one, two, four, five]);
  const settled = await followed.sync.conflicts();
  const byKey = settled.toSorted((one, two) => Number(one.key["id"]) - Number(two.key["id"]));
  expect(byKey.map(({ key, winner, source }) => [key["id"], winner, source.image?.["v"]])).toEqual([
    [2, "target", "source"],
    [3, "target", "source"],
    [4, "target", undefined],
  ]);
});
