/** What the workers of a run do, over and over, until the ledger has nothing left for them. */
import {
  isConnectionFailure,
  isRetryableConflict,
  QUERY_CANCELED,
  sqlstateOf,
} from "../postgres/sqlstate.ts";
import { isSameMapping } from "../config/mapping.ts";
import { failpoint } from "../postgres/failpoint.ts";
import { sleep, throwIfAborted } from "../postgres/sleep.ts";
import { literal } from "../postgres/sql.ts";
import {
  isOvertaken,
  loadKinds,
  RestoreError,
  restoreFailure,
  restoreNext,
  type DeferredFilter,
} from "../state/deferred.ts";
import type { DeferredKind } from "../catalog/definitions.ts";
import type { Connection } from "../postgres/connect.ts";
import type { TableState } from "../state/sync-table.ts";
import { emitParked, loadPart, PartGivenBack, PlanOutdated, type Part } from "./copy-part.ts";
import { smallBytes, storages } from "./plan.ts";
import { moveOnSql, partDoneSql, prepareTable, type Copied } from "./prepare.ts";
import { avoid, columnsIn, describeAgain, type Build, type CopyRun, type CopyTable } from "./run.ts";
import { withSessions, type Sessions } from "./sessions.ts";

const idleMs = 200;
/** How long a worker goes on with small tables before it looks for parts again. */
const lookMs = 5000;

/**
 * Prepares tables and copies parts until no selected table has any left, here or in another process. With `onOpen`, which
 * says that it has its sessions, the run cannot do without this worker: it waits for connections; others then throw
 * TOO_MANY_CONNECTIONS.
 */
export async function copyWorker(run: CopyRun, onOpen?: () => void): Promise<void> {
  const isNeeded = onOpen !== undefined;
  await withSessions(run, "copy", { isNeeded }, async (sessions, onSuccess) => {
    await sessions.both();
    onOpen?.();
    // Tables that this worker may have finished: moved on with the next look at the ledger.
    let touched: readonly number[] = [...run.tables.keys()];
    // Small tables come one after the other, without a look for parts that others may have added in between.
    let looksAgainAt = 0;
    for (;;) {
      throwIfAborted(run.signal);
      // Large tables first; the small ones, each a transaction of its own, fill the gaps at the end.
      if (await prepareNext(run, sessions, smallBytes)) {
        onSuccess();
        continue;
      }
      if (Date.now() >= looksAgainAt) {
        const captureId = await copyNext(run, sessions, touched);
        onSuccess();
        touched = captureId === null ? [] : [captureId];
        if (captureId !== null) continue;
        looksAgainAt = Date.now() + lookMs;
      }
      if (await prepareNext(run, sessions, 0)) {
        onSuccess();
        continue;
      }
      if (await isAllIn(run, await sessions.target(), ["loaded", "copied", "following"])) return;
      looksAgainAt = 0;
      await sleep(idleMs, run.signal);
    }
  });
}

/** Prepares the largest table that nobody has begun. Returns false when there is none of that size. */
async function prepareNext(run: CopyRun, sessions: Sessions, leastBytes: number): Promise<boolean> {
  const now = Date.now();
  const index = run.unprepared.findIndex(
    ({ captureId }) =>
      (run.tables.get(captureId)?.bytes ?? 0) >= leastBytes &&
      (run.avoided.get(captureId)?.until ?? 0) <= now,
  );
  const [next] = index < 0 ? [] : run.unprepared.splice(index, 1);
  if (next === undefined) return false;
  run.preparing.add(next.captureId);
  try {
    emitCopied(run, (await prepareTable(run, sessions, next.captureId, next.mode)) ?? []);
  } catch (error) {
    // Until the table is in the ledger nobody else will think of it.
    run.unprepared.unshift(next);
    if (error instanceof PartGivenBack) {
      avoid(run, next.captureId, error);
    } else if (error instanceof PlanOutdated) {
      await describeAnew(run, sessions, next.captureId);
    } else {
      throw error;
    }
  } finally {
    run.preparing.delete(next.captureId);
  }
  return true;
}

