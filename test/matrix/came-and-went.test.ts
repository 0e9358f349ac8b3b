import { expect, test } from "vitest";

import { allVersions } from "../support/binaries.ts";
import { compareDatabases } from "../support/compare.ts";
import { freePair } from "../support/database.ts";
import { openFollowed, onBoth } from "../support/follow-setup.ts";

// A table is altered, written to and altered back, in one transaction or between two looks: nothing of it can be seen any
// more. Each member has a table `t` and a schema of its own, so that all of one server are followed at once.

interface Member {
  name: string;
  /** On both sides, beside `t`. */
  there?: string;
  /** On the source: in one transaction, and in one each. */
  happens: string;
  since?: number;
}

/** Before 13 a table with our triggers per statement cannot be given a parent at all. */
const isRefused = (happens: string, version: string, method: string): boolean =>
  method === "statement" && Number(version) < 13 && /inherit|attach/.test(happens);

/** Our triggers off or on, whatever they are called. */
const triggers = (how: string): string => `do $$ declare r record; begin
    for r in select tgname from pg_trigger where tgrelid = 't'::regclass and tgname like 'zzz\\_replicate\\_%' loop
      execute format('alter table t ${how} trigger %I', r.tgname); end loop; end $$`;
const range = "for values from (0) to (1000)";

const members: Member[] = [
  {
    name: "inherit",
    there: "create table p (id int not null, v text, n int)",
    happens:
      "alter table t inherit p; update p set v = 'p' where id = 1; delete from p where id = 2; alter table t no inherit p",
  },
  {
    name: "inherit of one column",
    there: "create table p (n int)",
    happens: "alter table t inherit p; update p set n = 7 where n = 1; alter table t no inherit p",
  },
  {
    name: "inherit at two removes",
    there: "create table g (v text); create table p (id int not null) inherits (g)",
    happens: "alter table t inherit p; delete from g where v = 'v3'; alter table t no inherit p",
  },
  {
    name: "inherit of a table that is dropped",
    there: "create schema q; create table q.p (v text)",
    happens:
      "create table z (v text); alter table t inherit z; update z set v = 'z' where v = 'v1'; alter table t no inherit z; drop table z",
  },
  {
    name: "inherit, and the column is written no more",
    there: "create table p (v text)",
    happens:
      "alter table t inherit p; update p set v = 'p' where v = 'v1'; alter table t no inherit p; alter table t alter v set default 'd'",
  },
  {
    name: "truncate by the parent",
    there: "create table p (v text)",
    happens:
      "alter table t inherit p; truncate p; insert into t values (50, 'new', 1); alter table t no inherit p",
  },
  {
    name: "attach",
    there: "create table p (id int, v text, n int) partition by range (id)",
    happens: `alter table p attach partition t ${range}; update p set v = 'p' where id = 1; insert into p values (50, 'new', 1);
      delete from p where id = 2; alter table p detach partition t`,
  },
  {
    name: "attach to a partition",
    there: `create table p (id int, v text, n int) partition by range (id);
      create table m partition of p ${range} partition by range (id)`,
    happens: `alter table m attach partition t ${range}; insert into p values (50, 'new', 1); alter table m detach partition t`,
  },
  {
    name: "attach, and a row moves away",
    there: `create table p (id int, v text, n int) partition by range (id);
      create table other partition of p for values from (1000) to (2000)`,
    happens: `alter table p attach partition t ${range}; update p set id = 1001 where id = 1; alter table p detach partition t`,
    since: 11,
  },
  {
    name: "triggers off",
    happens: `${triggers("disable")}; update t set v = 'off' where id = 1; delete from t where id = 2; ${triggers("enable always")}`,
  },
  {
    name: "all triggers off",
    happens: `alter table t disable trigger all; insert into t values (50, 'off', 1); ${triggers("enable always")}`,
  },
  {
    name: "replica",
    happens: "set local session_replication_role = replica; update t set v = 'r' where id = 1; delete from t where id = 2",
  },
  {
    name: "rule",
    there: "create table w (id int primary key, v text)",
    happens: `create rule r as on insert to w do instead insert into t values (new.id, new.v, 0);
      insert into w values (50, 'rule'); drop rule r on w`,
  },
  {
    name: "rule on the table",
    there: "create table w (id int primary key, v text)",
    happens: `create rule r as on update to t do also delete from t where id = old.id + 1;
      update t set v = 'rule' where id = 2; drop rule r on t`,
  },
  {
    name: "view",
    happens: "create view w as select * from t; update w set v = 'view' where id = 1; drop view w",
  },
  {
    name: "rename",
    happens: "alter table t rename to other_name; update other_name set v = 'o' where id = 1; alter table other_name rename to t",
  },
  {
    name: "set schema",
    happens: `create schema elsewhere_NAME; alter table t set schema elsewhere_NAME; delete from elsewhere_NAME.t where id = 1;
      alter table elsewhere_NAME.t set schema NAME; drop schema elsewhere_NAME`,
  },
  {
    name: "owner",
    happens: "alter table t owner to pg_monitor; update t set v = 'o' where id = 1; alter table t owner to current_user",
  },
  {
    name: "column renamed",
    happens: "alter table t rename v to w; update t set w = 'w' where id = 1; alter table t rename w to v",
  },
  {
    name: "key renamed",
    happens: "alter table t rename id to k; update t set v = 'k' where k = 1; delete from t where k = 2; alter table t rename k to id",
  },
  {
    name: "column retyped",
    happens: "alter table t alter n type text using 'x'; update t set v = 'w' where id = 1; alter table t alter n type int using 5",
  },
  {
    name: "key retyped",
    happens: "alter table t alter id type bigint; update t set id = 99 where id = 1; alter table t alter id type int",
  },
  {
    name: "key dropped and made again",
    happens: "alter table t drop constraint t_pkey; update t set id = id + 100; alter table t add primary key (id)",
  },
  {
    name: "unlogged",
    happens: "alter table t set unlogged; update t set v = 'u' where id = 1; alter table t set logged",
  },
  {
    name: "trigger of the application",
    happens: `create function f() returns trigger language plpgsql as 'begin new.n = 9; return new; end';
      create trigger a before update on t for each row execute procedure f(); update t set v = 'x' where id = 1;
      drop trigger a on t; drop function f()`,
  },
  {
    name: "cascade",
    there: "create table parent (id int primary key); insert into parent select generate_series(1, 9)",
    happens: `alter table t add constraint fk foreign key (id) references parent on delete cascade on update cascade;
      delete from parent where id = 2; update parent set id = 70 where id = 3; alter table t drop constraint fk`,
  },
  {
    name: "function",
    happens: `create function f() returns void language plpgsql as 'begin with x as (delete from t where id = 1 returning *)
      insert into t select 60, v, n from x; end'; select f(); drop function f()`,
  },
  {
    name: "storage",
    happens: "alter table t alter v set storage external, alter v set statistics 20; update t set v = 's' where id = 1",
  },
  {
    name: "merge",
    happens: "merge into t using (values (1), (50)) as x (id) on t.id = x.id when matched then update set v = 'm' when not matched then insert values (x.id, 'm', 0)",
    since: 15,
  },
]; // prettier-ignore

