/** A runner that waits for another one's end, to go on where that one stopped. */
import type { Connection } from "../postgres/connect.ts";
import { sleep } from "../postgres/sleep.ts";
import { tryRunner, type Holder } from "./runner-lock.ts";

/** Between two looks. */
const LOOK_MS = 500;
/**
 * A runner gives a sign of life every two seconds. One that has not for longer than this, in seconds, while its session
 * waits for it, is asleep or cut off.
 */
const ABANDONED_S = 10;

export interface StandbyOptions {
  /** See `tryRunner`. */
  readonly former: number | undefined;
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
  let known: number | undefined;
  for (;;) {
    const holder = await tryRunner(target, sync, options.former);
    if (holder === undefined) return;
    if (holder.pid !== known) options.onWait(holder);
    known = holder.pid;
    if (await endAbandoned(target, sync, holder.pid)) options.onEnd(holder);
    await sleep(LOOK_MS, options.signal);
  }
}

/**
 * Not while the server works for it. In the middle of a batch, only where it could give signs of life (see Hold); the
 * state of another role's session is not shown, and it is left alone then.
 */
async function endAbandoned(target: Connection, sync: string, pid: number): Promise<boolean> {
  const ended = await target.rows<{ ended: boolean }>(
    `select pg_catalog.pg_terminate_backend(a.pid) as ended
     from pg_catalog.pg_stat_activity a join replicate.runner r on r.sync = $1
     where a.pid = $2 and (a.state like 'idle%' or a.wait_event = 'ClientRead' and r.batch is not null)
       and greatest(a.state_change, r.seen_at) < pg_catalog.clock_timestamp() - $3 * interval '1 second'`,
    [sync, pid, ABANDONED_S],
  );
  return ended.some((each) => each.ended);
}
