/** What a database remembers of its sequences whose numbers are shared out (see shares.ts). */
import type { Connection } from "../postgres/connect.ts";
import type { Share } from "./shares.ts";

export interface Interleaved extends Share {
  readonly sync: string;
  readonly relid: number;
  /** The sequence's own, before it was shared out. */
  readonly increment: string;
}

/** All of this database, whatever sync has shared them out. */
export async function readInterleaved(connection: Connection): Promise<Interleaved[]> {
  const { exists } = await connection.row<{ exists: boolean }>(
    `select pg_catalog.to_regclass('replicate.interleaved') is not null as exists`,
  );
  if (!exists) return [];
  return await connection.rows<Interleaved>(
    `select sync, relid::bigint::float8 as relid, increment::text as increment, shares, share from replicate.interleaved`,
  );
}

/** Remembers the share of a sequence, in the transaction that gives it. */
export async function recordInterleaved(connection: Connection, entry: Interleaved): Promise<void> {
  await connection.rows(
    `insert into replicate.interleaved (sync, relid, increment, shares, share) values ($1, $2, $3, $4, $5)
     on conflict (sync, relid) do update set shares = excluded.shares, share = excluded.share`,
    [entry.sync, entry.relid, entry.increment, entry.shares, entry.share],
  );
}

export async function forgetInterleaved(connection: Connection, sync: string, relid: number): Promise<void> {
  await connection.rows(`delete from replicate.interleaved where sync = $1 and relid = $2`, [sync, relid]);
}

/** Also of sequences that are gone. */
export async function forgetAllInterleaved(connection: Connection, sync: string): Promise<void> {
  await connection.rows(`delete from replicate.interleaved where sync = $1`, [sync]);
}
