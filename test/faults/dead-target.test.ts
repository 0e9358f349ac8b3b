import { expect, test } from "vitest";

import { openSync, type Sync, type SyncEvent, type SyncOptions } from "../../src/index.ts";
import { compareDatabases } from "../support/compare.ts";
import { freePair, type Database, type Pair } from "../support/database.ts";
import { ownServers } from "../support/own-servers.ts";
import { describeSchema } from "../support/schema-description.ts";
import { until } from "../support/until.ts";

// One source, two targets, one of which is gone: the other goes on, everybody is told what the dead one makes the source
// keep, and when it is given up nothing is kept any more. Should it come back, it is told what it lacks.

const servers = ownServers();

const schema = "create table t (id int primary key, v int, pad text)";
const rows = "insert into t select g, 0, repeat('x', 50) from generate_series(1, 20000) g";
const megabyte = 1024 ** 2;

async function drain(sync: Sync): Promise<void> {
  for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
}

function following(sync: Sync): {
  events: SyncEvent[];
  failed: Promise<unknown>;
  stop: () => Promise<unknown>;
} {
  const stop = new AbortController();
  const events: SyncEvent[] = [];
  const failed = (async () => {
    const options = { signal: stop.signal, onEvent: (event: SyncEvent) => void events.push(event) };
    for await (const batch of sync.follow(options)) void batch;
  })().then(
    () => undefined,
    (error: unknown) => error,
  );
  return {
    events,
    failed,
    stop: async () => {
      stop.abort();
      return await failed;
    },
  };
}

const heldBytes = async (source: Database): Promise<number> => {
  const [{ bytes } = { bytes: 0 }] = await source.sql<{ bytes: number }>(
    `select (pg_relation_size(delta_a) + pg_relation_size(delta_b))::int as bytes from replicate.capture`,
  );
  return bytes;
};

/** As if the sync's runner had said nothing for so long. */
const makeSilent = async (source: Database, sync: string): Promise<void> =>
  void (await source.sql(
    `update replicate.source_sync set acknowledged_at = now() - interval '1 hour' where name = $1`,
    [sync],
  ));

interface Scene extends AsyncDisposable {
  /** The source, and the target of `far`, which is a server that may be taken down. */
  readonly pair: Pair;
  /** The target of `near`, on the source's server. */
  readonly other: Pair;
  readonly near: Sync;
  readonly far: Sync;
  /** What there was on each of the three before the syncs came. */
  readonly before: readonly string[][];
  schemas: () => Promise<string[][]>;
}

/** Both targets are copied, and have nothing left to apply. */
async function startBoth(options: Partial<SyncOptions> = {}): Promise<Scene> {
  const pair = await freePair({ ...servers, leaks: "ignore" });
  const other = await freePair({ source: servers.source, target: servers.source });
  const sides = [pair.source, pair.target, other.target];
  for (const side of sides) await side.sql(schema);
  await pair.source.sql(rows);
  const schemas = async (): Promise<string[][]> =>
    await Promise.all(sides.map(async ({ url }) => await describeSchema(url)));
  const before = await schemas();
  const common = { source: pair.source.url, env: {}, ...options };
  const near = await openSync({ ...common, name: "near", target: other.target.url });
  const far = await openSync({ ...common, name: "far", target: pair.target.url });
  for (const sync of [near, far]) {
    await sync.init();
    await sync.copy();
    await drain(sync);
  }
  return {
    pair,
    other,
    near,
    far,
    before,
    schemas,
    [Symbol.asyncDispose]: async () => {
      for (const each of [far, near, other, pair]) await each[Symbol.asyncDispose]();
    },
  };
}

