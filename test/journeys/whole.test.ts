import { expect, test } from "vitest";

import { freePair } from "../support/database.ts";
import { seededRandom } from "../support/random.ts";
import { takeShopThrough } from "../support/shop-journey.ts";

test("the whole way of a database that is written to", async () => {
  await using pair = await freePair();
  const report = await takeShopThrough(
    { url: pair.source.url },
    { url: pair.target.url },
    { random: seededRandom("shop") },
  );
  expect(report.differences).toEqual([]);
  expect(report.schemaChanges).toEqual([]);
  expect(report.phases).toEqual(["initialised", "copied", "following", "following"]);
  expect(report.committed).toBeGreaterThan(20);
  expect(report.batches).toBeGreaterThan(1);
  const built = report.events.filter(({ type }) => type === "index-built").length;
  expect(built).toBeGreaterThan(10);
});
