import { expect, test } from "vitest";

import { openSync, type ReplicateError } from "../../../src/index.ts";
import { leastPrivilegedPair } from "../../support/least-privileged-pair.ts";

import { startFollowed } from "../../support/follow-setup.ts";
import { until } from "../../support/until.ts";
import { freePair, type Pair } from "../../support/database.ts";

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

const log = async (pair: Pair): Promise<Record<string, unknown>[]> => {
  const select = `select key, other_key, kind, winner, source_image, target_image, merged_image, resolved_at is null as pending, policy from replicate.conflict`;
  return [...(await pair.source.sql(select)), ...(await pair.target.sql(select))];
};

const schema = `create table t (id int primary key, email text unique, v text); insert into t select g, 'e' || g, 'v' || g from generate_series(1, 10) g`;

test("skip: neither side changes, and later changes of the row wait too", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, schema, { direction: "both", conflict: "skip" });
  await followed.drain();
  await pair.source.sql("update t set v = 'source' where id = 1");
  await pair.target.sql("update t set v = 'target' where id = 1");
  await followed.drain();
  await pair.source.sql("update t set v = 'source again' where id = 1; update t set v = 'x' where id = 2");
  await pair.target.sql("update t set v = 'target again' where id = 1; update t set v = 'y' where id = 3");
  await followed.drain();
  const rows = "select v from t where id <= 3 order by id";
  expect(await pair.source.sql(rows)).toEqual([{ v: "source again" }, { v: "x" }, { v: "y" }]);
  expect(await pair.target.sql(rows)).toEqual([{ v: "target again" }, { v: "x" }, { v: "y" }]);
  expect(await log(pair)).toMatchObject([{ key: { id: 1 }, winner: "skip", pending: true }]);
});

test("custom: a merged row reaches both sides, and exact values survive JavaScript", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(
    pair,
    `create table t (id bigint primary key, a text, b text, n numeric, raw bytea);
     insert into t values (9007199254740993, 'a', 'b', 0.10, '\\x00ff')`,
    {
      direction: "both",
      conflict: {
        custom: ({ source, target }) => ({
          row: { ...source.image, a: "merged " + String(target.image?.["a"]) },
        }),
      },
    },
  );
  await followed.drain();
  await pair.source.sql("update t set b = 'source', n = 12345678901234567890.10");
  await pair.target.sql("update t set a = 'target'");
  expect(await followed.differences()).toEqual([]);
  const select = "select id::text, a, b, n::text, raw::text from t";
  expect(await pair.source.sql(select)).toEqual([
    {
      id: "9007199254740993",
      a: "merged target",
      b: expect.any(String) as string,
      n: expect.any(String) as string,
      raw: "\\x00ff",
    },
  ]);
  expect(await log(pair)).toMatchObject([{ winner: "merged", pending: false }]);
});

test("error: stops before anything is written, naming the row", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, schema, { direction: "both", conflict: "error" });
  await followed.drain();
  await pair.source.sql("update t set v = 'source' where id in (1, 2)");
  await pair.target.sql("update t set v = 'target' where id = 1");
  await expect(followed.drain()).rejects.toMatchObject({
    code: "CONFLICT",
    message: expect.stringContaining("public.t id=1") as string,
  });
  expect(await pair.source.sql("select v from t where id = 1")).toEqual([{ v: "source" }]);
  expect(await pair.target.sql("select v from t where id <= 2 order by id")).toEqual([
    { v: "target" },
    { v: "v2" },
  ]);
  expect(await log(pair)).toEqual([]);
});

test("one value, two keys: the loser goes into the log, and the sync goes on", async () => {
  for (const conflict of ["source-wins", "target-wins", "latest"] as const) {
    await using pair = await freePair();
    await using followed = await startFollowed(pair, schema, { direction: "both", conflict });
    await followed.drain();
    await pair.source.sql(
      "insert into t values (21, 'same', 'source'); update t set email = 'other' where id = 1",
    );
    await pair.target.sql(
      "insert into t values (22, 'same', 'target'); update t set email = 'other' where id = 2",
    );
    await pair.source.sql("update t set v = 'x' where id = 5");
    expect(await followed.differences()).toEqual([]);
    const rows = await pair.source.sql("select id, email from t where id in (1, 2, 21, 22) order by id");
    expect(rows).toEqual(
      conflict === "source-wins"
        ? [{ id: 1, email: "other" }, { id: 2, email: "e2" }, { id: 21, email: "same" }]
        : [{ id: 1, email: "e1" }, { id: 2, email: "other" }, { id: 22, email: "same" }],
    ); // prettier-ignore
    const entries = await log(pair);
    expect(entries.filter(({ kind }) => kind === "multiple_unique_conflicts")).toHaveLength(2);
    expect(await followed.drain()).toEqual([]);
  }
});

