import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";

import { freePair } from "../../support/database.ts";
import { until } from "../../support/until.ts";
import { startFollowed } from "../../support/follow-setup.ts";

// Both ways are stopped, and one of them is still at a batch.

test("a batch that is not over when the way back has ended meets only what that has not brought over", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(
    pair,
    `create table t (id int primary key, v text); insert into t values (1, 'v')`,
    { direction: "both", conflict: "target-wins" },
  );
  await followed.drain();
  // Keeps the target's change in its delta tables, although it was brought over.
  const reader = await pair.target.client();
  const [capture] = await pair.target.sql<{ id: number }>(
    "select id from replicate.capture where relid = 't'::regclass",
  );
  const deltas = ["a", "b"].map((delta) => `replicate.delta_${capture?.id}_${delta}`);
  await reader.query(`begin; lock table ${deltas.join(", ")} in access share mode`);
  await pair.target.sql("update t set v = 'target'");
  await followed.drain();
  expect(await pair.source.sql("select v from t")).toEqual([{ v: "target" }]);

  const blocker = await pair.source.client();
  let isMade = false;
  for (let tries = 1; tries <= 10 && !isMade; tries += 1) {
    const stop = new AbortController();
    const following = (async () => {
      for await (const _ of followed.sync.follow({ signal: stop.signal })) void _;
    })();
    const sessions = async (what: string): Promise<number> =>
      (await pair.source.sql(`select 1 from pg_stat_activity where datname = current_database() and application_name = 'replicate follow' and ${what}`)).length; // prettier-ignore
    await until("both ways are there", async () => (await sessions("true")) === 2);
    // So long that they rest for a second between two looks, in which a way ends at once when it is stopped.
    await sleep(3000);
    await pair.source.sql("update t set v = $1", [`source ${tries}`]);
    await blocker.query("begin; lock table t in access exclusive mode");
    await until("a batch is held up", async () => (await sessions("wait_event_type = 'Lock'")) > 0);
    stop.abort();
    for (let looks = 0; looks < 30 && !isMade; looks += 1) {
      isMade = (await sessions("true")) === 1;
      await sleep(50);
    }
    await blocker.query("commit");
    await following;
    if (!isMade) continue;
    await followed.drain();
    expect(await pair.target.sql("select v from t")).toEqual([{ v: `source ${tries}` }]);
    expect(await pair.target.sql("select * from replicate.conflict")).toEqual([]);
  }
  expect(isMade).toBe(true);
  await reader.query("commit");
});
