/**
 * Switches the sides of a sync: cutover, from the source to the target, and rollback, back again. A state machine whose
 * state lies on the sync's target (see state/switch.ts). Each step can be repeated, so that the same command carries on
 * after any interruption; until the new side is open, everything can be undone.
 */
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { failpoint } from "../postgres/failpoint.ts";
import { asReplicateError, isConnectionFailure } from "../postgres/sqlstate.ts";
import { liftFence, readFence, tellMoved } from "../fence/fence.ts";
import { migrate } from "../state/migrate.ts";
import { validateDeferred } from "../state/restore-deferred.ts";
import type { SyncContext } from "../state/context.ts";
import { assertConnectionBudget } from "../state/connection-budget.ts";
import { checkPair } from "../state/source-identity.ts";
import {
  beginSwitch, isCutOver, moveSwitch, recordSwitch, readSwitch, type Switch,
} from "../state/switch.ts"; // prettier-ignore
import { loadTables } from "../state/sync-table.ts";
import { prepare } from "./before-fence.ts";
import { awaitSeen } from "./captures.ts";
import { Follower } from "./follower.ts";
import { heldWays, holdSwitch } from "./held-ways.ts";
import { runHook } from "./hook.ts";
import { clearRetentionPoint } from "./retention-point.ts";
import { detachWay } from "../reverse/reverse.ts";
import { assertNoneParked } from "./blockers.ts";
import { assertNotBlocked, rehearse } from "./rehearse.ts";
import { tell, type SwitchOptions, type SwitchReport, type SwitchRun } from "./switch-run.ts";
import { dropFence, freeOldSide, resumeWay, undoBegun, undoFailed, undoWithoutState } from "./undo.ts";
import { turnOf, type OpenWay, type Turn } from "../reverse/ways.ts";
import { whileFenced, type Opened } from "./while-fenced.ts";

/** Connections for all that is done at the same time: the state's, ours, the follower's, a comparison's and its watch. */
const CONNECTIONS = { source: 5, target: 5 };
/**
 * Throws PREFLIGHT_BLOCKED, ROWS_PARKED, VERIFY_DIFFERENT, LOCK_NOT_AVAILABLE, CUTOVER_TIMEOUT and others after everything was
 * undone; HOOK_FAILED when the new side is open and only the hook did not work; CUTOVER_STATE where the sync is in no state
 * for it; RUNNER_ACTIVE while another process switches it; CUTOVER_FENCED when it failed and could not be undone.
 */
export async function switchSides(
  open: OpenWay,
  kind: Switch["way"],
  options: SwitchOptions = {},
): Promise<SwitchReport> {
  const { name } = open("forward").config;
  const turn = turnOf(name, kind);
  if (options.rehearse !== true && options.undo !== true)
    await assertConnectionBudget(open(turn.active), kind, CONNECTIONS);
  const stateOf = async (): Promise<Connection> => await open("forward", { isCut: false }).target("cutover");
  await using state = await stateOf().catch(async (error: unknown) => {
    // A cutover's is on the side that is being moved to, which applications must not have to wait for.
    if (options.undo !== true || kind !== "cutover" || !isConnectionFailure(error)) throw error;
    await undoWithoutState(open, turn, error);
    return undefined;
  });
  if (state === undefined) return report("undone", "source");
  await loadTables(state, name);
  const known = await readSwitch(state, name);
  if (options.rehearse === true) {
    assertLegal(turn, known);
    const { acceptUnreplicated } = options;
    const isReversible = options.reverse !== false;
    const rehearsal = await rehearse(open(turn.active), { isReversible, acceptUnreplicated });
    return { ...report("rehearsed", primaryOf(known)), rehearsal };
  }
  await using lock = await holdSwitch(open, state);
  const held = heldWays(open, lock);
  try {
    if (options.undo === true) {
      await undoBegun(held, state);
      return report("undone", primaryOf(await readSwitch(state, name)));
    }
    return await switchHeld(held, turn, state, options);
  } catch (error) {
    throw await lock.explain(error);
  }
}

