import { expect, test } from "vitest";

import { freePair } from "../../support/database.ts";
import { differences, followUntilCaughtUp, onBoth, openCopySync } from "../../support/copy-setup.ts";
import { openFollowed } from "../../support/follow-setup.ts";

// Types that have the same name on both sides and are not the same: a value would be refused, or mean something else.

interface Homonym {
  readonly name: string;
  readonly source: string;
  readonly target: string;
  /** The column's type; default x. */
  readonly column?: string;
  /** What preflight says of it; null: the types are the same for rows. */
  readonly says: RegExp | null;
  readonly value: string;
}

const homonyms: readonly Homonym[] = [
  {
    name: "attributes in another order",
    source: "create type x as (street text, zip text)",
    target: "create type x as (zip text, street text)",
    says: /x consists of \("street", "zip"\) on the source and of \("zip", "street"\) on the target/,
    value: "row('Main', '123')::x",
  },
  {
    name: "an attribute more",
    source: "create type x as (street text)",
    target: "create type x as (street text, zip text)",
    says: /consists of \("street"\) on the source and of \("street", "zip"\)/,
    value: "row('Main')::x",
  },
  {
    name: "an attribute of another type",
    source: "create type x as (a text, b text)",
    target: "create type x as (a text, b int)",
    says: /in attribute "b" of (public\.)?x, text on the source is integer on the target/,
    value: "row('a', '01')::x",
  },
  {
    name: "an attribute of less precision",
    source: "create type x as (a numeric(10,2))",
    target: "create type x as (a numeric(10,1))",
    says: /numeric\(10,2\) on the source is numeric\(10,1\)/,
    value: "row(1.25)::x",
  },
  {
    name: "an attribute of more room",
    source: "create type x as (a varchar(10), b text)",
    target: "create type x as (a varchar(20), b text)",
    says: null,
    value: "row('a', 'b')::x",
  },
  {
    name: "composites inside of others, in an array",
    source: "create type deep as (a int, b int); create type x as (d deep, n int)",
    target: "create type deep as (b int, a int); create type x as (d deep, n int)",
    column: "x[]",
    says: /in attribute "d" of (public\.)?x, (public\.)?deep consists of/,
    value: "array[row(row(1, 2), 3)::x]",
  },
  {
    name: "the type of a table's rows",
    source: "create table x (a int, b int)",
    target: "create table x (b int, a int)",
    says: /consists of \("a", "b"\) on the source and of \("b", "a"\)/,
    value: "row(1, 2)::x",
  },
  {
    name: "a domain of less precision",
    source: "create domain x as numeric(10,2)",
    target: "create domain x as numeric(10,1)",
    says: /values would be rejected or rounded/,
    value: "1.25",
  },
  {
    name: "a domain over a domain of less precision",
    source: "create domain y as timestamp(6); create domain x as y",
    target: "create domain y as timestamp(2); create domain x as y",
    says: /values would be rejected or cut/,
    value: "'2026-01-01 00:00:00.123456'",
  },
  {
    name: "a domain that pads",
    source: "create domain x as char(3)",
    target: "create domain x as char(5)",
    says: /values would be rejected or padded/,
    value: "'a'",
  },
  {
    name: "domains inside of an array",
    source: "create domain x as numeric(10,2)",
    target: "create domain x as numeric(10,1)",
    column: "x[]",
    says: /in (public\.)?x, numeric\(10,2\) on the source is numeric\(10,1\)/,
    value: "array[1.25]::x[]",
  },
  {
    name: "a range over another type",
    source: "create type x as range (subtype = int8)",
    target: "create type x as range (subtype = float8)",
    says: /in (public\.)?x, bigint on the source is double precision/,
    value: "'[9007199254740993,9007199254740995]'",
  },
  {
    name: "a range in another order",
    source: 'create type x as range (subtype = text, collation = "C")',
    target: 'create type x as range (subtype = text, collation = "en-x-icu")',
    says: /collation C on the source and .*collation en-x-icu on the target/,
    value: "'[B,a]'",
  },
  {
    name: "an enum on the source, a composite on the target",
    source: "create type x as enum ('a', 'b')",
    target: "create type x as (a text)",
    says: /is of kind enum on the source and composite on the target/,
    value: "'a'",
  },
  {
    name: "labels in another order",
    source: "create type x as enum ('a', 'b', 'c')",
    target: "create type x as enum ('c', 'b', 'more', 'a')",
    says: null,
    value: "'b'",
  },
  {
    name: "what is made of the same parts",
    source: `create domain d as numeric(10,2); create type e as enum ('a'); create type c as (z d[], e e, r int4range);
      create type x as (c c, cs c[], t timestamptz(3))`,
    target: `create type dead as enum (); create domain d as numeric(10,2); create type e as enum ('a');
      create type c as (gone text, z d[], e e, r int4range); alter type c drop attribute gone;
      create type x as (c c, cs c[], t timestamptz(3))`,
    says: null,
    value: "row(row(array[1.5::d], 'a', '[1,2)')::c, null, '2026-01-01 00:00:00.123Z')::x",
  },
];

