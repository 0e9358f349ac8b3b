import { randomUUID } from "node:crypto";
import { expect, test } from "vitest";

import { ReplicateError } from "../../../src/errors.ts";
import { openSync } from "../../../src/index.ts";
import { connect as connectOurs, type Connection } from "../../../src/postgres/connect.ts";
import { resolveConnection } from "../../../src/postgres/conninfo.ts";
import { askToEnd, giveBack, keepLeaseSql, leaseHolder, renewLease, takeLease, type Lease } from "../../../src/state/lease.ts"; // prettier-ignore
import { endReader, tryRunner, takeSource } from "../../../src/state/runner-lock.ts";
import { freePair } from "../../support/database.ts";
import { leastPrivilegedPair } from "../../support/least-privileged-pair.ts";
import { until } from "../../support/until.ts";
import { startFollowed } from "../../support/follow-setup.ts";

// What only one process may do at a time, and that nobody without our rights can keep us from doing it.

const schema = `create table t (id int primary key, v text); insert into t select g, 'x' from generate_series(1, 20) g`;

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return "none";
  } catch (error) {
    return error instanceof ReplicateError ? error.code : String(error);
  }
}

const open = async (url: string): Promise<Connection> =>
  await connectOurs(resolveConnection(url, {}), { side: "target", purpose: "test" });

/** What any role may hold, by the names that once were locks. */
const strangersLocks = ["", ".reverse"].flatMap((way) =>
  ["replicate", "replicate source", "replicate switch"].map(
    (kind) => `pg_advisory_lock(hashtext('${kind}'), hashtext('default${way}'))`,
  ),
);
strangersLocks.push(
  "pg_advisory_lock(hashtext('replicate index'), 0)",
  "pg_advisory_lock(1919250540, 1)",
  ...Array.from({ length: 20 }, (_, n) => `pg_advisory_lock(1919250541, ${n})`),
);

test("advisory locks that strangers hold are in nobody's way", async () => {
  await using pair = await leastPrivilegedPair();
  for (const side of [pair.source, pair.target]) {
    await side.sql(schema.split(";")[0] as string);
    const stranger = await side.client("writer");
    for (const lock of strangersLocks) await stranger.query(`select ${lock}`);
  }
  await pair.source.sql("insert into t select g, 'x' from generate_series(1, 20) g");
  await using sync = await openSync({ source: pair.source.url, target: pair.target.url, env: {} });
  const drain = async (): Promise<void> => {
    for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
  };
  expect((await sync.preflight()).ok).toBe(true);
  await sync.init();
  await sync.copy();
  await pair.source.sql("update t set v = 'y' where id < 5");
  await drain();
  expect((await sync.status()).runner.alive).toBe(false);
  expect((await sync.cutover()).result).toBe("switched");
  await pair.target.sql("insert into t values (100, 'new')");
  await drain();
  expect(await pair.source.sql("select v from t where id = 100")).toEqual([{ v: "new" }]);
  expect((await sync.rollback()).result).toBe("switched");
  await sync.drop();
});

test("nobody without our rights can take a lease, or keep its row", async () => {
  await using pair = await leastPrivilegedPair();
  for (const side of [pair.source, pair.target]) await side.sql("create table t (id int primary key)");
  await using sync = await openSync({ source: pair.source.url, target: pair.target.url, env: {} });
  await sync.init();
  for (const statement of [
    "do $$ begin lock table replicate.lease in access share mode; end $$",
    "do $$ begin lock table replicate.migration in access share mode; end $$",
    "do $$ begin lock table replicate.turn in access share mode; end $$",
    "select 1 from replicate.lease for key share",
    "select replicate.take_lease('runner default', 'x', 'x', 1, false, true, 1000, true)",
    "select replicate.keep_lease('runner default', 'x')",
    "insert into replicate.lease select 'runner default', 'x', 'x', 1, 1, now(), false, true, now(), 'infinity'",
  ])
    for (const side of [pair.source, pair.target])
      await expect(side.asWriter(statement), statement).rejects.toMatchObject({ code: "42501" });
});

test("of many that take a lease at once one has it", async () => {
  await using pair = await freePair();
  await using _followed = await startFollowed(pair, schema);
  const rivals = await Promise.all(Array.from({ length: 8 }, async () => await open(pair.target.url)));
  try {
    for (let round = 0; round < 30; round += 1) {
      const leases = rivals.map((): Lease => ({ name: "runner default", token: randomUUID() }));
      const takings = await Promise.all(
        rivals.map(async (each, n) => await takeLease(each, leases[n] as Lease)),
      );
      const winners = takings.flatMap(({ isTaken }, n) => (isTaken ? [n] : []));
      expect(winners.length).toBe(1);
      const winner = winners[0] as number;
      for (const { isTaken, before } of takings)
        if (!isTaken) expect(before?.token).toBe(leases[winner]?.token);
      await giveBack(rivals[winner] as Connection, leases[winner] as Lease);
    }
  } finally {
    await Promise.all(rivals.map(async (each) => await each.close()));
  }
});

