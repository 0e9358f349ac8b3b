/** Undoes a switch that is not open yet: the old side takes writes again, and nothing of the attempt is left. */
import type { Side } from "../events.ts";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { failpoint } from "../postgres/failpoint.ts";
import { retry } from "../postgres/retry.ts";
import { load } from "../postgres/sql.ts";
import { asReplicateError, isConnectionFailure } from "../postgres/sqlstate.ts";
import type { SyncContext } from "../state/context.ts";
import { liftFence, readFence, removeFence } from "../fence/fence.ts";
import { endUndone, moveSwitch, readSwitch, reopenWay, type Switch } from "../state/switch.ts";
import { isRightLost } from "../state/switch-lock.ts";
import { heldWays, holdWithoutState } from "./held-ways.ts";
import { clearRetentionPoint } from "./retention-point.ts";
import { detachWay, forgetWay, suspendTriggers } from "../reverse/reverse.ts";
import { turnOf, type OpenWay, type Turn } from "../reverse/ways.ts";

/** How long a server may be away, and how long a table may stay locked. */
const PATIENCE_MS = 60_000;
/** The same where applications do not wait for it. */
const REST_PATIENCE_MS = 20_000;

/**
 * Lets applications write to the old side again, for which nothing of the new one is needed: who opens that one has sealed
 * the fence before, so that only one of us can have his way. Returns false where it is sealed, and only the state on the
 * sync's target can tell. Throws CUTOVER_FENCED when the old side could not be reached.
 */
export async function freeOldSide(open: OpenWay, turn: Turn): Promise<boolean> {
  const active = open(turn.active, { isStoppable: false });
  const found = await unlessFenced(active.signal, async () => {
    await using source = await active.source("cutover undo");
    return await liftFence(source, turn.sync);
  });
  if (found === "sealed") return false;
  tellFree(active, found === "lifted");
  return true;
}

function tellFree(active: SyncContext, isNews = true): void {
  active.emit({ type: "fence", state: "lifted" });
  if (isNews) active.emit({ type: "switch-step", step: "undone: the old side takes writes" });
}

/**
 * Undoes what `known` has begun. Returns false when it is too late, because the new side is open. Can be repeated at any
 * point. Throws CUTOVER_FENCED when the old side could not be reached, and what kept the rest from being undone.
 */
async function undoSwitch(open: OpenWay, known: Switch): Promise<boolean> {
  const sync = open("forward").config.name;
  const turn = turnOf(sync, known.way);
  const active = open(turn.active, { isStoppable: false });
  const reversed = open(turn.reversed, { isStoppable: false });
  const forward = open("forward", { isStoppable: false });

  const isFree = await freeOldSide(open, turn);
  const claim = async (): Promise<boolean> => {
    await using state = await forward.target("cutover undo");
    return await moveSwitch(state, sync, ["preparing", "fencing"], "preparing");
  };
  if (!(isFree ? await patiently(forward.signal, claim) : await unlessFenced(forward.signal, claim)))
    return false;
  if (!isFree) {
    await unlessFenced(active.signal, async () => {
      await using source = await active.source("cutover undo");
      await liftFence(source, sync, { evenSealed: true });
    });
    tellFree(active);
  }
  await failpoint("cutover.undo.lifted");

  await resumeWay(active, known.isRestored);
  await clearRetentionPoint(active);
  const earlier = await earlierSwitch(active, known, sync);
  if (earlier === undefined) await forgetWay(reversed);
  else await detachWay(reversed);
  await failpoint("cutover.undo.forgotten");
  await dropFence(active, "source", sync);
  await using state = await forward.target("cutover undo");
  await endUndone(state, sync, earlier);
  return true;
}

/**
 * Has changes applied to the new side again. What was given back to it for its own writers has to go before that; until
 * then no batch can be applied, whoever follows.
 */
