/** The end of a rollback window, and what of a switch has to go when a sync is dropped. */
import { dropFence } from "./undo.ts";
import { ReplicateError } from "../errors.ts";
import { readSwitch, endUndone, isCutOver } from "../state/switch.ts";
import { restoreDeferred } from "../state/restore-deferred.ts";
import { forgetWay } from "../reverse/reverse.ts";
import { takeOver } from "./hand-over.ts";
import { heldWays, holdSwitch } from "./held-ways.ts";
import type { Lease } from "../state/lease.ts";
import { load } from "../postgres/sql.ts";
import type { SyncContext } from "../state/context.ts";
import type { OpenWay } from "../reverse/ways.ts";

/**
 * Ends the window in which a switch can be taken back. After a rollback, the sync goes on from source to target as if it
 * had never been cut over: returns false. After a cutover nothing of it is needed any more: whoever follows the way back is asked
 * to end, `drop` is called, under the lease that keeps others from following it, and it returns true. Throws CUTOVER_STATE.
 */
export async function finishSwitch(
  open: OpenWay,
  drop: (ours: Lease) => Promise<unknown>,
  { keepClosed = false }: { readonly keepClosed?: boolean } = {},
): Promise<boolean> {
  if (!(await endSwitch(open))) return false;
  const reverse = open("reverse");
  // Not cut by a stop: whoever was asked to end has to be told that he need not any more.
  await using target = await open("reverse", { isCut: false }).target("cutover");
  const ours = await takeOver(reverse, target, "replicate cutover --finish");
  if (!keepClosed) await nameSessions(open("forward"));
  await drop(ours);
  return true;
}

/** The same, but for what follows where it returns true. */
async function endSwitch(open: OpenWay): Promise<boolean> {
  const forward = open("forward");
  const { name } = forward.config;
  await using state = await open("forward", { isCut: false }).target("cutover");
  await using lock = await holdSwitch(open, state);
  const known = await readSwitch(state, name);
  if (known?.step !== "open") {
    throw new ReplicateError(
      "CUTOVER_STATE",
      known === undefined
        ? `sync ${name} is not cut over`
        : `the ${known.way} of sync ${name} is not complete`,
      {
        hint:
          known === undefined ? "There is nothing to finish." : `Run \`replicate ${known.way}\` again first.`,
      },
    );
  }
  if (isCutOver(known)) return true;
  const held = heldWays(open, lock);
  const reverse = held("reverse");
  try {
    await restoreDeferred(reverse);
    await forgetWay(reverse);
    await dropFence(held("forward"), "target", name);
    await endUndone(state, name, undefined);
    return false;
  } catch (error) {
    throw await lock.explain(error);
  }
}

/** How many sessions are named. */
const MOST_SESSIONS = 5;

/** Who is still connected to the old side, which takes writes again from here on. */
async function nameSessions(forward: SyncContext): Promise<void> {
  await using source = await forward.source("cutover");
  const sessions = await source.rows<{ session: string }>(load("cutover/sessions"));
  if (sessions.length === 0) return;
  const named = sessions.slice(0, MOST_SESSIONS).map(({ session }) => session);
  const more = sessions.length > MOST_SESSIONS ? `, and ${sessions.length - MOST_SESSIONS} more` : "";
  forward.emit({
    type: "warning",
    message: `the source takes writes again, and these are still connected to it: ${named.join("; ")}${more}; --keep-closed keeps it closed`,
  });
}
