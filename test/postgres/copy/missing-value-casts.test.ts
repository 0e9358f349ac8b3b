import { expect, test } from "vitest";

import { openSync } from "../../../src/index.ts";
import { freePair } from "../../support/database.ts";

// A column that was added with a default has its missing value in pg_attribute, in the column's own type. Whoever reads that row
// as JSON calls the cast to json that a user has made for the type, as the role that reads.

const trap = `
  create schema lab;
  create type lab.mood as enum ('a', 'b');
  create table lab.called (who text);
  create function lab.to_json(lab.mood) returns json language plpgsql as $$
    begin insert into lab.called values (session_user); return '1'; end $$;
  create cast (lab.mood as json) with function lab.to_json(lab.mood);
  create table lab.t (id int primary key);
  insert into lab.t values (1), (2);
  alter table lab.t add column m lab.mood default 'a';`;

test("a cast to json of a missing value's type is called by nothing of ours", async () => {
  await using pair = await freePair();
  for (const side of [pair.source, pair.target]) await side.sql(trap);
  await using sync = await openSync({
    source: pair.source.url,
    target: pair.target.url,
    tables: ["lab.t"],
    env: {},
  });
  await sync.preflight();
  await sync.compareSchemas();
  await sync.init();
  await sync.copy({ overwrite: true });
  await pair.source.sql("update lab.t set m = 'b' where id = 1");
  for await (const _ of sync.follow({ untilCaughtUp: true }));
  expect(await sync.verify()).toMatchObject({ equal: true });
  await sync.cutover({ rehearse: true });
  await sync.drop();
  for (const side of [pair.source, pair.target])
    expect(await side.sql("select * from lab.called")).toEqual([]);
  // The trap works.
  await pair.source.sql("select to_jsonb(a) from pg_attribute a where attrelid = 'lab.t'::regclass");
  expect(await pair.source.sql("select who from lab.called")).not.toEqual([]);
});
