/** Whether a database is the source that the target of a sync knows, and still keeps for it what was not applied. */
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { INVALID_SCHEMA, UNDEFINED_TABLE, sqlstateOf } from "../postgres/sqlstate.ts";
import { unknownSync } from "./sync-table.ts";

/** What the target remembers. */
export interface Remembered {
  readonly token: string;
  readonly snapshot: string | null;
}

/**
 * Source and target must know each other's token, and the source's transaction ids must not have gone back. Throws
 * SYNC_EXPELLED, SOURCE_LOST.
 */
export async function checkSource(source: Connection, sync: string, position: Remembered): Promise<void> {
  let known: { token: string; previous: string; xmax: string } | undefined;
  try {
    [known] = await source.rows<{ token: string; previous: string; xmax: string }>(
      `select token, previous_token as previous,
              pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot())::text as xmax
       from replicate.source_sync where name = $1`,
      [sync],
    );
  } catch (error) {
    if (!isStateMissing(error)) throw error;
  }
  const isOurs = known !== undefined && [known.token, known.previous].includes(position.token);
  if (!isOurs) await refuseExpelled(source, sync, position.token);
  if (known === undefined) throw sourceLost(sync, "it has no state of this sync");
  if (!isOurs) {
    throw sourceLost(
      sync,
      "it lacks what was already applied, so it was restored from an older copy or failed over with loss",
    );
  }
  const xmax = position.snapshot?.split(":")[1];
  if (xmax !== undefined && BigInt(xmax) > BigInt(known.xmax))
    throw sourceLost(sync, "its transaction ids went back");
}

export function sourceLost(sync: string, why: string): ReplicateError {
  return new ReplicateError("SOURCE_LOST", `this is not the source that sync ${sync} knows: ${why}`);
}

/** Throws SYNC_UNKNOWN. */
export async function rememberedToken(target: Connection, sync: string): Promise<string> {
  const [found] = await target
    .rows<{ token: string }>(`select token from replicate.sync where name = $1`, [sync])
    .catch((error: unknown) => {
      if (isStateMissing(error)) return [];
      throw error;
    });
  if (found === undefined) throw await unknownSync(target, sync);
  return found.token;
}

/** Throws SYNC_EXPELLED where the sync with this token was given up on the source. */
export async function refuseExpelled(source: Connection, sync: string, token: string): Promise<void> {
  const [expelled] = await source
    .rows<{ at: Date }>(
      `select expelled_at as at from replicate.expelled where sync = $1 and $2 in (token, previous_token)`,
      [sync, token],
    )
    .catch((error: unknown) => {
      if (isStateMissing(error)) return [];
      throw error;
    });
  if (expelled === undefined) return;
  throw new ReplicateError(
    "SYNC_EXPELLED",
    `sync ${sync} was dropped on the source at ${expelled.at.toISOString()}, without its target: what was changed since it last took changes is not kept`,
  );
}

const CLOSED = "closed";

/**
 * From here on the target's runner is refused: the source remembers that it has given the sync up. Can be repeated; waits
 * for a batch that is being read.
 */
export async function closeSource(source: Connection, sync: string): Promise<void> {
  await source.transaction(async () => {
    const [open] = await source.rows<{ token: string; previous: string }>(
      `select token, previous_token as previous from replicate.source_sync
       where name = $1 and token <> $2 for update`,
      [sync, CLOSED],
    );
    if (open === undefined) return;
    await source.rows(
      `insert into replicate.expelled (token, previous_token, sync) values ($1, $2, $3) on conflict (token) do nothing`,
      [open.token, open.previous, sync],
    );
    await source.rows(`update replicate.source_sync set token = $2, previous_token = $2 where name = $1`, [
      sync,
      CLOSED,
    ]);
  });
}

/** For a sync whose target is let go as well. */
export async function forgetExpelled(source: Connection, sync: string): Promise<void> {
  await source.rows(`delete from replicate.expelled where sync = $1`, [sync]);
}

/** Schema replicate is not there, or of an earlier version. */
function isStateMissing(error: unknown): boolean {
  return [UNDEFINED_TABLE, INVALID_SCHEMA].includes(sqlstateOf(error) ?? "");
}
