import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";

import { loadTables } from "../../../src/state/sync-table.ts";
import { ChangePlans, verifyChanged, type ChangedReport } from "../../../src/verify/changed.ts";
import { freePair, type Pair } from "../../support/database.ts";
import { until } from "../../support/until.ts";
import { startVerifiedSync, type VerifiedSync } from "../../support/verified-sync.ts";

// What has changed since a point is compared, by tests that stand in for follow: they write to both sides, and say what
// the target's position is.

const onBoth = async (pair: Pair, text: string): Promise<void> => {
  await Promise.all([pair.source.sql(text), pair.target.sql(text)]);
};

interface Scene extends AsyncDisposable {
  sync: VerifiedSync;
  /** The snapshot of the source at this moment. */
  now: () => Promise<string>;
  /** Says that the target has everything that is committed now, and returns that position. */
  applied: () => Promise<string>;
  /** Compares from these points, or all tables from one. */
  compare: (
    since: string | ReadonlyMap<number, string>,
    options?: { isLive?: boolean; keysAtOnce?: number; plans?: ChangePlans },
  ) => Promise<ChangedReport>;
  capture: (table: string) => Promise<number>;
}

async function startScene(pair: Pair, script: string): Promise<Scene> {
  await onBoth(pair, script);
  const sync = await startVerifiedSync(pair, { keyless: "reload" });
  await pair.target.sql("update replicate.sync_table set state = 'following'");
  const now = async (): Promise<string> =>
    (await pair.source.sql<{ now: string }>("select txid_current_snapshot()::text as now"))[0]?.now ?? "";
  const applied = async (): Promise<string> => {
    const position = await now();
    await pair.target.sql("update replicate.sync set position = $1", [position]);
    return position;
  };
  await applied();
  const compare: Scene["compare"] = async (since, options = {}) => {
    const context = sync.context();
    await using target = await context.target("test");
    const entries = await loadTables(target, context.config.name);
    const points =
      typeof since === "string" ? new Map(entries.map(({ captureId }) => [captureId, since])) : since;
    return await verifyChanged(context, { entries, since: points, ...options });
  };
  const capture = async (table: string): Promise<number> =>
    (
      await pair.target.sql<{ id: number }>(
        "select capture_id as id from replicate.sync_table where source_name = $1",
        [table],
      )
    )[0]?.id ?? 0;
  return { sync, now, applied, compare, capture, [Symbol.asyncDispose]: () => sync[Symbol.asyncDispose]() };
}

/** One line for each difference: `public.users {"id":1} changed`. */
const differencesOf = ({ tables }: ChangedReport): string[] =>
  tables.flatMap(({ table, differences }) =>
    differences.map(({ key, kind }) => `${table} ${JSON.stringify(key)} ${kind}`),
  );

/** Kinds of keys: three of each, of which the first two are changed. Values are SQL. */
const keys: Readonly<Record<string, { type: string; values: readonly [string, string, string]; shown: string }>> = {
  whole: { type: "integer", values: ["1", "2", "3"], shown: "2" },
  big: { type: "bigint", values: ["'-9223372036854775808'", "5000000000", "3"], shown: "5000000000" },
  words: { type: "text", values: ["''", "E'a\\tb\\\\n ''\"ß☃'", "'c'"], shown: JSON.stringify("a\tb\\n '\"ß☃") },
  padded: { type: "character(5)", values: ["'a'", "'b'", "'c'"], shown: '"b"' },
  folding: { type: "numeric", values: ["1.0", "2.00", "3"], shown: '"2.00"' },
  uuids: { type: "uuid", values: ["'00000000-0000-0000-0000-000000000001'", "'00000000-0000-0000-0000-000000000002'", "'00000000-0000-0000-0000-000000000003'"], shown: '"00000000-0000-0000-0000-000000000002"' },
  flags: { type: "boolean", values: ["true", "false", "null"], shown: "false" },
  bytes: { type: "bytea", values: ["'\\x00'", "'\\xff00'", "'\\x03'"], shown: '"\\\\xff00"' },
  days: { type: "date", values: ["'2020-01-01'", "'infinity'", "'0044-03-15 BC'"], shown: '"infinity"' },
  moments: { type: "timestamptz", values: ["'2020-01-01 00:00:00.000001Z'", "'-infinity'", "'2021-06-01Z'"], shown: '"-infinity"' },
  floats: { type: "double precision", values: ["0.1", "'-Infinity'", "1e300"], shown: '"-Infinity"' },
  lists: { type: "integer[]", values: ["'{1,2}'", "'{}'", "'{3}'"], shown: '"{}"' },
  moods: { type: "mood", values: ["'happy'", "'so so'", "'sad'"], shown: '"so so"' },
  small_mood: { type: "good_mood", values: ["'happy'", "'so so'", "'sad'"], shown: '"so so"' },
}; // prettier-ignore

