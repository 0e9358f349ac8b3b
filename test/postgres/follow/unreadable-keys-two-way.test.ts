import { describe, expect, test } from "vitest";

import { compareDatabases } from "../../support/compare.ts";
import { freePair, type Pair } from "../../support/database.ts";
import { onBoth, openFollowed, startFollowed } from "../../support/follow-setup.ts";

// Keys that cannot be read any more where both sides are written to: what an application wrote is there in the end, or in the
// log of conflicts.

const setUp = `create type en as enum ('a', 'b', 'c', 'd', 'e', 'f');
  create table t (k en primary key, v text); insert into t select k, 'old' from unnest('{a,b,c,d}'::en[]) as k`;

const rename = (...labels: string[]): string =>
  labels.map((label) => `alter type en rename value '${label}' to '${label}${label}'`).join("; ");

/** Values that are neither in the rows of a side nor in a log. */
async function lost(pair: Pair, values: readonly string[]): Promise<string[]> {
  const sides = [pair.source, pair.target];
  const rows = await Promise.all(sides.map(async (side) => await side.sql<{ v: string }>("select v from t")));
  const logs = await Promise.all(
    sides.map(
      async (side) =>
        await side.sql<{ v: string }>(
          `select unnest(array[source_image ->> 'v', target_image ->> 'v']) as v from replicate.conflict`,
        ),
    ),
  );
  const kept = new Set([...rows, ...logs].flat().map(({ v }) => v));
  return values.filter((value) => !kept.has(value));
}

const source =
  "update t set v = 'source ' || k where k in ('b', 'c'); insert into t values ('f', 'source f')";
const target =
  "update t set v = 'target ' || k where k in ('b', 'd'); insert into t values ('e', 'target e')";
const written = ["source b", "source c", "source f", "target b", "target d", "target e"];

const renamed = [
  { name: "all that was changed", labels: ["b", "c", "d", "e", "f"] },
  { name: "what both have changed", labels: ["b"] },
  { name: "what the source has changed", labels: ["c", "f"] },
  { name: "what the target has changed", labels: ["d", "e"] },
];

describe.each(["source-wins", "target-wins", "latest", "skip"] as const)("%s", (conflict) => {
  test.each(renamed)("both ways: $name", { timeout: 90_000 }, async ({ labels }) => {
    await using pair = await freePair();
    await using followed = await startFollowed(pair, setUp, { direction: "both", conflict });
    await followed.drain();
    await pair.source.sql(source);
    await pair.target.sql(target);
    await onBoth(pair, rename(...labels));
    await followed.drain();
    expect(await lost(pair, written)).toEqual([]);
    expect(followed.events.filter(({ type }) => type === "table-reread")).not.toEqual([]);
    const { differences } = await compareDatabases(pair.source.url, pair.target.url, ["public.t"]);
    const winner = {
      "source-wins": "source b",
      "target-wins": "target b",
      latest: undefined,
      skip: undefined,
    }[conflict];
    const [row] = await pair.target.sql<{ v: string }>("select v from t where k::text in ('b', 'bb')");
    if (winner !== undefined) expect(row?.v).toBe(winner);
    if (conflict !== "skip") expect(differences).toEqual([]);
    else {
      expect(row?.v).toBe("target b");
      expect(await pair.source.sql("select v from t where k::text in ('b', 'bb')")).toEqual([
        { v: "source b" },
      ]);
      // Somebody decides.
      await followed.sync.resolveConflict({ tables: ["t"] }, "source");
      expect(await followed.differences(["public.t"])).toEqual([]);
    }
    // It is over: an ordinary change is no conflict.
    const count = async (): Promise<unknown> =>
      await Promise.all(
        [pair.source, pair.target].map(
          async (side) => await side.sql("select count(*) from replicate.conflict"),
        ),
      );
    const before = await count();
    await pair.source.sql("update t set v = 'after' where k = 'a'");
    expect(await followed.differences(["public.t"])).toEqual([]);
    await pair.target.sql("update t set v = 'after that' where k = 'a'");
    expect(await followed.differences(["public.t"])).toEqual([]);
    expect(await count()).toEqual(before);
  });
});

test.each(["latest", "skip"] as const)(
  "one way, %s: changes of the target's own",
  { timeout: 90_000 },
  async (conflict) => {
    await using pair = await freePair();
    await onBoth(pair, setUp);
    await using followed = await openFollowed(pair, { conflict });
    await followed.drain();
    await pair.target.sql(target);
    await onBoth(pair, rename("b", "d"));
    await pair.source.sql("update t set v = 'source b' where k = 'bb'");
    await followed.drain();
    expect(await lost(pair, ["source b", "target b", "target d", "target e"])).toEqual([]);
    await pair.source.sql("update t set v = 'after' where k = 'a'");
    const before = await pair.target.sql("select count(*) from replicate.conflict");
    await followed.drain();
    expect(await pair.target.sql("select v from t where k = 'a'")).toEqual([{ v: "after" }]);
    expect(await pair.target.sql("select count(*) from replicate.conflict")).toEqual(before);
  },
);
