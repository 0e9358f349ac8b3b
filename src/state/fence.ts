/**
 * The fence: triggers that keep everybody but us from writing to the tables of a sync on one side. They need no rights
 * but the owner's, and stop the owner and superusers too.
 */
import { createHash, randomUUID } from "node:crypto";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { failpoint } from "../postgres/failpoint.ts";
import { showWait, withBriefLocks } from "../postgres/lock.ts";
import { sleep } from "../postgres/sleep.ts";
import { fill, literal, load } from "../postgres/sql.ts";
import { isRetryableConflict, QUERY_CANCELED, sqlstateOf } from "../postgres/sqlstate.ts";

export interface Fence {
  readonly id: number;
  readonly pass: string;
  /** By the server's clock. */
  readonly fencedAt: Date;
  /** False once it lets everybody through. */
  readonly isUp: boolean;
}

interface Relation {
  readonly oid: number;
  readonly table: string;
  readonly isFenced: boolean;
  readonly wantsRows: boolean;
  readonly hasRows: boolean;
}

/** The fence of a sync on this server, if there is one or something is left of one. */
export async function readFence(connection: Connection, sync: string): Promise<Fence | undefined> {
  // Schemas of earlier versions have no such table.
  const { exists } = await connection.row<{ exists: boolean }>(
    `select pg_catalog.to_regclass('replicate.fence') is not null as exists`,
  );
  if (!exists) return undefined;
  const [fence] = await connection.rows<Fence>(
    `select id, pass, fenced_at as "fencedAt", lifted_at is null as "isUp" from replicate.fence where sync = $1`,
    [sync],
  );
  return fence;
}

const functionName = (id: number): string => `fence_${id}`;

async function relationsOf(
  connection: Connection,
  relids: readonly number[],
  id: number,
): Promise<Relation[]> {
  return await connection.rows<Relation>(load("cutover/fence-relations"), [relids, functionName(id)]);
}

export interface FenceOptions {
  readonly signal: AbortSignal;
  /** Milliseconds for which locks are tried for. */
  readonly budgetMs: number;
  /** Told before each pause. */
  readonly onWait: (attempt: number) => void;
}

/** Milliseconds that an attempt may wait for its locks, all together; the last one repeats. */
const waits = [100, 200, 400, 800];
/** Pause after an attempt, as a multiple of its wait: most of the time nobody queues behind us. */
const pauseFactor = 3;

/**
 * Raises the fence on all these tables at once: one transaction takes every table in the order of oids, which waits out
 * whoever has written to one, and installs the triggers; or it gives up, lets everybody pass, and tries again. When it
 * returns, every write that was not refused is committed. Raised already, it only learns of new partitions. Throws
 * LOCK_NOT_AVAILABLE.
 */
export async function raiseFence(
  connection: Connection,
  sync: string,
  relids: readonly number[],
  options: FenceOptions,
): Promise<Fence> {
  await connection.rows(
    `insert into replicate.fence (sync, pass, lifted_at) values ($1, $2, now()) on conflict (sync) do nothing`,
    [sync, randomUUID()],
  );
  const known = await readFence(connection, sync);
  if (known === undefined) throw new ReplicateError("INTERNAL", `the fence of ${sync} vanished`);
  const deadline = Date.now() + options.budgetMs;
  for (let attempt = 1; ; attempt += 1) {
    const waitMs = waits[Math.min(attempt, waits.length) - 1] as number;
    try {
      await connection.transaction(
        async () => await raiseNow(connection, known, sync, relids),
        `begin; set local lock_timeout = ${waitMs}; set local statement_timeout = ${waitMs * 2}`,
      );
      if (attempt > 1) await showWait(connection, undefined);
      return { ...known, isUp: true };
    } catch (error) {
      if (!isRetryableConflict(error) && sqlstateOf(error) !== QUERY_CANCELED) throw error;
      if (Date.now() > deadline) {
        throw new ReplicateError("LOCK_NOT_AVAILABLE", "the tables could not be locked all at once", {
          cause: error,
          hint: "`--rehearse` names the transactions that are in the way. Nothing of yours waits meanwhile.",
        });
      }
      if (attempt === 1) await showWait(connection, "all tables at once");
      options.onWait(attempt);
      await sleep(waitMs * pauseFactor, options.signal);
    }
  }
}

