import { expect, test } from "vitest";

import { openPrepared, rows, schema, drain } from "../support/cutover-setup.ts";
import { onBoth } from "../support/follow-setup.ts";
import { withClient } from "../support/admin.ts";
import { compareDatabases } from "../support/compare.ts";
import { freePair } from "../support/database.ts";
import { ownServers } from "../support/own-servers.ts";
import { until } from "../support/until.ts";

// A server that goes away in the middle of a cutover: the fence is lifted as soon as the servers are there again,
// without anybody's help, and the same command then does it.

const servers = ownServers();

for (const side of ["source", "target"] as const) {
  test(`the ${side} dies while the source is fenced`, { timeout: 180_000 }, async () => {
    const server = servers[side];
    await using pair = await freePair({ ...servers, leaks: "ignore" });
    await onBoth(pair, schema);
    await pair.source.sql(rows);
    const { sync } = await openPrepared(pair);
    await using _ = sync;
    let dying: Promise<void> | undefined;
    const isRefused = async (): Promise<boolean> =>
      await pair.source
        .sql("update touched set times = times where false")
        .then(() => false, (error: { code?: string }) => error.code === "25006"); // prettier-ignore
    const switching = sync.cutover({
      onEvent: (event) => {
        if (event.type === "switch-step" && event.step === "draining") dying = server.kill9();
      },
    });
    const outcome = switching.then(
      () => "switched",
      (error: unknown) => String(error),
    );
    await until("the server is killed", () => dying !== undefined);
    await dying;
    // It bites: applications cannot write, or there is no server to write to.
    if (side === "target") {
      expect(await isRefused()).toBe(true);
      await expect(sync.status()).rejects.toMatchObject({ code: "SERVER_UNREACHABLE" });
    } else {
      const status = await sync.status();
      expect(status.phase).toBe("fenced");
      expect(status.sourceError).toContain("cannot connect to the source");
    }
    await server.restart();
    expect(await outcome).toContain("everything was undone");
    await until("the source takes writes", async () =>
      await pair.source.sql("insert into account (name) values ('after')").then(() => true, () => false),
    ); // prettier-ignore
    expect(await sync.status()).toMatchObject({ phase: "following", switch: null, fence: null });
    await drain(sync);
    expect((await sync.cutover()).result).toBe("switched");
    expect((await compareDatabases(pair.source.url, pair.target.url)).differences).toEqual([]);
    // The test's own session went with the server.
    const found = await withClient(pair.target.url, async (client) =>
      await client.query("select 1 from account where name = 'after'"),
    ); // prettier-ignore
    expect(found.rows).toHaveLength(1);
    await sync.drop();
  });
}
