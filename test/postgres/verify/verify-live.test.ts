import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";

import { followSync } from "../../../src/follow/follow.ts";
import { compareDatabases } from "../../support/compare.ts";
import { freePair, type Pair } from "../../support/database.ts";
import { type Random, seededRandom } from "../../support/random.ts";
import { startVerifiedSync, type VerifiedSync } from "../../support/verified-sync.ts";

const tablesSql = `
  create table accounts (id int primary key, balance numeric not null, note text);
  insert into accounts select g, g, 'account ' || g from generate_series(1, 4000) g;
  create table items (owner int, name text, data jsonb, primary key (name, owner));
  insert into items select g % 50, 'item ' || g, jsonb_build_object('n', g) from generate_series(1, 2000) g`;

interface LiveTable {
  name: string;
  /** The key as one text, in the table and in its delta tables. */
  key: string;
  deltaKey: string;
  captureId: number;
}

async function liveTables(pair: Pair): Promise<LiveTable[]> {
  const captures = await pair.source.sql<{ id: number; name: string }>(
    "select id, relid::regclass::text as name from replicate.capture",
  );
  const idOf = (name: string): number => captures.find((capture) => capture.name === name)?.id ?? 0;
  return [
    { name: "accounts", key: "id::text", deltaKey: "k1", captureId: idOf("accounts") },
    { name: "items", key: "name || '|' || owner", deltaKey: "k1 || '|' || k2", captureId: idOf("items") },
  ];
}

/** One transaction of an application that does all it may do. */
async function writeOnce(
  client: Awaited<ReturnType<Pair["source"]["client"]>>,
  random: Random,
): Promise<void> {
  await client.query("begin");
  try {
    for (let statement = random.int(1, 4); statement > 0; statement--) {
      const id = random.int(1, 4200);
      const item = `item ${random.int(1, 2100)}`;
      await random.pick([
        () => client.query("update accounts set balance = balance + 1 where id = $1", [id]),
        () => client.query("update accounts set note = note || 'x' where id between $1 and $1 + 20", [id]),
        () => client.query("delete from accounts where id = $1", [id]),
        () =>
          client.query(
            "insert into accounts values ($1, 0, 'new') on conflict (id) do update set balance = accounts.balance * 2",
            [id],
          ),
        () => client.query("update items set owner = owner + 100 where name = $1", [item]),
        () => client.query("update items set data = data || '{\"m\": 1}' where name = $1", [item]),
        () => client.query("delete from items where name = $1", [item]),
        () => client.query("insert into items values ($1, $2, '[]') on conflict do nothing", [id % 50, item]),
        async () => {
          await client.query("savepoint s");
          await client.query("update accounts set balance = -1 where id = $1", [id]);
          await client.query(random.bool() ? "rollback to s" : "release s");
        },
      ])();
    }
    // Many positions lie between a write and its commit.
    if (random.bool(0.3)) await sleep(random.int(1, 60));
    await client.query(random.bool(0.9) ? "commit" : "rollback");
  } catch (error) {
    await client.query("rollback");
    // Deadlocks and unique violations are the writers' own affair.
    if (!["40P01", "23505"].includes(String((error as { code?: string }).code))) throw error;
  }
}

/**
 * Brings the target to a newer snapshot of the source, in the simplest way that is right, then empties the delta tables
 * if nothing in them is newer.
 */
