import { describe, expect, test } from "vitest";

import { pruneConflicts } from "../../../src/conflict/log.ts";
import { finishResolutions } from "../../../src/conflict/resolve.ts";
import { resolveConfig } from "../../../src/config/options.ts";
import { makeContext, Sessions } from "../../../src/state/open-context.ts";
import { replicate } from "../../support/replicate.ts";
import { freePair, type Pair } from "../../support/database.ts";
import { entryOf, startLogged } from "../../support/conflict-setup.ts";

describe("the log", () => {
  test("is listed from both sides, the latest first, and filtered", async () => {
    await using pair = await freePair();
    await using logged = await startLogged(pair);
    const { sync, log } = logged;
    expect(await sync.conflicts()).toEqual([]);
    expect((await sync.status()).conflicts).toBe(0);
    const old = await log("target", { at: "now() - interval '3 days'", isPending: false });
    const onSource = await log("source", { at: "now() - interval '2 days'" });
    const other = await log("target", {
      at: "now() - interval '1 day'",
      table: `sales."Order"`,
      kind: "insert_exists",
      isPending: false,
      winner: "target",
    });
    const unique = await log("target", {
      kind: "multiple_unique_conflicts",
      otherKey: { id: 2, group: "a" },
    });
    const ids = async (options: Parameters<typeof sync.conflicts>[0]): Promise<number[]> =>
      (await sync.conflicts(options)).map(({ id }) => id);
    expect(await ids({})).toEqual([unique, other, onSource, old]);
    expect([old % 2, onSource % 2]).toEqual([0, 1]);
    expect(await ids({ limit: 2 })).toEqual([unique, other]);
    expect(await ids({ limit: Infinity })).toHaveLength(4);
    expect(await ids({ state: "pending" })).toEqual([unique, onSource]);
    expect(await ids({ state: "resolved" })).toEqual([other, old]);
    expect(await ids({ tables: ["users"] })).toEqual([unique, onSource, old]);
    expect(await ids({ tables: [`sales."Order"`, "x*"] })).toEqual([other]);
    expect(await ids({ kinds: ["insert_exists", "update_missing"] })).toEqual([other]);
    expect(await ids({ since: "36h" })).toEqual([unique, other]);
    expect(await ids({ since: new Date(Date.now() - 2.5 * 86_400_000) })).toEqual([unique, other, onSource]);
    expect((await sync.status()).conflicts).toBe(2);

    const [entry] = (await sync.conflicts()).filter(({ id }) => id === old);
    expect(entry).toEqual({
      id: old,
      table: "public.users",
      key: { id: 1, group: "a" },
      kind: "update_origin_differs",
      source: {
        node: "office",
        change: "update",
        at: "2026-05-01T10:00:00.000001Z",
        // No digit is lost.
        image: { id: "9007199254740993", group: "a", name: "Ann" },
      },
      target: { node: "cloud", change: "delete", at: null, image: null },
      constraint: null,
      otherKey: null,
      policy: "latest",
      winner: "source",
      merged: null,
      at: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/) as string,
      resolved: true,
      resolvedAt: entry?.at,
    });
  });

  test("names every filter that cannot be read", async () => {
    await using pair = await freePair();
    await using logged = await startLogged(pair);
    const wrong = { tables: ["a.b.c"], kinds: ["update_mising" as "update_missing"], since: "yesterday-ish" };
    await expect(logged.sync.conflicts(wrong)).rejects.toMatchObject({
      code: "CONFIG_INVALID",
      problems: [
        { subject: "a.b.c" },
        { subject: "kinds", message: expect.stringContaining('did you mean "update_missing"?') as string },
        { subject: "since" },
      ],
    });
  });

  test("forgets what was resolved long ago, and nothing that is pending", async () => {
    await using pair = await freePair();
    await using logged = await startLogged(pair);
    const { log, sync } = logged;
    const kept = [
      await log("target", { at: "now() - interval '9 days'", isPending: false }),
      await log("target", { at: "now() - interval '99 days'" }),
    ];
    await log("target", { at: "now() - interval '11 days'", isPending: false });
    await pair.target
      .sql(`insert into replicate.conflict (sync, way, relid, table_name, key, key_texts, kind, source_change,
        target_change, source_node, target_node, policy, winner, resolved_at)
      select 'shop', 'forward', 1, 'public.t', '{}', '{}', 'insert_exists', 'insert', 'insert', 'a', 'b', 'latest', 'source', '2020-01-01'
      from generate_series(1, 2500)`);
    await using context = contextOf(pair);
    await using target = await context.target("test");
    expect(await pruneConflicts(target, "other", 10 * 86_400)).toBe(0);
    expect(await pruneConflicts(target, "shop", 10 * 86_400)).toBe(2501);
    expect(new Set((await sync.conflicts()).map(({ id }) => id))).toEqual(new Set(kept));
    expect(await pruneConflicts(target, "shop", 10 * 86_400)).toBe(0);
  });

  test("goes with the sync, where another one keeps the schema", async () => {
    await using pair = await freePair();
    await using logged = await startLogged(pair);
    await logged.log("target");
    await logged.log("source");
    await logged.sync.drop();
    for (const side of [pair.source, pair.target])
      expect(await side.sql(`select 1 from replicate.conflict`)).toEqual([]);
  });
});

function contextOf(pair: Pair): ReturnType<typeof makeContext> & AsyncDisposable {
  const sessions = new Sessions();
  const config = resolveConfig({ name: "shop", source: pair.source.url, target: pair.target.url }, {});
  return Object.assign(makeContext(config, sessions, {}), {
    [Symbol.asyncDispose]: async () => await sessions.closeAll(),
  });
}

