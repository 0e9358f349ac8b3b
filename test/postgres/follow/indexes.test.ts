import { expect, test } from "vitest";
import { freePair } from "../../support/database.ts";
import { leastPrivilegedPair } from "../../support/least-privileged-pair.ts";
import { differences, followUntilCaughtUp, openCopySync, schemaOf } from "../../support/copy-setup.ts";

// Promise: nothing that existed on the target before is lost, and nothing looks different afterwards.

const tables = (version: number): string => `
  create extension btree_gist;
  create schema "Other Schema";
  create table parent (id int primary key, code text not null, constraint "Code unique" unique (code));
  comment on constraint parent_pkey on parent is 'the constraint''s comment';
  comment on index parent_pkey is 'the index''s comment \\ with a backslash';
  create table "Other Schema"."Child ""x""" (
    id int not null, parent_id int, code text, period int4range, a int, b text not null,
    constraint "odd "" name" primary key (id),
    constraint child_parent foreign key (parent_id) references parent on delete set null on update cascade deferrable initially deferred,
    constraint child_code foreign key (code) references parent (code) match full,
    constraint no_overlap exclude using gist (a with =, period with &&) with (fillfactor = 60) where (a > 1000000) deferrable,
    unique (a, b, id) deferrable initially deferred
  ) with (fillfactor = 80);
  alter table "Other Schema"."Child ""x""" add constraint child_unchecked foreign key (a) references parent not valid;
  comment on constraint child_parent on "Other Schema"."Child ""x""" is 'why';
  comment on constraint no_overlap on "Other Schema"."Child ""x""" is 'no overlap';
  create unique index child_identity on "Other Schema"."Child ""x""" (id, b) include (parent_id) with (fillfactor = 70);
  alter table "Other Schema"."Child ""x""" replica identity using index child_identity;
  create index child_expression on "Other Schema"."Child ""x""" (a desc nulls last, (a + 1), lower(b) text_pattern_ops, ((a * 2))) where a is not null;
  alter index "Other Schema".child_expression alter column 2 set statistics 333;
  alter index "Other Schema".child_expression alter column 4 set statistics 0;
  comment on index "Other Schema".child_expression is 'an index';
  create index child_brin on "Other Schema"."Child ""x""" using brin (a) with (pages_per_range = 4);
  create index child_hash on "Other Schema"."Child ""x""" using hash (b);
  create index child_gin on "Other Schema"."Child ""x""" using gin (string_to_array(b, ' ')) with (fastupdate = off);
  create index child_collated on "Other Schema"."Child ""x""" (b collate "C");
  alter table "Other Schema"."Child ""x""" cluster on child_collated;
  ${version >= 15 ? `create unique index parent_nulls on parent (nullif(code, 'c1')) nulls not distinct;` : ""}
  -- A foreign key to itself, one through a unique index that is no constraint, and two tables that need each other.
  create table tree (id int not null, up int, name text);
  create unique index tree_id on tree (id);
  alter table tree alter column id set not null, add foreign key (up) references tree (id);
  create table hen (id int primary key, egg int); create table egg (id int primary key, hen int references hen);
  alter table hen add constraint hen_egg foreign key (egg) references egg deferrable;
  -- A partitioned table of two levels with every kind of index; one leaf has an index more, one index is not on all leaves.
  create table event (id bigint not null, at date not null, kind text not null, value int, primary key (at, kind, id), unique (at, kind, value, id) deferrable) partition by range (at);
  create table event_2020 partition of event for values from ('2020-01-01') to ('2021-01-01');
  create table event_2021 partition of event for values from ('2021-01-01') to ('2022-01-01') partition by list (kind);
  create table "event_2021_A" partition of event_2021 for values in ('a');
  create table event_2021_rest partition of event_2021 default;
  create index event_kind on event (kind) where value > 0;
  create index event_leaf on event_2020 (value);
  create index event_middle on event_2021 (value);
  create index event_partial on only event (id);
  create index event_partial_2020 on event_2020 (id);
  alter index event_partial attach partition event_partial_2020;
  comment on index event_kind is 'on the root';
  comment on index event_2020_pkey is 'on a leaf';
  comment on constraint event_pkey on event is 'the key of the root';
  alter table event_2020 cluster on event_leaf;
  alter table event replica identity using index event_pkey;
  create table note (id int primary key, at date, kind text, event_id bigint, foreign key (at, kind, event_id) references event (at, kind, id));
  -- Something else needs this key: it stays.
  create table fact (id int primary key, name text, amount int);
  create index fact_amount on fact (amount);
  create view fact_view as select id, name, sum(amount) from fact group by id;
  -- Triggers and rules of every state.
  create function noop() returns trigger language plpgsql as $$ begin raise exception 'a trigger fired'; end $$;
  create trigger t_origin before insert on parent for each row execute function noop();
  create trigger t_always after insert on parent for each row execute function noop();
  alter table parent enable always trigger t_always;
  create trigger t_replica after insert on parent for each statement execute function noop();
  alter table parent enable replica trigger t_replica;
  create trigger t_off after insert on parent for each row execute function noop();
  alter table parent disable trigger t_off;
  create trigger t_events after insert on event for each row execute function noop();
  alter table event enable always trigger t_events;
  create constraint trigger t_deferred after insert on egg deferrable initially deferred for each row execute function noop();
  create rule r_parent as on delete to parent do also select 1;
  create rule r_off as on update to parent do also select 1;
  alter table parent disable rule r_off;
  ${
    version >= 18
      ? `create table booking (id int primary key, room int, during daterange, note text, constraint booking_once unique (room, during without overlaps) with (fillfactor = 50));
         create table stay (id int primary key, room int, during daterange, foreign key (room, period during) references booking (room, period during));
         alter table stay add constraint unenforced foreign key (id) references parent not enforced;`
      : ""
  }
`;

