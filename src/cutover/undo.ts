/** Undoes a switch that is not open yet: the old side takes writes again, and nothing of the attempt is left. */
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { failpoint } from "../postgres/failpoint.ts";
import { load } from "../postgres/sql.ts";
import { asReplicateError, isConnectionFailure } from "../postgres/sqlstate.ts";
import type { SyncContext } from "../state/context.ts";
import { liftFence, readFence, removeFence } from "../state/fence.ts";
import { endUndone, moveSwitch, readSwitch, reopenWay, type Switch } from "../state/switch.ts";
import { clearMark } from "./mark.ts";
import { detachWay, forgetWay, standBy } from "./opposite.ts";
import { turnOf, type OpenWay, type Way } from "./ways.ts";

/** How long a server may be away, and how long a table may stay locked. */
const PATIENCE_MS = 60_000;
/** How long the old side may stay fenced for what has to be done on the new one first. */
const STANDBY_MS = 5000;

/**
 * Undoes what `known` has begun. Returns false when it is too late, because the new side is open. Can be repeated at any
 * point. Throws CUTOVER_FENCED when the old side could not be reached.
 */
export async function undoSwitch(open: OpenWay, known: Switch): Promise<boolean> {
  const sync = open("forward").config.name;
  const turn = turnOf(sync, known.way);
  const active = open(turn.active, { isStoppable: false });
  const opposite = open(turn.opposite, { isStoppable: false });
  const forward = open("forward", { isStoppable: false });

  // Whoever opens the new side at this moment, and we, want the same row: one of us is too late.
  const claimed = await patiently(async () => {
    await using state = await forward.target("cutover undo");
    return await moveSwitch(state, sync, ["preparing", "fencing"], "preparing");
  });
  if (!claimed) return false;
  await patiently(async () => {
    await using target = await active.target("cutover undo");
    await reopenWay(target, active.config.name);
  });
  // What was given back to the new side has to go before writes go on, which are applied there at once.
  const isStandby = !known.isPaid || (await standBySoon(open, turn.active, active));
  await patiently(async () => {
    await using source = await active.source("cutover undo");
    await liftFence(source, sync);
  });
  active.emit({ type: "switch-step", step: "undone: the old side takes writes" });
  await failpoint("cutover.undo.lifted");

  if (!isStandby) await standBy(active);
  await clearMark(active);
  const earlier = await earlierSwitch(active, known, sync);
  if (earlier === undefined) await forgetWay(opposite);
  else await detachWay(opposite);
  await failpoint("cutover.undo.forgotten");
  await dropFence(active, "source", sync);
  await using state = await forward.target("cutover undo");
  await endUndone(state, sync, earlier);
  return true;
}

/**
 * Takes constraints and triggers away from the new side again, if that can be done in a moment: the old side must not
 * stay fenced for it. Returns whether it was.
 */
async function standBySoon(open: OpenWay, way: Way, active: SyncContext): Promise<boolean> {
  try {
    await patiently(async () => {
      await using target = await active.target("cutover undo");
      // What was cut off while it restored a constraint may go on for long, and holds the table.
      await target.rows(load("cutover/end-restores"), [active.config.name]);
      await standBy(open(way, { isStoppable: false, signal: AbortSignal.timeout(STANDBY_MS) }));
    });
    return true;
  } catch (error) {
    const { message } = asReplicateError(error, "taking constraints and triggers away again");
    active.emit({
      type: "warning",
      message: `the new side still has its constraints and triggers while changes are applied: ${message}`,
    });
    return false;
  }
}

/** What the sync was switched to before this switch began. */
async function earlierSwitch(
  active: SyncContext,
  known: Switch,
  sync: string,
): Promise<Switch["way"] | undefined> {
  if (known.way === "rollback") return "cutover";
  // Only after a rollback is the target fenced.
  await using target = await active.target("cutover undo");
  return (await readFence(target, sync))?.isUp === true ? "rollback" : undefined;
}

/** Removes the triggers of a fence that is lifted; where a table stays locked, they stay for now, and do no harm. */
export async function dropFence(
  context: SyncContext,
  side: "source" | "target",
  sync: string,
): Promise<void> {
  await using connection = await context[side]("cutover");
  try {
    await removeFence(connection, sync, { signal: context.signal, budgetMs: PATIENCE_MS });
  } catch (error) {
    if (!(error instanceof ReplicateError) || error.code !== "LOCK_NOT_AVAILABLE") throw error;
    context.emit({
      type: "warning",
      message: `the fence is lifted, but some of its triggers stay for now, and do nothing: ${error.message}`,
    });
  }
}

/** Tries again while a server is away, for a minute. Throws CUTOVER_FENCED then, and at once for any other failure. */
export async function patiently<T>(work: () => Promise<T>): Promise<T> {
  const deadline = Date.now() + PATIENCE_MS;
  for (let pauseMs = 100; ; pauseMs = Math.min(pauseMs * 2, 3000)) {
    try {
      return await work();
    } catch (error) {
      if (error instanceof ReplicateError && error.code === "CUTOVER_FENCED") throw error;
      if (!isConnectionFailure(error) || Date.now() > deadline) {
        const { message } = asReplicateError(error, "undoing the switch");
        throw new ReplicateError("CUTOVER_FENCED", `the switch could not be undone: ${message}`, {
          cause: error,
        });
      }
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  }
}

/** Undoes whatever is begun, for the command that says so. */
export async function undoBegun(open: OpenWay, state: Connection): Promise<boolean> {
  const { name } = open("forward").config;
  const known = await readSwitch(state, name);
  if (known !== undefined && (known.step === "preparing" || known.step === "fencing"))
    return await undoSwitch(open, known);
  throw new ReplicateError(
    "CUTOVER_STATE",
    known === undefined
      ? `no cutover of sync ${name} was begun`
      : `the ${known.way} of sync ${name} is open already`,
    {
      hint:
        known === undefined
          ? "There is nothing to undo."
          : "It cannot be undone any more; `replicate rollback` goes back with the writes made since.",
    },
  );
}