async function raiseNow(
  connection: Connection,
  fence: Fence,
  sync: string,
  relids: readonly number[],
): Promise<void> {
  const { id } = fence;
  const relations = await relationsOf(connection, relids, id);
  const names = relations.map(({ table }) => `only ${table}`);
  const isStranger = strangerSql(connection.version, fence);
  if (names.length > 0) await connection.script(`lock table ${names.join(", ")} in share row exclusive mode`);
  const statements = [
    // The locks are there: what follows is bound to end.
    "set local statement_timeout = 0",
    fill("cutover/fence-function", {
      id: String(id),
      message: literal(`sync ${sync} is being switched to another server, which fences this table: `),
      hint: literal(
        "Reads go on. Write to the new server once it is open; the application may simply try again.",
      ),
    }),
  ];
  for (const { table, isFenced, wantsRows, hasRows } of relations) {
    const holes = { id: String(id), table, is_stranger: isStranger };
    if (!isFenced)
      statements.push(dropSql(id, table, ["", "_truncate"]), fill("cutover/fence-triggers", holes));
    if (wantsRows && !hasRows)
      statements.push(dropSql(id, table, ["_rows"]), fill("cutover/fence-row-trigger", holes));
  }
  statements.push(
    `update replicate.fence set fenced_at = pg_catalog.clock_timestamp(), lifted_at = null
     where id = ${id} and lifted_at is not null`,
  );
  await connection.script(statements.join(";\n"));
  await failpoint("cutover.fencing");
}

function dropSql(id: number, table: string, suffixes: readonly string[]): string {
  return suffixes
    .map((suffix) => `drop trigger if exists aaa_replicate_fence_${id}${suffix} on ${table}`)
    .join(";\n");
}

const settingName = (fence: Fence): string => `replicate.${functionName(fence.id)}`;

/** True in every session that does not show the pass. Version 10 has no other hash function than md5. */
function strangerSql(version: number, fence: Fence): string {
  const shown = `coalesce(pg_catalog.current_setting('${settingName(fence)}', true), '')`;
  const isOld = version < 110_000;
  const hash = createHash(isOld ? "md5" : "sha256")
    .update(fence.pass)
    .digest("hex");
  const hashed = isOld
    ? `pg_catalog.md5(${shown})`
    : `pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(${shown}, 'UTF8')), 'hex')`;
  return `${hashed} operator(pg_catalog.<>) '${hash}'`;
}

/** Lets this session through the fence of the sync, where there is one. */
export async function showPass(connection: Connection, sync: string): Promise<void> {
  const fence = await readFence(connection, sync);
  if (fence === undefined) return;
  await connection.rows(`select pg_catalog.set_config($1, $2, false)`, [settingName(fence), fence.pass]);
}

/** Relations of these tables that the fence does not cover, such as a partition that came after it. */
export async function findGaps(
  connection: Connection,
  sync: string,
  relids: readonly number[],
): Promise<string[]> {
  const fence = await readFence(connection, sync);
  if (fence === undefined || !fence.isUp) return ["all tables"];
  const relations = await relationsOf(connection, relids, fence.id);
  return relations.flatMap(({ table, isFenced, wantsRows, hasRows }) =>
    isFenced && (!wantsRows || hasRows) ? [] : [table],
  );
}

/** Lets everybody write again, at once and without a lock on any table. Returns false when there was no fence up. */
export async function liftFence(connection: Connection, sync: string): Promise<boolean> {
  const fence = await readFence(connection, sync);
  if (fence === undefined || !fence.isUp) return false;
  await connection.script(
    `begin;
     ${fill("cutover/fence-lifted", { id: String(fence.id) })};
     update replicate.fence set lifted_at = pg_catalog.clock_timestamp() where id = ${fence.id};
     commit`,
  );
  return true;
}

/**
 * Lifts the fence of a sync and removes what it consists of, table by table under brief locks. Returns what was removed.
 * Throws LOCK_NOT_AVAILABLE when a table stays locked for `budgetMs` milliseconds, by a long query for example: the
 * fence is lifted all the same, and the next call goes on.
 */
export async function removeFence(
  connection: Connection,
  sync: string,
  options: { readonly signal: AbortSignal; readonly budgetMs?: number },
): Promise<string[]> {
  await liftFence(connection, sync);
  const fence = await readFence(connection, sync);
  if (fence === undefined) return [];
  await failpoint("cutover.lifted");
  const triggers = await connection.rows<{ relid: number; table: string; trigger: string }>(
    load("cutover/fence-triggers-of"),
    [functionName(fence.id)],
  );
  const tables = [...new Set(triggers.map(({ table }) => table))];
  for (const table of tables) {
    const drops = triggers
      .filter((each) => each.table === table)
      .map(({ trigger }) => `drop trigger if exists ${trigger} on ${table}`);
    await withBriefLocks(connection, { what: table, ...options }, async () => {
      await connection.script(drops.join(";\n"));
    });
  }
  await connection.script(
    `begin; drop function if exists replicate.${functionName(fence.id)}(); delete from replicate.fence where id = ${fence.id}; commit`,
  );
  return tables.map((table) => `fence of ${table}`);
}
