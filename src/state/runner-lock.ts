/** Who runs `follow`: one process per sync, with a heartbeat that others can read. */
import { hostname } from "node:os";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { INVALID_SCHEMA, UNDEFINED_TABLE, sqlstateOf } from "../postgres/sqlstate.ts";
import { unknownSync } from "./sync-table.ts";

/** What the heartbeat tells. */
export interface Heartbeat {
  readonly rowsPerSecond: number;
  /** Seconds since a look at the source that left nothing to apply; null where there was none. */
  readonly clearSeconds: number | null;
  /** Seconds by which the lag grows each second; null while it is not known. */
  readonly lagTrend: number | null;
}

/** A batch that takes long. */
export interface BatchAtHand {
  readonly since: string;
  /** Deltas in it: an estimate of its rows from above. */
  readonly changes: number;
  /** Rows read from the source so far; the target has them once all are read and written. */
  readonly rows: number;
}

export interface StoredError {
  readonly code: string;
  readonly message: string;
  readonly hint: string;
  readonly at: string;
  readonly cleared: boolean;
  /** The process that met it was alive and tried again. */
  readonly isRetrying?: boolean;
}

/** The session that has the sync now. */
export interface Holder {
  /** Of the backend on the target. */
  readonly pid: number;
  /** Process and machine, as far as it has said so. */
  readonly who: string;
}

const LOCK = "pg_catalog.hashtext('replicate'), pg_catalog.hashtext($1)";
/** On the source: only the session that holds it reads batches. */
const SOURCE_LOCK = "pg_catalog.hashtext('replicate source'), pg_catalog.hashtext($1)";
/** How often it is tried again after a backend was ended, and the pause in milliseconds. */
const TRIES = 50;
const PAUSE_MS = 100;

/**
 * Takes the sync for this session. `former` is the backend that held it for us before the connection broke; the
 * server may not have noticed yet, so it is ended. Returns who has it if that is somebody else. Throws SYNC_UNKNOWN.
 */
