/**
 * The initial load. Every table is cut into parts, which lie in a ledger on the target; workers of this and other
 * processes take parts and copy them, then restore the indexes. All state is in the ledger: a run that ends in any way
 * is taken up by the next.
 */
import { setMaxListeners } from "node:events";
import { readDefinitions } from "../catalog/definitions.ts";
import { ownRowsSql } from "../catalog/rows.ts";
import { applicationPathSql } from "../catalog/search-path.ts";
import { tableLabel } from "../catalog/table.ts";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { asReplicateError, isConnectionFailure } from "../postgres/sqlstate.ts";
import { loadHooks, type Hooks } from "../config/hooks.ts";
import type { SyncContext } from "../state/context.ts";
import { checkPair } from "../state/source-identity.ts";
import { clearError, storeError } from "../state/runner-lock.ts";
import { loadLeftInvalid, type LeftInvalid } from "../state/restore-deferred.ts";
import { migrateOlder } from "../state/migrate.ts";
import { countParked } from "../state/parked.ts";
import { loadTables, type TableState } from "../state/sync-table.ts";
import { resolveWithSource } from "./forget-changes.ts";
import { partCount, storages } from "./plan.ts";
import { isSmall, notEmpty, planTable, tableRemovals } from "./prepare.ts";
import {
  assertFits,
  loadCopyTables,
  type CopyOptions,
  type CopyRun,
  type CopyTable,
  type PrepareMode,
} from "./run.ts";
import { assertNoReaders } from "./check-sources.ts";
import { Sessions, withSessions } from "./sessions.ts";
import { moveOn } from "./work.ts";
import { runWorkers } from "./workers.ts";

export type { CopyOptions } from "./run.ts";

export interface CopyReport {
  /** Of all selected tables, by this run and those before. */
  readonly rows: number;
  /** Bytes of COPY data. */
  readonly bytes: number;
  /** Of this run. */
  readonly seconds: number;
  readonly tables: readonly {
    readonly table: string;
    readonly rows: number;
    readonly bytes: number;
    readonly state: TableState;
    /** Rows that the target rejects, which are parked. */
    readonly parked: number;
  }[];
  /** Constraints that were valid on the target before and are NOT VALID now, because rows violate them. */
  readonly leftInvalid: readonly LeftInvalid[];
  readonly dryRun: boolean;
  /** What a dry run found to do; empty otherwise. */
  readonly plan: readonly PlannedTable[];
}

/** What a run would do with one table. */
export interface PlannedTable {
  readonly table: string;
  readonly target: string;
  readonly state: TableState;
  /** Heap and TOAST on the source. */
  readonly bytes: number;
  readonly parts: number;
  readonly format: "binary" | "text";
  /** The rows that the target's table has now would go. */
  readonly emptiesTarget: boolean;
  /** Statements that would be run before the load; what they take away is put back afterwards. */
  readonly removes: readonly string[];
}

/**
 * Copies all tables of the sync that are not copied yet, and restores what was taken from them but foreign keys,
 * triggers and rules, which come back once the target is consistent. The same call again resumes, and does nothing when all
 * is done. `isBeside`: of a runner, whose errors are what `status` tells. Throws TARGET_NOT_EMPTY and TABLE_SHAPE_CHANGED before anything is changed; later ROW_REFUSED, and what the
 * servers say.
 */