/** Copies one part of the ledger. Returns its capture id; null when there is none to take now. */
async function copyNext(
  run: CopyRun,
  sessions: Sessions,
  touched: readonly number[],
): Promise<number | null> {
  const target = await sessions.target();
  const part = await takePart(run, target, touched);
  if (part === undefined) return null;
  try {
    await failpoint("copy.part.taken");
    const table = run.tables.get(part.captureId) as CopyTable;
    if (columnsIn(table.fingerprint) !== columnsIn(part.fingerprint)) {
      throw new PlanOutdated("its columns changed");
    }
    if (!isSameMapping(table.entry.mapping, part.mapping ?? null))
      throw new PlanOutdated("it is mapped otherwise now");
    const source = await sessions.source();
    const loaded = await loadPart(run, source, target, table, part, async (result) => {
      await target.script(`${partDoneSql(run.sync, part.captureId, part.number, result)}; commit`);
    });
    run.avoided.delete(part.captureId);
    emitParked(run, loaded);
    await failpoint("copy.part.committed");
  } catch (error) {
    if (!target.isBroken) await target.script("rollback").catch(() => target.destroy());
    if (error instanceof PartGivenBack) avoid(run, part.captureId, error);
    else if (error instanceof PlanOutdated) await settleOutdated(run, sessions, part, error.message);
    else throw error;
  }
  return part.captureId;
}

/** Takes the largest free part, in a transaction that stays open, after moving tables on that were touched before. */
async function takePart(
  run: CopyRun,
  target: Connection,
  touched: readonly number[],
): Promise<Part | undefined> {
  const now = Date.now();
  const avoided = [...run.avoided].filter(([, { until }]) => until > now).map(([captureId]) => captureId);
  const ids = [...run.tables.keys()].filter((captureId) => !avoided.includes(captureId));
  const results = await target.script(
    `${touched.length === 0 ? "" : `begin; ${moveOnSql(run.sync, touched).join("; ")}; commit;`}
     begin;
     select p.capture_id as "captureId", p.number, p.source_relid::bigint::float8 as "sourceRelid",
            p.target_relid::bigint::float8 as "targetRelid", p.split, p.low, p.high, p.bytes::float8 as "bytes",
            t.source_file::jsonb ->> p.source_relid::text as "file", t.fingerprint,
            t.mapping as "mapping"
     from replicate.part p
     join replicate.sync_table t on t.sync = p.sync and t.capture_id = p.capture_id and t.state = 'copying'
     where p.sync = ${literal(run.sync)} and not p.done and p.capture_id = any ('{${ids.join(",")}}'::int[])
     order by p.bytes desc, p.capture_id, p.number
     limit 1 for update of p skip locked`,
  );
  const part = results.at(-1)?.rows[0] as Part | undefined;
  if (touched.length > 0) emitCopied(run, results.at(-4)?.rows as Copied[]);
  if (part === undefined) await target.script("rollback");
  return part;
}

function emitCopied(run: CopyRun, copied: readonly Copied[]): void {
  for (const { captureId, rows, bytes } of copied) {
    run.context.emit({ type: "table-copied", table: run.tables.get(captureId)?.label ?? "", rows, bytes });
  }
}

/** After a plan turned out to be for another table than there is now: look again, and start the table over if need be. */
async function settleOutdated(run: CopyRun, sessions: Sessions, part: Part, reason: string): Promise<void> {
  const table = await describeAnew(run, sessions, part.captureId);
  const storage = storages(table.source).find((each) => each.oid === part.sourceRelid);
  // Renamed only, or planned anew by another process: what is described now fits the ledger.
  if (storage?.file === part.file && columnsIn(table.fingerprint) === columnsIn(part.fingerprint)) return;
  try {
    if ((await prepareTable(run, sessions, part.captureId, "restart", part)) === null) return;
  } catch (error) {
    if (!(error instanceof PartGivenBack) && !(error instanceof PlanOutdated)) throw error;
    avoid(run, part.captureId, error);
    return;
  }
  run.context.emit({ type: "table-restarted", table: table.label, reason });
}

async function describeAnew(run: CopyRun, sessions: Sessions, captureId: number): Promise<CopyTable> {
  const [source, target] = await sessions.both();
  const table = await describeAgain(run, source, target, captureId);
  run.tables.set(captureId, table);
  return table;
}