export async function tryRunner(
  target: Connection,
  sync: string,
  former: number | undefined,
): Promise<Holder | undefined> {
  for (let tries = 0; tries < TRIES; tries += 1) {
    if (await tryLock(target, LOCK, sync)) {
      await registerRunner(target, sync);
      return undefined;
    }
    const pid = await lockHolder(target, "replicate", sync);
    if (pid !== undefined && pid !== former) return { pid, who: await describeRunner(target, sync) };
    if (pid !== undefined) await target.rows(`select pg_catalog.pg_terminate_backend($1)`, [pid]);
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
  return { pid: former ?? 0, who: "a session that does not end" };
}

export function runnerActive(sync: string, holder: Holder): ReplicateError {
  return new ReplicateError("RUNNER_ACTIVE", `another runner follows sync ${sync}: ${holder.who}`);
}

/**
 * Takes the source for this session. Whoever had it before is ended: he has lost the sync on the target, but may not
 * know it yet, and must not say on the source what has been applied. Throws RUNNER_ACTIVE where he cannot be ended.
 */
export async function takeSource(source: Connection, target: Connection, sync: string): Promise<void> {
  let pid: number | undefined;
  for (let tries = 0; tries < TRIES; tries += 1) {
    if (await tryLock(source, SOURCE_LOCK, sync)) return;
    // Only the one who has the sync may do so: a process that slept through its loss finds its session gone here.
    await target.rows("select 1");
    pid = await lockHolder(source, "replicate source", sync);
    if (pid !== undefined) await source.rows(`select pg_catalog.pg_terminate_backend($1)`, [pid]);
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
  throw new ReplicateError(
    "RUNNER_ACTIVE",
    `a session of an earlier runner of sync ${sync} stays on the source`,
    {
      hint: `End it there: select pg_terminate_backend(${pid ?? 0});`,
    },
  );
}

async function tryLock(connection: Connection, lock: string, sync: string): Promise<boolean> {
  const sql = `select pg_catalog.pg_try_advisory_lock(${lock}) as taken`;
  return (await connection.row<{ taken: boolean }>(sql, [sync])).taken;
}

async function describeRunner(target: Connection, sync: string): Promise<string> {
  const [runner] = await target.rows<{ host: string | null; pid: number | null; since: Date | null }>(
    `select host, pid, since from replicate.runner where sync = $1`,
    [sync],
  );
  if (runner === undefined || runner.since === null) return "a process that has not said its name";
  return `process ${runner.pid} on ${runner.host}, since ${runner.since.toISOString()}`;
}

async function registerRunner(target: Connection, sync: string): Promise<void> {
  try {
    // From the sync's own row: in the replica role no foreign key would keep out a sync that does not exist.
    const registered = await target.rows(
      `insert into replicate.runner (sync, host, pid, since, seen_at)
       select name, $2, $3, now(), now() from replicate.sync where name = $1
       on conflict (sync) do update
         set host = excluded.host, pid = excluded.pid, since = excluded.since, seen_at = excluded.seen_at, ended_at = null,
             lag_trend = null, batch = null
       returning 1`,
      [sync, hostname(), process.pid],
    );
    if (registered.length === 0) throw unknownSync(sync);
  } catch (error) {
    if ([UNDEFINED_TABLE, INVALID_SCHEMA].includes(sqlstateOf(error) ?? "")) throw unknownSync(sync);
    throw error;
  }
}

/** The backend that holds a lock of two keys. */
async function lockHolder(connection: Connection, kind: string, sync: string): Promise<number | undefined> {
  const [holder] = await connection.rows<{ pid: number }>(
    `select l.pid from pg_catalog.pg_locks l
     where l.locktype = 'advisory' and l.granted and l.objsubid = 2
       and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
       and l.classid::bigint = pg_catalog.hashtext($2)::bigint & 4294967295
       and l.objid::bigint = pg_catalog.hashtext($1)::bigint & 4294967295`,
    [sync, kind],
  );
  return holder?.pid;
}

/** Whether somebody runs the sync now. */
export async function isRunnerAlive(target: Connection, sync: string): Promise<boolean> {
  return (await lockHolder(target, "replicate", sync)) !== undefined;
}

/** A runner says on the source that it is alive more often than that. */
const SILENT_SECONDS = 60;

/**
 * Ends the session that reads the sync's changes from the source, where its runner has been silent: who is cut off may
 * leave one behind. Throws RUNNER_ACTIVE where it is alive.
 */
export async function endReader(source: Connection, sync: string): Promise<void> {
  const pid = await lockHolder(source, "replicate source", sync);
  if (pid === undefined) return;
  const alive = await source.rows(
    `select 1 from replicate.source_sync
     where name = $1 and acknowledged_at > pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $2)`,
    [sync, SILENT_SECONDS],
  );
  if (alive.length > 0) {
    throw new ReplicateError("RUNNER_ACTIVE", `sync ${sync} is being followed`, {
      hint: "Stop that runner first.",
    });
  }
  await source.rows(`select pg_catalog.pg_terminate_backend($1)`, [pid]);
}

/** Tells the figures. What went wrong before is over: where it is not, `touch` says that the runner lives. */
export async function beat(target: Connection, sync: string, heartbeat: Heartbeat): Promise<void> {
  await target.rows(
    `update replicate.runner
     set seen_at = pg_catalog.clock_timestamp(), rows_per_second = $2, lag_trend = $3, batch = null,
         clear_at = coalesce(pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $4), clear_at),
         last_error = case when last_error is null then null else last_error || '{"cleared": true}' end
     where sync = $1`,
    [sync, heartbeat.rowsPerSecond, heartbeat.lagTrend, heartbeat.clearSeconds],
  );
}

/** The heartbeat in the middle of a batch that takes long: by a session that has no part in it. */
export async function beatAtBatch(control: Connection, sync: string, batch: BatchAtHand): Promise<void> {
  await control.rows(
    `update replicate.runner set seen_at = pg_catalog.clock_timestamp(), batch = $2 where sync = $1`,
    [sync, JSON.stringify(batch)],
  );
}

/** Says that the runner lives. A session that does not say so for long is taken for abandoned, see standby.ts. */
export async function touch(target: Connection, sync: string): Promise<void> {
  await target.rows(`update replicate.runner set seen_at = pg_catalog.clock_timestamp() where sync = $1`, [
    sync,
  ]);
}

/**
 * Remembers an error for `status`, until it is cleared. `isRetrying`: the process lives and tries again. Failures to
 * do so are ignored: it is said already.
 */
export async function storeError(
  target: Connection,
  sync: string,
  error: ReplicateError,
  isRetrying = false,
): Promise<void> {
  const stored: StoredError = {
    code: error.code,
    message: error.message,
    hint: error.problems[0]?.remedy ?? error.hint,
    at: new Date().toISOString(),
    cleared: false,
    isRetrying,
  };
  await target
    .rows(
      `insert into replicate.runner (sync, last_error) select name, $2 from replicate.sync where name = $1
       on conflict (sync) do update set last_error = excluded.last_error`,
      [sync, JSON.stringify(stored)],
    )
    .catch(() => undefined);
}

/** The error that was stored last is over. Never throws. */
export async function clearError(target: Connection, sync: string): Promise<void> {
  await target
    .rows(
      `update replicate.runner set last_error = last_error || '{"cleared": true}'
       where sync = $1 and last_error is not null`,
      [sync],
    )
    .catch(() => undefined);
}

/** `clearSeconds`: as in a heartbeat. Never throws. */
export async function endRunner(
  target: Connection,
  sync: string,
  clearSeconds: number | null,
): Promise<void> {
  await target
    .rows(
      `update replicate.runner
       set ended_at = now(), rows_per_second = 0, lag_trend = null, batch = null,
           clear_at = coalesce(pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $2), clear_at)
       where sync = $1`,
      [sync, clearSeconds],
    )
    .catch(() => undefined);
}
