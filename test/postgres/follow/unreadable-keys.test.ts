import { describe, expect, test } from "vitest";

import { openSync } from "../../../src/index.ts";
import { freePair } from "../../support/database.ts";
import { openFollowed } from "../../support/follow-setup.ts";

// A key that was recorded and cannot be read any more, on either side: its table is read again, and nothing stands still.

const members = [
  {
    name: "a label of an enum is renamed",
    setUp: "create type en as enum ('a', 'b', 'c')",
    key: "en",
    rows: "('a'), ('b')",
    change: "update t set v = 'changed'; delete from t where k = 'a'; alter type en rename value 'b' to 'bb'",
  },
  {
    name: "a label of an enum in a key of two columns is renamed",
    setUp: "create type en as enum ('a', 'b', 'c')",
    key: "en",
    more: "n int not null default 1",
    rows: "('a'), ('b')",
    change: "update t set v = 'changed'; delete from t where k = 'a'; alter type en rename value 'b' to 'bb'",
  },
  {
    name: "a text becomes a number",
    setUp: "select 1",
    key: "text",
    rows: "('1'), ('2')",
    change: "insert into t values ('x', 'x'); delete from t where k = 'x'; update t set v = 'changed'; alter table t alter k type int using k::int",
    there: "alter table t alter k type int using k::int",
  },
] as const; // prettier-ignore

describe.each(["row", "statement"] as const)("%s triggers", (capture) => {
  test.each(members)("$name", { timeout: 60_000 }, async (member) => {
    const { setUp, key, rows, change } = member;
    const there = "there" in member ? member.there : "alter type en rename value 'b' to 'bb'";
    const more = "more" in member ? `, ${member.more}, primary key (k, n)` : ", primary key (k)";
    await using pair = await freePair();
    const table = `${setUp}; create table t (k ${key} not null, v text${more}); insert into t values ${rows}`;
    await pair.source.sql(table);
    await pair.target.sql(table);
    await using followed = await openFollowed(pair, { overrides: { "public.t": { capture } } });
    await followed.drain();
    await pair.source.sql(change);
    await pair.target.sql(there);
    // Whoever comes first: a comparison, a new copy, or the next batch.
    await followed.sync.verify();
    await followed.drain();
    const content = `select k::text, v from t order by 1`;
    expect(await pair.target.sql(content)).toEqual(await pair.source.sql(content));
    expect(followed.events.filter(({ type }) => type === "table-reread")).not.toEqual([]);
    expect((await followed.sync.verify()).equal).toBe(true);
  });
});

test("a new copy passes over keys that cannot be read any more", { timeout: 60_000 }, async () => {
  await using pair = await freePair();
  const table =
    "create type en as enum ('a', 'b'); create table t (k en primary key, v text); insert into t values ('a'), ('b')";
  await pair.source.sql(table);
  await pair.target.sql(table);
  await using followed = await openFollowed(pair);
  await followed.drain();
  const rename = "alter type en rename value 'b' to 'bb'";
  await pair.source.sql(`update t set v = 'changed'; ${rename}`);
  await pair.target.sql(rename);
  await followed.sync.copy({ restart: true, overwrite: true });
  await followed.drain();
  expect(await pair.target.sql("select k::text, v from t order by k")).toEqual([
    { k: "a", v: "changed" },
    { k: "bb", v: "changed" },
  ]);
});

const noPlace = [
  {
    name: "bytes that the target's encoding lacks",
    source: "template template0 encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C'",
    key: "text",
    there: "text",
    value: "E'z\\xe4'",
    good: "'zz'",
    sqlstate: "22021",
  },
  {
    name: "a character that the target's encoding lacks",
    target: "template template0 encoding 'LATIN1' lc_collate 'C' lc_ctype 'C'",
    key: "text",
    there: "text",
    value: "'Ж'",
    good: "'zz'",
    sqlstate: "22P05",
  },
]; // prettier-ignore

test.each(noPlace)("$name: gone again", { timeout: 90_000 }, async (member) => {
  const { key, there, value, good } = member;
  await using sources = await freePair(
    "source" in member && member.source !== undefined ? { createOptions: member.source } : {},
  );
  await using targets = await freePair(
    "target" in member && member.target !== undefined ? { createOptions: member.target } : {},
  );
  const pair = { source: sources.source, target: targets.target };
  const rows = `insert into t select ${key === "text" ? "'k' ||" : ""} g from generate_series(1, 3) g`;
  await pair.source.sql(`create table t (k ${key} primary key, v text); ${rows}`);
  await pair.target.sql(`create table t (k ${there} primary key, v text); ${rows}`);
  await using sync = await openSync({ source: pair.source.url, target: pair.target.url, env: {} });
  await sync.init().catch(() => undefined);
  await sync.copy({ adopt: true });
  const drain = async (): Promise<void> => {
    for await (const _ of sync.follow({ untilCaughtUp: true })) void _;
  };
  await drain();
  // The row itself is refused, by name.
  await pair.source.sql(`insert into t values (${value}, 'bad')`);
  await expect(drain()).rejects.toMatchObject({
    code: "ROW_REFUSED",
    message: expect.stringContaining("public.t"),
  });
  // Once it is repaired, or gone, nothing is in the way any more.
  await pair.source.sql(`update t set k = ${good} where v = 'bad'`);
  await drain();
  await pair.source.sql(`insert into t values (${value}, 'bad'); delete from t where v = 'bad'`);
  await drain();
  const content = `select k::text, v from t order by k::text collate "C"`;
  expect(await pair.target.sql(content)).toEqual(await pair.source.sql(content));
});
