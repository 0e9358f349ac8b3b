import { expect, test } from "vitest";

import { ReplicateError, type Sync } from "../../../src/index.ts";
import { compareDatabases } from "../../support/compare.ts";
import { freePair, type Pair } from "../../support/database.ts";
import { openFollowed, onBoth, type Followed } from "../../support/follow-setup.ts";

// The state of a sync is gone from one side, or is of another day there: whatever is asked for says so, and what it says to
// do leads back to equal sides.

const schema = "create table t (id int primary key, s serial)";

/** What schema `replicate` of a side says of the sync, put back later: as a dump that is restored does. */
async function saveState(side: Pair["source"]): Promise<() => Promise<void>> {
  const tables = ["sync", "source_sync"];
  const saved = await Promise.all(
    tables.map(async (table) =>
      (await side.sql<{ row: unknown }>(`select to_jsonb(t) as row from replicate.${table} t`)).map(({ row }) => row),
    ),
  ); // prettier-ignore
  return async () => {
    for (const [n, table] of tables.entries())
      for (const row of saved[n] ?? []) {
        const { position, token, previous_token: previous } = row as Record<string, string | null>;
        const text = (value: string | null | undefined): string => (value == null ? "null" : `'${value}'`);
        const more = table === "source_sync" ? `, previous_token = ${text(previous)}` : "";
        await side.sql(
          `update replicate.${table} set position = ${text(position)}, token = ${text(token)}${more}`,
        );
      }
  };
}

/** What a call has to say: its error's code, or that it works. */
async function outcome(work: () => Promise<unknown>): Promise<string> {
  try {
    await work();
    return "works";
  } catch (error) {
    if (!(error instanceof ReplicateError)) throw error;
    const text = `${error.message} ${error.hint}`;
    expect(text).not.toMatch(/42P01|3F000|does not exist/);
    expect(text).toMatch(/replicate \w+/);
    return error.code;
  }
}

const verbs: Record<string, (sync: Sync) => Promise<unknown>> = {
  follow: async (sync) => {
    for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
  },
  verify: async (sync) => await sync.verify(),
  copy: async (sync) => await sync.copy(),
  "copy --restart --overwrite": async (sync) => await sync.copy({ restart: true, overwrite: true }),
  "copy --dry-run": async (sync) => await sync.copy({ dryRun: true }),
  "cutover --dry-run": async (sync) => await sync.cutover({ rehearse: true }),
  cutover: async (sync) => await sync.cutover(),
  sequences: async (sync) => await sync.sequences(),
  conflicts: async (sync) => await sync.conflicts(),
  "parked --retry": async (sync) => await sync.parked({ retry: true }),
};

/** Calls that need the target alone. */
const ofTarget: Record<string, (sync: Sync) => Promise<unknown>> = {
  status: async (sync) => await sync.status(),
  parked: async (sync) => await sync.parked(),
};

const gone = {
  source: "SOURCE_LOST",
  target: "SYNC_UNKNOWN",
} as const;

const cases = (["source", "target"] as const).flatMap((side) => [
  {
    what: `the ${side} has no schema replicate`,
    side,
    code: gone[side],
    lose: async (pair: Pair) => await pair[side].sql("drop schema replicate cascade"),
  },
  {
    what: `the ${side} has the schema, and no word of the sync`,
    side,
    code: gone[side],
    lose: async (pair: Pair) =>
      await pair[side].sql(
        side === "source"
          ? "delete from replicate.subscription; delete from replicate.source_sync"
          : "delete from replicate.sync_table; delete from replicate.runner; delete from replicate.sync",
      ),
  },
]);

async function begin(pair: Pair): Promise<Followed> {
  await onBoth(pair, schema);
  const followed = await openFollowed(pair, { onRefusal: "park" });
  await pair.source.sql("insert into t values (1)");
  await followed.drain();
  await pair.source.sql("insert into t values (2)");
  await followed.drain();
  // One row is parked, for --retry to have something to do.
  await pair.target.sql("alter table t add constraint odd check (id <> 3)");
  await pair.source.sql("insert into t values (3)");
  await followed.drain();
  await pair.target.sql("alter table t drop constraint odd");
  return followed;
}

async function again(pair: Pair, sync: Sync): Promise<void> {
  await sync.init();
  await sync.copy({ overwrite: true });
  await pair.source.sql("insert into t values (9)");
  await (verbs["follow"] as (sync: Sync) => Promise<unknown>)(sync);
  expect((await compareDatabases(pair.source.url, pair.target.url)).differences).toEqual([]);
}

async function outcomes(sync: Sync): Promise<Record<string, string>> {
  const said: Record<string, string> = {};
  for (const [verb, call] of Object.entries(verbs)) said[verb] = await outcome(async () => await call(sync));
  return said;
}

const expected = (code: string): Record<string, string> =>
  Object.fromEntries(Object.keys(verbs).map((verb) => [verb, code]));

test.each(cases)("$what", async ({ side, code, lose }) => {
  await using pair = await freePair();
  await using followed = await begin(pair);
  const { sync } = followed;
  await lose(pair);
  expect(await outcomes(sync)).toEqual(expected(code));
  for (const [verb, call] of Object.entries(ofTarget))
    expect([verb, await outcome(async () => await call(sync))]).toEqual([verb, side === "source" ? "works" : code]);
  if (side === "source") expect((await sync.status()).sourceError).toMatch(/is not the one that sync default knows/);
  expect(await outcome(async () => await sync.init())).toBe(side === "source" ? "SOURCE_LOST" : "SYNC_MISMATCH");
  // What it says to do.
  await sync.drop();
  await again(pair, sync);
}); // prettier-ignore

test.each([
  { side: "source", code: "SOURCE_LOST" },
  { side: "target", code: "TARGET_RESTORED" },
] as const)("the $side is put back to what it was some batches ago", async ({ side, code }) => {
  await using pair = await freePair();
  await onBoth(pair, schema);
  await using followed = await openFollowed(pair, { onRefusal: "park" });
  const { sync } = followed;
  const restores: (() => Promise<void>)[] = [await saveState(pair[side])];
  for (let id = 1; id <= 3; id += 1) {
    await pair.source.sql(`insert into t values (${id})`);
    await followed.drain();
    if (id === 1) restores.push(await saveState(pair[side]));
  }
  await pair.target.sql("alter table t add constraint odd check (id <> 4)");
  await pair.source.sql("insert into t values (4)");
  await followed.drain();
  await pair.target.sql("alter table t drop constraint odd");
  const rows = await pair.target.sql("select id from t order by id");
  for (const restore of restores) {
    await restore();
    expect(await outcomes(sync)).toEqual(expected(code));
    expect((await sync.status()).sourceError).toMatch(side === "source" ? /it lacks what/ : /was restored from an older copy/);
    expect(await outcome(async () => await sync.init())).toBe(code);
  }
  // Nothing was begun.
  expect(await pair.target.sql("select id from t order by id")).toEqual(rows);
  await sync.drop();
  await again(pair, sync);
}); // prettier-ignore

test("a runner that moves both sides on is no other side", async () => {
  await using pair = await freePair();
  await using followed = await begin(pair);
  const { sync } = followed;
  const stop = new AbortController();
  const running = (async () => {
    for await (const batch of sync.follow({ signal: stop.signal })) {
      void batch;
      await pair.source.sql("insert into t select coalesce(max(id), 0) + 1 from t");
    }
  })();
  await pair.source.sql("insert into t values (10)");
  for (let n = 0; n < 40; n += 1) {
    expect((await sync.status()).sourceError).toBeNull();
    await sync.sequences();
  }
  stop.abort();
  await running;
});