export async function copySync(
  context: SyncContext,
  options: CopyOptions = {},
  { isBeside = false }: { readonly isBeside?: boolean } = {},
): Promise<CopyReport> {
  const startedAt = Date.now();
  if (options.adopt === true && [options.overwrite, options.restart, options.remap].includes(true)) {
    throw new ReplicateError(
      "USAGE_INVALID",
      "adopt keeps the target's rows: it excludes overwrite, restart and remap",
    );
  }
  const stop = new AbortController();
  const signal = AbortSignal.any([context.signal, stop.signal]);
  // One listener per session and pause.
  setMaxListeners(0, signal);
  const run = newRun(context, options, signal, await loadHooks(context.config));
  // Sessions that are not opened again when they break: nothing has begun, so a wrong host is an error at once.
  const sessions = new Sessions(run, "copy (plan)");
  let isBegun = false;
  try {
    const [source, target] = await sessions.both();
    await checkPair(source, target, context.config.name);
    for (const [id, table] of await loadCopyTables(run, source, target, options)) run.tables.set(id, table);
    run.unprepared.push(...(await toPrepare(run, target, options)));
    if (options.dryRun === true) {
      const plan = await describePlan(run, source, target);
      return { ...(await report(run, target, startedAt)), dryRun: true, plan };
    }
    await migrateOlder(target);
    await resolveWithSource(run, source, target, tablesToEmpty(run));
    await announce(run, target);
    // The workers need what there is: a managed database may let a role have no more than two.
    await sessions.close();
    const isDone = [...run.tables.values()].every(
      ({ entry }) => entry.state === "copied" || entry.state === "following",
    );
    isBegun = true;
    if (!isDone || run.unprepared.length > 0) await runWorkers(run, stop);
    const result = await finalReport(run, sessions, startedAt);
    if (!isBeside) await clearError(await sessions.target(), run.sync);
    context.emit({ type: "copy-finished", rows: result.rows, bytes: result.bytes, seconds: result.seconds });
    return result;
  } catch (error) {
    // For `status`; whoever stops the copy knows.
    if (isBegun && !isBeside && !context.signal.aborted) await tell(context, error);
    throw error;
  } finally {
    await sessions.close();
  }
}

/** Leaves the error for `status`, if the target can still be told. */
async function tell(context: SyncContext, error: unknown): Promise<void> {
  try {
    await using target = await context.target("copy (error)");
    await storeError(target, context.config.name, asReplicateError(error, "the copy failed"));
  } catch {
    // It is thrown in any case.
  }
}

function newRun(context: SyncContext, options: CopyOptions, signal: AbortSignal, hooks: Hooks): CopyRun {
  const { copy, name } = context.config;
  return {
    context,
    sync: name,
    jobs: options.jobs ?? copy.jobs,
    indexJobs: options.indexJobs ?? copy.indexJobs,
    partBytes: options.partBytes ?? copy.partBytes,
    indexMemoryBytes: options.indexMemoryBytes ?? copy.indexMemoryBytes,
    overwrite: options.overwrite ?? false,
    reconnectMs: options.reconnectMs ?? 10 * 60_000,
    hooks,
    tables: new Map(),
    remapped: new Map(),
    unprepared: [],
    preparing: new Set(),
    flights: new Set(),
    builds: new Set(),
    rejected: new Map(),
    avoided: new Map(),
    signal,
  };
}

/** Which tables have to be prepared, largest first. Throws TARGET_NOT_EMPTY with all of them. */
async function toPrepare(
  run: CopyRun,
  target: Connection,
  options: CopyOptions,
): Promise<{ captureId: number; mode: PrepareMode }[]> {
  const tables = [...run.tables.values()].toSorted(inOrderOfCopy);
  const fresh = tables.filter(({ entry }) => entry.state === "new");
  if (options.adopt !== true) {
    const full = await findFull(target, fresh);
    if (options.overwriteSource !== true) await assertNoReaders(target, run.sync, fresh, full);
    if (full.length > 0 && !run.overwrite) throw notEmpty(full);
  }
  const begun = tables.filter(
    ({ entry }) => (options.restart === true && entry.state !== "new") || run.remapped.has(entry.captureId),
  );
  assertFits(begun);
  return tables
    .filter((table) => fresh.includes(table) || begun.includes(table))
    .map((table) => ({
      captureId: table.entry.captureId,
      mode: begun.includes(table) ? "restart" : options.adopt === true ? "adopt" : "new",
    }));
}

function tablesToEmpty({ unprepared, tables }: CopyRun): CopyTable[] {
  return unprepared
    .filter(({ mode }) => mode !== "adopt")
    .map(({ captureId }) => tables.get(captureId) as CopyTable);
}

/**
 * Largest first. Among small ones those that others reference: their preparation takes all foreign keys that point to
 * them away, and the others then need no lock on them.
 */
function inOrderOfCopy(a: CopyTable, b: CopyTable): number {
  const isHub = (table: CopyTable): number => (isSmall(table) && table.target.isReferenced ? 1 : 0);
  if (isSmall(a) && isSmall(b) && isHub(a) !== isHub(b)) return isHub(b) - isHub(a);
  return b.bytes - a.bytes;
}

