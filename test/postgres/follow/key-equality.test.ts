import { describe, expect, test } from "vitest";

import { freePair } from "../../support/database.ts";
import { openFollowed } from "../../support/follow-setup.ts";

// Keys that one side takes for the same and the other does not: whatever is deleted and renamed, no row stays behind.

const nondeterministic = `create collation ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`;

const members = [
  { name: "citext, text", setUp: "create extension citext", there: "select 1", key: "citext", other: "text", values: ["a", "A"] },
  { name: "citext, citext", setUp: "create extension citext", there: "create extension citext", key: "citext", other: "citext", values: ["a", "A"] },
  { name: "text, citext", setUp: "select 1", there: "create extension citext", key: "text", other: "citext", values: ["a", "A"] },
  { name: "a collation that ignores case, text", setUp: nondeterministic, there: "select 1", key: "text collate ci", other: "text", values: ["a", "A"] },
  { name: "numeric, text", setUp: "select 1", there: "select 1", key: "numeric", other: "text", values: ["1.0", "1.00"] },
  { name: "numeric, numeric", setUp: "select 1", there: "select 1", key: "numeric", other: "numeric", values: ["1.0", "1.00"] },
  { name: "interval, text", setUp: "select 1", there: "select 1", key: "interval", other: "text", values: ["1 mon", "30 days"] },
  { name: "double precision, text", setUp: "select 1", there: "select 1", key: "double precision", other: "text", values: ["0", "-0"] },
  { name: "character without a length, text", setUp: "select 1", there: "select 1", key: "bpchar", other: "text", values: ["a", "a "] },
  { name: "numeric[], text", setUp: "select 1", there: "select 1", key: "numeric[]", other: "text", values: ["{1.0}", "{1.00}"] },
]; // prettier-ignore

describe.each(["row", "statement"] as const)("%s triggers", (capture) => {
  test.each(members)("$name", { timeout: 60_000 }, async ({ setUp, there, key, other, values }) => {
    await using pair = await freePair();
    const [first, second] = values as [string, string];
    const table = (type: string): string => `create table t (k ${type} primary key, v text)`;
    const rows = `insert into t values ('${first}', 'one')`;
    await pair.source.sql(`${setUp}; ${table(key)}; ${rows}`);
    await pair.target.sql(`${there}; ${table(other)}; ${rows}`);
    await using followed = await openFollowed(pair, { overrides: { "public.t": { capture } } });
    const content = async (side: typeof pair.source): Promise<unknown> =>
      await side.sql(`select pg_catalog.format('%s', k) as k, v from t order by 1`);
    const steps = [
      `update t set k = '${second}', v = 'two'`,
      `update t set k = '${first}'; update t set k = '${second}'; update t set v = 'three'`,
      `delete from t; insert into t values ('${first}', 'four')`,
      `update t set k = '${second}'; delete from t`,
      `insert into t values ('${second}', 'five'); delete from t; insert into t values ('${first}', 'six')`,
    ];
    for (const step of steps) {
      await pair.source.sql(step);
      await followed.drain();
      expect(await content(pair.target), step).toEqual(await content(pair.source));
      expect((await followed.sync.verify()).equal, step).toBe(true);
    }
  });
});