async function applyOnce(
  source: Awaited<ReturnType<Pair["source"]["client"]>>,
  target: Awaited<ReturnType<Pair["source"]["client"]>>,
  tables: readonly LiveTable[],
): Promise<void> {
  const [before] = (await target.query<{ position: string | null }>("select position from replicate.sync"))
    .rows;
  const position = before?.position ?? null;
  const window =
    position === null ? "true" : `not txid_visible_in_snapshot(txid, '${position}'::txid_snapshot)`;
  await source.query("begin isolation level repeatable read");
  const { rows: snapshots } = await source.query<{ snapshot: string }>(
    "select txid_current_snapshot()::text as snapshot",
  );
  const changes: { keys: string[]; rows: string }[] = [];
  for (const { name, key, deltaKey, captureId } of tables) {
    const keys = ["a", "b"]
      .map((which) => `select ${deltaKey} as key from replicate.delta_${captureId}_${which} where ${window}`)
      .join(" union ");
    const { rows } = await source.query<{ keys: string[]; rows: string }>(
      `with changed as (${keys})
       select (select coalesce(array_agg(key), '{}') from changed) as keys,
              (select coalesce(json_agg(t), '[]')::text from ${name} t where ${key} in (select key from changed)) as rows`,
    );
    changes.push(rows[0] as { keys: string[]; rows: string });
  }
  await source.query("commit");
  await target.query("begin");
  for (const [index, { name, key }] of tables.entries()) {
    const change = changes[index] as { keys: string[]; rows: string };
    await target.query(`delete from ${name} where ${key} = any ($1::text[])`, [change.keys]);
    await target.query(`insert into ${name} select * from json_populate_recordset(null::${name}, $1)`, [
      change.rows,
    ]);
  }
  await target.query("update replicate.sync set position = $1", [snapshots[0]?.snapshot]);
  await target.query("update replicate.sync_table set state = 'following'");
  await target.query("commit");

  for (const { captureId } of tables) {
    for (const delta of ["a", "b"].map((which) => `replicate.delta_${captureId}_${which}`)) {
      try {
        await source.query(`begin; lock table ${delta} in access exclusive mode nowait`);
        const { rowCount } = await source.query(
          `select 1 from ${delta} where not txid_visible_in_snapshot(txid, $1::txid_snapshot) limit 1`,
          [snapshots[0]?.snapshot],
        );
        if (rowCount === 0) await source.query(`truncate ${delta}`);
        await source.query("commit");
      } catch (error) {
        await source.query("rollback");
        if ((error as { code?: string }).code !== "55P03") throw error;
      }
    }
  }
}

/** Compares what both sides show at about the same moment: what a tool without positions would do. */
async function naiveDifferences(pair: Pair): Promise<number> {
  const rowsOf = async (side: "source" | "target"): Promise<Set<string>> => {
    const rows = await pair[side].sql<{ row: string }>("select t::text as row from accounts t");
    return new Set(rows.map(({ row }) => row));
  };
  const [source, target] = await Promise.all([rowsOf("source"), rowsOf("target")]);
  return (
    [...source].filter((row) => !target.has(row)).length +
    [...target].filter((row) => !source.has(row)).length
  );
}

/** Runs writers until `use` is done. */
async function underWrites(pair: Pair, random: Random, use: () => Promise<void>): Promise<void> {
  let isOver = false;
  const writers = [1, 2, 3].map(async (writer) => {
    const own = random.fork(`writer ${writer}`);
    const client = await pair.source.client();
    while (!isOver) {
      await writeOnce(client, own);
      await sleep(own.int(0, 8));
    }
  });
  try {
    await Promise.race([use(), Promise.all(writers)]);
  } finally {
    isOver = true;
    await Promise.all(writers);
  }
}

async function verifyFor(
  ms: number,
  sync: VerifiedSync,
  each: () => Promise<void>,
): Promise<{ runs: number; pending: number }> {
  const counted = { runs: 0, pending: 0 };
  for (const deadline = Date.now() + ms; Date.now() < deadline;) {
    await each();
    const report = await sync.verify({ jobs: 2, partBytes: 64 * 1024 });
    counted.runs += 1;
    counted.pending += report.tables.reduce((sum, { pending }) => sum + pending, 0);
    expect(
      report.tables.flatMap(({ table, differences }) => differences.map((one) => ({ table, ...one }))),
    ).toEqual([
      { table: "public.accounts", key: { id: -1 }, kind: "extra", columns: [] },
      { table: "public.items", key: { name: "planted", owner: 0 }, kind: "missing", columns: [] },
    ]);
    expect(
      report.tables.every(({ differences, differencesTotal }) => differencesTotal === differences.length),
    ).toBe(true);
  }
  return counted;
}

