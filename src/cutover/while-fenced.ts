/** The part of a switch in which nobody can write: from the fence to the opening of the new side. */
import { ReplicateError } from "../errors.ts";
import { failpoint } from "../postgres/failpoint.ts";
import { carrySequences } from "../sequences/carry.ts";
import { findGaps, raiseFence } from "../state/fence.ts";
import { refuseNewcomers } from "../state/newcomers.ts";
import { payOwed } from "../state/pay-owed.ts";
import { closeWay, moveSwitch, noteSwitch } from "../state/switch.ts";
import { loadTables } from "../state/sync-table.ts";
import { verifyChanged } from "../verify/verify.ts";
import type { SwitchReport } from "./cutover.ts";
import { placeOpposite } from "./opposite.ts";
import { countPending } from "./pending.ts";
import { notRestored, refuseDifferent, refuseParked, undoneByOther } from "./refusals.ts";
import { tell, timeoutOf, type SwitchRun } from "./switch-run.ts";

const LOCK_BUDGET_MS = 5 * 60_000;
const MARGIN = 1000;

export type Opened = Pick<SwitchReport, "fenceSeconds" | "rowsCompared" | "sequences" | "leftInvalid">;

/** From the fence to the opening. */
export async function whileFenced(run: SwitchRun, mark: string): Promise<Opened> {
  const { open, turn, state, source, target, follower, options, isReversible } = run;
  const { sync } = turn;
  const unfenced = open(turn.active);
  const entries = await loadTables(target, unfenced.config.name);
  const relids = entries.map(({ sourceRelid }) => sourceRelid);
  await moveSwitch(state, sync, ["preparing"], "fencing");
  tell(unfenced, "fencing the old side");
  await raiseFence(source, sync, relids, {
    signal: unfenced.signal,
    budgetMs: options.lockBudgetMs ?? LOCK_BUDGET_MS,
    onWait: (attempt) =>
      unfenced.emit({
        type: "warning",
        message: `not all tables could be locked at once; everybody passes, then it is tried again (attempt ${attempt})`,
      }),
  });
  const fencedAt = Date.now();
  const deadline = new AbortController();
  const timeoutMs = timeoutOf(options);
  const timer = setTimeout(() => deadline.abort(), timeoutMs);
  try {
    await failpoint("cutover.fenced");
    await noteSwitch(state, sync, "fenced");
    const active = open(turn.active, { signal: deadline.signal });
    tell(active, "draining");
    await follower.reach(0, source, target, active.signal);
    await failpoint("cutover.drained");
    await refuseParked(target, active, options);
    tell(active, "comparing what has changed");
    const [compared] = await Promise.all([verifyChanged(active, { entries, mark }), follower.end()]);
    refuseDifferent(compared.tables);
    await failpoint("cutover.verified");
    const sequences = await carrySequences(active, { margin: options.margin ?? MARGIN });
    await failpoint("cutover.carried");
    tell(active, "restoring constraints and triggers");
    await noteSwitch(state, sync, "is_paid");
    const paid = await payOwed(active);
    if (paid.failed.length > 0) throw notRestored(paid.failed);
    await failpoint("cutover.paid");
    if (isReversible) await placeOpposite(open(turn.opposite, { signal: deadline.signal }));
    await failpoint("cutover.placed");
    const gaps = await findGaps(source, sync, relids);
    if (gaps.length > 0) {
      throw new ReplicateError("CAPTURE_BROKEN", `the fence does not cover ${gaps.join(", ")}`, {
        hint: "Somebody has changed tables or partitions meanwhile. Run the command again.",
      });
    }
    // Also what was created since the rehearsal. Later ones are written by nobody who goes on with the old side's tables.
    if (options.acceptUnreplicated !== true) await refuseNewcomers(active.config, source, target);
    const pending = await countPending(source, target, active.config.name);
    if (pending > 0) {
      throw new ReplicateError("CAPTURE_BROKEN", `${pending} changes came although the old side is fenced`, {
        hint: "Somebody has disabled the fence, or asked for rows to be read again. Run the command again.",
      });
    }
    if (deadline.signal.aborted || unfenced.signal.aborted) throw new ReplicateError("ABORTED", "stopped");
    clearTimeout(timer);
    // A runner that has not noticed the switch yet must not bring what is old to the new side.
    await closeWay(target, unfenced.config.name);
    await failpoint("cutover.closed");
    if (!(await moveSwitch(state, sync, ["fencing"], "opening"))) throw undoneByOther(sync);
    const fenceSeconds = (Date.now() - fencedAt) / 1000;
    tell(unfenced, `open: the fence stood for ${fenceSeconds.toFixed(2)} s`);
    await failpoint("cutover.opened");
    return { fenceSeconds, rowsCompared: compared.rows, sequences, leftInvalid: paid.leftInvalid };
  } catch (error) {
    if (!deadline.signal.aborted) throw error;
    const message = `the fence stood for ${timeoutMs / 1000} s, as long as it may`;
    throw new ReplicateError("CUTOVER_TIMEOUT", message, { cause: error });
  } finally {
    clearTimeout(timer);
  }
}
