/**
 * Raises the fence without ever holding a lock that an application waits for: its triggers, which do nothing yet, are put
 * on one table after the other; then its one function is replaced, which fences all tables at one moment; then those that
 * were writing are waited for, who may finish.
 *
 * Why no write is missed: a write locks its table before it calls the trigger, and having locked it a session learns which
 * function there is. So who still calls the old one after the new one was committed had the lock by then, and is seen in
 * pg_locks by a look taken after the commit.
 */
import { randomUUID } from "node:crypto";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { failpoint } from "../postgres/failpoint.ts";
import { withBriefLocks } from "../postgres/lock.ts";
import { sleep } from "../postgres/sleep.ts";
import { fill, literal, load } from "../postgres/sql.ts";
import {
  FENCE_LOCK_MS, fenceFunction, passingSql, readFence, strangerSql, type Fence,
} from "./fence.ts"; // prettier-ignore

interface Relation {
  readonly oid: number;
  readonly table: string;
  readonly isFenced: boolean;
  readonly wantsRows: boolean;
  readonly hasRows: boolean;
}

/** A transaction that has written to the tables of a sync and is not over. */
export interface Writer {
  readonly id: string;
  /** Null: it is prepared. */
  readonly pid: number | null;
  readonly table: string;
  readonly who: string;
  /** Null: not shown to this role. */
  readonly seconds: number | null;
  readonly isOlder: boolean;
}

export interface FenceOptions {
  readonly signal: AbortSignal;
  /** Milliseconds for which to try. Default: that of `withBriefLocks`. */
  readonly budgetMs?: number;
  /** Told who is waited for, from time to time. */
  readonly onWait: (who: string) => void;
}

/** Between two looks at who is writing. */
const LOOK_MS = 10;
const LONGEST_LOOK_MS = 100;
/** Between two words about who is waited for. */
const TELL_MS = 5000;
/** Transactions that are open for longer are waited for before the fence is raised. */
export const LONG_SECONDS = 2;
/** Where there is always some that is older, the limit grows by so much with each second of waiting. */
const LIMIT_GROWTH = 0.1;

export async function findWriters(
  connection: Connection,
  relids: readonly number[],
  raisedTxid: string | null,
): Promise<Writer[]> {
  return await connection.rows<Writer>(load("fence/writers"), [relids, raisedTxid]);
}

function describeWriter({ pid, who, table, seconds }: Writer): string {
  const name = pid === null ? "a prepared transaction" : `pid ${pid} (${who})`;
  return `${name}, which has written to ${table}${seconds === null ? "" : `, open for ${Math.round(seconds)} s`}`;
}

/** Puts the fence's triggers on all tables that lack them. They do nothing before the fence is raised. Throws LOCK_NOT_AVAILABLE. */
export async function coverTables(
  connection: Connection,
  sync: string,
  relids: readonly number[],
  options: FenceOptions,
): Promise<Fence> {
  await connection.guarded(
    `insert into replicate.fence (sync, pass, lifted_at)
     values (${literal(sync)}, ${literal(randomUUID())}, now()) on conflict (sync) do nothing`,
  );
  const fence = await readFence(connection, sync);
  if (fence === undefined) throw new ReplicateError("INTERNAL", `the fence of sync ${sync} is gone`);
  const { id } = fence;
  const gaps = (await relationsOf(connection, relids, id)).filter(isGap);
  if (gaps.length === 0) return fence;
  // Where it is not there yet; what stands is not replaced.
  const exists = await connection.rows(
    `select from pg_catalog.pg_proc f join pg_catalog.pg_namespace n on n.oid = f.pronamespace
     where n.nspname = 'replicate' and f.proname = $1`,
    [fenceFunction(id)],
  );
  if (exists.length === 0) await connection.guarded(passingSql(sync, id, "everybody"));
  for (const { table, isFenced, wantsRows, hasRows } of gaps) {
    const holes = { id: String(id), table, is_stranger: strangerSql(connection.version, fence) };
    const statements = [`lock table only ${table} in share row exclusive mode`];
    if (!isFenced) statements.push(dropSql(id, table, ["", "_truncate"]), fill("fence/triggers", holes));
    if (wantsRows && !hasRows)
      statements.push(dropSql(id, table, ["_rows"]), fill("fence/row-trigger", holes));
    await withBriefLocks(
      connection,
      {
        what: table,
        signal: options.signal,
        longestMs: FENCE_LOCK_MS,
        ...(options.budgetMs === undefined ? {} : { budgetMs: options.budgetMs }),
        onWait: (blockedBy, attempt) => {
          if (attempt % 10 === 1) options.onWait(`a lock on ${table}: ${blockedBy}`);
        },
      },
      async () => await connection.script(statements.join(";\n")),
    );
    await failpoint("cutover.covered");
  }
  return fence;
}

const isGap = ({ isFenced, wantsRows, hasRows }: Relation): boolean => !isFenced || (wantsRows && !hasRows);