interface State {
  /** What becomes of the holder. */
  readonly befalls: (
    holder: Connection,
    lease: Lease,
    sql: (text: string) => Promise<unknown>,
  ) => Promise<unknown>;
  readonly isBound?: boolean;
  readonly canBeTaken: boolean;
}

const expired = `update replicate.lease set expires_at = clock_timestamp() - interval '1 ms'`;

const states: Record<string, State> = {
  "is there": { befalls: async () => undefined, canBeTaken: false },
  "is there, and renews it": {
    befalls: async (holder, lease) => await renewLease(holder, lease),
    canBeTaken: false,
  },
  "has given it back": { befalls: async (holder, lease) => await giveBack(holder, lease), canBeTaken: true },
  "has lost its session": { befalls: async (holder) => holder.destroy(), canBeTaken: true },
  "has lost its session while it was bound to it": {
    befalls: async (holder) => holder.destroy(),
    isBound: true,
    canBeTaken: true,
  },
  "has been silent for long": { befalls: async (_, __, sql) => await sql(expired), canBeTaken: true },
  "has been silent for long, bound to its session": {
    befalls: async (_, __, sql) => await sql(expired),
    isBound: true,
    canBeTaken: false,
  },
  "is silent, in the middle of what it does": {
    befalls: async (holder, lease, sql) => {
      await holder.script(`begin; ${keepLeaseSql(lease)}`);
      await sql(expired);
    },
    canBeTaken: false,
  },
  "has been silent for long, behind a pool that keeps its session": {
    befalls: async (_, __, sql) => await sql(`${expired}, is_pooled = true`),
    isBound: true,
    canBeTaken: true,
  },
  "is there, behind a pool": {
    befalls: async (_, __, sql) => await sql(`update replicate.lease set is_pooled = true`),
    isBound: true,
    canBeTaken: false,
  },
  "was on a server that has begun anew, with its pid somebody else's": {
    befalls: async (_, __, sql) =>
      await sql(`update replicate.lease set backend_start = backend_start - interval '1 minute'`),
    canBeTaken: true,
  },
};

test.each(Object.entries(states))("the holder %s", async (_, { befalls, isBound = false, canBeTaken }) => {
  await using pair = await freePair();
  await using _followed = await startFollowed(pair, schema);
  await using holder = await open(pair.target.url);
  await using other = await open(pair.target.url);
  const lease = { name: "runner default", token: randomUUID() };
  expect(await takeLease(holder, lease, { isBound })).toEqual({ isTaken: true, before: undefined });
  await befalls(holder, lease, async (text) => await pair.target.sql(text));
  const wanted = { name: lease.name, token: randomUUID() };
  if (canBeTaken) await until("it is free", async () => (await takeLease(other, wanted)).isTaken);
  else expect((await takeLease(other, wanted)).before?.backend).toBe(holder.pid);
  expect((await leaseHolder(other, lease.name))?.token).toBe(canBeTaken ? wanted.token : lease.token);
  if (holder.isBroken) return;
  await holder.script("rollback");
  expect(await renewLease(holder, lease)).toBe(!canBeTaken);
  const kept = holder.transaction(async () => await holder.script(keepLeaseSql(lease)));
  if (canBeTaken) await expect(kept).rejects.toMatchObject({ code: "RE004" });
  else await kept;
});

test("another role's session, of which only the pid is shown: until the lease expires", async () => {
  await using pair = await leastPrivilegedPair();
  for (const side of [pair.source, pair.target]) await side.sql("create table t (id int primary key)");
  await using sync = await openSync({ source: pair.source.url, target: pair.target.url, env: {} });
  await sync.init();
  await using holder = await open(pair.target.adminUrl);
  await using other = await open(pair.target.url);
  const lease = { name: "runner default", token: randomUUID() };
  await takeLease(holder, lease, { isBound: true });
  expect((await takeLease(other, { ...lease, token: randomUUID() })).isTaken).toBe(false);
  await pair.target.asAdmin(expired);
  expect((await takeLease(other, { ...lease, token: randomUUID() })).isTaken).toBe(true);
});

