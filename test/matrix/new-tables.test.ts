import { expect, test } from "vitest";

import { freePair } from "../support/database.ts";
import { createAll } from "../support/new-tables.ts";

// From a server without keys on partitioned tables to one that has them.

test(
  "new tables of every shape join while the sync is followed, 10 to 15",
  { timeout: 240_000 },
  async () => {
    await using pair = await freePair({ source: "10", target: "15" });
    await using reference = await freePair({ source: "10", target: "15" });
    const { rows, equal, left } = await createAll(pair, "10", reference.source);
    expect(rows).toEqual([]);
    expect(equal).toBe(true);
    expect(left).toEqual([]);
  },
);
