import { expect, test } from "vitest";

import { freePair } from "../../support/database.ts";
import { startFollowed } from "../../support/follow-setup.ts";

// Which changes a two-way sync has made itself is not for applications to say.

test.each(["row", "statement"] as const)(
  "a writer that passes for the sync is captured like any other, by %s triggers",
  { timeout: 60_000 },
  async (capture) => {
    await using pair = await freePair();
    await using followed = await startFollowed(
      pair,
      "create table t (id int primary key, v text); insert into t values (1, 'a'), (2, 'b'), (3, 'c')",
      { direction: "both", overrides: { "public.t": { capture } } },
    );
    await followed.drain();
    const stop = new AbortController();
    const following = (async () => {
      for await (const _ of followed.sync.follow({ signal: stop.signal })) void _;
    })();
    await expect.poll(async () => await pair.target.sql("select 1 from replicate.applying")).not.toEqual([]);
    // Also with what it could have read in a log.
    const [{ token }] = (await pair.target.sql("select token from replicate.applying")) as [
      { token: string },
    ];
    for (const side of [pair.source, pair.target]) {
      const writer = await side.createRole();
      await side.sql(`grant all on t to ${writer.name}`);
      await expect(
        side.sql(`set role ${writer.name}; insert into replicate.applying values ('x', pg_backend_pid())`),
      ).rejects.toMatchObject({ code: "42501" });
      await side.sql("reset role");
    }
    await pair.source.sql(
      "set replicate.applying = '1'; update t set v = 'source' where id = 1; insert into t values (4, 'new')",
    );
    await pair.target.sql(
      `set replicate.applying = '${token}'; update t set v = 'target' where id = 2; delete from t where id = 3`,
    );
    const expected = [
      { id: 1, v: "source" },
      { id: 2, v: "target" },
      { id: 4, v: "new" },
    ];
    for (const side of [pair.source, pair.target])
      await expect
        .poll(async () => await side.sql("select * from t order by id"), { timeout: 20_000 })
        .toEqual(expected);
    stop.abort();
    await following;
    // And nothing of it has gone back and forth.
    expect((await followed.drain()).reduce((sum, { rows }) => sum + rows, 0)).toBe(0);
  },
);
