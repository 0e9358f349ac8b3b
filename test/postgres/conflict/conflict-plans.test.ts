import { expect, test } from "vitest";

import { exceptPendingSql, leavePendingSql } from "../../../src/follow/conflicts/pending-keys.ts";
import { loadShapes } from "../../../src/follow/shape.ts";
import { ensureStages } from "../../../src/follow/apply/staging.ts";
import { tracksTarget } from "../../../src/follow/conflicts/sides.ts";
import { connect, type Connection } from "../../../src/postgres/connect.ts";
import { resolveConnection } from "../../../src/postgres/conninfo.ts";
import { reverseName } from "../../../src/state/switch.ts";
import { loadTables } from "../../../src/state/sync-table.ts";
import { freePair } from "../../support/database.ts";
import { startFollowed } from "../../support/follow-setup.ts";

// What many conflicts cost.

test.each(["13", "18"])(
  "keys of pending conflicts are hashed, whatever joins are wanted: version %s",
  async (version) => {
    await using pair = await freePair({ source: version, target: version });
    await using followed = await startFollowed(
      pair,
      "create table t (id int, part text, v text, primary key (id, part))",
      { direction: "both", conflict: "skip" },
    );
    const open = async (side: "source" | "target"): Promise<Connection> =>
      await connect(resolveConnection(pair[side].url, {}), { side, purpose: "test" });
    await using source = await open("source");
    await using target = await open("target");
    const { name } = followed.sync;
    const [shape] = await loadShapes(source, target, await loadTables(target, name), reverseName(name));
    if (shape === undefined || !tracksTarget(shape)) throw new Error("it is not captured on both sides");
    const explain = async (connection: Connection, query: string): Promise<string> =>
      (await connection.rows<{ "QUERY PLAN": string }>(`explain (costs off) ${query}`))
        .map((row) => row["QUERY PLAN"])
        .join("\n");

    await source.script(
      "set enable_hashjoin = off; set enable_mergejoin = off; create temporary table d (k1 int, k2 text)",
    );
    const read = await explain(source, `select 1 from pg_temp.d as d where ${exceptPendingSql(shape, name)}`);
    expect(read).toContain("hashed SubPlan");
    expect(read).not.toContain("Nested Loop Anti Join");

    await ensureStages(target, [shape]);
    const sides = {
      base: name,
      way: "forward",
      node: "a",
      reverseNode: "b",
      isLone: false,
      delivered: null,
    } as const;
    for (const kept of [[], [["1", "x"]]])
      for (const statement of leavePendingSql(shape, sides, kept))
        expect(await explain(target, statement)).toContain("hashed SubPlan");
  },
);