const statementsOf = (text: string): string[] => text.match(/(?:'[^']*'|\$\$[^]*?\$\$|[^;'$])+/g) ?? [];
const schemaOf = (index: number): string => `m${index}`;

test.each(
  allVersions.flatMap((version) => (["row", "statement"] as const).map((method) => ({ version, method }))),
)(
  "from version $version, by $method: what was done and undone has lost nothing",
  async ({ version, method }) => {
    await using pair = await freePair({ source: version, target: "18" });
    const all = members.map((member, index) => ({ ...member, schema: schemaOf(index) })).filter(({ since = 10, happens }) => Number(version) >= since && !isRefused(happens, version, method)); // prettier-ignore
    for (const isAtOnce of [true, false]) {
      for (const { schema, there = "select 1" } of all)
        await onBoth(
          pair,
          `create schema ${schema}; set search_path = ${schema};
         create table t (id int primary key, v text, n int); insert into t select g, 'v' || g, g from generate_series(1, 9) g;
         ${there}; set search_path = public`,
        );
      const tables = all.map(({ schema }) => `${schema}.t`);
      const followed = await openFollowed(pair, {
        tables,
        overrides: Object.fromEntries(tables.map((table) => [table, { capture: method }])),
      });
      try {
        // As a sync that has been following for long: what it knows is in its state.
        await pair.source.sql(
          all.map(({ schema }) => `update ${schema}.t set n = n where id = 9`).join("; "),
        );
        await followed.drain();
        for (const { schema, happens } of all) {
          const steps = statementsOf(happens.replaceAll("NAME", schema));
          await pair.source.sql(`set search_path = ${schema}`);
          for (const step of isAtOnce ? ["begin", ...steps, "commit"] : steps) await pair.source.sql(step);
          await pair.source.sql("set search_path = public");
        }
        await followed.drain();
        expect((await compareDatabases(pair.source.url, pair.target.url, tables)).differences).toEqual([]);
        await pair.source.sql(
          all.map(({ schema }) => `insert into ${schema}.t values (500, 'last', 1)`).join("; "),
        );
        await followed.drain();
        expect((await compareDatabases(pair.source.url, pair.target.url, tables)).differences).toEqual([]);
        await followed.sync.drop();
      } finally {
        await followed[Symbol.asyncDispose]();
      }
      await onBoth(pair, all.map(({ schema }) => `drop schema ${schema} cascade`).join("; "));
      await onBoth(pair, "drop schema if exists q cascade");
    }
  },
);
