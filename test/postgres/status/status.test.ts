import { expect, test } from "vitest";

import { freePair } from "../../support/database.ts";
import { onBoth, startFollowed } from "../../support/follow-setup.ts";
import { openSync } from "../../../src/index.ts";

// What a status tells about work that goes on elsewhere.

test("a batch that takes long is told while it does", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, "create table t (id int primary key, v text)");
  await pair.source.sql("insert into t select g, 'v' from generate_series(1, 5000) g");
  // The target cannot write as long as somebody else holds the table.
  const holder = await pair.target.client();
  await holder.query("begin; lock table t in share mode");
  const drained = followed.drain();
  await expect
    .poll(async () => await followed.sync.status(), { timeout: 30_000, interval: 300 })
    .toMatchObject({
      runner: { batch: { changes: 5000, rows: 5000, since: expect.any(String) } },
      waits: [
        {
          side: "target",
          session: "replicate follow",
          what: "public.t",
          seconds: expect.any(Number),
          blockedBy: expect.stringMatching(/^pid \d+ of \w+, idle in transaction, open for \d+ s$/),
        },
      ],
    });
  await holder.query("commit");
  await holder.end();
  await drained;
  expect(await followed.sync.status()).toMatchObject({
    waits: [],
    runner: { batch: null },
    lag: { rows: 0 },
  });
});

test("a command that tries again and again to lock a table is told, and who has it", async () => {
  await using pair = await freePair();
  await onBoth(pair, "create table held (id int primary key); create table free (id int primary key)");
  const options = { source: pair.source.url, target: pair.target.url, env: {} };
  await using sync = await openSync({ ...options, tables: ["free"] });
  await sync.init();
  const holder = await pair.source.client();
  await holder.query("begin; insert into held values (1)");
  await using wider = await openSync({ ...options, tables: ["free", "held"] });
  const initialised = wider.init();
  await expect
    .poll(async () => (await sync.status()).waits, { timeout: 30_000, interval: 100 })
    .toContainEqual({
      side: "source",
      session: "replicate init",
      what: "public.held",
      seconds: expect.any(Number),
      blockedBy: expect.stringMatching(/^pid \d+ of \w+, idle in transaction, open for \d+ s$/),
    });
  await holder.query("commit");
  await holder.end();
  await initialised;
  expect((await sync.status()).waits).toEqual([]);
});