test("keys of every kind are compared, in one statement where that can be", async () => {
  await using pair = await freePair();
  const tables = Object.entries(keys);
  const usable = (values: readonly string[]): string[] => values.filter((value) => value !== "null");
  await using scene = await startScene(
    pair,
    `create type mood as enum ('sad', 'so so', 'happy'); create domain good_mood as mood;
     ${tables
       .map(
         ([name, { type, values }]) =>
           `create table ${name} (k ${type} primary key, v int default 0, "other key" int default 7, unique (k, "other key"));
            insert into ${name} (k) values ${usable(values)
              .map((value) => `(${value})`)
              .join(", ")};`,
       )
       .join("\n")}`,
  );
  const point = await scene.now();
  /** Sets v where the key is one of two values. A domain over an enum has no operators of its own. */
  const set = (v: number, first: 0 | 1, second: 1 | 2): string =>
    tables
      .map(([name, { type, values }]) => {
        const base = type === "good_mood" ? "mood" : type;
        return `update ${name} set v = ${v} where k::${base} in (${values[first]}::${base}, ${values[second]}::${base});`;
      })
      .join("\n");
  await onBoth(pair, set(1, 0, 1));
  await scene.applied();
  expect(await scene.compare(point)).toMatchObject({
    equal: true,
    rows: 2 * tables.length,
    changed: tables.length,
  });

  // A row that has changed, and one that has not.
  await pair.target.sql(set(2, 1, 2));
  const expected = tables.map(([name, { shown }]) => `public.${name} {"k":${shown}} changed`);
  expect(differencesOf(await scene.compare(point)).toSorted()).toEqual(expected.toSorted());
  // While both sides are written to, nothing is looked for; where it differs, the point has to stay.
  const live = await scene.compare(point, { isLive: true });
  expect([...live.upTo.keys()]).toEqual([]);
  expect(live.tables).toHaveLength(tables.length);
});

test("what changes after the target's position is left for later, and compared then", async () => {
  await using pair = await freePair();
  const names = ["a", "b", "n"];
  await using scene = await startScene(
    pair,
    names
      .map(
        (name) => `create table ${name} (k ${name === "n" ? "numeric" : "int"} primary key, v int);
        insert into ${name} select g, 0 from generate_series(1, 100) g;`,
      )
      .join("\n"),
  );
  const point = await scene.now();
  const all = (statement: string): string => names.map((name) => statement.replaceAll("T", name)).join(";");
  await onBoth(pair, all("update T set v = 1 where k <= 50"));
  const position = await scene.applied();
  // The target does not have these: a row that has changed before, under another name where equal keys have several, and one that has not; one comes, one goes.
  const later = all(
    "update T set v = 2 where k in (50, 60); insert into T values (101, 0); delete from T where k = 49",
  );
  await pair.source.sql(`${later}; delete from n where k = 48; insert into n values (48.0, 5)`);

  const live = await scene.compare(point, { isLive: true });
  // 48 of 50 were not changed again; of n, 47.
  expect(live).toMatchObject({ equal: true, rows: 48 + 48 + 47 });
  const ids = await Promise.all(names.map(scene.capture));
  expect(new Map(live.upTo)).toEqual(new Map(ids.map((id) => [id, position])));

  // From the new points on it is compared what was left out: no less, no more.
  await pair.target.sql(`${later}; delete from n where k = 48; insert into n values (48.0, 5)`);
  await scene.applied();
  expect(await scene.compare(live.upTo)).toMatchObject({ equal: true, rows: 3 + 3 + 4 });
  await pair.target.sql(all("update T set v = 9 where k in (1, 50, 60); insert into T values (49, 0)"));
  expect(differencesOf(await scene.compare(live.upTo)).toSorted()).toEqual(
    names
      .flatMap((name) => {
        const show = (key: number): string => (name === "n" ? `"${key}"` : String(key));
        return [
          `public.${name} {"k":${show(49)}} extra`,
          `public.${name} {"k":${show(50)}} changed`,
          `public.${name} {"k":${show(60)}} changed`,
        ];
      })
      .toSorted(),
  );
});

