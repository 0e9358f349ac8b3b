import { test } from "vitest";

import { takeThroughTravels } from "../../support/travel-cases.ts";

test("schema changes of the source are made on the target, with the batch behind which they happened", async () => {
  await takeThroughTravels({ source: "13", target: "18" });
});