/** Whether all selected tables are in one of these states, and none is about to leave it. */
async function isAllIn(run: CopyRun, target: Connection, states: readonly TableState[]): Promise<boolean> {
  // In this order: a table that is not among them any more is in the ledger with its new state.
  if (run.unprepared.length > 0 || run.preparing.size > 0) return false;
  const { open } = await target.row<{ open: boolean }>(
    `select exists (select 1 from replicate.sync_table
       where sync = $1 and capture_id = any ($2::int[]) and state <> all ($3::text[])) as open`,
    [run.sync, [...run.tables.keys()], states],
  );
  return !open;
}

/** How often an idle worker looks for tables that somebody else left behind finished. */
const moveOnMs = 2000;

/** No build gets more: beyond this a sort gains little, and a small server loses its memory. */
const maxMemoryBytes = 1024 ** 3;

/** Restores the deferred definitions of the tables that have their rows, until every selected table is ready for deltas. `onOpen` as above. */
export async function indexWorker(run: CopyRun, onOpen?: () => void): Promise<void> {
  const isNeeded = onOpen !== undefined;
  const filter: DeferredFilter = { kinds: loadKinds, captureIds: [...run.tables.keys()], state: "loaded" };
  const memory = Math.floor(Math.min(maxMemoryBytes, run.indexMemoryBytes / run.indexJobs) / 1024);
  await withSessions(run, "copy (indexes)", { isNeeded }, async (sessions, onSuccess) => {
    const target = await sessions.target();
    onOpen?.();
    // Several builds over one table then read it together.
    await target.script("set synchronize_seqscans = on");
    let conflicts = 0;
    let movesOnAt = Date.now() + moveOnMs;
    for (;;) {
      throwIfAborted(run.signal);
      let build: Build | undefined;
      const startedAt = Date.now();
      try {
        const restored = await restoreNext(target, run.sync, filter, {
          settings: { maintenance_work_mem: `${Math.max(1024, memory)}kB` },
          // Processors that no other build uses.
          ...(target.version < 110_000
            ? {}
            : {
                lastSettings: {
                  rows: run.indexJobs - 1,
                  settings: { max_parallel_maintenance_workers: "2" },
                },
              }),
          onTaken: ({ objectName, kind }) => {
            build = isBuild(kind) ? { targetPid: target.pid, index: objectName } : undefined;
            if (build !== undefined) run.builds.add(build);
          },
          afterwards: ({ captureId }) => ["begin", ...moveOnSql(run.sync, [captureId]), "commit"],
        });
        onSuccess();
        if (typeof restored === "string") {
          if (await isAllIn(run, target, ["copied", "following"])) return;
          if (restored === "none" && Date.now() >= movesOnAt) {
            movesOnAt = Date.now() + moveOnMs;
            await moveOn(run, target);
          }
          await sleep(idleMs, run.signal);
          continue;
        }
        conflicts = 0;
        const seconds = (Date.now() - startedAt) / 1000 / restored.deferred.length;
        for (const { kind, tableName, objectName } of restored.deferred)
          if (isBuild(kind))
            run.context.emit({ type: "index-built", table: tableName, index: objectName, seconds });
        emitCopied(run, restored.results.at(-2)?.rows as Copied[]);
      } catch (error) {
        if (!(error instanceof RestoreError)) throw error;
        if (isConnectionFailure(error.cause)) throw error.cause;
        // A build that was cancelled was in somebody's way: it waits its turn like one that found the table locked.
        const isPassing =
          isRetryableConflict(error.cause) ||
          sqlstateOf(error.cause) === QUERY_CANCELED ||
          (await isOvertaken(target, run.sync, error.deferred));
        if (!isPassing || conflicts >= 200) throw restoreFailure(error);
        conflicts += 1;
        await sleep(Math.min(100 * conflicts, 3000), run.signal);
      } finally {
        if (build !== undefined) run.builds.delete(build);
      }
    }
  });
}

function isBuild(kind: DeferredKind): boolean {
  return kind === "key" || kind === "index" || kind === "constraint";
}

/** For tables whose last part or index was finished by a process that died before it could move them on. */
export async function moveOn(run: CopyRun, target: Connection): Promise<void> {
  const results = await target.script(
    ["begin", ...moveOnSql(run.sync, [...run.tables.keys()]), "commit"].join("; "),
  );
  emitCopied(run, results.at(-2)?.rows as Copied[]);
}