test("many keys are compared in slices, each of them once", async () => {
  await using pair = await freePair();
  await using scene = await startScene(
    pair,
    `create table t (k text, n int, v int, primary key (k, n)); insert into t select 'k' || g, g % 3, 0 from generate_series(1, 3000) g`,
  );
  const point = await scene.now();
  await onBoth(pair, "update t set v = 1 where n < 2");
  const position = await scene.applied();
  await pair.source.sql("update t set v = 2 where k in ('k1', 'k2')");
  const options = { isLive: true, keysAtOnce: 100 };
  expect(await scene.compare(point, options)).toMatchObject({ equal: true, rows: 1999 });
  await pair.target.sql("update t set v = 2 where k in ('k1', 'k2')");
  await scene.applied();
  await pair.target.sql("update t set v = 7 where k in ('k1', 'k3')");
  expect((await scene.compare(point, options)).upTo.size).toBe(0);
  expect(differencesOf(await scene.compare(point, { keysAtOnce: 100 })).toSorted()).toEqual([
    'public.t {"k":"k1","n":1} changed',
    'public.t {"k":"k3","n":0} changed',
  ]);
  expect(differencesOf(await scene.compare(position, { keysAtOnce: 1 }))).toEqual([
    'public.t {"k":"k1","n":1} changed',
  ]);
});

test("a table that was emptied is compared as a whole, once the target has that", async () => {
  await using pair = await freePair();
  await using scene = await startScene(
    pair,
    `create table t (k int primary key, v int); insert into t select g, 0 from generate_series(1, 100) g;
     create table keyless (v int); insert into keyless values (1)`,
  );
  const point = await scene.now();
  const emptied = "truncate t; insert into t select g, 1 from generate_series(1, 20) g";
  await pair.source.sql(emptied);
  // The target does not have it yet.
  expect((await scene.compare(point, { isLive: true })).upTo.size).toBe(0);
  await pair.target.sql(emptied);
  await scene.applied();
  await pair.source.sql("update t set v = 2 where k = 5");
  const live = await scene.compare(point, { isLive: true });
  expect(live).toMatchObject({ equal: true, rows: 19 });
  expect([...live.upTo.keys()]).toEqual([await scene.capture("t")]);
  await pair.target.sql("update t set v = 2 where k = 5; update t set v = 7 where k = 6");
  await scene.applied();
  expect(differencesOf(await scene.compare(point))).toEqual(['public.t {"k":6} changed']);
  const keyless = new Map([[await scene.capture("keyless"), point]]);
  expect(await scene.compare(new Map([...live.upTo, ...keyless]))).toMatchObject({ equal: true, rows: 1 });

  // Without a key: as a whole, and not before nothing changes any more.
  await onBoth(pair, "insert into keyless values (2)");
  const later = await scene.applied();
  expect((await scene.compare(later, { isLive: true })).upTo.size).toBe(0);
  expect(await scene.compare(new Map([...live.upTo, ...keyless]))).toMatchObject({ equal: true, rows: 3 });
  await pair.target.sql("insert into keyless values (2)");
  const { tables } = await scene.compare(new Map([...live.upTo, ...keyless]));
  expect(tables).toMatchObject([{ table: "public.keyless", total: 1 }]);
});

test("a table without a point is compared as a whole, and not before nothing changes any more", async () => {
  await using pair = await freePair();
  await using scene = await startScene(
    pair,
    `create table a (k int primary key, v int); insert into a values (1, 0), (2, 0);
     create table b (k int primary key, v int); insert into b values (1, 0), (2, 0)`,
  );
  const points = new Map([[await scene.capture("a"), await scene.now()]]);
  expect((await scene.compare(points, { isLive: true })).upTo.size).toBe(0);
  expect(await scene.compare(points)).toMatchObject({ equal: true, rows: 2, changed: 1 });
  await pair.target.sql("update b set v = 1 where k = 2");
  expect(differencesOf(await scene.compare(points))).toEqual(['public.b {"k":2} changed']);
});

