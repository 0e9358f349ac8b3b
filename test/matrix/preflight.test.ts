import { describe, expect, test } from "vitest";

import { openSync } from "../../src/index.ts";
import { quoteName } from "../support/admin.ts";
import { allVersions } from "../support/binaries.ts";
import { leastPrivilegedPair } from "../support/least-privileged-pair.ts";
import { shopSchema } from "../support/shop.ts";

// Every question of preflight is understood by every version, on either side, from an owner who is nothing more.

describe.each(allVersions)("%s", (version) => {
  test.each([
    [version, "18"],
    ["10", version],
    ["18", version],
  ])("from %s to %s", async (from, to) => {
    await using pair = await leastPrivilegedPair({ source: from, target: to });
    const oldest = Math.min(Number(from), Number(to));
    for (const side of [pair.source, pair.target]) await side.sql(shopSchema(oldest));
    await using sync = await openSync({ source: pair.source.url, target: pair.target.url, env: {} });
    const { findings } = await sync.preflight({ checkForeignKeys: true, longTransactionSeconds: 0 });
    const said = findings.map(({ severity, subject, message }) => `${severity}: ${subject}: ${message}`);
    expect(said.filter((line) => line.includes("could not be checked"))).toEqual([]);
    // The application's role of the source is missing, unless both are databases of one server, and its rights are.
    expect(said.filter((line) => line.startsWith("warning: role "))).toHaveLength(from === to ? 1 : 2);
    for (const { subject, remedy = "", side, role } of findings) {
      if (side === undefined || !/^(role|default privileges) /.test(subject)) continue;
      const setRole = role === pair[side].owner.name ? `set role ${quoteName(pair[side].owner.name)};` : "";
      await pair[side].asAdmin(`${setRole}\n${remedy}\n; reset role`);
    }
    const after = (await sync.preflight()).findings.filter(({ subject }) =>
      /^(role|default privileges) /.test(subject),
    );
    expect(after).toEqual([]);
    const writer = quoteName(pair.source.writer.name);
    // The target's database goes after the source's roles.
    await pair.target.asAdmin(`drop owned by ${writer}`);
    if (from !== to) await pair.target.asAdmin(`drop role ${writer}`);
  });
});
