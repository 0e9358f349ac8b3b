import { expect, test } from "vitest";

import { freePair, type Pair } from "../../support/database.ts";
import { compareDatabases } from "../../support/compare.ts";
import { differences, followUntilCaughtUp, openCopySync } from "../../support/copy-setup.ts";
import { onBoth, startFollowed } from "../../support/follow-setup.ts";

// Partitions of both sides that look like the same one. Rows may be written to a partition of the target, and it may be
// emptied, only if it takes exactly the rows that the source's does.

interface Scene {
  readonly name: string;
  readonly source: string;
  readonly target: string;
  /** A partition of the source that is emptied, then one that is detached. */
  readonly leaf: string;
  readonly other: string;
  readonly fill: string;
  /** The target's partitions that rows may be written to, and that may be emptied. */
  readonly twins: readonly string[];
}

const hashed = (column: string): string => `
  create table t (k ${column} not null, n int not null, primary key (k, n)) partition by hash (k);
  create table h0 partition of t for values with (modulus 3, remainder 0);
  create table h1 partition of t for values with (modulus 3, remainder 1);
  create table h2 partition of t for values with (modulus 3, remainder 2);`;
const labels = "create type label as enum ('a', 'b', 'c', 'd', 'e', 'f');";
const ranged = (column: string): string => `
  create table t (k ${column} not null, n int not null, primary key (k, n)) partition by range (k);
  create table h0 partition of t for values from ('a') to ('m');
  create table h1 partition of t for values from ('m') to ('zzzz');
  create table h2 partition of t default;`;
const words = `insert into t select w, g from generate_series(1, 300) g, (values ('a'), ('B'), ('f'), ('M'), ('q'), ('Zoo'), ('é')) as v (w)`;

