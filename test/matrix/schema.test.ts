import { execFileSync } from "node:child_process";
import { describe, expect, test } from "vitest";

import { openSync } from "../../src/index.ts";
import { allVersions } from "../support/binaries.ts";
import { freePair } from "../support/database.ts";
import { shopSchema } from "../support/shop.ts";

// The catalogue queries of schema on every version, and the client programs with every source that they can read.

function clientVersion(): number {
  try {
    return Number(/\) (\d+)/.exec(execFileSync("pg_dump", ["--version"], { encoding: "utf8" }))?.[1]);
  } catch {
    process.stderr.write("schemas are not dumped here: pg_dump is not installed\n");
    return 0;
  }
}

const client = clientVersion();

const more = `
  create view known as select id, name from customer where status = 'known';
  create materialized view numbers as select status, count(*) as n from customer group by status;
  create unique index numbers_status on numbers (status);
  create statistics shared on customer_id, number from order_line;
  alter table setting enable row level security;
  create policy everybody on setting using (key <> '');
  create rule quiet as on delete to nothing_yet do instead nothing;
  create type pair as (a int, b text)`;

describe.each(allVersions)("%s", (version) => {
  test("a schema made by the same statements is the same", async () => {
    await using pair = await freePair({ source: version, target: version });
    for (const side of [pair.source, pair.target]) await side.sql(shopSchema(Number(version)) + more);
    await using sync = await openSync({ source: pair.source.url, target: pair.target.url, env: {} });
    expect(await sync.compareSchemas()).toMatchObject({ equal: true, differences: [] });
    await pair.target.sql("alter table setting add x int");
    expect((await sync.compareSchemas()).differences).toMatchObject([{ object: "column public.setting.x" }]);
  });

  // To its own version, the oldest and the newest: pg_dump sets what older servers do not know.
  test
    .skipIf(Number(version) > client)
    .each([...new Set([version, "10", "18"])].filter((to) => Number(to) >= Number(version)))(
    "comes whole to %s",
    async (to) => {
      await using pair = await freePair({ source: version, target: to });
      await pair.source.sql(shopSchema(Number(version)) + more);
      await using sync = await openSync({ source: pair.source.url, target: pair.target.url, env: {} });
      await sync.schema();
      await sync.schema({ section: "post-data" });
      expect((await sync.schema()).created).toEqual([]);
      expect(await sync.compareSchemas()).toMatchObject({ equal: true, differences: [] });
    },
  );
});
