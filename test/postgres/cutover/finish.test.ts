import { expect, test } from "vitest";

import { ReplicateError } from "../../../src/errors.ts";
import type { Sync, SyncEvent } from "../../../src/index.ts";
import { openSync } from "../../../src/index.ts";
import { replicate } from "../../support/replicate.ts";
import { freePair, type Pair } from "../../support/database.ts";
import { until } from "../../support/until.ts";
import { startFollowed } from "../../support/follow-setup.ts";

// After a cutover: the way back is followed, until it is not wanted any more.

const schema = `create table t (id int primary key, v text); insert into t select g, 'x' from generate_series(1, 20) g`;

interface Runner {
  readonly events: SyncEvent[];
  /** Resolves with the code of the error that it ended with, or "none". */
  readonly ended: Promise<string>;
  readonly stop: () => Promise<string>;
}

function follow(sync: Sync, options: { standby?: boolean } = {}): Runner {
  const stop = new AbortController();
  const events: SyncEvent[] = [];
  const ended = (async () => {
    const onEvent = (event: SyncEvent): unknown => events.push(event);
    for await (const batch of sync.follow({ ...options, signal: stop.signal, onEvent })) void batch;
    return "none";
  })().catch((error: unknown) => (error instanceof ReplicateError ? error.code : String(error)));
  return { events, ended, stop: async () => (stop.abort(), await ended) };
}

async function arrives(pair: Pair, side: "source" | "target", id: number): Promise<void> {
  await until(
    `row ${id} is there`,
    async () => (await pair[side].sql(`select 1 from t where id = $1`, [id])).length === 1,
  );
}

const says = ({ events }: Runner, type: SyncEvent["type"]): boolean =>
  events.some((event) => event.type === type);

async function refusal(work: Promise<unknown>): Promise<ReplicateError> {
  try {
    await work;
  } catch (error) {
    if (error instanceof ReplicateError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

const state = `select count(*)::int as n from pg_namespace where nspname = 'replicate'`;

test("finish while the way back is followed, by one runner and by another that stands by", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, schema, { name: "shop" });
  const { sync } = followed;
  await sync.cutover();
  const one = follow(sync);
  await pair.target.sql("insert into t values (100, 'new')");
  await arrives(pair, "source", 100);
  const two = follow(sync, { standby: true });
  await until("it stands by", () => says(two, "standing-by"));
  expect(await sync.cutover({ finish: true })).toMatchObject({ result: "finished", primary: "target" });
  expect(await one.ended).toBe("none");
  expect(one.events).toContainEqual({ type: "asked-to-end", by: "replicate cutover --finish" });
  // It took over and was asked too, or found that there is nothing to follow any more.
  expect(["none", "SYNC_UNKNOWN", "RUNNER_ACTIVE"]).toContain(await two.stop());
  for (const side of [pair.source, pair.target]) {
    expect(await side.sql(state)).toEqual([{ n: 0 }]);
    await side.sql("insert into t values (200, 'free')");
  }
});

test("finish from the command line: follow ends by itself, and says why", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, schema, { name: "shop" });
  const env = {
    REPLICATE_SOURCE: pair.source.url,
    REPLICATE_TARGET: pair.target.url,
    REPLICATE_NAME: "shop",
  };
  const running = replicate(["follow"], { env });
  await until("it follows", async () => (await followed.sync.status()).runner.alive);
  expect((await replicate(["cutover", "--yes"], { env })).code).toBe(0);
  await pair.target.sql("insert into t values (100, 'new')");
  await arrives(pair, "source", 100);
  const finished = await replicate(["cutover", "--finish", "--yes"], { env });
  expect((await running).stdout).toContain("ended, because `replicate cutover --finish` asked for it");
  expect([finished.code, finished.stderr]).toEqual([0, expect.not.stringContaining(".reverse")]);
  const ended = await running;
  expect([ended.code, ended.stderr]).toEqual([0, expect.stringContaining("replicate cutover --finish")]);
});

test("a command that fails after the opening: the way back is followed, and the same cutover does only that", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, schema, { name: "shop" });
  const { sync, events } = followed;
  expect((await refusal(sync.cutover({ onOpen: "exit 3" }))).code).toBe("HOOK_FAILED");
  const runner = follow(sync);
  await pair.target.sql("insert into t values (100, 'new')");
  await arrives(pair, "source", 100);
  events.length = 0;
  expect((await refusal(sync.cutover({ onOpen: "exit 4" }))).message).toContain("code 4");
  expect(await sync.cutover({ onOpen: "echo done" })).toMatchObject({
    result: "switched",
    fenceSeconds: null,
  });
  expect(events.filter(({ type }) => type === "switch-step" || type === "hook-said")).toEqual([
    { type: "switch-step", step: "running the command given" },
    { type: "switch-step", step: "running the command given" },
    { type: "hook-said", line: "done" },
  ]);
  expect((await sync.cutover({ onOpen: "exit 5" })).result).toBe("nothing-to-do");
  await pair.target.sql("insert into t values (101, 'new')");
  await arrives(pair, "source", 101);
  expect(await runner.stop()).toBe("none");
  expect((await sync.rollback()).result).toBe("switched");
  await sync.drop();
});

test("a cutover that was cut off after the opening: the way back is followed, and the same command completes it", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, schema, { name: "shop" });
  const { sync } = followed;
  await sync.cutover();
  // As if it had been cut off before its end.
  await pair.target.sql("update replicate.switch set step = 'opening', is_hooked = false");
  const runner = follow(sync);
  await pair.target.sql("insert into t values (100, 'new')");
  await arrives(pair, "source", 100);
  expect(runner.events.find(({ type }) => type === "warning")).toMatchObject({
    message: expect.stringContaining("run `replicate cutover` again") as unknown,
  });
  expect((await sync.status()).runner.alive).toBe(true);
  expect((await sync.cutover({ onOpen: "echo done" })).result).toBe("switched");
  await pair.target.sql("insert into t values (101, 'new')");
  await arrives(pair, "source", 101);
  expect((await sync.status()).switch?.step).toBe("open");
  expect(await runner.stop()).toBe("none");
  await sync.drop();
});

test("whatever is refused while the way back is followed, the sync has the name that it was given", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, schema, { name: "shop" });
  await followed.sync.cutover();
  const runner = follow(followed.sync);
  await until("it follows", async () => (await followed.sync.status()).runner.alive);
  const events: SyncEvent[] = [];
  await using sync = await openSync({
    name: "shop",
    source: pair.source.url,
    target: pair.target.url,
    env: {},
    onEvent: (event) => events.push(event),
  });
  const works: Record<string, () => Promise<unknown>> = {
    drop: async () => await sync.drop(),
    follow: async () => {
      for await (const batch of sync.follow()) void batch;
    },
    init: async () => await sync.init(),
  };
  for (const [verb, work] of Object.entries(works)) {
    const { code, message, hint } = await refusal(work());
    expect([verb, code]).toEqual([verb, verb === "init" ? "CUTOVER_STATE" : "RUNNER_ACTIVE"]);
    expect(message).toContain("shop");
    expect(message + hint).not.toContain("shop.reverse");
  }
  expect(JSON.stringify([events, runner.events, await sync.status()])).not.toContain("shop.reverse");
  await runner.stop();
  await sync.drop();
});