test("tables that are altered or exchanged after they were planned are planned again", async () => {
  await using pair = await freePair();
  const names = Array.from({ length: 3 }, (_, n) => `t${n}`);
  await using scene = await startScene(
    pair,
    names
      .map(
        (name) =>
          `create table ${name} (k int primary key, v int); insert into ${name} values (1, 0), (2, 0);`,
      )
      .join(""),
  );
  const point = await scene.now();
  await onBoth(pair, names.map((name) => `update ${name} set v = 1 where k = 1;`).join(""));
  await scene.applied();
  const context = scene.sync.context();
  const plans = new ChangePlans();
  await using target = await context.target("test");
  const entries = await loadTables(target, context.config.name);
  const since = new Map(entries.map(({ captureId }) => [captureId, point]));
  expect(await verifyChanged(context, { entries, since, plans })).toMatchObject({ equal: true, rows: 3 });
  await onBoth(
    pair,
    `alter table t0 add column more int default 5;
     alter table t1 rename to t1_old; create table t1 (k int primary key, v int)`,
  );
  await pair.target.sql("update t0 set more = 6 where k = 1; update t1_old set v = 8 where k = 1");
  const live = await verifyChanged(context, { entries, since, plans, isLive: true });
  expect([...live.upTo.keys()]).toEqual([await scene.capture("t2")]);
  const report = await verifyChanged(context, { entries, since, plans });
  expect(differencesOf(report)).toEqual(['public.t0 {"k":1} changed', 'public.t1 {"k":1} changed']);
});

test("a source that lacks what the target has is not compared with it", async () => {
  await using pair = await freePair();
  await using scene = await startScene(pair, "create table t (k int primary key); insert into t values (1)");
  const point = await scene.now();
  await onBoth(pair, "insert into t values (2)");
  const [xmin, xmax] = (await scene.now()).split(":").map(BigInt) as [bigint, bigint];
  for (const ahead of [`${xmin}:${xmax + 100n}:`, `${xmin + 100n}:${xmax + 100n}:`]) {
    await pair.target.sql("update replicate.sync set position = $1", [ahead]);
    for (const isLive of [true, false])
      await expect(scene.compare(point, { isLive })).rejects.toMatchObject({ code: "SOURCE_LOST" });
  }
});

for (const side of ["source", "target"] as const) {
  test(`who wants a strong lock on the ${side} does not wait for a comparison that waits`, async () => {
    await using pair = await freePair();
    await using scene = await startScene(
      pair,
      ["a", "b", "c"]
        .map((name) => `create table ${name} (k int primary key, v int); insert into ${name} values (1, 0);`)
        .join(""),
    );
    const point = await scene.now();
    await onBoth(pair, "update a set v = 1; update b set v = 1; update c set v = 1");
    await scene.applied();
    // It gets the lock on the first table, and waits for the second one, which is locked until everything else was seen.
    // Planning would wait as well, without holding anything.
    const plans = new ChangePlans();
    await scene.compare(point, { isLive: true, plans });
    const holder = await pair[side].client();
    await holder.query("begin; lock table b in access exclusive mode");
    const comparing = scene.compare(point, { isLive: true, plans });
    const waiting = `select 1 from pg_locks w join pg_locks h on h.pid = w.pid
      where not w.granted and w.relation = 'b'::regclass and h.granted and h.relation = 'a'::regclass`;
    await until("the comparison waits", async () => (await pair[side].sql(waiting)).length > 0);
    const application = await pair[side].client();
    // As DDL and TRUNCATE do, and whoever comes behind them. It would wait for the holder, thus for ever.
    // Shorter than our own wait for a lock may be.
    await application.query("set lock_timeout = '2s'");
    await application.query("alter table a add column more int");
    await application.query("truncate c");
    await application.query("insert into c values (2, 0)");
    await holder.query("commit");
    const { upTo } = await comparing;
    // Altered or emptied on one side alone: what could not be compared has kept its point.
    expect(upTo.has(await scene.capture("a"))).toBe(false);
    expect(upTo.has(await scene.capture("c"))).toBe(false);
    expect((await pair[side].sql(waiting)).length).toBe(0);
  });
}

test("while nobody can write, a group that had to give way is compared all the same", async () => {
  await using pair = await freePair();
  await using scene = await startScene(
    pair,
    ["a", "b"]
      .map((name) => `create table ${name} (k int primary key, v int); insert into ${name} values (1, 0);`)
      .join(""),
  );
  const point = await scene.now();
  await onBoth(pair, "update a set v = 1; update b set v = 1");
  await scene.applied();
  const plans = new ChangePlans();
  await scene.compare(point, { plans });
  const holder = await pair.source.client();
  await holder.query("begin; lock table b in access exclusive mode");
  const comparing = scene.compare(point, { plans });
  const waiting = `select 1 from pg_locks w join pg_locks h on h.pid = w.pid
    where not w.granted and w.relation = 'b'::regclass and h.granted and h.relation = 'a'::regclass`;
  await until("the comparison waits", async () => (await pair.source.sql(waiting)).length > 0);
  const reader = await pair.source.client();
  await reader.query("begin; lock table a in access exclusive mode; commit");
  await sleep(300);
  await holder.query("commit");
  expect(await comparing).toMatchObject({ equal: true, rows: 2 });
});