function report(result: SwitchReport["result"], primary: SwitchReport["primary"]): SwitchReport {
  const nothing = {
    rehearsal: null,
    fenceSeconds: null,
    rowsCompared: null,
    sequences: null,
    leftInvalid: [],
  };
  return { result, primary, ...nothing };
}

const primaryOf = (found: Switch | undefined): SwitchReport["primary"] =>
  isCutOver(found) ? "target" : "source";

/** The switch itself, by whoever has the right to it; `open` makes sessions that keep it. */
async function switchHeld(
  open: OpenWay,
  turn: Turn,
  state: Connection,
  options: SwitchOptions,
): Promise<SwitchReport> {
  const { kind } = turn;
  // What was read before the lock may be out of date.
  const now = await readSwitch(state, turn.sync);
  assertLegal(turn, now);
  if (now?.way === kind && now.step === "open") {
    const isHookDue = options.onOpen !== undefined && !now.isHooked;
    if (isHookDue) await tellApplication(open(turn.active), state, turn.sync, options);
    const leftInvalid = await validateAfterwards(open(turn.active), kind);
    return { ...report(isHookDue ? "switched" : "nothing-to-do", primaryOf(now)), leftInvalid };
  }
  const opened =
    now?.way === kind && now.step === "opening"
      ? undefined
      : await untilOpen(open, turn, state, now, options);
  const failure = await complete(open, turn, state, options);
  const leftInvalid = await validateAfterwards(open(turn.active), kind);
  if (failure !== undefined) throw failure;
  return { ...report("switched", kind === "cutover" ? "target" : "source"), ...opened, leftInvalid };
}

/**
 * Validates the foreign keys that were restored while nobody could write, which takes as long as it takes to read the
 * tables. What is written meanwhile has to fit them already.
 */
async function validateAfterwards(
  active: SyncContext,
  kind: Switch["way"],
): Promise<SwitchReport["leftInvalid"]> {
  try {
    return await validateDeferred(active);
  } catch (error) {
    if (active.signal.aborted || !isConnectionFailure(error)) throw error;
    active.emit({
      type: "warning",
      message: `the new side is open, but foreign keys of it are NOT VALID for now: ${asReplicateError(error, "validating").message}; \`replicate ${kind}\` goes on with it`,
    });
    return [];
  }
}