test.for(homonyms)("$name", async ({ source, target, column = "x", says, value }) => {
  await using pair = await freePair();
  const table = `create table t (id int primary key, v ${column})`;
  await pair.source.sql(
    `${source}; ${table}; insert into t select g, ${value} from generate_series(1, 10) g`,
  );
  await pair.target.sql(`${target}; ${table}`);
  const { sync } = await openCopySync(pair, { tables: ["public.t"] });
  await using _ = sync;
  const { findings } = await sync.preflight();
  const blocking = findings.filter(({ severity }) => severity === "blocking");
  if (says !== null) {
    expect(blocking.map(({ message }) => message)).toEqual([expect.stringMatching(says)]);
    // What it tells to do is all there is to do, where it can be said.
    const remedy = (blocking[0]?.remedy ?? "").replaceAll(/^--.*$/gm, "").trim();
    if (remedy === "") return;
    await pair.target.sql(remedy);
  }
  await sync.init();
  await sync.copy();
  expect(await differences(pair)).toEqual([]);
  await pair.source.sql(`insert into t values (100, ${value}); update t set v = null where id = 1`);
  await followUntilCaughtUp(sync);
  expect(await differences(pair)).toEqual([]);
  expect(await sync.verify()).toMatchObject({ equal: true });
});

test.for([
  ["on the source", "drop attribute a, add attribute c text", ""],
  ["on the target", "", "drop attribute a, add attribute c text"],
] as const)(
  "a composite that changes %s while it is followed: nothing is swapped",
  async ([, source, target]) => {
    await using pair = await freePair();
    await onBoth(
      pair,
      `create type x as (a text, b text); create table t (id int primary key, v x); insert into t values (1, row('a', 'b'))`,
    );
    {
      await using followed = await openFollowed(pair);
      expect(await followed.differences()).toEqual([]);
    }
    for (const [side, change] of [
      [pair.source, source],
      [pair.target, target],
    ] as const)
      // prettier-ignore
      if (change !== "") await side.sql(`alter type x ${change}`);
    await pair.source.sql("insert into t values (2, row('one', 'two'))");
    const { sync } = await openCopySync(pair);
    await using _ = sync;
    const [failed] = await Promise.allSettled([followUntilCaughtUp(sync)]);
    expect(failed).toMatchObject({ status: "rejected", reason: { code: "TABLE_SHAPE_CHANGED" } });
    const verified = await Promise.allSettled([sync.verify()]);
    expect(verified).toMatchObject([{ status: "rejected", reason: { code: "TABLE_SHAPE_CHANGED" } }]);
    expect(await pair.target.sql("select id from t where id = 2")).toEqual([]);
  },
);
