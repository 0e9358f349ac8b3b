/** The part of a switch in which applications still write to the old side. */
import { asApplication } from "../catalog/search-path.ts";
import { describeTables, tableLabel, tableSql } from "../catalog/table.ts";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { failpoint } from "../postgres/failpoint.ts";
import { asReplicateError } from "../postgres/sqlstate.ts";
import type { SyncContext } from "../state/context.ts";
import { loadKinds } from "../state/deferred.ts";
import { restoreDeferred } from "../state/restore-deferred.ts";
import { moveSwitch } from "../state/switch.ts";
import { loadTables, type SyncTable } from "../state/sync-table.ts";
import { ChangePlans, verifyChanged, verifySync } from "../verify/verify.ts";
import { askReload } from "./ask-reload.ts";
import { moveRetentionPoints, setRetentionPoint, type RetentionPoints } from "./retention-point.ts";
import { createReverse, suspendTriggers } from "../reverse/reverse.ts";
import { FEW_DELTAS, owingReload } from "./pending.ts";
import { awaitCalm, coverTables } from "../fence/raise.ts";
import { notRestored, assertNoDifferences, undoneByOther } from "./blockers.ts";
import { rehearse } from "./rehearse.ts";
import type { Uncompared } from "./time-comparison.ts";
import { tell, timeoutOf, waitWarning, type SwitchRun } from "./switch-run.ts";

/** How long to wait for those who write for long, and for locks on tables. Nobody waits for us meanwhile. */
const LOCK_BUDGET_MS = 5 * 60_000;

/** Rounds in which what has changed is compared before the fence: each is shorter than the one before, down to this. */
const MOST_ROUNDS = 4;
const SHORT_ROUND_MS = 1500;
/** A round that takes more of the time of the one before has as much left over as it began with. */
const ROUND_GAIN = 0.7;

/** All that can be done while applications still write, so that the fence is short. */
export async function prepare(run: SwitchRun, isUp: boolean): Promise<Uncompared> {
  const { open, turn, state, source, target, follower, options, isReversible } = run;
  const active = open(turn.active);
  const { signal } = active;
  tell(active, "catching up");
  if (turn.kind === "rollback" && !isUp) await suspendTriggers(active);
  await follower.reach(FEW_DELTAS, source, target, signal);
  const entries = await loadTables(target, active.config.name);
  // Before the retention point, so that they need not be compared as a whole while fenced if they change no more.
  await follower.reload(source, target, signal);
  const plans = new ChangePlans();
  let points = await setRetentionPoint(active);
  // What has a deferred reload all the same has changed since: this leaves a trace of it behind the retention point.
  await askReload(source, await owingReload(target, active.config.name));
  await failpoint("cutover.retention-point-set");
  if (isReversible) {
    tell(active, "preparing the reverse replication");
    await createReverse(open(turn.reversed), entries);
    await failpoint("cutover.planted");
  }
  if (isUp) return { points, plans };
  // A foreign key of a keyless table that changes on could not be validated before the last reload.
  const isSettled = entries.every((entry) => !entry.isKeyless);
  const { failed } = await restoreDeferred(active, {
    kinds: active.isReplicaRole && isSettled ? [...loadKinds, "foreign-key"] : loadKinds,
  });
  if (failed.length > 0) throw notRestored(failed);
  await analyze(active, target, entries);
  if (options.verify !== false) {
    tell(active, "comparing both sides");
    const { tables } = await verifySync(active);
    assertNoDifferences(
      tables.map(({ table, differencesTotal: total, parked }) => ({ table, total, parked })),
    );
  }
  await follower.reach(FEW_DELTAS, source, target, signal);
  const relids = entries.map(({ sourceRelid }) => sourceRelid);
  const waiting = {
    signal,
    budgetMs: options.lockBudgetMs ?? LOCK_BUDGET_MS,
    onWait: waitWarning(active),
  };
  tell(active, "preparing the fence");
  await coverTables(source, turn.sync, relids, waiting);
  tell(active, "comparing what has changed meanwhile");
  points = await compareMeanwhile(active, source, entries, { points, plans }, MOST_ROUNDS);
  const startedAt = Date.now();
  await awaitCalm(source, relids, waiting);
  if (Date.now() - startedAt > SHORT_ROUND_MS)
    points = await compareMeanwhile(active, source, entries, { points, plans }, 1);
  const timeoutMs = timeoutOf(options);
  const { fenceSeconds } = await rehearse(active, {
    isReversible,
    rate: follower.rate,
    uncompared: { points, plans },
  });
  if (fenceSeconds * 1000 > timeoutMs) {
    throw new ReplicateError(
      "CUTOVER_TIMEOUT",
      `the fence would stand for about ${fenceSeconds.toFixed(1)} s, longer than the ${timeoutMs / 1000} s allowed`,
    );
  }
  if (!(await moveSwitch(state, turn.sync, ["preparing"], "fencing"))) throw undoneByOther(turn.sync);
  await failpoint("cutover.begun");
  return { points, plans };
}

/**
 * Compares what has changed since the points and moves these on, so that little is left for the fence. What differs, or cannot be
 * compared while applications write, is left to it as well. Returns the points.
 */
async function compareMeanwhile(
  active: SyncContext,
  source: Connection,
  entries: readonly SyncTable[],
  { points: first, plans }: Uncompared,
  rounds: number,
): Promise<RetentionPoints> {
  let points = first;
  let lastMs = Infinity;
  for (let round = 0; round < rounds; round += 1) {
    const startedAt = Date.now();
    const { upTo } = await verifyChanged(active, { entries, since: points, plans, isLive: true });
    points = await moveRetentionPoints(active, source, upTo);
    await failpoint("cutover.retention-point-moved");
    const ms = Date.now() - startedAt;
    if (ms < SHORT_ROUND_MS || ms > lastMs * ROUND_GAIN) break;
    lastMs = ms;
  }
  return points;
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
    await target
      .script(asApplication(table, [`analyze ${tableSql(table)}`]).join("; "))
      .catch((error: unknown) => {
        if (target.isBroken) throw error;
        active.emit({
          type: "warning",
          message: `${tableLabel(table)} could not be analyzed: ${asReplicateError(error, "analyze").message}`,
        });
      });
  }
}