const rows = `
  set session_replication_role = replica;
  insert into parent select g, 'c' || g from generate_series(1, 20000) g;
  insert into "Other Schema"."Child ""x""" select g, 1 + g % 20000, 'c' || 1 + g % 20000, int4range(g, g + 1), 1 + g % 20000, repeat('b ', 1 + g % 20) || g from generate_series(1, 30000) g;
  insert into tree select g, nullif(g / 2, 0), repeat('n', 50) from generate_series(1, 20000) g;
  insert into hen select g, g from generate_series(1, 100) g; insert into egg select g, g from generate_series(1, 100) g;
  insert into event select g, date '2020-01-01' + g % 730, substr('abc', 1 + g % 3, 1), g from generate_series(1, 60000) g;
  insert into note select g, at, kind, id from (select row_number() over () as g, at, kind, id from event limit 2000) e;
  insert into fact select g, repeat('f', 50), g from generate_series(1, 20000) g;
  reset session_replication_role; analyze;
`;

test.each([
  ["13", "13"],
  ["13", "18"],
  ["18", "18"],
])("from %s to %s: the schema of the target is the same after copy, follow and drop", async (from, to) => {
  await using pair = await freePair({ source: from, target: to });
  await pair.source.sql(tables(Number(from)));
  await pair.target.sql(tables(Number(to)));
  await pair.source.sql(
    `create or replace function noop() returns trigger language plpgsql as $$ begin return new; end $$`,
  );
  await pair.source.sql(rows);
  const before = await schemaOf(pair.target);
  const { sync, of } = await openCopySync(pair);
  await using _ = sync;
  await sync.init();
  const plan = await sync.copy({ dryRun: true });
  expect(plan.dryRun).toBe(true);
  expect(await schemaOf(pair.target)).toBe(before);

  const report = await sync.copy({ jobs: 3, indexJobs: 2, partBytes: 300_000 });
  expect(report.tables.map(({ state }) => state)).not.toContain("loaded");
  expect(await differences(pair)).toEqual([]);
  await followUntilCaughtUp(sync);
  expect(of("constraint-left-invalid")).toEqual([]);
  const report2 = await sync.drop();
  expect(report2.restored).toBeGreaterThan(0);
  expect(await schemaOf(pair.target)).toBe(before);
});

test("rows without a partner leave a foreign key NOT VALID, by name; what was NOT VALID stays so", async () => {
  await using pair = await freePair();
  const schema = `create table parent (id int primary key); create table child (id int primary key, a int, b int, c int);`;
  await pair.source.sql(
    `${schema} insert into parent select generate_series(1, 10); insert into child values (1, 1, 1, 1), (2, 99, 2, 99)`,
  );
  await pair.target.sql(`${schema}
    alter table child add constraint child_a foreign key (a) references parent;
    alter table child add constraint child_b foreign key (b) references parent;
    alter table child add constraint child_c foreign key (c) references parent not valid;`);
  const { sync, of } = await openCopySync(pair);
  await using _ = sync;
  await sync.init();
  await sync.copy();
  const constraints = (): Promise<{ name: string; valid: boolean }[]> =>
    pair.target.sql(
      `select conname::text as name, convalidated as valid from pg_constraint where conname like 'child%' and contype = 'f' order by 1`,
    );
  expect(await constraints()).toEqual([]);
  await followUntilCaughtUp(sync);
  const { leftInvalid } = await sync.drop();
  expect(leftInvalid).toMatchObject([{ table: "public.child", constraint: "child_a" }]);
  expect(leftInvalid[0]?.reason).toMatch(/child_a.*\(a\)$/);
  expect(of("constraint-left-invalid")).toMatchObject([{ constraint: "child_a" }]);
  expect(await constraints()).toEqual([
    { name: "child_a", valid: false },
    { name: "child_b", valid: true },
    { name: "child_c", valid: false },
  ]);
});

test("owners without privileges: foreign keys and triggers are away until the sync is dropped", async () => {
  await using pair = await leastPrivilegedPair();
  const schema = `
    create table parent (id int primary key, filler text);
    create table child (id int primary key, parent_id int references parent on delete cascade, filler text);
    create index child_parent on child (parent_id);
    create function noop() returns trigger language plpgsql as $$ begin raise exception 'fired'; end $$;`;
  await pair.source.sql(`${schema}
    insert into parent select g, repeat('x', 100) from generate_series(1, 12000) g;
    insert into child select g, g, repeat('x', 100) from generate_series(1, 12000) g; analyze`);
  await pair.target.sql(`${schema}
    create trigger t before insert or update or delete on child for each row execute procedure noop();
    create rule r as on delete to parent do also select 1;`);
  const before = await schemaOf({ url: pair.target.adminUrl, sql: pair.target.asAdmin });
  const { sync } = await openCopySync(pair);
  await using _ = sync;
  await sync.init();
  await sync.copy({ jobs: 2, partBytes: 300_000 });
  await pair.source.asWriter(
    `delete from parent where id <= 10; update child set filler = 'new' where id = 20`,
  );
  await followUntilCaughtUp(sync);
  expect(await differences(pair)).toEqual([]);
  expect(await pair.target.sql(`select tgenabled::text as e from pg_trigger where tgname = 't'`)).toEqual([
    { e: "D" },
  ]);
  await sync.drop();
  expect(await schemaOf({ url: pair.target.adminUrl, sql: pair.target.asAdmin })).toBe(before);
});