/** Differences that are there all the time: finding them, and nothing else, is the task. */
async function plantDifferences(pair: Pair): Promise<void> {
  await pair.target.sql(
    "insert into accounts values (-1, 0, null); delete from items where name = 'planted'",
  );
}

describe("while both sides are written to", () => {
  test("nothing is reported that does not differ, and what differs is found", async () => {
    const random = seededRandom("verify-live");
    await using pair = await freePair();
    const setUp = `${tablesSql}; insert into items values (0, 'planted', null)`;
    await Promise.all([pair.source.sql(setUp), pair.target.sql(setUp)]);
    await using sync = await startVerifiedSync(pair);
    await plantDifferences(pair);
    const tables = await liveTables(pair);
    let naive = 0;
    await underWrites(pair, random, async () => {
      const copied = await verifyFor(1000, sync, async () => undefined);
      expect(copied.pending).toBeGreaterThan(0);

      const [source, target] = await Promise.all([pair.source.client(), pair.target.client()]);
      let isOver = false;
      const applier = (async () => {
        while (!isOver) {
          await applyOnce(source, target, tables);
          await sleep(random.int(0, 60));
        }
      })();
      try {
        const live = await verifyFor(6000, sync, async () => {
          naive += Math.max(0, (await naiveDifferences(pair)) - 1);
        });
        expect(live.runs).toBeGreaterThan(3);
        expect(live.pending).toBeGreaterThan(0);
      } finally {
        isOver = true;
        await applier;
      }
    });
    // The same moments, without leaving out what is pending.
    expect(naive).toBeGreaterThan(0);

    await applyOnce(await pair.source.client(), await pair.target.client(), tables);
    await pair.target.sql(
      "delete from accounts where id = -1; insert into items values (0, 'planted', null)",
    );
    expect(await sync.verify()).toMatchObject({ equal: true, tables: [{ pending: 0 }, { pending: 0 }] });
    expect((await compareDatabases(pair.source.url, pair.target.url)).differences).toEqual([]);
  });

  test("nothing that follow, rotation, TRUNCATE or ATTACH do disturbs it", async () => {
    const random = seededRandom("verify-follow");
    await using pair = await freePair();
    const setUp = `${tablesSql}; insert into items values (0, 'planted', null); 
      create table logs (id int primary key, v text);
      create table parts (id int primary key, v text) partition by range (id);
      create table parts_0 partition of parts for values from (0) to (1000)`;
    await Promise.all([pair.source.sql(setUp), pair.target.sql(setUp)]);
    await using sync = await startVerifiedSync(pair);
    await plantDifferences(pair);
    await pair.target.sql("create table parts_rest partition of parts default");
    const stop = new AbortController();
    const following = (async () => {
      for await (const batch of followSync(sync.context(stop.signal))) await sleep(batch.rows % 40);
      if (!stop.signal.aborted) throw new Error("follow ended by itself");
    })();
    following.catch(() => stop.abort());
    let isOver = false;
    // What no row trigger sees: tables that are emptied, and partitions that bring rows along.
    const upheavals = (async () => {
      const client = await pair.source.client();
      for (let n = 1; !isOver; n++) {
        await client.query("truncate logs");
        await client.query("insert into logs select g, 'log' from generate_series(1, 500) g");
        await client.query(
          `create table parts_${n} (like parts including all);
           insert into parts_${n} select g, 'part' from generate_series(${n * 1000}, ${n * 1000 + 200}) g;
           alter table parts attach partition parts_${n} for values from (${n * 1000}) to (${n * 1000 + 1000})`,
        );
        await sleep(random.int(200, 900));
      }
    })();
    let counted = { runs: 0, pending: 0 };
    try {
      await underWrites(pair, random, async () => {
        const started = "select 1 from replicate.sync where position is not null";
        while (!stop.signal.aborted && (await pair.target.sql(started)).length === 0) await sleep(20);
        counted = await verifyFor(6000, sync, async () => {
          expect(await sync.differences({ tables: ["logs", "parts"] })).toEqual([]);
        });
      });
    } finally {
      isOver = true;
      await upheavals;
      stop.abort();
      await following;
    }
    expect(counted.pending).toBeGreaterThan(0);
  });
});