test.each(["target", "source"] as const)(
  "a runner whose lease on the %s is somebody else's commits nothing",
  async (side) => {
    await using pair = await freePair();
    await using followed = await startFollowed(pair, schema);
    await followed.drain();
    const stop = new AbortController();
    const running = (async () => {
      for await (const batch of followed.sync.follow({ signal: stop.signal })) void batch;
    })();
    const ended = codeOf(running);
    await pair.source.sql("update t set v = 'a' where id = 1");
    await until(
      "it follows",
      async () => (await pair.target.sql("select 1 from t where v = 'a'")).length === 1,
    );
    const facts = async (): Promise<unknown> => [
      await pair.target.sql("select position, token, batches from replicate.sync"),
      await pair.source.sql("select position, token, previous_token from replicate.source_sync"),
      await pair.target.sql("select * from t order by id"),
    ];
    const before = await pair[side].client();
    await before.query("begin");
    await before.query("update replicate.lease set token = 'somebody else'");
    // In one moment with what shall not be brought.
    const known = await facts();
    await before.query("commit");
    await pair.source.sql("update t set v = 'b' where id = 1");
    expect(await ended).toBe("RUNNER_ACTIVE");
    const [sync, reader, rows] = (await facts()) as [unknown, unknown, unknown];
    const [knownSync, knownReader, knownRows] = known as [unknown, unknown, unknown];
    expect([sync, rows]).toEqual([knownSync, knownRows]);
    if (side === "source") expect(reader).toEqual(knownReader);
    // The rightful one finds the source as it has to be.
    await pair[side].sql("delete from replicate.lease");
    await pair.source.sql("delete from replicate.lease");
    expect(await followed.differences(["public.t"])).toEqual([]);
  },
);

const pooled = [
  {
    name: "a runner that takes a sync over",
    side: "target",
    lease: "runner default",
    run: async (_: Connection, target: Connection) =>
      await tryRunner(target, "default", randomUUID(), new AbortController().signal),
  },
  {
    name: "a runner that takes the source",
    side: "source",
    lease: "reader default",
    run: async (source: Connection, target: Connection) => {
      const token = randomUUID();
      await tryRunner(target, "default", token, new AbortController().signal);
      await takeSource(source, target, "default", token, new AbortController().signal);
    },
  },
  {
    name: "a drop of the source alone",
    side: "source",
    lease: "reader default",
    run: async (source: Connection) => await endReader(source, "default"),
  },
] as const;

test.each(pooled)("$name ends no session that a pool has given to others by now", async (each) => {
  await using pair = await freePair();
  await using _followed = await startFollowed(pair, schema);
  await using source = await open(pair.source.url);
  await using target = await open(pair.target.url);
  // Another process of ours has the session of who is gone.
  await using other = await open(pair[each.side].url);
  const side = pair[each.side];
  await side.sql(`delete from replicate.lease`);
  await takeLease(other, { name: each.lease, token: "of who is gone" });
  await side.sql(
    `update replicate.lease set is_pooled = true, expires_at = clock_timestamp() - interval '1 ms'`,
  );
  await pair.source.sql("update replicate.source_sync set acknowledged_at = now() - interval '1 hour'");
  await each.run(source, target);
  // A session that was ended finds out with what it does next.
  expect(await other.rows("select 1 as alive")).toEqual([{ alive: 1 }]);
});

test("behind a pool, a reader that cannot be told from others is waited for", async () => {
  await using pair = await freePair();
  await using _followed = await startFollowed(pair, schema);
  await using source = await open(pair.source.url);
  await using other = await open(pair.source.url);
  await pair.source.sql("delete from replicate.lease");
  await takeLease(other, { name: "reader default", token: "of who may be there" });
  await pair.source.sql("update replicate.lease set is_pooled = true");
  await pair.source.sql("update replicate.source_sync set acknowledged_at = now() - interval '1 hour'");
  await expect(endReader(source, "default")).rejects.toMatchObject({
    code: "RUNNER_ACTIVE",
    hint: expect.stringContaining("wait for 10 seconds") as string,
  });
  expect(await other.rows("select 1 as alive")).toEqual([{ alive: 1 }]);
});

test("who is asked to end is asked alone, and not any more once nobody waits for it", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, schema);
  await followed.sync.cutover();
  await using holder = await open(pair.source.url);
  const lease = { name: "runner default.reverse", token: randomUUID() };
  await takeLease(holder, lease, { isBound: true });
  const asked = async (): Promise<unknown> =>
    (await pair.source.sql(`select asked from replicate.lease where name = '${lease.name}'`))[0]?.["asked"];
  const stop = new AbortController();
  const finishing = followed.sync.cutover({ finish: true, signal: stop.signal });
  const ended = codeOf(finishing);
  await until("it is asked", async () => (await asked()) === "replicate cutover --finish");
  stop.abort();
  expect(await ended).toBe("ABORTED");
  expect(await asked()).toBe(null);
  // Whoever comes after him was not asked.
  await askToEnd(holder, { ...lease, token: "somebody before" }, "replicate cutover --finish");
  expect(await asked()).toBe(null);
});