const scenes: readonly Scene[] = [
  {
    name: "hash of an enum, whose labels have other oids on each server",
    source: `${labels} ${hashed("label")}`,
    // Any number of oids that the source has not used.
    target: `create type other as enum ('1', '2', '3', '4', '5', '6', '7'); ${labels} ${hashed("label")}`,
    leaf: "h0",
    other: "h1",
    fill: "insert into t select l, g from generate_series(1, 100) g, unnest(enum_range(null::label)) l",
    twins: [],
  },
  {
    name: "hash of text",
    source: hashed("text"),
    target: hashed("text"),
    leaf: "h0",
    other: "h1",
    fill: words,
    twins: [],
  },
  {
    name: "range of text, sorted by other collations",
    source: ranged(`text collate "en-x-icu"`),
    target: ranged(`text collate "C"`),
    leaf: "h0",
    other: "h1",
    fill: words,
    twins: [],
  },
  {
    name: "range of text, sorted by a collation of the same name, whose version may be another",
    source: ranged(`text collate "en-x-icu"`),
    target: ranged(`text collate "en-x-icu"`),
    leaf: "h0",
    other: "h1",
    fill: words,
    twins: [],
  },
  {
    name: "range of text, sorted by bytes",
    source: ranged(`text collate "C"`),
    target: ranged(`text collate "POSIX"`),
    leaf: "h0",
    other: "h1",
    fill: words,
    twins: ["h0", "h1", "h2"],
  },
  {
    name: "list of text under other collations: equal texts are equal everywhere",
    source: `create table t (k text collate "en-x-icu" not null, n int, primary key (k, n)) partition by list (k);
      create table h0 partition of t for values in ('a', 'B'); create table h1 partition of t for values in ('f', 'M');
      create table h2 partition of t default`,
    target: `create table t (k text collate "C" not null, n int, primary key (k, n)) partition by list (k);
      create table h0 partition of t for values in ('a', 'B'); create table h1 partition of t for values in ('f', 'M');
      create table h2 partition of t default`,
    leaf: "h0",
    other: "h1",
    fill: words,
    twins: ["h0", "h1", "h2"],
  },
  {
    name: "list of an enum",
    source: `${labels} create table t (k label not null, n int, primary key (k, n)) partition by list (k);
      create table h0 partition of t for values in ('a', 'b'); create table h1 partition of t for values in ('c');
      create table h2 partition of t default`,
    target: `create type other as enum ('1'); ${labels}
      create table t (k label not null, n int, primary key (k, n)) partition by list (k);
      create table h0 partition of t for values in ('a', 'b'); create table h1 partition of t for values in ('c');
      create table h2 partition of t default`,
    leaf: "h0",
    other: "h1",
    fill: "insert into t select l, g from generate_series(1, 100) g, unnest(enum_range(null::label)) l",
    twins: ["h0", "h1", "h2"],
  },
  {
    name: "range of an enum, whose labels are in another order",
    source: `create type label as enum ('a', 'b', 'c');
      create table t (k label not null, n int, primary key (k, n)) partition by range (k);
      create table h0 partition of t for values from ('a') to ('b'); create table h1 partition of t for values from ('b') to ('c');
      create table h2 partition of t default`,
    target: `create type label as enum ('a', 'c', 'b');
      create table t (k label not null, n int, primary key (k, n)) partition by range (k);
      create table h0 partition of t for values from ('a') to ('b');
      create table h2 partition of t default`,
    leaf: "h0",
    other: "h1",
    fill: "insert into t select l, g from generate_series(1, 100) g, unnest(enum_range(null::label)) l",
    twins: [],
  },
  {
    name: "a default partition beside others",
    source: `create table t (k int, n int, primary key (k, n)) partition by list (k);
      create table h1 partition of t for values in (1, 2); create table h0 partition of t default`,
    target: `create table t (k int, n int, primary key (k, n)) partition by list (k);
      create table h1 partition of t for values in (1); create table h2 partition of t for values in (2, 3);
      create table h0 partition of t default`,
    leaf: "h0",
    other: "h1",
    fill: "insert into t select g % 6, g from generate_series(1, 300) g",
    twins: [],
  },
  {
    name: "the same bounds under another parent",
    source: `create table t (k int, r text, n int, primary key (k, r, n)) partition by range (k);
      create table one partition of t for values from (0) to (10) partition by list (r);
      create table two partition of t for values from (10) to (20) partition by list (r);
      create table h0 partition of one for values in ('eu'); create table h1 partition of one for values in ('us');
      create table h2 partition of two for values in ('eu'); create table h3 partition of two for values in ('us')`,
    target: `create table t (k int, r text, n int, primary key (k, r, n)) partition by range (k);
      create table one partition of t for values from (0) to (10) partition by list (r);
      create table two partition of t for values from (10) to (20) partition by list (r);
      create table h0 partition of two for values in ('eu'); create table h1 partition of one for values in ('us');
      create table h2 partition of one for values in ('eu'); create table h3 partition of two for values in ('us')`,
    leaf: "h0",
    other: "h1",
    fill: "insert into t select g % 20, (array['eu', 'us'])[1 + g / 20 % 2], g from generate_series(1, 300) g",
    // By what they take, not by their names.
    twins: ["h0", "h1", "h2", "h3"],
  },
  {
    name: "an expression",
    source: `create table t (k text, n int not null) partition by range (lower(k collate "C"));
      create table h0 partition of t for values from ('a') to ('g'); create table h1 partition of t for values from ('g') to ('zz');
      create table h2 partition of t default`,
    target: `create table t (k text, n int not null) partition by range (lower(k collate "C"));
      create table h0 partition of t for values from ('a') to ('g'); create table h1 partition of t for values from ('g') to ('zz');
      create table h2 partition of t default`,
    leaf: "h0",
    other: "h1",
    fill: words,
    twins: [],
  },
  {
    name: "a moment, as each server's time zone writes it",
    source: `set timezone = 'UTC'; create table t (k timestamptz, n int, primary key (k, n)) partition by range (k);
      create table h0 partition of t for values from ('2026-01-01 12:00') to ('2026-01-02 12:00');
      create table h1 partition of t for values from ('2026-01-02 12:00') to ('2026-01-04 12:00');
      create table h2 partition of t default; reset timezone`,
    // The first one is written alike and means something else, the second the other way round.
    target: `set timezone = 'Asia/Tokyo'; create table t (k timestamptz, n int, primary key (k, n)) partition by range (k);
      create table h0 partition of t for values from ('2026-01-01 12:00') to ('2026-01-02 12:00');
      create table h1 partition of t for values from ('2026-01-02 21:00') to ('2026-01-04 21:00');
      create table h2 partition of t default; reset timezone`,
    leaf: "h0",
    other: "h1",
    fill: "insert into t select '2026-01-01 00:00Z'::timestamptz + g * interval '17 minutes', g from generate_series(1, 400) g",
    twins: ["h1"],
  },
  {
    name: "a domain",
    source: `create domain whole as int; create table t (k whole, n int, primary key (k, n)) partition by range (k);
      create table h0 partition of t for values from ('0') to ('5'); create table h1 partition of t for values from ('5') to ('9');
      create table h2 partition of t default`,
    target: `create domain whole as int; create domain short as whole;
      create table t (k short, n int, primary key (k, n)) partition by range (k);
      create table h0 partition of t for values from ('0') to ('5'); create table h1 partition of t for values from ('5') to ('9');
      create table h2 partition of t default`,
    leaf: "h0",
    other: "h1",
    fill: "insert into t select g % 20, g from generate_series(1, 300) g",
    twins: ["h0", "h1", "h2"],
  },
  {
    name: "an operator class that sorts otherwise",
    source: `create table t (k text collate "C" not null, n int not null) partition by range (k);
      create table h0 partition of t for values from ('a') to ('m'); create table h1 partition of t for values from ('m') to ('zzzz');
      create table h2 partition of t default`,
    target: `create table t (k text not null, n int not null) partition by range (k text_pattern_ops);
      create table h0 partition of t for values from ('a') to ('m'); create table h1 partition of t for values from ('m') to ('zzzz');
      create table h2 partition of t default`,
    leaf: "h0",
    other: "h1",
    fill: words,
    twins: [],
  },
];

