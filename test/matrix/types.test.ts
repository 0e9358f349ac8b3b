import { describe, expect, test } from "vitest";

import { freePair } from "../support/database.ts";
import { takeZooThrough } from "../support/type-zoo-journey.ts";
import { versionPairs } from "./version-pairs.ts";

describe.each(versionPairs)("from %s to %s", { timeout: 6 * 60_000 }, (source, target) => {
  test("every type", async () => {
    await using pair = await freePair({ source, target });
    const report = await takeZooThrough(pair);
    expect.soft(report.differences).toEqual([]);
    expect.soft(report.verified).toEqual({ equal: true, tables: report.tables.length, different: [] });
    expect.soft(report.formats).toEqual(report.expectedFormats);
    expect(report.rows).toBeGreaterThan(400);
  });
});
