import { expect, test } from "vitest";

import { indexDeltas } from "../../../src/capture/delta-index.ts";
import { clearInactive, switchDelta } from "../../../src/capture/rotate.ts";
import { windowCountSql } from "../../../src/catalog/delta.ts";
import { connect as connectSession } from "../../../src/postgres/connect.ts";
import { resolveConfig } from "../../../src/config/options.ts";
import { connect } from "../../support/admin.ts";
import { freePair } from "../../support/database.ts";
import { seededRandom } from "../../support/random.ts";
import { startFollowed } from "../../support/follow-setup.ts";

// Applied deltas go by TRUNCATE of the delta table that nobody writes to. None may go that is not applied, and no
// writer may notice.

test(
  "rotations without pause under writers lose nothing and hinder nobody",
  { timeout: 120_000 },
  async () => {
    const random = seededRandom("rotation");
    await using pair = await freePair();
    await using followed = await startFollowed(pair, "create table t (id int primary key, v int)");
    const stop = new AbortController();
    const failures: unknown[] = [];
    let writes = 0;
    const writers = Array.from({ length: 4 }, async (_, number) => {
      const own = random.fork(String(number));
      const client = await connect(pair.source.url);
      while (!stop.signal.aborted) {
        try {
          await client.query("begin");
          for (let n = own.int(1, 4); n > 0; n -= 1) {
            await client.query("insert into t values ($1, 1) on conflict (id) do update set v = t.v + 1", [
              number * 1000 + own.int(1, 300),
            ]);
            writes += 1;
          }
          // Late writers: others switch the delta tables meanwhile.
          if (own.bool(0.2)) await new Promise((resolve) => setTimeout(resolve, own.int(1, 80)));
          await client.query(own.bool(0.1) ? "rollback" : "commit");
        } catch (error) {
          failures.push(error);
          await client.query("rollback");
        }
      }
      await client.end();
    });

    const config = resolveConfig({ source: pair.source.url, target: pair.target.url }, {});
    let switches = 0;
    let truncations = 0;
    const rotators = [1, 2].map(async () => {
      await using session = await connectSession(config.source, { side: "source", purpose: "rotation test" });
      while (!stop.signal.aborted) {
        await switchDelta(session, 1);
        switches += 1;
        for (let look = 0; look < 4; look += 1) {
          await new Promise((resolve) => setTimeout(resolve, 10));
          if (await clearInactive(session, 1)) truncations += 1;
        }
      }
    });
    const batches = (async () => {
      let count = 0;
      for await (const batch of followed.sync.follow({ signal: stop.signal })) count += batch.rows;
      return count;
    })();
    await new Promise((resolve) => setTimeout(resolve, 12_000));
    stop.abort();
    await Promise.all([...writers, ...rotators, batches]);
    process.stderr.write(`${writes} writes, ${switches} switches, ${truncations} truncations\n`);
    expect(failures).toEqual([]);
    expect(await batches).toBeGreaterThan(500);
    expect(switches).toBeGreaterThan(20);
    expect(truncations).toBeGreaterThan(10);
    expect(await followed.differences()).toEqual([]);
  },
);

test("deltas that are not applied, or held for a copy, are not thrown away", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, "create table t (id int primary key, v int)");
  const config = resolveConfig({ source: pair.source.url, target: pair.target.url }, {});
  await using session = await connectSession(config.source, { side: "source", purpose: "rotation test" });
  // Held: the table is not followed yet.
  await pair.source.sql("insert into t values (1, 1)");
  await switchDelta(session, 1);
  expect(await clearInactive(session, 1)).toBe(false);
  expect(await followed.differences()).toEqual([]);

  const writer = await pair.source.client();
  await writer.query("begin; insert into t values (2, 2)");
  await switchDelta(session, 1);
  // A writer in flight has the delta table.
  expect(await clearInactive(session, 1)).toBe(false);
  await writer.query("commit");
  expect(await clearInactive(session, 1)).toBe(false);
  expect(await followed.differences()).toEqual([]);
  await pair.source.sql("insert into t values (3, 3)");
  expect(await followed.differences()).toEqual([]);
  expect(await pair.target.sql("select id from t order by id")).toEqual([{ id: 1 }, { id: 2 }, { id: 3 }]);
});

test("nothing is left of applied deltas", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, "create table t (id int primary key, v text)");
  const bytes =
    "select pg_relation_size('replicate.delta_1_a')::int + pg_relation_size('replicate.delta_1_b')::int as bytes";
  await pair.source.sql(
    "insert into t select g, 'v' from generate_series(1, 50000) g; update t set id = -id",
  );
  expect(await pair.source.sql(bytes)).not.toEqual([{ bytes: 0 }]);
  for (let look = 0; look < 4; look += 1) await followed.drain();
  expect(await pair.source.sql(bytes)).toEqual([{ bytes: 0 }]);
  expect(
    await pair.source.sql(
      "select n_dead_tup::int as dead, n_tup_del::int as deleted from pg_stat_user_tables where relname like 'delta%'",
    ),
  ).toEqual([
    { dead: 0, deleted: 0 },
    { dead: 0, deleted: 0 },
  ]);
});

test("a delta table that cannot be cleared for long gets an index, for the others, and loses it when it is cleared", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, "create table t (id int primary key, v int)");
  await followed.drain();
  const config = resolveConfig({ source: pair.source.url, target: pair.target.url }, {});
  await using session = await connectSession(config.source, { side: "source", purpose: "rotation test" });
  const indexes = async (): Promise<unknown> =>
    await pair.source.sql(
      `select indexrelid::regclass::text as name, indisvalid as valid from pg_index
       where indrelid in (select delta_a from replicate.capture union select delta_b from replicate.capture)`,
    );
  // Keys of rows that are gone again.
  const note = async (from: number, to: number): Promise<unknown> =>
    await pair.source.sql(
      `insert into replicate.delta_1_a (k1) select g from generate_series(${from}, ${to}) g`,
    );
  await note(1, 50_000);
  await indexDeltas(session, [1]);
  expect(await indexes()).toEqual([]);
  await note(50_001, 450_000);
  await indexDeltas(session, [1]);
  expect(await indexes()).toEqual([{ name: "replicate.delta_1_a_txid", valid: true }]);

  // Who is at the present finds what is new without reading all of it, also when more has come since.
  const { position } = await session.row<{ position: string }>(
    "select txid_current_snapshot()::text as position",
  );
  await pair.source.sql("insert into t select g, 0 from generate_series(1, 100) g");
  await indexDeltas(session, [1]);
  const plan = await session.rows<Record<string, string>>(`explain ${windowCountSql(1, position)}`);
  expect(JSON.stringify(plan)).toContain("delta_1_a_txid");
  expect(await session.row(windowCountSql(1, position))).toMatchObject({ n: "100" });

  // One whose making was interrupted is made anew.
  await pair.source.sql(
    "update pg_index set indisvalid = false where indexrelid = 'replicate.delta_1_a_txid'::regclass",
  );
  await indexDeltas(session, [1]);
  expect(await indexes()).toEqual([{ name: "replicate.delta_1_a_txid", valid: true }]);

  expect(await followed.differences()).toEqual([]);
  await switchDelta(session, 1);
  await expect.poll(async () => await clearInactive(session, 1)).toBe(true);
  expect(await indexes()).toEqual([]);
  await pair.source.sql("delete from t where id > 10");
  expect(await followed.differences()).toEqual([]);
});
