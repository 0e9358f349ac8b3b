import { test } from "vitest";

import { takeThroughTravels } from "../support/travel-cases.ts";
import { versionPairs } from "./version-pairs.ts";

test.for(versionPairs)(
  "schema changes travel from %s to %s",
  { timeout: 400_000 },
  async ([source, target]) => {
    await takeThroughTravels({ source, target });
  },
);
