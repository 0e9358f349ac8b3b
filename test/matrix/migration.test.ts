import { describe, expect, test } from "vitest";

import { takeMigrationThrough } from "../support/migration-journey.ts";

// The whole way there and back, where the versions are others than those of the daily tests.
const pairs = [
  ["11", "18"],
  ["15", "16"],
] as const;

describe.each(pairs)("from %s to %s", { timeout: 6 * 60_000 }, (source, target) => {
  test("a whole migration by owners, there and back, under a writing application", async () => {
    const { fences, committed } = await takeMigrationThrough({ source, target });
    expect(fences).toHaveLength(2);
    expect(committed).toBeGreaterThan(100);
  });
});
