import { expect, test } from "vitest";
import { freePair } from "../support/database.ts";
import {
  differences,
  followUntilCaughtUp,
  onBoth,
  openCopySync,
  shopRows,
  shopSchema,
} from "./copy-setup.ts";

const partBytes = 256 * 1024;

test("copies tables with all kinds of keys, small and large, in parts, and a second run has nothing to do", async () => {
  await using pair = await freePair();
  await onBoth(pair, shopSchema);
  await pair.source.sql(shopRows(30_000));
  const { sync, events, of } = await openCopySync(pair);
  await using _ = sync;
  await sync.init();

  const report = await sync.copy({ jobs: 3, partBytes });
  expect(await differences(pair)).toEqual([]);
  expect(report.rows).toBe(30_000 + 1000 + 60_000 + 4);
  expect(report.tables.map(({ table, state }) => `${table} ${state}`)).toEqual([
    "public.customer copied",
    "public.item copied",
    "public.product copied",
    "public.setting copied",
  ]);
  expect(of("copy-planned")[0]?.tables).toBe(4);
  expect(of("copy-planned")[0]?.parts).toBeGreaterThan(20);
  expect(of("table-copied").map((event) => event.table).sort()).toEqual(report.tables.map(({ table }) => table)); // prettier-ignore
  expect(of("index-built").map((event) => event.index).sort()).toEqual(["customer_email_key", "customer_pkey", "item_pkey", "item_product"]); // prettier-ignore
  const parts = await pair.target.sql<{ n: number }>(`select count(*)::int as n from replicate.part`);
  expect(parts[0]?.n).toBe(of("copy-planned")[0]?.parts);

  events.splice(0);
  const again = await sync.copy();
  expect(again.rows).toBe(report.rows);
  expect(of("copy-planned")[0]).toMatchObject({ tables: 0, parts: 0 });
  expect(of("table-copied")).toEqual([]);

  await followUntilCaughtUp(sync);
  await sync.drop();
});
