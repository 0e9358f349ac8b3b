import { expect, test } from "vitest";

import { openSync } from "../../../src/index.ts";
import { freePair } from "../../support/database.ts";
import { takeZooThrough } from "../../support/type-zoo-journey.ts";

test("every type, with its awkward values, through copy and batches", { timeout: 4 * 60_000 }, async () => {
  await using pair = await freePair();
  const report = await takeZooThrough(pair);
  expect.soft(report.differences).toEqual([]);
  expect.soft(report.verified).toEqual({ equal: true, tables: report.tables.length, different: [] });
  expect.soft(report.formats).toEqual(report.expectedFormats);
  expect(report.rows).toBeGreaterThan(500);
  expect(report.missing).toEqual([]);
});

test("a key column grows while its changes are recorded", async () => {
  await using pair = await freePair();
  const tables =
    "create table t (id int primary key, v text); create table u (id varchar(3) primary key, v text)";
  await Promise.all([pair.source.sql(tables), pair.target.sql(tables)]);
  await pair.source.sql("insert into t values (1, 'a'), (2, 'b'); insert into u values ('a', 'a')");
  await using sync = await openSync({
    source: pair.source.url,
    target: pair.target.url,
    env: {},
    schemaChanges: "stop",
  });
  const drain = async (): Promise<void> => {
    for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
  };
  await sync.init();
  await sync.copy();
  await drain();
  await pair.source.sql(`
    update t set v = 'before' where id = 1;
    alter table t alter id type bigint; alter table u alter id type text;
    insert into t values (3000000000, 'c'); update t set id = 4000000000 where id = 2;
    insert into u values ('longer', 'x')`);
  await expect(drain()).rejects.toMatchObject({ code: "TABLE_SHAPE_CHANGED" });
  await pair.target.sql("alter table t alter id type bigint; alter table u alter id type text");
  await drain();
  const rows = "select id::text, v from t union all select id, v from u order by 1";
  expect(await pair.target.sql(rows)).toEqual(await pair.source.sql(rows));
  await pair.source.sql("update t set v = 'after'; delete from u where id = 'longer'");
  await drain();
  expect(await pair.target.sql(rows)).toEqual(await pair.source.sql(rows));
  expect((await sync.verify()).equal).toBe(true);
});