describe("pending keys", () => {
  test("are left out, old and new, whatever their transactions were doing at the position", async () => {
    await using pair = await freePair();
    await Promise.all([pair.source.sql(tablesSql), pair.target.sql(tablesSql)]);
    await using sync = await startVerifiedSync(pair);
    const other = await pair.source.client();
    await other.query("begin; update accounts set balance = 0 where id = 1");
    const [{ snapshot } = {}] = await pair.source.sql("select txid_current_snapshot()::text as snapshot");
    await pair.target.sql("update replicate.sync set position = $1", [snapshot]);
    await pair.target.sql("update replicate.sync_table set state = 'following'");
    const accounts = async (): Promise<unknown> => (await sync.verify({ tables: ["accounts"] })).tables[0];
    expect(await accounts()).toMatchObject({ rows: 4000, pending: 0, equal: true });
    await other.query("commit");
    await pair.source.sql(
      `update accounts set id = 5000 where id = 2; delete from accounts where id = 3;
       insert into accounts values (5001, 0, null); update accounts set note = 'a' where id = 4;
       update accounts set note = 'b' where id = 4`,
    );
    // 1, 2, 5000, 3, 5001, 4
    expect(await accounts()).toMatchObject({ rows: 4000 - 4 + 0, pending: 6, equal: true });
    await pair.target.sql("update accounts set note = 'other' where id in (4, 6)");
    expect(await accounts()).toMatchObject({
      pending: 6,
      equal: false,
      differences: [{ key: { id: 6 }, kind: "changed", columns: ["note"] }],
    });
    // Pending in each range of their own.
    const cut = await sync.verify({ tables: ["accounts"], partBytes: 64 * 1024 });
    expect(cut.tables[0]).toMatchObject({ pending: 6, rows: 3996, differencesTotal: 1 });
  });

  test("are not forgotten with a delta table that is emptied between the two snapshots", async () => {
    await using pair = await freePair();
    await Promise.all([pair.source.sql(tablesSql), pair.target.sql(tablesSql)]);
    await using sync = await startVerifiedSync(pair);
    const positionNow = async (): Promise<string> =>
      (await pair.source.sql<{ now: string }>("select txid_current_snapshot()::text as now"))[0]?.now ?? "";
    await pair.target.sql("update replicate.sync set position = $1", [await positionNow()]);
    await pair.target.sql("update replicate.sync_table set state = 'following'");
    await pair.source.sql("update accounts set balance = 0 where id = 1");
    const applied = await positionNow();

    // Verify has read the old position, and waits for the delta table …
    const holder = await pair.source.client();
    await holder.query("begin; lock table replicate.delta_1_a in access exclusive mode");
    const verifying = sync.verify({ tables: ["accounts"] });
    while (!(await pair.source.sql("select 1 from pg_locks where not granted")).length) await sleep(10);
    // … while the change is applied, and its delta thrown away.
    await pair.target.sql("update accounts set balance = 0 where id = 1");
    await pair.target.sql("update replicate.sync set position = $1", [applied]);
    await holder.query("truncate replicate.delta_1_a");
    await holder.query("commit");
    expect(await verifying).toMatchObject({ equal: true, tables: [{ rows: 4000, pending: 0 }] });
  });

  test("are all keys of a table that is emptied", async () => {
    await using pair = await freePair();
    await Promise.all([pair.source.sql(tablesSql), pair.target.sql(tablesSql)]);
    await using sync = await startVerifiedSync(pair);
    await pair.source.sql("truncate accounts; insert into accounts values (1, 1, null), (2, 2, null)");
    const { equal, tables } = await sync.verify();
    expect(equal).toBe(true);
    expect(tables.map(({ table, rows, pending }) => [table, rows, pending])).toEqual([
      ["public.accounts", 0, 2],
      ["public.items", 2000, 0],
    ]);
    expect(sync.events.filter(({ type }) => type === "warning")).toHaveLength(1);
  });
});
