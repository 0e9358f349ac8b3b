import { expect, test } from "vitest";

import { freePair } from "../../support/database.ts";
import { startFollowed } from "../../support/follow-setup.ts";

test("a batch counts each key once, also where unique values were exchanged", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(
    pair,
    `create table t (id int primary key, email text unique);
     insert into t values (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd')`,
  );
  await followed.drain();
  await pair.source.sql(`
    begin;
    update t set email = 'x' where id = 1;
    update t set email = 'a' where id = 2;
    update t set email = 'b' where id = 1;
    commit`);
  expect((await followed.drain()).map(({ rows }) => rows)).toEqual([2]);
  await pair.source.sql("delete from t where id = 3; update t set email = 'e' where id = 4");
  expect((await followed.drain()).map(({ rows }) => rows)).toEqual([2]);
  const { follow } = await followed.sync.status();
  expect(follow.rowsApplied).toBe(4);
});