export async function resumeWay(active: SyncContext, isRestored: boolean): Promise<void> {
  if (isRestored) {
    await patiently(active.signal, async () => {
      await using target = await active.target("cutover undo");
      // What was cut off while it restored a constraint may go on for long, and holds the table.
      await target.rows(load("cutover/end-restores"), [active.config.name]);
      await suspendTriggers(active);
    });
  }
  await patiently(active.signal, async () => {
    await using target = await active.target("cutover undo");
    await reopenWay(target, active.config.name);
  });
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
export async function dropFence(context: SyncContext, side: Side, sync: string): Promise<void> {
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

/** Tries again while a server is away, for a while. */
async function patiently<T>(
  signal: AbortSignal,
  work: () => Promise<T>,
  budgetMs = REST_PATIENCE_MS,
): Promise<T> {
  const options = { firstPauseMs: 100, longestPauseMs: 3000, budgetMs, isPassing: isConnectionFailure };
  return await retry(options, signal, work);
}

/** The same, for what applications wait for. Throws CUTOVER_FENCED. */
async function unlessFenced<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  try {
    return await patiently(signal, work, PATIENCE_MS);
  } catch (error) {
    if (isRightLost(error)) throw error;
    const { message } = asReplicateError(error, "undoing the switch");
    throw new ReplicateError("CUTOVER_FENCED", `the switch could not be undone: ${message}`, {
      cause: error,
    });
  }
}

/**
 * Undoes a switch that has failed. Returns what became of it: everything is undone, the old side takes writes and the rest
 * could not be done, or it was too late. Throws CUTOVER_FENCED.
 */
export async function undoFailed(open: OpenWay, turn: Turn): Promise<"undone" | "freed" | "too-late"> {
  const isFree = await freeOldSide(open, turn);
  try {
    const forward = open("forward", { isStoppable: false });
    const known = await patiently(forward.signal, async () => {
      await using state = await forward.target("cutover undo");
      return await readSwitch(state, turn.sync);
    });
    return known !== undefined && (await undoSwitch(open, known)) ? "undone" : "too-late";
  } catch (error) {
    if (isFree && !isRightLost(error)) return "freed";
    throw error;
  }
}

/**
 * Undoes whatever is begun, for the command that says so; with the other server away, what can be done without it. Throws
 * CUTOVER_STATE when there is nothing to undo, or it is too late.
 */
export async function undoBegun(open: OpenWay, state: Connection): Promise<void> {
  const { name } = open("forward").config;
  const known = await readSwitch(state, name);
  if (known === undefined || known.step === "opening" || known.step === "open") {
    throw known === undefined
      ? new ReplicateError("CUTOVER_STATE", `no cutover of sync ${name} was begun`, {
          hint: "There is nothing to undo.",
        })
      : tooLate(name, known.way);
  }
  const turn = turnOf(name, known.way);
  if (await freeOldSide(open, turn)) {
    try {
      await undoSwitch(open, known);
    } catch (error) {
      if (!isConnectionFailure(error)) throw error;
      await assertHeld(open);
      tellRest(open, turn, error);
    }
  } else if (!(await undoSwitch(open, known))) throw tooLate(name, known.way);
}

/** Throws RUNNER_ACTIVE where another process has taken over; not where the server that can tell is away. */
async function assertHeld(open: OpenWay): Promise<void> {
  try {
    await using _ = await open("forward", { isStoppable: false }).target("cutover undo");
  } catch (error) {
    if (isRightLost(error)) throw error;
  }
}

/** The same without the state, which is away with the new side: lets applications write to the old one. Throws CUTOVER_FENCED. */
export async function undoWithoutState(open: OpenWay, turn: Turn, cause: unknown): Promise<void> {
  if (!(await freeOldSide(heldWays(open, holdWithoutState(open)), turn))) {
    throw new ReplicateError(
      "CUTOVER_FENCED",
      `the target cannot be reached, and may have been opened already: ${asReplicateError(cause, "undoing").message}`,
      {
        side: "target",
        cause,
        hint: `Wait for the target and run \`replicate ${turn.kind}\` or its --undo then. If it is gone for good and nothing was written to it, \`replicate drop --source-only\` opens the source.`,
      },
    );
  }
  tellRest(open, turn, cause);
}

/** The old side takes writes; the new one is away. */
function tellRest(open: OpenWay, { kind }: Turn, error: unknown): void {
  const { message } = asReplicateError(error, "undoing the switch");
  open("forward").emit({
    type: "warning",
    message: `what the ${kind} has left on the other side could not be undone: ${message}; \`replicate ${kind} --undo\` does it once that server is back`,
  });
}

function tooLate(sync: string, way: Switch["way"]): ReplicateError {
  return new ReplicateError("CUTOVER_STATE", `the ${way} of sync ${sync} is open already`, {
    hint: `It cannot be undone any more. \`replicate ${way}\` completes it where that is left to do; ${
      way === "cutover" ? "`replicate rollback` goes back" : "`replicate cutover` goes there again"
    } with the writes made since.`,
  });
}
