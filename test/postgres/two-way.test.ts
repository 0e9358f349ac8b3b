import { expect, test } from "vitest";

import { startFollowed } from "./follow-setup.ts";
import { freePair, type Pair } from "../support/database.ts";

// Both databases take writes.

/** Rows of delta tables on both sides: what is still to be brought over, or was not thrown away yet. */
async function deltas(pair: Pair): Promise<number> {
  let rows = 0;
  for (const side of [pair.source, pair.target]) {
    const tables = await side.sql<{ name: string }>(
      `select format('%I.%I', schemaname, tablename) as name from pg_tables where schemaname = 'replicate' and tablename like 'delta%'`,
    );
    for (const { name } of tables) {
      const [found] = await side.sql<{ n: number }>(`select count(*)::int as n from ${name}`);
      rows += found?.n ?? 0;
    }
  }
  return rows;
}

test("changes go both ways, and none comes back", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(
    pair,
    `create table t (id int primary key, v text, n numeric); insert into t select g, 'v' || g from generate_series(1, 10) g`,
    { direction: "both" },
  );
  await followed.drain();
  await pair.source.sql(
    "insert into t values (11, 'from source', 1.50); update t set v = 's' where id = 1; delete from t where id = 2",
  );
  await pair.target.sql(
    "insert into t values (12, 'from target', 2.50); update t set v = 't' where id = 3; delete from t where id = 4",
  );
  expect(await followed.differences()).toEqual([]);
  expect(await pair.source.sql("select id, v from t where id in (1, 2, 3, 4, 11, 12) order by id")).toEqual([
    { id: 1, v: "s" },
    { id: 3, v: "t" },
    { id: 11, v: "from source" },
    { id: 12, v: "from target" },
  ]);
  expect(await pair.source.sql("select * from replicate.conflict")).toEqual([]);
  expect(await pair.target.sql("select * from replicate.conflict")).toEqual([]);
  expect(await deltas(pair)).toBeLessThan(10);
  expect(await followed.drain()).toEqual([]);
});

test("the same row on both sides: per row, the policy decides, and the log keeps what was overwritten", async () => {
  for (const conflict of ["source-wins", "target-wins", "latest"] as const) {
    await using pair = await freePair();
    await using followed = await startFollowed(
      pair,
      `create table t (id int primary key, v text); insert into t select g, 'v' || g from generate_series(1, 10) g`,
      { direction: "both", conflict },
    );
    await followed.drain();
    await pair.source.sql("update t set v = 'source' where id = 1");
    await pair.target.sql(
      "update t set v = 'target' where id = 1; update t set v = 'target' where id = 2; delete from t where id = 3; insert into t values (20, 'target')",
    );
    await pair.source.sql(
      "update t set v = 'source' where id in (2, 3); insert into t values (20, 'source')",
    );
    await pair.source.sql("delete from t where id = 4");
    await pair.target.sql("update t set v = 'target' where id = 4");
    expect(await followed.differences()).toEqual([]);
    const winner = { "source-wins": "source", "target-wins": "target", latest: "" }[conflict];
    const rows = await pair.source.sql("select id, v from t where id in (1, 2, 3, 4, 20) order by id");
    const all = [1, 2, 3, 4, 20].map((id) => ({ id, v: "source" }));
    expect(rows).toEqual(
      winner === "source"
        ? all.filter(({ id }) => id !== 4)
        : winner === "target"
          ? all.filter(({ id }) => id !== 3).map(({ id }) => ({ id, v: "target" }))
          : [
              { id: 1, v: "target" },
              { id: 2, v: "source" },
              { id: 3, v: "source" },
              { id: 4, v: "target" },
              { id: 20, v: "source" },
            ],
    );
    // Which way meets a conflict first is not said.
    const select = `select key, kind, way, source_image ->> 'v' as source, target_image ->> 'v' as target from replicate.conflict`;
    const log = [...(await pair.source.sql(select)), ...(await pair.target.sql(select))];
    const kinds: Record<string, string[]> = {
      forward: [
        "update_origin_differs",
        "update_origin_differs",
        "update_missing",
        "delete_origin_differs",
        "insert_exists",
      ],
      reverse: [
        "update_origin_differs",
        "update_origin_differs",
        "delete_origin_differs",
        "update_missing",
        "insert_exists",
      ],
    };
    const images = [["source", "target"], ["source", "target"], ["source", null], [null, "target"], ["source", "target"]]; // prettier-ignore
    const byKey = log.sort((one, other) => idOf(one) - idOf(other));
    expect(byKey).toEqual(
      [1, 2, 3, 4, 20].map((id, n) => {
        const way = String(byKey[n]?.["way"]);
        return { key: { id }, way, kind: kinds[way]?.[n], source: images[n]?.[0], target: images[n]?.[1] };
      }),
    );
    expect(await followed.drain()).toEqual([]);
  }
});

function idOf(entry: Record<string, unknown>): number {
  return (entry["key"] as { id: number }).id;
}
