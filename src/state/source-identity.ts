/** Whether a database is the source that the target of a sync knows, and still keeps for it what was not applied. */
import { setTimeout as sleep } from "node:timers/promises";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { INVALID_SCHEMA, isRetryableConflict, UNDEFINED_TABLE, sqlstateOf } from "../postgres/sqlstate.ts";
import { isCutOver, readSwitch } from "./switch.ts";
import { unknownSync } from "./sync-table.ts";

/** What the target remembers. */
export interface Remembered {
  readonly token: string;
  readonly snapshot: string | null;
}

/** How often, and after how many milliseconds, two sides that do not fit are looked at again: a switch may just write them. */
const LOOKS = 3;
const LOOK_MS = 150;

/**
 * Whether the two sides of a sync belong together, for what is done beside its runner or without one. Throws SYNC_UNKNOWN,
 * SYNC_EXPELLED, SOURCE_LOST, TARGET_RESTORED.
 */
export async function checkPair(source: Connection, target: Connection, sync: string): Promise<void> {
  let position = await remembered(target, sync);
  // From then on it is the way back that has to fit; the old side may have let go of this one.
  if (isCutOver(await readSwitch(target, sync))) return await assertNotExpelled(source, sync, position.token);
  for (let looks = 1; ; looks += 1) {
    // A way that was prepared and has not begun.
    if (position.token === "") return;
    try {
      return await checkSource(source, sync, position);
    } catch (error) {
      if (!(error instanceof ReplicateError)) throw error;
      const now = await remembered(target, sync);
      // A runner has moved both sides between our looks at them.
      const isMoved = now.token !== position.token;
      position = now;
      if (!isMoved && looks >= LOOKS) throw error;
      // A runner that is faster than our way to both sides: it waits for one look.
      if (isMoved && looks >= LOOKS && (await isCheckLeased(source, target, sync))) return;
      await sleep(isMoved ? 0 : LOOK_MS);
    }
  }
}

/**
 * The same, while no batch can be committed on the target: the source is one token ahead of it at most. False where a batch
 * that takes long has it: nothing moves meanwhile.
 */
async function isCheckLeased(source: Connection, target: Connection, sync: string): Promise<boolean> {
  try {
    await target.transaction(async () => {
      const position = await remembered(target, sync, "for share");
      if (position.token !== "") await checkSource(source, sync, position);
    }, "begin; set local lock_timeout = '1s'");
    return true;
  } catch (error) {
    if (isRetryableConflict(error)) return false;
    throw error;
  }
}

/**
 * Source and target must know each other's token, and the source's transaction ids must not have gone back. Throws
 * SYNC_EXPELLED, SOURCE_LOST, TARGET_RESTORED.
 */
export async function checkSource(source: Connection, sync: string, position: Remembered): Promise<void> {
  let known: { token: string; previous: string; position: string | null; xmax: string } | undefined;
  try {
    [known] = await source.rows<{ token: string; previous: string; position: string | null; xmax: string }>(
      `select token, previous_token as previous, position,
              pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot())::text as xmax
       from replicate.source_sync where name = $1`,
      [sync],
    );
  } catch (error) {
    if (!isStateMissing(error)) throw error;
  }
  const isOurs = known !== undefined && [known.token, known.previous].includes(position.token);
  if (!isOurs) await assertNotExpelled(source, sync, position.token);
  if (known === undefined) throw sourceLost(source, sync, "it has no state of this sync");
  if (!isOurs && isLater(known.position, position.snapshot)) throw targetRestored(source, sync);
  if (!isOurs) {
    throw sourceLost(
      source,
      sync,
      "it lacks what was already applied, so it was restored from an older copy or failed over with loss, or its sync of that name is that of another target",
      "Bring the right source back. Has another target a sync of that name there, use another --name. Was the source restored, have the tables copied anew: `replicate drop`, then `replicate init` and `replicate copy --overwrite`.",
    );
  }
  const xmax = position.snapshot?.split(":")[1];
  if (xmax !== undefined && BigInt(xmax) > BigInt(known.xmax))
    throw sourceLost(source, sync, "its transaction ids went back");
}

export function sourceLost(source: Connection, sync: string, why: string, hint?: string): ReplicateError {
  return new ReplicateError(
    "SOURCE_LOST",
    `the source ${source.place} is not the one that sync ${sync} knows: ${why}`,
    { side: "source", ...(hint === undefined ? {} : { hint }) },
  );
}

/** The source was told of more by its target than the target knows of. */
function targetRestored(source: Connection, sync: string): ReplicateError {
  return new ReplicateError(
    "TARGET_RESTORED",
    `the target of sync ${sync} was restored from an older copy: it lacks changes that it had told the source ${source.place} it had, and the source does not keep them any more`,
    { side: "target" },
  );
}

/** Whether a snapshot saw more than another; null has seen nothing. */
function isLater(one: string | null, other: string | null): boolean {
  if (one === null || other === null) return one !== null;
  const parts = ([one, other] as const).map((text) => {
    const [xmin = "0", xmax = "0", running = ""] = text.split(":");
    return [BigInt(xmax), BigInt(xmin), -BigInt(running.split(",").length)];
  });
  const [own = [], others = []] = parts;
  const n = own.findIndex((value, index) => value !== others[index]);
  return n !== -1 && (own[n] as bigint) > (others[n] as bigint);
}

async function remembered(target: Connection, sync: string, lock = ""): Promise<Remembered> {
  const [found] = await target
    .rows<Remembered>(`select token, position as snapshot from replicate.sync where name = $1 ${lock}`, [
      sync,
    ])
    .catch((error: unknown) => {
      if (isStateMissing(error)) return [];
      throw error;
    });
  if (found === undefined) throw await unknownSync(target, sync);
  return found;
}

/** Throws SYNC_EXPELLED where the sync with this token was given up on the source. */
export async function assertNotExpelled(source: Connection, sync: string, token: string): Promise<void> {
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
    { side: "source" },
  );
}

const CLOSED = "closed";

/** Whether a drop has begun: nobody may follow any more. */
export const isClosedSource = (token: string): boolean => token === CLOSED;

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

/** Schema replicate is not there. */
function isStateMissing(error: unknown): boolean {
  return [UNDEFINED_TABLE, INVALID_SCHEMA].includes(sqlstateOf(error) ?? "");
}
