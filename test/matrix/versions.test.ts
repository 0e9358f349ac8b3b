import { describe, expect, test } from "vitest";

import { openSync } from "../../src/index.ts";
import { compareDatabases } from "../support/compare.ts";
import { freePair } from "../support/database.ts";
import { seededRandom } from "../support/random.ts";
import { takeShopThrough } from "../support/shop-journey.ts";
import { versionPairs } from "./version-pairs.ts";

// Nine servers share the machine.
describe.each(versionPairs)("from %s to %s", { timeout: 6 * 60_000 }, (source, target) => {
  test("a database that is written to", async () => {
    await using pair = await freePair({ source, target });
    const report = await takeShopThrough(
      { url: pair.source.url },
      { url: pair.target.url },
      { random: seededRandom(`shop ${source} to ${target}`) },
    );
    expect(report.differences).toEqual([]);
    expect(report.schemaChanges).toEqual([]);
    expect(report.phases).toEqual(["initialised", "copied", "following", "following"]);
    expect(report.committed).toBeGreaterThan(20);
    expect(report.batches).toBeGreaterThan(1);
  });
});

// Version 10 has no keys on partitioned tables; what is a key of every partition has to do.
describe("partitioned tables of version 10", () => {
  const leaves = (source: boolean): string => `
    create table sale (region int not null, day date not null, id int not null, v text${source ? "" : ", primary key (region, day, id)"})
      partition by list (region);
    create table sale_1 partition of sale for values in (1);
    create table sale_2 partition of sale for values in (2) partition by range (day);
    create table sale_2_early partition of sale_2 for values from ('2020-01-01') to ('2021-01-01');
    create table sale_2_late partition of sale_2 for values from ('2021-01-01') to ('2022-01-01');`;

  test("are replicated by the key that their partitions share", async () => {
    await using pair = await freePair({ source: "10", target: "18" });
    // The columns of a partition may stand in another order than those of its root.
    await pair.source.sql(`${leaves(true)}
      alter table sale_1 add primary key (region, day, id);
      alter table sale_2_early add primary key (id, day, region);
      create unique index on sale_2_late (day, region, id);
      create table other (v text, id int not null, day date not null, region int not null, primary key (day, id, region));
      alter table sale attach partition other for values in (3);
      insert into sale select 1 + g % 3, date '2020-01-01' + g, g, 'v' from generate_series(1, 700) g;`);
    await pair.target.sql(`${leaves(false)} create table other partition of sale for values in (3);`);
    await using sync = await openSync({ source: pair.source.url, target: pair.target.url, env: {} });
    const drain = async (): Promise<void> => {
      for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
    };
    const differences = async (): Promise<unknown> =>
      (await compareDatabases(pair.source.url, pair.target.url)).differences;
    await sync.init();
    await pair.source.sql("update sale set v = 'before copy' where id % 5 = 0");
    await sync.copy();
    await pair.source.sql(`
      update sale_2_late set id = id + 5000 where id % 2 = 0; delete from sale where id % 7 = 0;
      insert into other (region, day, id, v) values (3, '1999-01-01', -1, 'leaf');
      create table sale_4 partition of sale for values in (4); alter table sale_4 add primary key (region, day, id);
      insert into sale values (4, '2020-01-01', 1, 'in a new partition');`);
    await pair.target.sql("create table sale_4 partition of sale for values in (4)");
    await drain();
    expect(await differences()).toEqual([]);
    await pair.source.sql("update sale_4 set v = 'again'; truncate other; alter table sale add extra int");
    await pair.target.sql("alter table sale add extra int");
    await pair.source.sql("update sale set extra = 1 where id < 100");
    await drain();
    expect(await differences()).toEqual([]);
    expect((await sync.verify()).equal).toBe(true);
    await sync.drop();
  });

  test("are refused where there is none", async () => {
    await using pair = await freePair({ source: "10", target: "18" });
    await pair.target.sql(leaves(false));
    await using sync = await openSync({ source: pair.source.url, target: pair.target.url, env: {} });
    const refusals = async (): Promise<string> =>
      await sync.init().then(
        () => "none",
        (error: unknown) => JSON.stringify((error as { problems: unknown }).problems),
      );
    await pair.source.sql(`${leaves(true)} alter table sale_1 add primary key (region, day, id);`);
    expect(await refusals()).toContain(
      'alter table "public"."sale_2_early" add primary key'.replaceAll('"', '\\"'),
    );
    // Without the day, two partitions of the second level may hold the same key.
    await pair.source.sql(`
      alter table sale_2_early add primary key (region, id); alter table sale_2_late add primary key (region, id);
      create unique index on sale_1 (region, id);`);
    expect(await refusals()).toContain("each partition needs a unique index");
    expect(await pair.source.sql("select 1 from pg_namespace where nspname = 'replicate'")).toEqual([]);
  });
});
