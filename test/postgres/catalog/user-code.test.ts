import { test } from "vitest";

import { members, runsAsItsOwnerAlone } from "../../support/user-code.ts";

test.each(
  members.flatMap((member) => (["row", "statement"] as const).map((capture) => ({ ...member, capture }))),
)(
  "$name: runs as its owner alone, $capture triggers",
  { timeout: 120_000 },
  async ({ capture, ...member }) => await runsAsItsOwnerAlone(member, capture, "13"),
);
