import { expect, test } from "vitest";

import { openSync, type Status } from "../../../src/index.ts";
import { freePair } from "../../support/database.ts";
import { onBoth, startFollowed, type Followed, type Side } from "../../support/follow-setup.ts";

// The age of what waits, as `status` tells it. The hours here are moved in the state, nobody waits for them.

const hour = 3600;

const lagOf = async ({ sync }: Pick<Followed, "sync">): Promise<Status["lag"]> => (await sync.status()).lag;

/** The runner's last look that left nothing to apply, and the last batch, were so many seconds ago. */
async function moveBack(target: Side, look: number, batch: number): Promise<void> {
  await target.sql(`update replicate.runner set clear_at = now() - make_interval(secs => ${look})`);
  await target.sql(`update replicate.sync set last_batch_at = now() - make_interval(secs => ${batch})`);
}

const change = "insert into t values (100, 'new')";
const schema = "create table t (id int primary key, v text); insert into t values (1, 'old')";

test("what waits on a quiet database is as old as the last look that found nothing, not as the last batch", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, schema);
  await followed.drain();
  await moveBack(pair.target, 10, 24 * hour);
  await pair.source.sql(change);
  const waiting = await lagOf(followed);
  expect(waiting.rows).toBe(1);
  expect(waiting.seconds).toBeGreaterThanOrEqual(10);
  expect(waiting.seconds).toBeLessThan(hour);
  await followed.drain();
  expect(await lagOf(followed)).toMatchObject({ rows: 0, seconds: 0 });
});

test("a look that finds nothing makes what comes after it young", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, schema);
  await followed.drain();
  await moveBack(pair.target, 24 * hour, 24 * hour);
  await followed.drain();
  await pair.source.sql(change);
  const waiting = await lagOf(followed);
  expect(waiting.rows).toBe(1);
  expect(waiting.seconds).toBeLessThan(hour);
});

test("changes that a failed runner leaves are as old as they are", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, schema);
  await followed.drain();
  await pair.target.sql("alter table t add constraint short check (v <> 'new')");
  await moveBack(pair.target, 2 * hour, 0);
  await pair.source.sql(change);
  await expect(followed.drain()).rejects.toThrow(/short/);
  const waiting = await lagOf(followed);
  expect(waiting.rows).toBe(1);
  expect(waiting.seconds).toBeGreaterThanOrEqual(2 * hour);
});

test("the age is null where nobody can know it", async () => {
  await using pair = await freePair();
  await onBoth(pair, schema);
  const options = { source: pair.source.url, target: pair.target.url, env: {} };
  await using sync = await openSync(options);
  await sync.init();
  await pair.source.sql(change);
  expect(await lagOf({ sync }), "before the copy").toMatchObject({ rows: 1, seconds: null });
  await sync.copy({ overwrite: true });
  expect(await lagOf({ sync }), "before the first look").toMatchObject({ rows: 1, seconds: null });
  for await (const _ of sync.follow({ untilCaughtUp: true }));
  expect(await lagOf({ sync })).toMatchObject({ rows: 0, seconds: 0 });

  // A table that joins: its changes are older than the look that left it out.
  await onBoth(pair, "create table later (id int primary key)");
  await sync.init();
  await pair.source.sql("insert into later values (1)");
  expect(await lagOf({ sync }), "of a table that is not copied").toMatchObject({ rows: 1, seconds: null });

  const away = new URL(pair.source.url);
  away.port = "1";
  await using lost = await openSync({ ...options, source: away.href });
  expect(await lagOf({ sync: lost }), "without the source").toMatchObject({ rows: null, seconds: null });
});