/** Files of the target's partitions: another one after TRUNCATE. */
async function files({ target }: Pick<Pair, "target">): Promise<Map<string, string>> {
  const rows = await target.sql<{ name: string; file: string }>(
    "select relname::text as name, pg_relation_filenode(oid)::text as file from pg_class where relname ~ '^h\\d$'",
  );
  return new Map(rows.map(({ name, file }) => [name, file]));
}

test.for(scenes)("$name", async ({ source, target, leaf, other, fill, twins }) => {
  await using pair = await freePair();
  await pair.source.sql(`${source}; ${fill}`);
  await pair.target.sql(target);
  const { sync } = await openCopySync(pair, { keyless: "reload" });
  await using _ = sync;
  await sync.init();
  await sync.copy();
  expect(await differences(pair)).toEqual([]);
  const direct = await pair.target.sql<{ name: string }>(
    `select distinct target_relid::regclass::text as name from replicate.part where target_relid <> 't'::regclass order by 1`,
  );
  expect(direct.map(({ name }) => name)).toEqual([...twins]);

  await followUntilCaughtUp(sync);
  const before = await files(pair);
  const isKeyed =
    (await pair.source.sql("select from pg_constraint where contype = 'p' and conrelid = 't'::regclass"))
      .length > 0;
  await pair.source.sql(`truncate ${leaf}`);
  await followUntilCaughtUp(sync);
  expect(await differences(pair)).toEqual([]);
  const after = await files(pair);
  // Where it can be proved, the one twin is emptied by TRUNCATE, and no other partition is.
  if (isKeyed) {
    const emptied = [...after].filter(([name, file]) => before.get(name) !== file);
    expect(emptied).toHaveLength(twins.includes(leaf) ? 1 : 0);
  }
  await pair.source.sql(fill.replaceAll(", g from", ", g + 1000 from"));
  const [parent] = await pair.source.sql<{ name: string }>(
    `select inhparent::regclass::text as name from pg_inherits where inhrelid = '${other}'::regclass`,
  );
  await pair.source.sql(`alter table ${parent?.name} detach partition ${other}`);
  await followUntilCaughtUp(sync);
  expect((await compareDatabases(pair.source.url, pair.target.url, ["public.t"])).differences).toEqual([]);
});

