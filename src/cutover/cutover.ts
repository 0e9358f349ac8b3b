/**
 * Switches the sides of a sync: cutover, from the source to the target, and rollback, back again. A state machine whose
 * state lies on the sync's target (see state/switch.ts). Each step can be repeated, so that the same command carries on
 * after any interruption; until the new side is open, everything can be undone.
 */
import { loadKinds, payOwed, type LeftInvalid } from "../state/owed.ts";
import { describeTables, tableLabel, tableSql } from "../catalog/table.ts";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { failpoint } from "../postgres/failpoint.ts";
import { asReplicateError } from "../postgres/sqlstate.ts";
import type { SyncContext } from "../state/context.ts";
import { findGaps, liftFence, raiseFence, readFence } from "../state/fence.ts";
import { countParked } from "../state/parked.ts";
import { assertRoom } from "../state/room.ts";
import { migrate } from "../state/migrate.ts";
import {
  beginSwitch, closeWay, isCutOver, lockSwitch, moveSwitch, noteSwitch, readSwitch, reopenWay, type Switch,
} from "../state/switch.ts"; // prettier-ignore
import { loadTables, type SyncTable } from "../state/sync-table.ts";
import { verifyChanged, verifySync } from "../verify/verify.ts";
import { Follower } from "./follower.ts";
import { runHook } from "./hook.ts";
import { clearMark, setMark } from "./mark.ts";
import { detachWay, placeOpposite, plantOpposite, standBy } from "./opposite.ts";
import { askReload } from "./ask-reload.ts";
import { countPending, owingReload } from "./pending.ts";
import { refuseBlocked, rehearse, type Rehearsal } from "./rehearse.ts";
import { carrySequences, type SequencesReport } from "../sequences/carry.ts";
import { dropFence, patiently, undoBegun, undoSwitch } from "./undo.ts";
import { turnOf, type OpenWay, type Turn } from "./ways.ts";

export interface SwitchOptions {
  /** Only predict how long the fence would stand, and say what would stop the switch. */
  readonly rehearse?: boolean;
  /** Undo a switch that was begun and is not open yet. */
  readonly undo?: boolean;
  /** Milliseconds for which applications may be kept from writing; then everything is undone. Default 60,000. */
  readonly timeoutMs?: number;
  /** Milliseconds for which to try to lock all tables at once. Nobody waits for longer than a moment meanwhile. Default 5 minutes. */
  readonly lockBudgetMs?: number;
  /** Values that the new side's sequences leave free. Default 1000. */
  readonly margin?: number;
  /** Shell command that is run once the new side is open, see `hookEnvironment`. */
  readonly onOpen?: string;
  /** Keep the old side current afterwards, for a rollback. Default true. Cutover only. */
  readonly reverse?: boolean;
  /** Go on although rows are parked: the new side lacks them. Default false. */
  readonly acceptParked?: boolean;
  /** Compare both sides as a whole before the fence. Default true; what changes since is compared in any case. */
  readonly verify?: boolean;
}

export interface SwitchReport {
  readonly result: "rehearsed" | "switched" | "undone" | "nothing-to-do" | "finished";
  /** The side that applications write to now, as it was named when the sync was made. */
  readonly primary: "source" | "target";
  readonly rehearsal: Rehearsal | null;
  /** Seconds from the fence to the opening; null unless this call did both. */
  readonly fenceSeconds: number | null;
  /** Rows that were compared while fenced. */
  readonly rowsCompared: number | null;
  readonly sequences: SequencesReport | null;
  /** Constraints of the new side that are NOT VALID, because rows break them. */
  readonly leftInvalid: readonly LeftInvalid[];
}

/** Connections for all that is done at the same time: the state's, ours, the follower's, a comparison's and its watch. */
const ROOM = { source: 5, target: 5 };
const TIMEOUT_MS = 60_000;
const LOCK_BUDGET_MS = 5 * 60_000;
const MARGIN = 1000;
/** Deltas that may be pending when the fence is raised. */
const FEW_DELTAS = 2000;

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
  if (options.rehearse !== true && options.undo !== true) await assertRoom(open(turn.active), kind, ROOM);
  await using state = await open("forward", { isCut: false }).target("cutover");
  await loadTables(state, name);
  const known = await readSwitch(state, name);
  const report = (result: SwitchReport["result"], primary: SwitchReport["primary"]): SwitchReport => ({
    result, primary, rehearsal: null, fenceSeconds: null, rowsCompared: null, sequences: null, leftInvalid: [],
  }); // prettier-ignore
  const primary = (found: Switch | undefined): SwitchReport["primary"] =>
    isCutOver(found) ? "target" : "source";
  if (options.rehearse === true) {
    assertLegal(turn, known);
    const rehearsal = await rehearse(open(turn.active), { isReversible: options.reverse !== false });
    return { ...report("rehearsed", primary(known)), rehearsal };
  }
  if (!(await lockSwitch(state, name))) {
    throw new ReplicateError("RUNNER_ACTIVE", `another process is switching sync ${name}`, {
      hint: "Look at `replicate status`, and wait for it to end.",
    });
  }
  if (options.undo === true) {
    if (!(await undoBegun(open, state))) throw tooLate(name);
    return report("undone", primary(await readSwitch(state, name)));
  }
  // What was read before the lock may be out of date.
  const now = await readSwitch(state, name);
  assertLegal(turn, now);
  if (now?.way === kind && now.step === "open") return report("nothing-to-do", primary(now));
  const opened =
    now?.way === kind && now.step === "opening"
      ? undefined
      : await untilOpen(open, turn, state, now, options);
  await complete(open, turn, state, options);
  return { ...report("switched", kind === "cutover" ? "target" : "source"), ...opened };
}

