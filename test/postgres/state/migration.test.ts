import { expect, test } from "vitest";

import { takeMigrationThrough } from "../../support/migration-journey.ts";

test(
  "a whole migration by owners, there and back, under a writing application",
  { timeout: 240_000 },
  async () => {
    const { fences, committed } = await takeMigrationThrough({ source: "13", target: "18" });
    expect(committed).toBeGreaterThan(100);
    process.stdout.write(
      `fences ${fences.map((seconds) => `${seconds.toFixed(2)} s`).join(", ")}; ${committed} transactions\n`,
    );
  },
);
