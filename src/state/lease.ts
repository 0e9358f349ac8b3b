/**
 * Leases: what only one process may do at a time, see sql/state/0001-schema.sql. A lease goes with the session that it was
 * taken by, and when it has not been renewed for a while. Whoever had it finds out with what he does next under it.
 */
import { hostname } from "node:os";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { INSUFFICIENT_PRIVILEGE, INVALID_SCHEMA, UNDEFINED_FUNCTION, UNDEFINED_TABLE, sqlstateOf } from "../postgres/sqlstate.ts"; // prettier-ignore
import { literal } from "../postgres/sql.ts";

/** A lease that is not renewed for so long may be taken by others, where the holder's session tells nothing. */
export const LEASE_SECONDS = 10;
/** Between two renewals of a bound lease. */
const RENEW_MS = 2000;

export interface Lease {
  readonly name: string;
  /** The holder's alone. */
  readonly token: string;
}

/** Who has a lease, or had it. */
export interface Holder {
  readonly token: string;
  readonly host: string;
  readonly process: number;
  readonly takenAt: string;
  /** His session on this server. */
  readonly backend: number;
  readonly backendStart: string;
  /** A pool is in between: the session may be another client's by now, one of ours too. */
  readonly isPooled: boolean;
}

export interface TakeOptions {
  /** Kept as long as this session is there; otherwise somebody has to renew it. Default false. */
  readonly isBound?: boolean;
  /** Whoever has it loses it, unless he is in the middle of something. Default false. */
  readonly isForced?: boolean;
  readonly seconds?: number;
}

export interface Taking {
  readonly isTaken: boolean;
  /** Somebody else, who has it; or had it, where it is taken. */
  readonly before: Holder | undefined;
}

/** Takes a lease for this session, or takes it again. Where there is no such state, the driver's error says so. */
export async function takeLease(
  connection: Connection,
  { name, token }: Lease,
  { isBound = false, isForced = false, seconds = LEASE_SECONDS }: TakeOptions = {},
): Promise<Taking> {
  const { result } = await connection.row<{ result: { taken: boolean; before: StoredLease | null } }>(
    `select replicate.take_lease($1, $2, $3, $4, $5, $6, $7, $8) as result`,
    [name, token, hostname(), process.pid, connection.isPooled, isBound, seconds, isForced],
  );
  const { taken, before } = result;
  if (taken && isBound) renewWhileOpen(connection, { name, token });
  return { isTaken: taken, before: before === null ? undefined : holderOf(before) };
}

interface StoredLease {
  readonly token: string;
  readonly host: string;
  readonly process: number;
  readonly taken_at: string;
  readonly backend: number;
  readonly backend_start: string;
  readonly is_pooled: boolean;
}

function holderOf(stored: StoredLease): Holder {
  const { token, host, process, taken_at, backend, backend_start, is_pooled } = stored;
  return {
    token,
    host,
    process,
    takenAt: taken_at,
    backend,
    backendStart: backend_start,
    isPooled: is_pooled,
  };
}

export function describeHolder({ host, process, takenAt }: Holder): string {
  return `process ${process} on ${host}, since ${new Date(takenAt).toISOString()}`;
}

/** Renews a lease from a session that has time for it, until it is closed; then gives it back. */
function renewWhileOpen(connection: Connection, lease: Lease): void {
  const timer = setInterval(() => {
    if (connection.isFree) void renewLease(connection, lease).catch(() => undefined);
  }, RENEW_MS).unref();
  connection.client.once("end", () => clearInterval(timer));
  connection.beforeClose(async () => {
    clearInterval(timer);
    await giveBack(connection, lease);
  });
}

/** Returns false where it is lost. */
export async function renewLease(connection: Connection, { name, token }: Lease): Promise<boolean> {
  const renewed = await connection.rows(
    `update replicate.lease set expires_at = pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => $3)
     where name = $1 and token = $2 returning 1`,
    [name, token, LEASE_SECONDS],
  );
  return renewed.length > 0;
}

/** Asks whoever has a lease by this token to end; `by` null: takes it back. */
export async function askToEnd(
  connection: Connection,
  { name, token }: Lease,
  by: string | null,
): Promise<void> {
  await connection.rows(
    `update replicate.lease set asked = $3 where name = $1 and token = $2 and asked is distinct from $3`,
    [name, token, by],
  );
}

/** Never throws. */
export async function giveBack(connection: Connection, { name, token }: Lease): Promise<void> {
  await connection
    .rows(`delete from replicate.lease where name = $1 and token = $2`, [name, token])
    .catch(() => undefined);
}

/** A statement that keeps the lease until the end of its transaction; fails with POSITION_MOVED where it is lost. */
export function keepLeaseSql({ name, token }: Lease): string {
  return `select replicate.keep_lease(${literal(name)}, ${literal(token)})`;
}

/** Who has the lease now. Where there is no such state, nobody. `but`: the token of whoever does not count. */
export async function leaseHolder(
  connection: Connection,
  name: string,
  but = "",
): Promise<Holder | undefined> {
  const [found] = await connection
    .rows<{ lease: StoredLease }>(
      `select pg_catalog.to_jsonb(l) as lease from replicate.lease l
       where l.name = $1 and l.token <> $2 and replicate.is_alive(l)`,
      [name, but],
    )
    .catch((error: unknown) => {
      if (isStateMissing(error)) return [];
      throw error;
    });
  return found === undefined ? undefined : holderOf(found.lease);
}

/**
 * Ends the session of whoever has a lease, or had it, if it is still there and this role may. One that a pool has lent out
 * is left alone: by now it may be another client's, and another process of ours has it by the same right. Its lease expires.
 */
export async function endSession(
  connection: Connection,
  { backend, backendStart, isPooled }: Holder,
): Promise<boolean> {
  if (isPooled) return false;
  try {
    const ended = await connection.rows<{ ended: boolean }>(
      `select pg_catalog.pg_terminate_backend(a.pid) as ended from pg_catalog.pg_stat_activity a
       where a.pid = $1 and a.pid <> pg_catalog.pg_backend_pid() and a.backend_start = $2 and a.application_name like 'replicate %'`,
      [backend, backendStart],
    );
    return ended.some((each) => each.ended);
  } catch (error) {
    if (sqlstateOf(error) !== INSUFFICIENT_PRIVILEGE) throw error;
    return false;
  }
}

/** Forgets the leases of a sync that is dropped. */
export async function forgetLeases(connection: Connection, sync: string): Promise<void> {
  const names = (["runner", "reader", "switch", "source-switch"] as const).map((kind) =>
    leaseName(kind, sync),
  );
  await connection
    .rows(`delete from replicate.lease where name = any ($1::text[])`, [names])
    .catch((error: unknown) => {
      if (!isStateMissing(error)) throw error;
    });
}

export type LeaseKind = "runner" | "reader" | "switch" | "source-switch";

export function leaseName(kind: LeaseKind, sync: string): string {
  return `${kind} ${sync}`;
}

/** Schema replicate is not there, or somebody else's. */
export function isStateMissing(error: unknown): boolean {
  return [UNDEFINED_TABLE, INVALID_SCHEMA, UNDEFINED_FUNCTION].includes(sqlstateOf(error) ?? "");
}

export function leaseLost(message: string, cause?: unknown): ReplicateError {
  return new ReplicateError("RUNNER_ACTIVE", message, { cause });
}
