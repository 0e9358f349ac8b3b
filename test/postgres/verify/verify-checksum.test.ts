import { expect, test } from "vitest";

import type { Connection } from "../../../src/postgres/connect.ts";
import { Checksum } from "../../../src/verify/checksum.ts";
import { freePair } from "../../support/database.ts";
import { startVerifiedSync } from "../../support/verified-sync.ts";

/** A server on which some functions give other results than everywhere else. */
function estranged(connection: Connection, functions: RegExp): Connection {
  return new Proxy(connection, {
    get: (target, name) => {
      if (name === "version") return target.version;
      if (name !== "row") return Reflect.get(target, name) as unknown;
      return async (text: string, values?: unknown[]) =>
        functions.test(text) ? { sums: "others" } : await target.row(text, values);
    },
  });
}

test("a hash function is used only where both servers agree on it", async () => {
  await using pair = await freePair();
  const table =
    "create table t (id int primary key, v text); insert into t select g, 'v' || g from generate_series(1, 100) g";
  await Promise.all([pair.source.sql(table), pair.target.sql(table)]);
  await using sync = await startVerifiedSync(pair);
  const context = sync.context();
  await using source = await context.source("test");
  await using target = await context.target("test");
  const cases: [unlike: RegExp, expected: RegExp][] = [
    [/never/, /hashtextextended/],
    [/hashtextextended/, /hashtext\(/],
    [/hashtext/, /sha256/],
  ];
  for (const [unlike, expected] of cases) {
    const checksum = await Checksum.agree(source, estranged(target, unlike));
    const total = checksum.totalSql(["t.id", "t.v"], "public.t as t");
    expect(total).toMatch(expected);
    const buckets = `select sum(b.rows::int)::text as rows, sum(b.sum::numeric)::text as sum
      from (${checksum.bucketsSql(["t.id", "t.v"], checksum.bucket(["t.id"], 16), "public.t as t")}) b`;
    const results = await Promise.all(
      [source, target].flatMap((side) => [side.row(total), side.row(buckets)]),
    );
    expect(results[0]).toMatchObject({ rows: "100" });
    for (const result of results) expect(result).toEqual(results[0]);
  }
  await expect(Checksum.agree(source, estranged(target, /hashtext|sha256/))).rejects.toMatchObject({
    code: "STATEMENT_FAILED",
  });
});
