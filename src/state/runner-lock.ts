/** Who runs `follow`: one process per sync, with a heartbeat that others can read. */
import { hostname } from "node:os";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { sleep } from "../postgres/sleep.ts";
import {
  describeHolder, endSession, giveBack, isStateMissing, leaseHolder, leaseLost, leaseName, LEASE_SECONDS, renewLease,
  takeLease, type Holder, type Lease, type Taking,
} from "./lease.ts"; // prettier-ignore
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

export interface StoredMaintenance {
  readonly message: string;
  readonly hint: string;
  readonly since: string;
}

/** How often it is tried again after a session was ended, and the pause in milliseconds. */
const TRIES = 50;
const PAUSE_MS = 100;

export function runnerLease(sync: string, token: string): Lease {
  return { name: leaseName("runner", sync), token };
}

/**
 * Takes the sync for this session, where nobody else has it or he is gone. An earlier session of ours may not have been
 * noticed to be broken yet, and is ended; as is that of whoever has lost the sync to us without knowing it. Throws
 * SYNC_UNKNOWN.
 */
export async function tryRunner(
  target: Connection,
  sync: string,
  token: string,
  signal: AbortSignal,
): Promise<Taking> {
  const lease = runnerLease(sync, token);
  for (let tries = 1; ; tries += 1) {
    const taking = await takeLease(target, lease).catch(async (error: unknown) => {
      throw isStateMissing(error) ? await unknownSync(target, sync) : error;
    });
    if (taking.isTaken) {
      await registerRunner(target, lease, sync);
      const isEnded = taking.before !== undefined && (await endSession(target, taking.before));
      return isEnded ? taking : { isTaken: true, before: undefined };
    }
    if (taking.before?.token !== token || tries === TRIES) return taking;
    await endSession(target, taking.before);
    await sleep(PAUSE_MS, signal);
  }
}

export function runnerActive(sync: string, holder: Holder | undefined): ReplicateError {
  const who = holder === undefined ? "" : `: ${describeHolder(holder)}`;
  return leaseLost(`another runner follows sync ${sync}${who}`);
}

/**
 * Takes the source for this session. Whoever had it before has lost the sync on the target, but may not know it yet, and must
 * not say on the source what has been applied. Throws RUNNER_ACTIVE where he is at it and cannot be ended.
 */
export async function takeSource(
  source: Connection,
  target: Connection,
  sync: string,
  token: string,
  signal: AbortSignal,
): Promise<void> {
  const lease = { name: leaseName("reader", sync), token };
  let before: Holder | undefined;
  for (let tries = 0; tries < TRIES; tries += 1) {
    // Only the one who has the sync may do so: a process that slept through its loss finds out here.
    if (!(await renewLease(target, runnerLease(sync, token)))) throw runnerActive(sync, undefined);
    const taking = await takeLease(source, lease, { isBound: true, isForced: true });
    ({ before } = taking);
    if (before !== undefined) await endSession(source, before);
    if (taking.isTaken) return;
    await sleep(PAUSE_MS, signal);
  }
  throw new ReplicateError(
    "RUNNER_ACTIVE",
    `a session of an earlier runner of sync ${sync} stays on the source`,
    { side: "source", hint: `End it there: select pg_terminate_backend(${before?.backend ?? 0});` },
  );
}

async function registerRunner(target: Connection, lease: Lease, sync: string): Promise<void> {
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
  if (registered.length > 0) return;
  await giveBack(target, lease);
  throw await unknownSync(target, sync);
}

/** Whether somebody runs the sync now, under another lease than `ours`. */
export async function isRunnerAlive(target: Connection, sync: string, ours?: Lease): Promise<boolean> {
  return (await leaseHolder(target, leaseName("runner", sync), ours?.token)) !== undefined;
}

/** A runner says on the source that it is alive more often than that. */
const SILENT_SECONDS = 60;

/**
 * Ends the session that reads the sync's changes from the source, where its runner has been silent: who is cut off may
 * leave one behind. Throws RUNNER_ACTIVE where it is alive.
 */
