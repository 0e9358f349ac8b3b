import { describe, test } from "vitest";

import { takeThroughOldRows } from "../support/old-rows-cases.ts";
import { takeThroughRefits } from "../support/refit-cases.ts";

// Rows that nobody has written to, after tables of both sides changed, whatever the versions.

const pairs = [
  ["10", "15"],
  ["11", "10"],
  ["12", "16"],
  ["14", "14"],
  ["17", "13"],
  ["18", "18"],
] as const;

describe.each(pairs)("from %s to %s", { timeout: 5 * 60_000 }, (source, target) => {
  test("changes of tables that are followed", async () => {
    await takeThroughOldRows({ source, target });
  });

  test("changes of the source alone, and the statements that are told", async () => {
    await takeThroughRefits({ source, target });
  });
});
