import { test } from "vitest";

import { takeThroughOldRows } from "../support/old-rows-cases.ts";
import { takeThroughRefits } from "../support/refit-cases.ts";

// Rows that nobody has written to, after tables of both sides changed: the same, or read again.

test("changes of tables that are followed", { timeout: 5 * 60_000 }, async () => {
  await takeThroughOldRows({ source: "13", target: "18" });
});

test("changes of the source alone, and the statements that are told", { timeout: 5 * 60_000 }, async () => {
  await takeThroughRefits({ source: "13", target: "18" });
});