export async function endReader(source: Connection, sync: string): Promise<void> {
  const holder = await leaseHolder(source, leaseName("reader", sync));
  if (holder === undefined) return;
  const alive = await source.rows(
    `select 1 from replicate.source_sync
     where name = $1 and acknowledged_at > pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $2)`,
    [sync, SILENT_SECONDS],
  );
  // Behind a pool, whoever is gone has the lease until it expires, and whoever is there cannot be told from others.
  if (alive.length > 0 || holder.isPooled) {
    throw new ReplicateError(
      "RUNNER_ACTIVE",
      `sync ${sync} is being followed${alive.length > 0 ? "" : `: ${describeHolder(holder)}`}`,
      {
        hint: `Stop that runner first.${holder.isPooled ? ` If it is gone already, wait for ${LEASE_SECONDS} seconds.` : ""}`,
      },
    );
  }
  await endSession(source, holder);
}

/** Tells the figures. What went wrong before is over: where it is not, `touch` says that the runner lives. */
export async function beat(
  target: Connection,
  lease: Lease,
  sync: string,
  { rowsPerSecond, lagTrend, clearSeconds }: Heartbeat,
): Promise<Sign> {
  return await sign(
    target,
    lease,
    `rows_per_second = $4, lag_trend = $5, batch = null,
     clear_at = coalesce(pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $6), clear_at),
     last_error = case when last_error is null then null else last_error || '{"cleared": true}' end`,
    [sync, rowsPerSecond, lagTrend, clearSeconds],
  );
}

/** The heartbeat in the middle of a batch that takes long: by a session that has no part in it. */
export async function beatAtBatch(
  control: Connection,
  lease: Lease,
  sync: string,
  batch: BatchAtHand,
): Promise<Sign> {
  return await sign(control, lease, `batch = $4`, [sync, JSON.stringify(batch)]);
}

/** Says that the runner lives. A session that does not say so for long is taken for abandoned, see standby.ts. */
export async function touch(target: Connection, lease: Lease, sync: string): Promise<Sign> {
  return await sign(target, lease, "", [sync]);
}

/** What is found when a sign of life is given: the sync is not ours any more, or we are asked to end. */
export type Sign = { readonly isLost: boolean; readonly asked: string | null };

/** Renews the lease; where it is lost, nothing is told of what is somebody else's now. */
async function sign(
  connection: Connection,
  { name, token }: Lease,
  figures: string,
  [sync, ...values]: readonly unknown[],
): Promise<Sign> {
  const [renewed] = await connection.rows<{ asked: string | null }>(
    `with renewed as (
       update replicate.lease
       set expires_at = pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => ${LEASE_SECONDS})
       where name = $2 and token = $3 returning asked)
     update replicate.runner set seen_at = pg_catalog.clock_timestamp()${figures === "" ? "" : `, ${figures}`}
     from renewed where sync = $1 returning renewed.asked`,
    [sync, name, token, ...values],
  );
  return { isLost: renewed === undefined, asked: renewed?.asked ?? null };
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
    hint: remediesOf(error) ?? error.hint,
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

/** More are told by the command itself. */
const MOST_REMEDIES = 30;

/** All that is to be done, one below the other. */
function remediesOf({ problems }: ReplicateError): string | undefined {
  const remedies = problems.flatMap(({ remedy }) => remedy ?? []);
  if (remedies.length === 0) return undefined;
  const rest = remedies.length - MOST_REMEDIES;
  const more = rest > 0 ? [`-- and ${rest} more, which the command itself tells`] : [];
  return [...remedies.slice(0, MOST_REMEDIES), ...more].join("\n");
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

/** What maintenance a server rejects at the time, for `status`; null: none. Not told where that is rejected as well. */
export async function storeMaintenance(
  target: Connection,
  sync: string,
  maintenance: StoredMaintenance | null,
): Promise<void> {
  await target
    .rows(`update replicate.runner set maintenance = $2 where sync = $1`, [
      sync,
      maintenance === null ? null : JSON.stringify(maintenance),
    ])
    .catch(() => undefined);
}

/** `clearSeconds`: as in a heartbeat. Never throws. */
export async function endRunner(
  target: Connection,
  lease: Lease,
  sync: string,
  clearSeconds: number | null,
): Promise<void> {
  await target
    .rows(
      `update replicate.runner
       set ended_at = now(), rows_per_second = 0, lag_trend = null, batch = null,
           clear_at = coalesce(pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $2), clear_at)
       where sync = $1 and exists (select 1 from replicate.lease where name = $3 and token = $4)`,
      [sync, clearSeconds, lease.name, lease.token],
    )
    .catch(() => undefined);
  await giveBack(target, lease);
}