/** Labels of the target's tables that hold rows. */
async function findFull(target: Connection, tables: readonly CopyTable[]): Promise<string[]> {
  const full: string[] = [];
  // One statement for many tables, but not for so many that planning it takes long.
  for (let at = 0; at < tables.length; at += 200) {
    const some = tables.slice(at, at + 200);
    const results = await target.script(
      some
        .map(
          ({ target: table }) =>
            `${applicationPathSql(table)}; select exists (select 1 from ${ownRowsSql(table)}) as full`,
        )
        .join(";"),
    );
    full.push(
      ...some.flatMap((table, index) =>
        results[index * 2 + 1]?.rows.some((row: { full?: boolean }) => row.full)
          ? [tableLabel(table.target)]
          : [],
      ),
    );
  }
  return full;
}

async function describePlan(run: CopyRun, source: Connection, target: Connection): Promise<PlannedTable[]> {
  const plan: PlannedTable[] = [];
  for (const { captureId, mode } of run.unprepared) {
    const table = run.tables.get(captureId) as CopyTable;
    const definitions = await readDefinitions(target, table.target.oid);
    const removes = tableRemovals(table, definitions, mode, run.context.isReplicaRole);
    const [full] = mode === "adopt" ? [] : await findFull(target, [table]);
    plan.push({
      table: table.label,
      target: tableLabel(table.target),
      state: table.entry.state,
      bytes: table.bytes,
      parts: mode === "adopt" ? 0 : (await planTable(run, source, target, table)).length,
      format: table.columns.binary ? "binary" : "text",
      emptiesTarget: full !== undefined,
      removes: removes.flatMap((each) => (each.drop === null ? [] : [each.drop])),
    });
  }
  return plan;
}

/** Says what there is to do. Moves tables on that a run before this one had finished when it died. */
async function announce(run: CopyRun, target: Connection): Promise<void> {
  await moveOn(run, target);
  const ledger = await target.row<{ tables: number; parts: number; bytes: number }>(
    `select count(distinct p.capture_id)::int as "tables", count(*)::int as "parts", coalesce(sum(p.bytes), 0)::float8 as "bytes"
     from replicate.part p where p.sync = $1 and p.capture_id = any ($2::int[]) and not p.done`,
    [run.sync, [...run.tables.keys()].filter((id) => !run.unprepared.some((each) => each.captureId === id))],
  );
  const fresh = tablesToEmpty(run);
  const parts = fresh
    .flatMap((table) => storages(table.source))
    .reduce((sum, storage) => sum + partCount(storage, run.partBytes), 0);
  run.context.emit({
    type: "copy-planned",
    tables: ledger.tables + fresh.length,
    parts: ledger.parts + parts,
    bytes: ledger.bytes + fresh.reduce((sum, table) => sum + table.bytes, 0),
  });
}

/** All is done by now: a session that breaks here must not make it look otherwise. */
async function finalReport(run: CopyRun, sessions: Sessions, startedAt: number): Promise<CopyReport> {
  try {
    return await report(run, await sessions.target(), startedAt);
  } catch (error) {
    if (!isConnectionFailure(error)) throw error;
    return await withSessions(run, "copy (report)", { isNeeded: true }, async (others) =>
      report(run, await others.target(), startedAt),
    );
  }
}

async function report(run: CopyRun, target: Connection, startedAt: number): Promise<CopyReport> {
  const entries = (await loadTables(target, run.sync)).filter((entry) => run.tables.has(entry.captureId));
  const parked = await countParked(target, run.sync);
  const tables = entries.map((entry) => ({
    table: run.tables.get(entry.captureId)?.label ?? "",
    rows: entry.rowsCopied,
    bytes: entry.bytesCopied,
    state: entry.state,
    parked: parked.get(entry.captureId) ?? 0,
  }));
  return {
    rows: tables.reduce((sum, table) => sum + table.rows, 0),
    bytes: tables.reduce((sum, table) => sum + table.bytes, 0),
    seconds: (Date.now() - startedAt) / 1000,
    tables,
    leftInvalid: await loadLeftInvalid(target, run.sync),
    dryRun: false,
    plan: [],
  };
}