const listed = `create table t (k int, n int, primary key (k, n)) partition by list (k);
  create table h0 partition of t for values in (1); create table h1 partition of t for values in (2);
  create table h2 partition of t default;
  insert into t select g % 6, g from generate_series(1, 300) g;`;

test("a partition that is another one by the time it is emptied is left alone", async () => {
  await using pair = await freePair();
  let isToChange = false;
  const beforeBatch = async (): Promise<void> => {
    if (!isToChange) return;
    isToChange = false;
    await pair.target.sql(
      "alter table t detach partition h0; create table h3 partition of t for values in (1)",
    );
  };
  await using followed = await startFollowed(pair, listed, { hooks: { beforeBatch } });
  expect(await followed.differences()).toEqual([]);
  isToChange = true;
  await pair.source.sql("truncate h0; insert into t values (1, 1000)");
  expect(await followed.differences(["public.t"])).toEqual([]);
  expect(isToChange).toBe(false);
  expect(await pair.target.sql("select count(*)::int as n from h0")).toEqual([{ n: 50 }]);
});

test("a default partition was emptied before it got a sibling", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, listed);
  expect(await followed.differences()).toEqual([]);
  await pair.target.sql(`alter table t detach partition h2; create table h3 partition of t for values in (3);
    insert into h3 select * from h2 where k = 3; delete from h2 where k = 3; alter table t attach partition h2 default`);
  await pair.source.sql("truncate h2; create table h3 partition of t for values in (3)");
  expect(await followed.differences(["public.t"])).toEqual([]);
  // Known by now.
  const before = await files(pair);
  await pair.source.sql("insert into t values (3, 1), (4, 1); truncate h2");
  expect(await followed.differences(["public.t"])).toEqual([]);
  const after = await files(pair);
  expect([...after].flatMap(([name, file]) => (before.get(name) === file ? [] : [name]))).toEqual(["h2"]);
});

test("what an earlier version remembers of partitions proves nothing", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, listed);
  expect(await followed.differences()).toEqual([]);
  await pair.target.sql(`update replicate.sync_table set partitions = (
    select jsonb_object_agg(key, value - 'membership') from jsonb_each(partitions))`);
  await pair.source.sql("truncate h0; insert into t values (1, 7)");
  const before = await files(pair);
  expect(await followed.differences()).toEqual([]);
  expect(await files(pair)).toEqual(before);
});

test("rows that a hook moves to other partitions", async () => {
  await using pair = await freePair();
  const schema = `create table t (place text, n int) partition by list (place);
    create table h0 partition of t for values in ('a'); create table h1 partition of t for values in ('b')`;
  await onBoth(pair, schema);
  await pair.source.sql(
    "insert into t select 'a', g from generate_series(1, 100) g; insert into t values ('b', 0)",
  );
  const { sync } = await openCopySync(pair, {
    keyless: "reload",
    overrides: { "public.t": { transform: true } },
    hooks: { transformRow: ({ n }) => ({ place: Number(n) % 2 === 0 ? "a" : "b" }) },
  });
  await using _ = sync;
  await sync.init();
  await sync.copy();
  expect(await pair.target.sql("select count(*)::int as n from h0 where n % 2 = 0")).toEqual([{ n: 51 }]);
  expect(await pair.target.sql("select count(*)::int as n from h1 where n % 2 = 1")).toEqual([{ n: 50 }]);
});
