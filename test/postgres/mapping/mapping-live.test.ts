import { describe, expect, it } from "vitest";

import { openSync } from "../../../src/index.ts";
import { freePair, type Pair } from "../../support/database.ts";
import { seededRandom, type Random } from "../../support/random.ts";
import { rowsOf } from "../../support/mapping-setup.ts";

// Mapped tables that are written to all the time: while they are copied in many parts, and while they are followed.

const rows = 30_000;

/** Writes until it is told to stop: rows go in and out of the filter, get other keys, come and go. */
async function write(pair: Pair, random: Random, isDone: () => boolean): Promise<number> {
  const client = await pair.source.client();
  let written = 0;
  // What two writers of the same rows do to each other.
  const theirs = (error: { code?: string }): void => {
    if (!["23505", "40P01", "40001"].includes(error.code ?? "")) throw error;
  };
  for (; !isDone(); written += 1) {
    const [id, to] = [random.int(1, rows), random.int(rows, 2 * rows)];
    const statement = random.pick([
      `update event set kind = 'off' where id between ${id} and ${id + 5}`,
      `update event set kind = 'on' where id between ${id} and ${id + 5}`,
      `update event set at = at + 200, payload = md5(payload) where id between ${id} and ${id + 3}`,
      `update event set id = ${to} where id = ${id} and not exists (select from event where id = ${to})`,
      `delete from event where id = ${id}`,
      `insert into event select ${to}, 1 + ${to} % 400, 'on', 'new' where not exists (select from event where id = ${to})`,
    ]);
    await client.query(statement).catch(theirs);
  }
  return written;
}

describe.each([
  ["a plain table in ranges of pages", "18", ""],
  ["a plain table in ranges of keys", "13", ""],
  ["a partitioned table", "18", "partition by range (at)"],
])("%s", (_, source, partitioned) => {
  it("has exactly the mapped rows, whatever is written meanwhile", async () => {
    await using pair = await freePair({ source, target: "18" });
    const random = seededRandom("mapping-live");
    const key = partitioned === "" ? "primary key (id)" : "primary key (id, at)";
    await pair.source.sql(`
      create table event (id int, at int, kind text, payload text, ${key}) ${partitioned};
      ${
        partitioned === ""
          ? ""
          : `create table event_low partition of event for values from (0) to (200);
             create table event_high partition of event for values from (200) to (100000);`
      }
      insert into event select n, n % 200, case when n % 2 = 0 then 'on' else 'off' end, repeat(n::text, 20)
      from generate_series(1, ${rows}) n;
      analyze event`);
    await pair.target.sql(`
      create table happening (
        nr int, at int, region text, digest text, ${key.replace("id", "region, nr")}) partition by list (region);
      create table happening_eu partition of happening for values in ('eu');
      create table happening_us partition of happening for values in ('us');
      insert into happening values (1, 1, 'us', 'of another source')`);
    await using sync = await openSync({
      source: pair.source.url,
      target: pair.target.url,
      env: {},
      copy: { partSize: "64kB", jobs: 3 },
      overrides: {
        "public.event": {
          target: "happening",
          where: "kind = 'on'",
          columns: { id: { to: "nr" }, payload: { to: "digest", as: "md5(payload)" }, kind: null },
          discriminator: { region: "eu" },
        },
      },
    });
    await sync.init();
    let isDone = false;
    const writers = [1, 2].map(async (n) => await write(pair, random.fork(`writer ${n}`), () => isDone));
    try {
      const report = await sync.copy();
      expect(report.tables[0]?.state).toBe("copied");
      let batches = 0;
      for await (const _batch of sync.follow()) if ((batches += 1) >= 10) break;
      expect((await sync.verify()).tables[0]).toMatchObject({ equal: true, differences: [] });
    } finally {
      isDone = true;
    }
    const written = await Promise.all(writers);
    expect(Math.min(...written)).toBeGreaterThan(5);
    if (partitioned !== "")
      await pair.source.sql("truncate event_low; insert into event values (1, 5, 'on', 'x')");
    for await (const _batch of sync.follow({ untilCaughtUp: true }));
    const found = await rowsOf(
      pair.target,
      "select nr, at, digest from happening where region = 'eu' order by 1, 2",
    );
    expect(found).toEqual(
      await rowsOf(pair.source, "select id, at, md5(payload) from event where kind = 'on' order by 1, 2"),
    );
    expect(found.length).toBeGreaterThan(100);
    expect((await sync.verify()).equal).toBe(true);
    expect(await rowsOf(pair.target, "select * from happening where region = 'us'")).toHaveLength(1);
    await sync.drop();
  });
});

describe("a mapped table without a key", () => {
  it("is reloaded with its mapping, without the rows of others", async () => {
    await using pair = await freePair();
    await pair.source.sql(`
      create table log (line text, level int);
      insert into log select 'line ' || n, n % 5 from generate_series(1, 100) n`);
    await pair.target.sql(`
      create table log (line text, host text);
      insert into log values ('of another', 'b')`);
    await using sync = await openSync({
      source: pair.source.url,
      target: pair.target.url,
      env: {},
      keyless: "reload",
      overrides: {
        "public.log": {
          where: "level > 2",
          columns: { line: "upper(line)", level: null },
          discriminator: { host: "a" },
        },
      },
    });
    await sync.init();
    await sync.copy();
    for await (const _batch of sync.follow({ untilCaughtUp: true }));
    const alike = async (): Promise<void> => {
      const wanted = await rowsOf(pair.source, "select upper(line), 'a' from log where level > 2 order by 1");
      expect(await rowsOf(pair.target, "select * from log where host = 'a' order by 1")).toEqual(wanted);
      expect(await rowsOf(pair.target, "select line from log where host = 'b'")).toEqual([["of another"]]);
      expect((await sync.verify()).tables[0]).toMatchObject({ equal: true, rows: wanted.length });
    };
    await alike();
    await pair.source.sql("update log set level = 3 where level = 1; delete from log where level = 4");
    for await (const _batch of sync.follow({ untilCaughtUp: true }));
    await alike();
    await pair.target.sql("update log set line = 'changed' where line = 'LINE 3'");
    expect((await sync.verify({ repair: true })).tables[0]).toMatchObject({
      unpaired: { missing: 1, extra: 1 },
    });
    for await (const _batch of sync.follow({ untilCaughtUp: true }));
    await alike();
  });

  it("has its rows in other partitions, where the column that decides about them is computed", async () => {
    await using pair = await freePair();
    const tables = `
      create table part (place text, n int) partition by list (place);
      create table part_a partition of part for values in ('a');
      create table part_b partition of part for values in ('b')`;
    await Promise.all([pair.source.sql(tables), pair.target.sql(tables)]);
    await pair.source.sql(
      "insert into part select case when n < 30 then 'a' else 'b' end, n from generate_series(1, 100) n",
    );
    await using sync = await openSync({
      source: pair.source.url,
      target: pair.target.url,
      env: {},
      keyless: "reload",
      overrides: { "public.part": { columns: { place: "case place when 'a' then 'b' else 'a' end" } } },
    });
    await sync.init();
    await sync.copy();
    for await (const _batch of sync.follow({ untilCaughtUp: true }));
    const counts = "select (select count(*)::int from part_a) as a, (select count(*)::int from part_b) as b";
    expect(await rowsOf(pair.target, counts)).toEqual([[71, 29]]);
    await pair.source.sql("truncate part_a");
    for await (const _batch of sync.follow({ untilCaughtUp: true }));
    expect(await rowsOf(pair.target, counts)).toEqual([[71, 0]]);
    expect((await sync.verify()).equal).toBe(true);
  });
});
