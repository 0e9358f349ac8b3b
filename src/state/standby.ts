/** A runner that waits for another one's end, to go on where that one stopped. */
import type { Connection } from "../postgres/connect.ts";
import { sleep } from "../postgres/sleep.ts";
import { endSession, LEASE_SECONDS, type Holder } from "./lease.ts";
import { tryRunner } from "./runner-lock.ts";

/** Between two looks. */
const LOOK_MS = 500;
/**
 * A runner gives a sign of life every two seconds. One that has not for longer than this, in seconds, while its session
 * waits for it, is asleep or cut off.
 */
const ABANDONED_S = LEASE_SECONDS;

export interface StandbyOptions {
  /** See `tryRunner`. */
  readonly token: string;
  readonly signal: AbortSignal;
  /** Called once per holder. */
  readonly onWait: (holder: Holder) => void;
  /** Called when the holder was found abandoned, and its session on the target was ended. */
  readonly onEnd: (holder: Holder) => void;
}

/**
 * Waits until the sync can be taken for this session. A runner that dies gives it back by dying. The session of one that
 * sleeps is ended: what it had begun is rolled back, and when it wakes up it finds out. Throws ABORTED, SYNC_UNKNOWN.
 */
export async function awaitRunner(target: Connection, sync: string, options: StandbyOptions): Promise<void> {
  let known: string | undefined;
  for (;;) {
    const { isTaken, before } = await tryRunner(target, sync, options.token, options.signal);
    if (isTaken) {
      if (before !== undefined) options.onEnd(before);
      return;
    }
    if (before !== undefined) {
      if (before.token !== known) options.onWait(before);
      known = before.token;
      if ((await isAbandoned(target, sync, before)) && (await endSession(target, before)))
        options.onEnd(before);
    }
    await sleep(LOOK_MS, options.signal);
  }
}

/**
 * Not while the server works for it. In the middle of a batch, only where it could give signs of life (see Hold); the
 * state of another role's session is not shown, and it is left alone then.
 */
async function isAbandoned(
  target: Connection,
  sync: string,
  { backend, backendStart }: Holder,
): Promise<boolean> {
  const found = await target.rows(
    `select 1 from pg_catalog.pg_stat_activity a join replicate.runner r on r.sync = $1
     where a.pid = $2 and a.backend_start = $3
       and (a.state like 'idle%' or a.wait_event = 'ClientRead' and r.batch is not null)
       and greatest(a.state_change, r.seen_at) < pg_catalog.clock_timestamp() - $4 * interval '1 second'`,
    [sync, backend, backendStart, ABANDONED_S],
  );
  return found.length > 0;
}
