import { describe, expect, it } from "vitest";

import { openSync, ReplicateError, type Finding, type Sync, type SyncOptions } from "../../../src/index.ts";
import { freePair, type Database, type Pair } from "../../support/database.ts";

// Source and target exchanged: found by what both databases remember, whatever the sync is called.

const schema = `
  create table t (id int primary key, v text);
  create table u (id int primary key, v text)`;

async function start(): Promise<Pair> {
  const pair = await freePair();
  for (const side of [pair.source, pair.target]) await side.sql(schema);
  await pair.source.sql("insert into t values (1, 'one'), (2, 'two'); insert into u values (1, 'u')");
  return pair;
}

const open = async (
  source: Database,
  target: Database,
  name: string,
  more: Partial<SyncOptions> = {},
): Promise<Sync> => await openSync({ name, source: source.url, target: target.url, env: {}, ...more });

async function drain(sync: Sync): Promise<void> {
  for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
}

async function moved(pair: Pair, name: string, more: Partial<SyncOptions> = {}): Promise<Sync> {
  const sync = await open(pair.source, pair.target, name, more);
  await sync.init();
  await sync.copy();
  await drain(sync);
  return sync;
}

const blocking = (findings: readonly Finding[]): Finding[] =>
  findings.filter(({ severity, subject }) => severity === "blocking" && subject.startsWith("sync "));

/** What init says is what preflight says; nothing is changed. */
async function refused(pair: Pair, name: string, more: Partial<SyncOptions> = {}): Promise<string> {
  const state = async (): Promise<unknown> =>
    await Promise.all(
      [pair.source, pair.target].map(
        async (side) =>
          await side.sql(
            "select name from replicate.sync union all select name from replicate.source_sync order by 1",
          ),
      ),
    );
  const before = await state();
  await using back = await open(pair.target, pair.source, name, more);
  const report = await back.preflight();
  const [finding, ...others] = blocking(report.findings);
  expect(others).toEqual([]);
  const error: unknown = await back.init().catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(ReplicateError);
  expect(error).toMatchObject({ code: "PREFLIGHT_BLOCKED", problems: [finding] });
  expect(await state()).toEqual(before);
  return `${finding?.subject}: ${finding?.message}\n${finding?.remedy}`;
}

describe("a sync back along a pair that has one", () => {
  it.each([
    ["under another name", "other", {}],
    ["under the same name", "shop", {}],
    ["for one of the tables", "other", { tables: ["t"] }],
    ["both ways", "other", { direction: "both" }],
    ["with a conflict policy", "other", { conflict: "latest" }],
  ] as const)("is refused: %s", async (_, name, more) => {
    await using pair = await start();
    await using _sync = await moved(pair, "shop");
    const said = await refused(pair, name, more);
    expect(said).toContain("sync shop: goes from this target to this source already, with public.t");
    expect(said).toContain("direction: both for sync shop");
    expect(said).toContain("replicate cutover --name shop");
  });

  it("is refused while the other one is being followed", async () => {
    await using pair = await start();
    await using sync = await moved(pair, "shop");
    const stop = new AbortController();
    const running = (async () => {
      for await (const batch of sync.follow({ signal: stop.signal })) void batch;
    })();
    const writing = (async () => {
      for (let n = 10; n < 200; n += 1) await pair.source.sql(`insert into t values (${n}, 'x')`);
    })();
    for (let n = 0; n < 3; n += 1) expect(await refused(pair, "other")).toContain("sync shop: goes from");
    await writing;
    stop.abort();
    await running;
  });

  it("is refused where a sync goes both ways, and where it is cut over, in either direction", async () => {
    await using pair = await start();
    await using both = await moved(pair, "shop", { direction: "both" });
    expect(await refused(pair, "other")).toContain("sync shop: goes from this target to this source already");
    await both.drop();

    await pair.target.sql("truncate t, u");
    await using sync = await moved(pair, "move");
    await sync.cutover();
    expect(await refused(pair, "other")).toContain(
      "sync move: has public.t, public.u between these databases",
    );
    await using again = await open(pair.source, pair.target, "again");
    const [finding] = blocking((await again.preflight()).findings);
    expect(finding).toMatchObject({ subject: "sync move" });
    expect(finding?.message).toContain("is cut over or goes both ways");
    expect(finding?.remedy).toContain("replicate rollback --name move");
    // Its own way back is none.
    await using same = await open(pair.source, pair.target, "move");
    expect(blocking((await same.preflight()).findings)).toEqual([]);
  });

  it.each([
    ["a sync of other tables", { tables: ["u"] }, { tables: ["t"] }],
    ["the same sync again", {}, undefined],
  ] as const)("is not %s", async (_, first, second) => {
    await using pair = await start();
    await using sync = await moved(pair, "shop", first);
    if (second === undefined) {
      expect(blocking((await sync.preflight()).findings)).toEqual([]);
      await sync.init();
      return;
    }
    await using back = await open(pair.target, pair.source, "other", second);
    expect(blocking((await back.preflight()).findings)).toEqual([]);
    await back.init();
    await using both = await open(pair.source, pair.target, "shop", first);
    expect(blocking((await both.preflight()).findings)).toEqual([]);
  });

  it("is none of a sync that is gone, and none of a chain with other databases of the same names", async () => {
    await using pair = await start();
    await using third = await start();
    {
      await using sync = await moved(pair, "default");
      await sync.drop();
      await using back = await open(pair.target, pair.source, "default");
      expect(blocking((await back.preflight()).findings)).toEqual([]);
    }
    // X -> B and A -> Y are both called "default"; their tables have oids that may be equal. Now B -> A.
    await pair.target.sql("truncate t, u");
    const [x, y] = [third.source, third.target];
    await using into = await open(x, pair.target, "default");
    await into.init();
    await using out = await open(pair.source, y, "default");
    await out.init();
    await using back = await open(pair.target, pair.source, "back");
    expect(blocking((await back.preflight()).findings)).toEqual([]);
  });
});

describe("a copy into the source of another sync", () => {
  it("wants a flag that says so, where rows would be replaced", async () => {
    await using pair = await start();
    await using other = await start();
    await using _sync = await moved(pair, "shop");
    // From a third database into the production, by mistake.
    await other.source.sql("insert into t values (7, 'seven')");
    await using wrong = await open(other.source, pair.source, "wrong");
    await wrong.init();
    for (const options of [{}, { overwrite: true }]) {
      await expect(wrong.copy(options)).rejects.toMatchObject({
        code: "TARGET_NOT_EMPTY",
        message: expect.stringContaining(`/${pair.source.name} is the source of another sync`) as string,
        hint: expect.stringContaining("--overwrite-source") as string,
        problems: ["t", "u"].map((name) => ({
          subject: `public.${name}`,
          message: "holds rows that shop takes from this database",
        })),
      });
    }
    expect(await pair.source.sql("select id from t order by id")).toEqual([{ id: 1 }, { id: 2 }]);
    await wrong.copy({ overwrite: true, overwriteSource: true });
    expect(await pair.source.sql("select id from t order by id")).toEqual([{ id: 1 }, { id: 2 }, { id: 7 }]);
  });

  it("wants none in a chain: where the tables are empty, and where the rows are this sync's", async () => {
    await using pair = await start();
    await using other = await start();
    await using far = await open(pair.target, other.target, "far");
    await far.init();
    await far.copy();
    await using near = await open(pair.source, pair.target, "near");
    await near.init();
    await near.copy();
    await near.copy({ restart: true });
    await drain(near);
    await drain(far);
    expect(await other.target.sql("select id from t order by id")).toEqual([{ id: 1 }, { id: 2 }]);
  });
});