async function relationsOf(
  connection: Connection,
  relids: readonly number[],
  id: number,
): Promise<Relation[]> {
  return await connection.rows<Relation>(load("fence/relations"), [relids, fenceFunction(id)]);
}

function dropSql(id: number, table: string, suffixes: readonly string[]): string {
  return suffixes
    .map((suffix) => `drop trigger if exists aaa_replicate_fence_${id}${suffix} on ${table}`)
    .join(";\n");
}

/**
 * Waits for a moment in which no transaction that writes to the tables has been open for long: those would have to be
 * waited for while nobody else can write. Nobody waits meanwhile. Throws LOCK_NOT_AVAILABLE after `budgetMs`.
 */
export async function awaitCalm(
  connection: Connection,
  relids: readonly number[],
  options: FenceOptions & { readonly budgetMs: number },
): Promise<void> {
  const startedAt = Date.now();
  const seenAt = new Map<string, number>();
  let toldAt = 0;
  for (;;) {
    const now = Date.now();
    const writers = await findWriters(connection, relids, null);
    for (const { id } of writers) if (!seenAt.has(id)) seenAt.set(id, now);
    const age = ({ id, seconds }: Writer): number =>
      Math.max(seconds ?? 0, (now - (seenAt.get(id) ?? now)) / 1000);
    const limit = LONG_SECONDS + (LIMIT_GROWTH * (now - startedAt)) / 1000;
    const [oldest] = writers.filter((each) => age(each) > limit).toSorted((a, b) => age(b) - age(a));
    if (oldest === undefined) return;
    if (now - startedAt > options.budgetMs) {
      throw new ReplicateError(
        "LOCK_NOT_AVAILABLE",
        `the fence waits for the end of ${describeWriter(oldest)}`,
        {
          hint: "End that transaction, or run the command again when it is over. Nothing of yours waits meanwhile.",
        },
      );
    }
    if (now - toldAt > TELL_MS) {
      toldAt = now;
      options.onWait(describeWriter(oldest));
    }
    await sleep(LONGEST_LOOK_MS, options.signal);
  }
}

/**
 * Raises the fence. When it returns, every write that was not refused is committed. Can be repeated, by another process too.
 * Waits for those that were writing, until the signal fires.
 */
export async function raiseFence(
  connection: Connection,
  sync: string,
  relids: readonly number[],
  options: FenceOptions,
): Promise<void> {
  const { id } = await coverTables(connection, sync, relids, options);
  await connection.guarded(
    fill("fence/raise", { id: String(id), function: literal(passingSql(sync, id, "begun")) }),
  );
  await failpoint("cutover.raised");
  // What came in between.
  await coverTables(connection, sync, relids, options);
  const { raisedTxid } = (await readFence(connection, sync)) as Fence;
  await outlast(connection, relids, options, { raisedTxid });
  // Nobody who may pass is writing: from here on nobody begins to either.
  await standFence(connection, sync, id);
  await failpoint("cutover.fencing");
  // But for those that have begun since the last look.
  await outlast(connection, relids, options, { raisedTxid: null });
}

async function standFence(connection: Connection, sync: string, id: number): Promise<void> {
  await connection.transaction(async () => {
    // Who has lifted it meanwhile was allowed to.
    if ((await readFence(connection, sync, { forUpdate: true }))?.isUp !== true) {
      throw new ReplicateError("CUTOVER_STATE", `the switch of sync ${sync} was undone by another process`);
    }
    await connection.script(passingSql(sync, id, "nobody"));
  });
}

/**
 * Waits until everybody is gone who writes now, and who is let pass because he is older. Those that come meanwhile are
 * refused, and seen only until they are.
 */
async function outlast(
  connection: Connection,
  relids: readonly number[],
  options: FenceOptions,
  { raisedTxid }: { readonly raisedTxid: string | null },
): Promise<void> {
  let first: ReadonlySet<string> | undefined;
  let toldAt = Date.now();
  for (let tries = 1; ; tries += 1) {
    const writers = await findWriters(connection, relids, raisedTxid);
    first ??= new Set(writers.map(({ id }) => id));
    const [waited] = writers.filter(({ id, isOlder }) => isOlder || first?.has(id));
    if (waited === undefined) return;
    if (Date.now() - toldAt > TELL_MS) {
      toldAt = Date.now();
      options.onWait(describeWriter(waited));
    }
    await sleep(Math.min(LOOK_MS * tries, LONGEST_LOOK_MS), options.signal);
  }
}

/** Relations of these tables that the fence does not cover, such as a partition that came after it. */
export async function findGaps(
  connection: Connection,
  sync: string,
  relids: readonly number[],
): Promise<string[]> {
  const fence = await readFence(connection, sync);
  if (fence === undefined || !fence.isUp) return ["all tables"];
  return (await relationsOf(connection, relids, fence.id)).filter(isGap).map(({ table }) => table);
}