test("truncate: takes what its own side had, and leaves what the other side made meanwhile", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, schema, { direction: "both" });
  await followed.drain();
  await pair.source.sql("truncate t; insert into t values (31, 'a', 'source')");
  await pair.target.sql("insert into t values (32, 'b', 'target')");
  expect(await followed.differences()).toEqual([]);
  expect(await pair.source.sql("select id from t order by id")).toEqual([{ id: 31 }, { id: 32 }]);
  await pair.target.sql("update t set v = 'changed' where id = 31");
  await pair.source.sql("truncate t");
  expect(await followed.differences()).toEqual([]);
  expect(await pair.source.sql("select id from t order by id")).toEqual([]);
  expect(await log(pair)).toMatchObject([{ key: { id: 31 } }]);
});

test("one way, with a policy: what the target has changed is found, and stays where it wins", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, schema, { conflict: "target-wins" });
  await followed.drain();
  await pair.target.sql("update t set v = 'target' where id in (1, 2)");
  await pair.source.sql("update t set v = 'source' where id in (2, 3)");
  await followed.drain();
  expect(await pair.target.sql("select v from t where id <= 3 order by id")).toEqual([
    { v: "target" },
    { v: "target" },
    { v: "source" },
  ]);
  expect(await pair.source.sql("select v from t where id <= 3 order by id")).toEqual([
    { v: "v1" },
    { v: "source" },
    { v: "source" },
  ]);
  expect(await log(pair)).toMatchObject([{ key: { id: 2 }, winner: "target" }]);
});

test("an application in the middle of a change here: it neither fails nor waits, and is not overwritten unseen", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, schema, { direction: "both", conflict: "target-wins" });
  await followed.drain();
  const writer = await pair.target.client();
  await writer.query("begin; update t set v = 'target' where id = 1");
  await pair.source.sql("update t set v = 'source' where id in (1, 2)");
  const draining = followed.drain();
  // The batch is at the row now, and gives way.
  await until("the batch waits", async () => {
    const [found] = await pair.target.sql(
      "select 1 from pg_stat_activity where wait_event_type = 'Lock' and application_name like 'replicate%'",
    );
    return found !== undefined;
  });
  await writer.query("update t set v = 'target too' where id = 2; commit");
  await draining;
  expect(await followed.differences()).toEqual([]);
  expect(await pair.source.sql("select v from t where id <= 2 order by id")).toEqual([
    { v: "target" },
    { v: "target too" },
  ]);
  expect(await log(pair)).toHaveLength(2);
});

test("a conflict that is pending outlives TRUNCATE and re-reads of the table", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, schema, { direction: "both", conflict: "skip" });
  await followed.drain();
  await pair.source.sql("update t set v = 'source' where id in (1, 2)");
  await pair.target.sql("update t set v = 'target' where id in (1, 2)");
  await followed.drain();
  const kept = "select id, v from t where id < 50 order by id";
  const again = "truncate t; insert into t values (50, 'f', 'after'), (1, 'e1', 'made again')";
  await pair.source.sql(again);
  await followed.drain();
  expect(await pair.source.sql(kept)).toEqual([{ id: 1, v: "made again" }]);
  expect(await pair.target.sql(kept)).toEqual([
    { id: 1, v: "target" },
    { id: 2, v: "target" },
  ]);
  await pair.target.sql(again);
  await followed.drain();
  // Neither side has taken over what the other did to the rows in question.
  expect(await pair.source.sql("select id, v from t order by id")).toEqual(
    await pair.target.sql("select id, v from t order by id"),
  );
  expect((await log(pair)).filter(({ pending }) => pending === true)).toHaveLength(2);
});

