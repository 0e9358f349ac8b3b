/** How far new tables of the source have come on their way into the sync, as the target remembers it. */
import type { Connection } from "../postgres/connect.ts";
import type { Lease } from "./lease.ts";

/** For a transaction of the runner's: throws LEASE_LOST's SQLSTATE where another one has taken over. */
export async function keepLease(target: Connection, { name, token }: Lease): Promise<void> {
  await target.rows(`select replicate.keep_lease($1, $2)`, [name, token]);
}

/** A table is on its way. `targetOid`: the table that was made for it; null: one that was there. */
export async function noteFound(
  target: Connection,
  sync: string,
  sourceOid: number,
  targetOid: number | null,
): Promise<void> {
  await target.rows(
    `insert into replicate.newcomer (sync, source_relid, target_relid) values ($1, $2, $3)
     on conflict (sync, source_relid) do update set target_relid = excluded.target_relid, reason = null`,
    [sync, sourceOid, targetOid],
  );
}

/** Why a table is not taken in. */
export async function noteReason(
  target: Connection,
  sync: string,
  sourceOid: number,
  reason: string,
): Promise<void> {
  await target.rows(
    `insert into replicate.newcomer (sync, source_relid, reason) values ($1, $2, $3)
     on conflict (sync, source_relid) do update set reason = excluded.reason
     where newcomer.reason is distinct from excluded.reason`,
    [sync, sourceOid, reason],
  );
}

/** The table of the target that was made for one of the source. */
export async function targetMadeFor(
  target: Connection,
  sync: string,
  sourceOid: number,
): Promise<number | undefined> {
  const [found] = await target.rows<{ oid: number }>(
    `select target_relid::bigint::float8 as oid from replicate.newcomer
     where sync = $1 and source_relid = $2 and target_relid is not null`,
    [sync, sourceOid],
  );
  return found?.oid;
}

export interface Joining {
  readonly sourceRelid: number;
  readonly targetRelid: number | null;
  readonly reason: string | null;
}

export async function loadJoining(target: Connection, sync: string): Promise<Joining[]> {
  return await target.rows<Joining>(
    `select source_relid::bigint::float8 as "sourceRelid", target_relid::bigint::float8 as "targetRelid", reason
     from replicate.newcomer where sync = $1`,
    [sync],
  );
}

/** The table follows, or is gone. */
export async function forgetJoining(
  target: Connection,
  sync: string,
  sourceOids: readonly number[],
): Promise<void> {
  await target.rows(`delete from replicate.newcomer where sync = $1 and source_relid = any ($2::oid[])`, [
    sync,
    sourceOids,
  ]);
}
