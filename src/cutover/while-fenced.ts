/** The part of a switch in which nobody can write: from the fence to the opening of the new side. */
import { ReplicateError } from "../errors.ts";
import { failpoint } from "../postgres/failpoint.ts";
import { carrySequences } from "../sequences/carry.ts";
import { sealFence } from "../fence/fence.ts";
import { assertNoNewcomers } from "../state/newcomers.ts";
import { restoreDeferred } from "../state/restore-deferred.ts";
import { closeWay, moveSwitch, recordSwitch } from "../state/switch.ts";
import { loadTables } from "../state/sync-table.ts";
import { ChangeComparison } from "../verify/verify.ts";
import { positionReverse } from "../reverse/reverse.ts";
import { assertSeen } from "./captures.ts";
import { countPending } from "./pending.ts";
import { findGaps, raiseFence } from "../fence/raise.ts";
import { notRestored, assertNoDifferences, assertNoneParked, undoneByOther } from "./blockers.ts";
import type { Uncompared } from "./time-comparison.ts";
import { tell, timeoutOf, waitWarning, type SwitchReport, type SwitchRun } from "./switch-run.ts";

const MARGIN = 1000;

export type Opened = Pick<SwitchReport, "fenceSeconds" | "rowsCompared" | "sequences" | "leftInvalid">;

/** From the fence to the opening. Throws CUTOVER_TIMEOUT when it takes too long, whatever the new side does meanwhile. */
export async function whileFenced(run: SwitchRun, uncompared: Uncompared): Promise<Opened> {
  const { open, turn, state, source, target, options } = run;
  const unfenced = open(turn.active);
  await moveSwitch(state, turn.sync, ["preparing"], "fencing");
  tell(unfenced, "fencing the old side");
  unfenced.emit({ type: "fence", state: "raising" });
  const fencedAt = Date.now();
  const deadline = new AbortController();
  const timeoutMs = timeoutOf(options);
  // A server that says nothing any more must not be waited for. The old side's session is needed no longer either.
  const stop = new AbortController();
  const stopped = new Promise<never>((_, reject) => {
    stop.signal.addEventListener("abort", () => {
      // The state's stays: it tells others that the switch is at work.
      for (const session of [target, source]) session.destroy();
      reject(new ReplicateError("ABORTED", "stopped on request"));
    });
  });
  const onAbort = (): void => stop.abort();
  unfenced.signal.addEventListener("abort", onAbort);
  const timer = setTimeout(() => {
    deadline.abort();
    stop.abort();
  }, timeoutMs);
  const forget = (): void => {
    clearTimeout(timer);
    unfenced.signal.removeEventListener("abort", onAbort);
  };
  try {
    const work = untilSealed(run, uncompared, deadline.signal);
    work.catch(() => undefined);
    const { rows, sequences, leftInvalid } = await Promise.race([work, stopped]);
    forget();
    // Sealed: from here on it is either opened, or it is known on the sync's target that it was not.
    if (!(await moveSwitch(state, turn.sync, ["fencing"], "opening"))) throw undoneByOther(turn.sync);
    const fenceSeconds = (Date.now() - fencedAt) / 1000;
    unfenced.emit({ type: "fence", state: "open" });
    tell(unfenced, `open: the fence stood for ${fenceSeconds.toFixed(2)} s`);
    await failpoint("cutover.opened");
    return { fenceSeconds, rowsCompared: rows, sequences, leftInvalid };
  } catch (error) {
    if (!deadline.signal.aborted) throw error;
    const message = `the fence stood for ${timeoutMs / 1000} s, as long as it may`;
    throw new ReplicateError("CUTOVER_TIMEOUT", message, { cause: error });
  } finally {
    forget();
  }
}

/** Everything until nothing but the opening is left to do. */
async function untilSealed(
  run: SwitchRun,
  { points, plans }: Uncompared,
  deadline: AbortSignal,
): Promise<Pick<Opened, "sequences" | "leftInvalid"> & { readonly rows: number }> {
  const { open, turn, state, source, target, follower, options, isReversible } = run;
  const { sync } = turn;
  const active = open(turn.active, { signal: deadline });
  const { name } = active.config;
  await using comparison = new ChangeComparison(active);
  const entries = await loadTables(target, name);
  // Where this fails, it fails again when it is needed.
  comparison.open(entries.length).catch(() => undefined);
  const relids = entries.map(({ sourceRelid }) => sourceRelid);
  await raiseFence(source, sync, relids, { signal: active.signal, onWait: waitWarning(active) });
  await failpoint("cutover.fenced");
  await recordSwitch(state, sync, "fenced");
  tell(active, "draining");
  await follower.reach(0, source, target, active.signal);
  await failpoint("cutover.drained");
  await assertNoneParked(target, active, options);
  tell(active, "comparing what has changed");
  const [compared] = await Promise.all([
    comparison.run({ entries, since: points, plans }),
    assertSeen(source, target, name),
    follower.end(),
  ]);
  assertNoDifferences(compared.tables);
  const closing = comparison[Symbol.asyncDispose]();
  await failpoint("cutover.verified");
  const sequences = await carrySequences(active, { margin: options.margin ?? MARGIN });
  await failpoint("cutover.carried");
  // Nobody must apply anything to tables whose triggers act again; nor bring what is old to the new side.
  await closeWay(target, name);
  await failpoint("cutover.closed");
  tell(active, "restoring constraints and triggers");
  await recordSwitch(state, sync, "is_restored");
  const restored = await restoreDeferred(active, { isHurried: true });
  if (restored.failed.length > 0) throw notRestored(restored.failed);
  await failpoint("cutover.restored");
  // What was attached, or captured again, since the first look: no row may have come past the captures.
  const unseen = assertSeen(source, target, name);
  unseen.catch(() => undefined);
  if (isReversible) await positionReverse(open(turn.reversed, { signal: deadline }));
  await unseen;
  await failpoint("cutover.placed");
  const gaps = await findGaps(source, sync, relids);
  if (gaps.length > 0) {
    throw new ReplicateError("CAPTURE_BROKEN", `the fence does not cover ${gaps.join(", ")}`, {
      hint: "Somebody has changed tables or partitions meanwhile. Run the command again.",
    });
  }
  // Also what was created since the rehearsal. Later ones are written by nobody who goes on with the old side's tables.
  if (options.acceptUnreplicated !== true) await assertNoNewcomers(active.config, source, target, relids);
  const pending = await countPending(source, target, name);
  if (pending > 0) {
    throw new ReplicateError("CAPTURE_BROKEN", `${pending} changes came although the old side is fenced`, {
      hint: "Somebody has disabled the fence, or asked for rows to be read again. Run the command again.",
    });
  }
  if (active.signal.aborted) throw new ReplicateError("ABORTED", "stopped");
  // Whoever lifts the fence from now on has to know that the new side is not open.
  await closing;
  if (!(await sealFence(source, sync))) throw undoneByOther(sync);
  await failpoint("cutover.sealed");
  return { rows: compared.rows, sequences, leftInvalid: restored.leftInvalid };
}