test("what cannot go both ways is refused before anything is changed, and names have to be those of the databases", async () => {
  await using pair = await leastPrivilegedPair();
  for (const side of [pair.source, pair.target]) {
    await side.sql(`create table parent (id int primary key); create table child (id int primary key, parent_id int references parent);
      create table keyless (v text); create table sized (id int primary key, v ${side === pair.source ? "varchar(5)" : "text"});`);
  }
  const attempt = async (options: object): Promise<void> => {
    const sides = { source: pair.source.url, target: pair.target.url };
    await using sync = await openSync({ ...sides, direction: "both", env: {}, ...options });
    await sync.init();
  };
  const open = async (options: object): Promise<unknown> =>
    await attempt(options).then(() => undefined, (error: unknown) => error); // prettier-ignore
  const refusal = await open({ keyless: "reload" });
  expect(refusal).toMatchObject({ code: "PREFLIGHT_BLOCKED" });
  const messages = (refusal as ReplicateError).problems.map(
    ({ subject, message }) => `${subject}: ${message}`,
  );
  expect(messages).toEqual([
    expect.stringMatching(/keyless: has no key, so conflicts cannot be told/),
    expect.stringMatching(/sized: .* \(from the target to the source\)/),
    expect.stringMatching(
      /session_replication_role on the source: role \S+ may not set it, so child_parent_id_fkey on public.child/,
    ),
    expect.stringMatching(/session_replication_role on the target/),
  ]);
  expect(await pair.source.sql("select 1 from pg_namespace where nspname = 'replicate'")).toEqual([]);
  const plain = { tables: ["public.parent"], nodes: { source: "a", target: "b" } };
  for (const side of [pair.source, pair.target]) await side.sql("drop table child");
  expect(await open({ ...plain, conflict: { order: ["a", "c"] } })).toMatchObject({ code: "CONFIG_INVALID" });
  expect(await open({ ...plain, conflict: { order: ["a", "b"] } })).toBeUndefined();
  expect(await open({ ...plain, nodes: { source: "x", target: "b" } })).toMatchObject({
    code: "CONFIG_INVALID",
    message: "the source database is called a already, not x",
  });
});

test("one value, two keys: a row that others point to stays until they are moved, and the sync goes on", async () => {
  await using pair = await freePair();
  const tables = `create table account (id int primary key, email text unique); create table item (id int primary key, account int not null references account)`;
  await using followed = await startFollowed(pair, tables, { direction: "both", conflict: "source-wins" });
  await followed.drain();
  await pair.source.sql("insert into account values (1, 'same'); insert into item values (1, 1)");
  await pair.target.sql("insert into account values (2, 'same'); insert into item values (2, 2)");
  await followed.drain();
  await pair.source.sql("insert into account values (3, 'other')");
  await followed.drain();
  expect(await pair.source.sql("select id from account order by id")).toEqual([{ id: 1 }, { id: 3 }]);
  expect(await pair.target.sql("select id from account order by id")).toEqual([{ id: 2 }, { id: 3 }]);
  const [entry] = await followed.sync.conflicts();
  expect(entry).toMatchObject({ kind: "multiple_unique_conflicts", resolved: false });
  // Its rows are moved, and the decision is said again.
  await pair.target.sql("set session_replication_role = replica; update item set account = 1 where id = 2");
  await followed.sync.resolveConflict(entry?.id ?? 0, "source");
  expect(await followed.differences()).toEqual([]);
  expect(await pair.target.sql("select id from account order by id")).toEqual([{ id: 1 }, { id: 3 }]);
  expect(await pair.source.sql("select id, account from item order by id")).toEqual([
    { id: 1, account: 1 },
    { id: 2, account: 1 },
  ]);
});

test("one value, two keys, where a third database has the loser already: it goes there too", async () => {
  await using pair = await freePair();
  await using other = await freePair();
  const third = other.source;
  await using near = await startFollowed(pair, schema, {
    name: "near",
    direction: "both",
    conflict: "target-wins",
  });
  await third.sql("create table t (id int primary key, email text unique, v text)");
  await using far = await openSync({
    name: "far",
    source: pair.source.url,
    target: third.url,
    direction: "both",
    env: {},
  });
  const drainFar = async (): Promise<void> => {
    for await (const batch of far.follow({ untilCaughtUp: true })) void batch;
  };
  await near.drain();
  await far.init();
  await far.copy();
  await drainFar();
  await pair.source.sql("insert into t values (21, 'same', 'source')");
  await drainFar();
  await pair.target.sql("insert into t values (22, 'same', 'target')");
  await near.drain();
  await drainFar();
  const rows = "select id, email, v from t order by id";
  expect(await pair.source.sql(rows)).toContainEqual({ id: 22, email: "same", v: "target" });
  expect(await pair.target.sql(rows)).toEqual(await pair.source.sql(rows));
  expect(await third.sql(rows)).toEqual(await pair.source.sql(rows));
});
