/** Who runs `follow`: one process per sync, with a heartbeat that others can read. */
import { hostname } from "node:os";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { INVALID_SCHEMA, UNDEFINED_TABLE, sqlstateOf } from "../postgres/sqlstate.ts";
import { unknownSync } from "./sync-table.ts";

/** What the heartbeat tells. */
export interface Heartbeat {
  readonly caughtUp: boolean;
  readonly rowsPerSecond: number;
  readonly lagRows: number;
  readonly lagSeconds: number;
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
}

const LOCK = "pg_catalog.hashtext('replicate'), pg_catalog.hashtext($1)";

/**
 * Takes the sync for this session. `former` is the backend that held it for us before the connection broke; the
 * server may not have noticed yet, so it is ended. Throws RUNNER_ACTIVE when somebody else has it, SYNC_UNKNOWN.
 */
export async function takeRunner(
  target: Connection,
  sync: string,
  former: number | undefined,
): Promise<void> {
  for (let attempt = 0; attempt < 20; attempt += 1) {
    const { taken } = await target.row<{ taken: boolean }>(
      `select pg_catalog.pg_try_advisory_lock(${LOCK}) as taken`,
      [sync],
    );
    if (taken) return await registerRunner(target, sync);
    const holder = await lockHolder(target, sync);
    if (holder !== undefined && holder.pid !== former) {
      const [runner] = await target.rows<{ host: string; pid: number; since: Date }>(
        `select host, pid, since from replicate.runner where sync = $1`,
        [sync],
      );
      const who =
        runner === undefined
          ? ""
          : `: process ${runner.pid} on ${runner.host}, since ${runner.since.toISOString()}`;
      throw new ReplicateError("RUNNER_ACTIVE", `another runner follows sync ${sync}${who}`);
    }
    if (holder !== undefined) await target.rows(`select pg_catalog.pg_terminate_backend($1)`, [holder.pid]);
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
  throw new ReplicateError("RUNNER_ACTIVE", `the lock of sync ${sync} could not be taken`);
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

async function lockHolder(target: Connection, sync: string): Promise<{ pid: number } | undefined> {
  const [holder] = await target.rows<{ pid: number }>(
    `select l.pid from pg_catalog.pg_locks l
     where l.locktype = 'advisory' and l.granted and l.objsubid = 2
       and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
       and l.classid::bigint = pg_catalog.hashtext('replicate')::bigint & 4294967295
       and l.objid::bigint = pg_catalog.hashtext($1)::bigint & 4294967295`,
    [sync],
  );
  return holder;
}

/** Whether somebody runs the sync now. */
export async function isRunnerAlive(target: Connection, sync: string): Promise<boolean> {
  return (await lockHolder(target, sync)) !== undefined;
}

export async function beat(control: Connection, sync: string, heartbeat: Heartbeat): Promise<void> {
  await control.rows(
    `update replicate.runner
     set seen_at = now(), caught_up = $2, rows_per_second = $3, lag_rows = $4, lag_seconds = $5, lag_trend = $6,
         batch = null,
         last_error = case when last_error is null then null else last_error || '{"cleared": true}' end
     where sync = $1`,
    [
      sync,
      heartbeat.caughtUp,
      heartbeat.rowsPerSecond,
      heartbeat.lagRows,
      heartbeat.lagSeconds,
      heartbeat.lagTrend,
    ],
  );
}

/** The heartbeat in the middle of a batch that takes long. */
export async function beatAtBatch(control: Connection, sync: string, batch: BatchAtHand): Promise<void> {
  await control.rows(`update replicate.runner set seen_at = now(), batch = $2 where sync = $1`, [
    sync,
    JSON.stringify(batch),
  ]);
}

/** Remembers an error for `status`, cleared by the next heartbeat. Failures to do so are ignored: it is said already. */
export async function storeError(control: Connection, sync: string, error: ReplicateError): Promise<void> {
  const stored: StoredError = {
    code: error.code,
    message: error.message,
    hint: error.problems[0]?.remedy ?? error.hint,
    at: new Date().toISOString(),
    cleared: false,
  };
  await control
    .rows(`update replicate.runner set last_error = $2 where sync = $1`, [sync, JSON.stringify(stored)])
    .catch(() => undefined);
}

export async function endRunner(control: Connection, sync: string): Promise<void> {
  await control
    .rows(
      `update replicate.runner set ended_at = now(), rows_per_second = 0, lag_trend = null, batch = null where sync = $1`,
      [sync],
    )
    .catch(() => undefined);
}
