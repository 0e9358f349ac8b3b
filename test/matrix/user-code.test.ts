import { describe, test } from "vitest";

import { members, runsAsItsOwnerAlone } from "../support/user-code.ts";

describe.each(["10", "18"])("on %s", (version) => {
  test.each(members)(
    "$name: runs as its owner alone",
    { timeout: 120_000 },
    async (member) => await runsAsItsOwnerAlone(member, "row", version),
  );
});