/** Throws CUTOVER_STATE where the sync cannot be switched this way. */
function assertLegal({ kind, sync }: Turn, known: Switch | undefined): void {
  const fail = (message: string, hint: string): never => {
    throw new ReplicateError("CUTOVER_STATE", message, { hint });
  };
  if (known !== undefined && known.way !== kind && known.step !== "open") {
    fail(
      `a ${known.way} of sync ${sync} is under way`,
      `Complete it with \`replicate ${known.way}\`${known.step === "opening" ? "" : `, or undo it with \`replicate ${known.way} --undo\``}.`,
    );
  }
  if (kind === "rollback" && known === undefined)
    fail(`sync ${sync} is not cut over`, "A rollback goes back from a cutover.");
  if (kind === "rollback" && known?.way === "cutover" && !known.isReversible) {
    fail(
      `sync ${sync} was cut over with --no-reverse: the old side is out of date`,
      "Make a new sync in the other direction, from the target to the source.",
    );
  }
}

/** Everything up to the moment in which the new side is open. Undoes all of it when anything fails. */
async function untilOpen(
  open: OpenWay,
  turn: Turn,
  state: Connection,
  known: Switch | undefined,
  options: SwitchOptions,
): Promise<Opened> {
  const isReversible = turn.kind === "rollback" || options.reverse !== false;
  const active = open(turn.active);
  const stop = new AbortController();
  const follower = new Follower(open(turn.active, { signal: stop.signal, isCut: false }), stop);
  let isBegun = known !== undefined && known.step !== "open";
  try {
    await using source = await active.source("cutover");
    await using target = await active.target("cutover");
    // The old side may have let go of the sync, or be another database by now.
    await checkPair(source, target, active.config.name);
    const isUp = (await readFence(source, turn.sync))?.isUp === true;
    const { acceptUnreplicated } = options;
    if (!isUp) {
      const rehearsal = await rehearse(active, { isReversible, acceptUnreplicated });
      for (const { subject, message, remedy } of rehearsal.warnings)
        active.emit({
          type: "warning",
          message: [`${subject} ${message}`, ...(remedy === undefined ? [] : [remedy])].join("\n"),
        });
      assertNotBlocked(rehearsal);
    }
    await assertNoneParked(target, active, options);
    await migrate(source);
    await migrate(target);
    // Where the old side was opened without the new one, that one may still have what was given back to it.
    await resumeWay(active, isBegun && !isUp && known?.isRestored === true);
    await beginSwitch(state, turn.sync, turn.kind, isReversible);
    isBegun = true;
    await failpoint("cutover.marked");
    const run: SwitchRun = { open, turn, state, source, target, follower, options, isReversible };
    if (!isUp) await awaitSeen(run);
    return await whileFenced(run, await prepare(run, isUp));
  } catch (error) {
    if (!isBegun) {
      await follower.end();
      throw error;
    }
    // First of all, whatever the other side does, and whoever still works there.
    await freeOldSide(open, turn).catch(() => undefined);
    await follower.end();
    throw await undoAfter(open, turn, error);
  } finally {
    await follower.end();
  }
}

/** Undoes, and returns the error to throw. */
async function undoAfter(open: OpenWay, turn: Turn, error: unknown): Promise<unknown> {
  const failure = asReplicateError(error, turn.kind);
  const outcome = await undoFailed(open, turn);
  if (outcome === "too-late") return failure;
  const [said, hint] =
    outcome === "undone"
      ? ["everything was undone: the old side takes writes", failure.hint]
      : [
          "the old side takes writes",
          `What the attempt has left on the other side is still there: run \`replicate ${turn.kind} --undo\` once both servers are back. ${failure.hint}`,
        ];
  return new ReplicateError(failure.code, `${failure.message} (${said})`, {
    cause: error,
    hint,
    problems: failure.problems,
    ...(failure.sqlstate === undefined ? {} : { sqlstate: failure.sqlstate }),
  });
}

/** What follows the opening. Repeated until it is done. Where the command given fails, the rest is done, and that is returned. */
async function complete(
  open: OpenWay,
  turn: Turn,
  state: Connection,
  options: SwitchOptions,
): Promise<ReplicateError | undefined> {
  const { sync } = turn;
  const active = open(turn.active);
  {
    // The new side was the old one of an earlier switch.
    await using target = await active.target("cutover");
    await liftFence(target, sync, { evenSealed: true });
    await failpoint("cutover.new-side-lifted");
  }
  const known = await readSwitch(state, sync);
  let failure: ReplicateError | undefined;
  if (known?.isHooked !== true) {
    await tellApplication(active, state, sync, options).catch((error: unknown) => {
      if (!(error instanceof ReplicateError) || error.code !== "HOOK_FAILED") throw error;
      failure = error;
    });
  }
  {
    await using source = await active.source("cutover");
    await tellMoved(source, sync);
    await failpoint("cutover.told");
  }
  await clearRetentionPoint(active);
  await detachWay(active);
  await failpoint("cutover.retired");
  await dropFence(active, "target", sync);
  await moveSwitch(state, sync, ["opening"], "open");
  return failure;
}

/** Runs the command that switches the application, if there is one. Throws HOOK_FAILED, ABORTED. */
async function tellApplication(
  active: SyncContext,
  state: Connection,
  sync: string,
  { onOpen }: SwitchOptions,
): Promise<void> {
  if (onOpen === undefined) return;
  // It may lead the application to the new side: not on behalf of who has lost the right to say so.
  await state.guarded("select 1");
  tell(active, "running the command given");
  await runHook(active, onOpen, active.config.target);
  await recordSwitch(state, sync, "is_hooked");
  await failpoint("cutover.hooked");
}