describe("a skipped conflict", () => {
  for (const side of ["source", "target"] as const) {
    for (const winner of ["source", "target"] as const) {
      test(`that was met on the ${side} is resolved with the ${winner}`, async () => {
        await using pair = await freePair();
        await using logged = await startLogged(pair);
        const id = await logged.log(side, { key: { id: 3, group: "b" } });
        expect(await logged.sync.resolveConflict(id, winner)).toEqual({ resolved: [id], unchanged: [] });
        expect(await entryOf(pair[side], id)).toBe(`${winner} resolved`);
        const loser = winner === "source" ? "target" : "source";
        expect(await logged.noted(winner)).toEqual(["3 b U now"]);
        expect(await logged.noted(loser)).toEqual([]);
        // The same again changes nothing, another winner is refused.
        expect(await logged.sync.resolveConflict([id], winner)).toEqual({ resolved: [], unchanged: [id] });
        await expect(logged.sync.resolveConflict(id, loser)).rejects.toMatchObject({
          code: "CONFLICT_UNKNOWN",
          problems: [
            { subject: `conflict ${id}`, message: `is resolved already, with the winner ${winner}` },
          ],
        });
        expect(await logged.noted(winner)).toHaveLength(1);
      });
    }
  }

  test("of two rows that want the same value has both keys noted", async () => {
    await using pair = await freePair();
    await using logged = await startLogged(pair);
    const id = await logged.log("target", { otherKey: { id: "9007199254740993", group: "b" } });
    await logged.sync.resolveConflict(id, "source");
    expect(await logged.noted("source")).toEqual(["1 a U now", "9007199254740993 b U now"]);
  });

  test("is found by the names of the key's columns, whatever their order", async () => {
    await using pair = await freePair();
    await using logged = await startLogged(pair);
    const id = await logged.log("source", { key: { group: "b", id: 3 } as never });
    await logged.sync.resolveConflict(id, "target");
    expect(await logged.noted("target")).toEqual(["3 b U now"]);
  });

  test("is one of several: those that do not exist are named before anything is changed", async () => {
    await using pair = await freePair();
    await using logged = await startLogged(pair);
    const { log, sync } = logged;
    const ids = [await log("target"), await log("source", { key: { id: 2, group: "a" } })];
    const done = await log("target", { isPending: false, winner: "merged" });
    await expect(sync.resolveConflict([...ids, 998, done], "target")).rejects.toMatchObject({
      problems: [
        { subject: "conflict 998", message: "there is none with this id" },
        { subject: `conflict ${done}`, message: "is resolved already, with the winner merged" },
      ],
    });
    expect((await sync.status()).conflicts).toBe(2);
    expect(await sync.resolveConflict({ tables: ["other"] }, "target")).toEqual({
      resolved: [],
      unchanged: [],
    });
    const { resolved } = await sync.resolveConflict({ tables: ["users"] }, "target");
    expect(new Set(resolved)).toEqual(new Set(ids));
    expect(await logged.noted("target")).toEqual(["1 a U now", "2 a U now"]);
    expect((await sync.status()).conflicts).toBe(0);
  });

  test("of a table that has left the sync stays", async () => {
    await using pair = await freePair();
    await using logged = await startLogged(pair);
    const id = await logged.log("target");
    await pair.target.sql(`update replicate.conflict set relid = 1`);
    await expect(logged.sync.resolveConflict(id, "source")).rejects.toMatchObject({ code: "CAPTURE_BROKEN" });
    expect(await logged.noted("source")).toEqual([]);
  });

  test.for(["conflict.begun", "conflict.key-recorded"])("survives a death at %s", async (failpoint) => {
    await using pair = await freePair({ leaks: "ignore" });
    await using logged = await startLogged(pair);
    const env = { REPLICATE_SOURCE: pair.source.url, REPLICATE_TARGET: pair.target.url };
    const args = (id: number): string[] => [
      "conflicts",
      "resolve",
      String(id),
      "--with",
      "source",
      "--name",
      "shop",
    ];
    const id = await logged.log("target");
    const dead = await replicate(args(id), { env: { ...env, REPLICATE_FAILPOINT: failpoint } });
    expect(dead.signal).toBe("SIGKILL");
    // The key is applied again and not read yet.
    expect(await entryOf(pair.target, id)).toBe("source open");
    expect(await logged.noted("source")).toEqual(failpoint === "conflict.key-recorded" ? ["1 a U now"] : []);
    expect((await logged.sync.status()).conflicts).toBe(1);
    await expect(logged.sync.resolveConflict(id, "target")).rejects.toMatchObject({
      problems: [{ message: "is about to be resolved with source: say that again to complete it" }],
    });
    // The row that lost is in the log as it was before, whatever has been applied since.
    const lost = async (): Promise<unknown> => (await logged.sync.conflicts())[0]?.target;
    const image = { id: 1, group: "a", name: "Ann" };
    expect(await lost()).toEqual({ node: "cloud", change: "insert", at: null, image });
    await pair.target.sql("update users set name = 'applied' where id = 1");
    expect(await replicate(args(id), { env })).toMatchObject({ code: 0 });
    expect(await lost()).toMatchObject({ image });
    expect(await entryOf(pair.target, id)).toBe("source resolved");
    expect(new Set(await logged.noted("source"))).toEqual(new Set(["1 a U now"]));

    // Or the runner does it.
    const second = await logged.log("source", { key: { id: 2, group: "a" } });
    await pair.source.sql(`update replicate.conflict set winner = 'target'`);
    await using context = contextOf(pair);
    await using source = await context.source("test");
    await using target = await context.target("test");
    expect(await finishResolutions(source, target, "shop")).toBe(1);
    expect(await finishResolutions(source, target, "shop")).toBe(0);
    expect(await entryOf(pair.source, second)).toBe("target resolved");
    expect(await logged.noted("target")).toContain("2 a U now");
  });
});
