import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { freePair } from "../../support/database.ts";
import { startFollowed } from "../../support/follow-setup.ts";

// What the application does on the source waits for a long reading of ours for less than its own time-out.

const isRead = `select 1 from pg_locks l join pg_stat_activity a using (pid)
  where l.relation = 't'::regclass and l.granted and l.mode = 'AccessShareLock' and a.application_name = 'replicate follow'`;

test.each([
  ["truncate", "truncate t"],
  ["ddl", "alter table t alter column note set statistics 10"],
  ["lock", "begin; lock table t in access exclusive mode; commit"],
])("%s: a table that is read again as a whole is let go for who wants it", async (_, statement) => {
  await using pair = await freePair({ source: "18", target: "18" });
  await using followed = await startFollowed(
    pair,
    `create table t (id int primary key, note text);
     insert into t select g, repeat('n', 200) from generate_series(1, 100000) g`,
  );
  await followed.drain();
  // Nobody takes the rows, so that the reading lasts.
  const holder = await pair.target.client();
  await holder.query("begin; select 1 from replicate.sync for update");
  await pair.source.sql(`insert into replicate.delta_1_a (truncated) values (0)`);
  const end = new AbortController();
  const following = (async () => {
    for await (const batch of followed.sync.follow({ signal: end.signal })) void batch;
  })();
  while ((await pair.source.sql(isRead)).length === 0) await sleep(5);
  const application = await pair.source.client();
  await application.query("set lock_timeout = '1500ms'");
  for (const each of statement.split("; ")) await application.query(each);
  await application.query(`insert into t select 200001, 'after'`);
  await holder.query("rollback");
  end.abort();
  await following;
  expect(await followed.differences()).toEqual([]);
});
