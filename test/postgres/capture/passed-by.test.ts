import { expect, test } from "vitest";

import { compareDatabases } from "../../support/compare.ts";
import { freePair, type Pair } from "../../support/database.ts";
import { openFollowed } from "../../support/follow-setup.ts";

// Writes that triggers per statement do not see, because the statement names another table, or because there is none.

const members = [
  {
    name: "the table becomes a partition",
    there: "create table p (id int, v text) partition by range (id)",
    happens: "alter table p attach partition t for values from (0) to (1000)",
    write: "update p set v = 'through the parent' where id = 1; insert into p values (50, 'new'); delete from p where id = 2; update p set id = 60 where id = 3",
  },
  {
    name: "the table becomes the child of another",
    there: "create table p (id int not null, v text)",
    happens: "alter table t inherit p",
    write: "update p set v = 'through the parent' where id = 1; delete from p where id = 2",
  },
  {
    name: "the table has become a partition of a partition",
    there: "create table p (id int, v text) partition by range (id); create table q partition of p for values from (0) to (1000) partition by range (id)",
    happens: "alter table q attach partition t for values from (0) to (100)",
    write: "update p set v = 'through the parent' where id = 1; insert into p values (50, 'new')",
  },
  {
    name: "the table has become the parent of another",
    there: "select 1",
    happens: "create table c () inherits (t)",
    write: "update t set v = 'from above'; insert into c values (900, 'of the child')",
  },
  {
    name: "a foreign key cascades",
    there: "create table p (id int primary key)",
    happens: "insert into p select g from generate_series(1, 10) g; alter table t add foreign key (id) references p on delete cascade on update cascade",
    write: "delete from p where id = 2; update p set id = 70 where id = 3",
  },
  {
    name: "a view, a rule and COPY",
    there: "create table w (id int, v text); create rule r as on insert to w do instead insert into t values (new.id, new.v)",
    happens: "create view view_t as select * from t",
    write: "update view_t set v = 'through the view' where id = 1; insert into w values (80, 'by the rule')",
  },
  {
    name: "a writer in the role of a replica",
    there: "select 1",
    happens: "select 1",
    write: "set session_replication_role = replica; update t set v = 'replica'; delete from t where id = 4",
  },
]; // prettier-ignore

async function same(pair: Pair): Promise<unknown> {
  return (await compareDatabases(pair.source.url, pair.target.url, ["public.t"])).differences;
}

const keys = [
  { key: "with a key", id: "id int primary key" },
  { key: "without a key", id: "id int not null" },
];

test.each(members.flatMap((member) => keys.map((key) => ({ ...member, ...key }))))(
  "$name, $key",
  { timeout: 60_000 },
  async ({ name, id, there, happens, write }) => {
    await using pair = await freePair();
    const table = `create table t (${id}, v text); insert into t select g, 'v' from generate_series(1, 10) g`;
    await pair.source.sql(`${table}; ${there}`);
    await pair.target.sql(table);
    const tables = ["public.t"];
    await using followed = await openFollowed(pair, {
      tables,
      keyless: "reload",
      overrides: { "public.t": { capture: "statement" } },
    });
    await followed.drain();
    await pair.source.sql(happens);
    await pair.source.sql(write);
    await followed.drain();
    if (!name.includes("parent of another")) expect(await same(pair)).toEqual([]);
    else
      expect(await pair.target.sql("select * from t order by id")).toEqual(
        await pair.source.sql("select * from only t order by id"),
      );
    // From then on nothing has to be noticed.
    await pair.source.sql(
      write
        .replaceAll(/\(\d0,/g, "(99,")
        .replaceAll(/= [67]0\b/g, "= 98")
        .replaceAll("900", "901"),
    );
    await followed.drain();
    expect(await pair.target.sql("select * from t order by id")).toEqual(
      await pair.source.sql("select * from only t order by id"),
    );
    expect((await followed.sync.verify()).equal).toBe(true);
  },
);