test("a target that is gone for good", { timeout: 240_000 }, async () => {
  await using scene = await startBoth({ deltaLimit: "1MB" });
  const { pair, other, near, far } = scene;
  await drain(near);
  const farRunner = following(far);
  const nearRunner = following(near);
  await until(
    "both follow",
    async () => (await near.status()).runner.alive && (await far.status()).runner.alive,
  );
  await servers.target.down("immediate");
  await until("the far one is cut off", () =>
    farRunner.events.some(({ type }) => type === "connection-lost"),
  );

  // The near one goes on; what it has applied cannot be thrown away.
  const areEqual = async (): Promise<boolean> =>
    (await compareDatabases(pair.source.url, other.target.url)).differences.length === 0;
  for (let times = 0; times < 6; times += 1) await pair.source.sql("update t set v = v + 1");
  await until("the near one has it", areEqual);
  expect(await heldBytes(pair.source)).toBeGreaterThan(3 * megabyte);
  expect((await near.status()).held).toEqual([]);

  // An hour later everybody is told.
  await makeSilent(pair.source, "far");
  await until("the near one tells", () => nearRunner.events.some(({ type }) => type === "deltas-held"));
  expect(nearRunner.events.find(({ type }) => type === "deltas-held")).toMatchObject({
    sync: "far",
    limitBytes: megabyte,
  });
  expect((await near.status()).held).toMatchObject([{ sync: "far", isOver: true }]);
  const { findings } = await near.preflight();
  expect(findings.find(({ subject }) => subject === "sync far")).toMatchObject({
    severity: "warning",
    remedy: expect.stringContaining("replicate drop --source-only --name far"),
  });

  // Given up, while its target is away; its runner is still trying to reach it.
  await far.drop({ sourceOnly: true });
  await pair.source.sql("update t set v = v + 1 where id <= 1000");
  await until("nothing is kept any more", async () => (await heldBytes(pair.source)) === 0);
  await until("the near one has it", areEqual);
  expect((await near.status()).held).toEqual([]);

  // It comes back, and must not go on as if nothing had happened.
  await servers.target.restart();
  expect(await farRunner.failed).toMatchObject({ code: "SYNC_EXPELLED", exitCode: 3 });
  const expelled = { code: "SYNC_EXPELLED", hint: expect.stringContaining("replicate drop --target-only") };
  await expect(drain(far)).rejects.toMatchObject(expelled);
  await expect(far.init()).rejects.toMatchObject(expelled);
  await expect(far.copy()).rejects.toMatchObject(expelled);
  await expect(far.copy({ restart: true })).rejects.toMatchObject(expelled);
  const status = await far.status();
  expect(status.sourceError).toContain("sync far was dropped on the source");
  expect(status).toMatchObject({
    phase: "failed",
    lastError: { code: "SYNC_EXPELLED" },
    lag: { rows: null },
  });

  // Anew.
  await far.drop({ targetOnly: true });
  await far.init();
  await far.copy({ overwrite: true });
  await drain(far);
  expect((await compareDatabases(pair.source.url, pair.target.url)).differences).toEqual([]);
  expect(await nearRunner.stop()).toBeUndefined();
  await far.drop();
  await near.drop();
  expect(await scene.schemas()).toEqual(scene.before);
});

test(
  "a runner that lives is not cut off; one that is told nothing any more ends",
  { timeout: 120_000 },
  async () => {
    await using scene = await startBoth();
    const { pair, near, far } = scene;
    const runner = following(far);
    await until("it follows", async () => (await far.status()).runner.alive);
    await pair.source.sql("update t set v = 1 where id = 1");
    await until("it has told so", async () => (await far.status()).lag.rows === 0);
    await expect(far.drop({ sourceOnly: true })).rejects.toMatchObject({
      code: "RUNNER_ACTIVE",
      exitCode: 4,
    });

    // Silent for an hour: what it left behind on the source does not keep it from being given up.
    await makeSilent(pair.source, "far");
    await far.drop({ sourceOnly: true });
    await pair.source.sql("update t set v = 2 where id = 1");
    await drain(near);
    expect(await runner.failed).toMatchObject({ code: "SYNC_EXPELLED" });
    expect(await pair.target.sql("select v from t where id = 1")).toEqual([{ v: 1 }]);
  },
);

test("a runner whose sync is not known on the source any more does not take that for peace", async () => {
  await using pair = await freePair({ ...servers, leaks: "ignore" });
  for (const side of [pair.source, pair.target]) await side.sql(schema);
  await using sync = await openSync({ source: pair.source.url, target: pair.target.url, env: {} });
  await sync.init();
  await sync.copy();
  const runner = following(sync);
  await until("it follows", async () => (await sync.status()).phase === "following");
  await pair.source.sql(`
    begin; delete from replicate.subscription; delete from replicate.source_sync; insert into t values (1, 1); commit`);
  expect(await runner.failed).toMatchObject({ code: "SOURCE_LOST" });
  expect(await pair.target.sql("select * from t")).toEqual([]);
});