/** Throws CUTOVER_STATE where the sync cannot be switched this way. */
function assertLegal({ kind, sync }: Turn, known: Switch | undefined): void {
  const refuse = (message: string, hint: string): never => {
    throw new ReplicateError("CUTOVER_STATE", message, { hint });
  };
  if (known !== undefined && known.way !== kind && known.step !== "open") {
    refuse(
      `a ${known.way} of sync ${sync} is under way`,
      `Complete it with \`replicate ${known.way}\`${known.step === "opening" ? "" : `, or undo it with \`replicate ${known.way} --undo\``}.`,
    );
  }
  if (kind === "rollback" && known === undefined)
    refuse(`sync ${sync} is not cut over`, "A rollback goes back from a cutover.");
  if (kind === "rollback" && known?.way === "cutover" && !known.isReversible) {
    refuse(
      `sync ${sync} was cut over with --no-reverse: the old side is out of date`,
      "Make a new sync in the other direction, from the target to the source.",
    );
  }
}

function tooLate(sync: string): ReplicateError {
  return new ReplicateError("CUTOVER_STATE", `the new side of sync ${sync} is open already`, {
    hint: "Run the same command again to complete it; `replicate rollback` goes back with the writes made since.",
  });
}

type Opened = Pick<SwitchReport, "fenceSeconds" | "rowsCompared" | "sequences" | "leftInvalid">;

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
    const isUp = (await readFence(source, turn.sync))?.isUp === true;
    if (!isUp) refuseBlocked(await rehearse(active, { isReversible }));
    await refuseParked(target, active, options);
    await migrate(source);
    await migrate(target);
    await reopenWay(target, active.config.name);
    await beginSwitch(state, turn.sync, turn.kind, isReversible);
    isBegun = true;
    await failpoint("cutover.marked");
    const run: Run = { open, turn, state, source, target, follower, options, isReversible };
    const mark = await prepare(run, isUp);
    const opened = await whileFenced(run, mark);
    return opened;
  } catch (error) {
    await follower.end();
    if (!isBegun) throw error;
    throw await undoAfter(open, turn, error);
  } finally {
    await follower.end();
  }
}

/** Undoes, and returns the error to throw. */
async function undoAfter(open: OpenWay, turn: Turn, error: unknown): Promise<unknown> {
  const failure = asReplicateError(error, turn.kind);
  const isUndone = await patiently(async () => {
    await using state = await open("forward", { isStoppable: false }).target("cutover undo");
    const known = await readSwitch(state, turn.sync);
    return known !== undefined && (await undoSwitch(open, known));
  });
  if (!isUndone) return failure;
  return new ReplicateError(
    failure.code,
    `${failure.message} (everything was undone: the old side takes writes)`,
    {
      cause: error,
      hint: failure.hint,
      problems: failure.problems,
      ...(failure.sqlstate === undefined ? {} : { sqlstate: failure.sqlstate }),
    },
  );
}

interface Run {
  readonly open: OpenWay;
  readonly turn: Turn;
  readonly state: Connection;
  /** Of the active way: the old side, and the new one. */
  readonly source: Connection;
  readonly target: Connection;
  readonly follower: Follower;
  readonly options: SwitchOptions;
  readonly isReversible: boolean;
}

const tell = (context: SyncContext, step: string): void => context.emit({ type: "switch-step", step });

/** All that can be done while applications still write, so that the fence is short. Returns the mark. */
async function prepare(run: Run, isUp: boolean): Promise<string> {
  const { open, turn, state, source, target, follower, options, isReversible } = run;
  const active = open(turn.active);
  const { signal } = active;
  tell(active, "catching up");
  if (turn.kind === "rollback" && !isUp) await standBy(active);
  await follower.reach(FEW_DELTAS, source, target, signal);
  const entries = await loadTables(target, active.config.name);
  // Before the mark, so that they need not be compared as a whole while fenced if they change no more.
  await follower.reload(source, target, signal);
  const mark = await setMark(active);
  // What owes a reload all the same has changed since: this leaves a trace of it behind the mark.
  await askReload(source, await owingReload(target, active.config.name));
  await failpoint("cutover.mark-set");
  if (isReversible) {
    tell(active, "preparing the way back");
    await plantOpposite(open(turn.opposite), entries);
    await failpoint("cutover.planted");
  }
  if (isUp) return mark;
  // A foreign key of a keyless table that changes on could not be validated before the last reload.
  const isSettled = entries.every((entry) => !entry.isKeyless);
  const { failed } = await payOwed(active, {
    kinds: active.isReplicaRole && isSettled ? [...loadKinds, "foreign-key"] : loadKinds,
  });
  if (failed.length > 0) throw notRestored(failed);
  await analyze(active, target, entries);
  if (options.verify !== false) {
    tell(active, "comparing both sides");
    const { tables } = await verifySync(active);
    refuseDifferent(tables.map(({ table, differencesTotal: total, parked }) => ({ table, total, parked })));
  }
  await follower.reach(FEW_DELTAS, source, target, signal);
  const timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
  const { fenceSeconds } = await rehearse(active, { isReversible, rate: follower.rate });
  if (fenceSeconds * 1000 > timeoutMs) {
    throw new ReplicateError(
      "CUTOVER_TIMEOUT",
      `the fence would stand for about ${fenceSeconds.toFixed(1)} s, longer than the ${timeoutMs / 1000} s allowed`,
    );
  }
  if (!(await moveSwitch(state, turn.sync, ["preparing"], "fencing"))) throw undoneByOther(turn.sync);
  await failpoint("cutover.begun");
  return mark;
}

/** Statistics for tables that have none yet: the new side plans its first queries with them. */
async function analyze(
  active: SyncContext,
  target: Connection,
  entries: readonly SyncTable[],
): Promise<void> {
  const relids = entries.map(({ targetRelid }) => targetRelid);
  const stale = await target.rows<{ oid: number }>(
    `select c.oid::bigint::float8 as oid
     from pg_catalog.pg_class c left join pg_catalog.pg_stat_all_tables s on s.relid = c.oid
     where c.oid = any ($1::oid[])
       and (c.relkind = 'p' or coalesce(s.last_analyze, s.last_autoanalyze) is null
            or s.n_mod_since_analyze > 0.1 * s.n_live_tup)`,
    [relids],
  );
  for (const table of await describeTables(
    target,
    stale.map(({ oid }) => oid),
  )) {
    await target.script(`analyze ${tableSql(table)}`).catch((error: unknown) => {
      if (target.isBroken) throw error;
      active.emit({
        type: "warning",
        message: `${tableLabel(table)} could not be analyzed: ${asReplicateError(error, "analyze").message}`,
      });
    });
  }
}

/** From the fence to the opening. */
async function whileFenced(run: Run, mark: string): Promise<Opened> {
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
  const timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
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

/** What follows the opening. Repeated until it is done. */
async function complete(open: OpenWay, turn: Turn, state: Connection, options: SwitchOptions): Promise<void> {
  const { sync } = turn;
  const active = open(turn.active);
  {
    // The new side was the old one of an earlier switch.
    await using target = await active.target("cutover");
    await liftFence(target, sync);
    await failpoint("cutover.new-side-lifted");
  }
  const known = await readSwitch(state, sync);
  if (options.onOpen !== undefined && known?.isHooked !== true) {
    tell(active, "running the command given");
    await runHook(active, options.onOpen, active.config.target);
    await noteSwitch(state, sync, "is_hooked");
    await failpoint("cutover.hooked");
  }
  await clearMark(active);
  await detachWay(active);
  await failpoint("cutover.retired");
  await dropFence(active, "target", sync);
  await moveSwitch(state, sync, ["opening"], "open");
}

/** Rows that the new side refuses would be missing there. */
async function refuseParked(
  target: Connection,
  { config }: SyncContext,
  { acceptParked = false }: SwitchOptions,
): Promise<void> {
  if (acceptParked) return;
  const rows = [...(await countParked(target, config.name)).values()].reduce((sum, count) => sum + count, 0);
  if (rows === 0) return;
  throw new ReplicateError(
    "ROWS_PARKED",
    `the new side has refused ${rows} ${rows === 1 ? "row" : "rows"}, which it would lack`,
  );
}

/** Parked rows have been accepted by now. */
function refuseDifferent(
  compared: readonly { readonly table: string; readonly total: number; readonly parked: number }[],
): void {
  const tables = compared
    .map(({ table, total, parked }) => ({ table, total: total - parked }))
    .filter(({ total }) => total > 0);
  if (tables.length === 0) return;
  throw new ReplicateError("VERIFY_DIFFERENT", "the two sides are not equal", {
    problems: tables.map(({ table, total }) => ({
      subject: table,
      message: `${total} ${total === 1 ? "row differs" : "rows differ"}`,
      remedy: `replicate verify --tables ${table} --repair`,
    })),
  });
}

function notRestored(problems: ReplicateError["problems"]): ReplicateError {
  return new ReplicateError(
    "STATEMENT_FAILED",
    "constraints or triggers of the new side could not be restored",
    {
      problems,
    },
  );
}

function undoneByOther(sync: string): ReplicateError {
  return new ReplicateError("CUTOVER_STATE", `the switch of sync ${sync} was undone by another process`, {
    hint: "Look at `replicate status`.",
  });
}
