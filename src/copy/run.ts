/** One run of `copy`: what all its workers share. The ledger on the target is what runs share with each other. */
import { columnPlan, type ColumnPlan } from "../catalog/columns.ts";
import { parseFingerprint } from "../catalog/fingerprint.ts";
import { mapEntries, type TableMapping } from "../catalog/mapping.ts";
import { loadCaptures, type Capture } from "../catalog/delta.ts";
import { describeTables, tableBytes, tableLabel, type Table } from "../catalog/table.ts";
import { ReplicateError, type Problem } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { load } from "../postgres/sql.ts";
import type { Hooks } from "../config/hooks.ts";
import type { SyncContext } from "../state/context.ts";
import { assertNoRemapping, remapped, wantedMapping } from "../state/remapping.ts";
import { loadTables, type SyncTable } from "../state/sync-table.ts";
import { storages } from "./plan.ts";

export interface CopyOptions {
  /** Parts copied at once. Default: the configuration's. */
  readonly jobs?: number;
  /** Indexes built at once. */
  readonly indexJobs?: number;
  /** Heap and TOAST bytes per part. */
  readonly partBytes?: number;
  /** Memory of all index builds together, on the target. */
  readonly indexMemoryBytes?: number;
  /** Empty the target's tables first where they hold rows. Without it such tables are refused. */
  readonly overwrite?: boolean;
  /** With `overwrite`: also rows of tables that are the source of another sync. They are somebody's data. */
  readonly overwriteSource?: boolean;
  /** Copy again the tables that the settings map otherwise than they were copied. */
  readonly remap?: boolean;
  /** Copy again from the beginning what is copied or half copied already. Tables that are followed leave `follow` meanwhile. */
  readonly restart?: boolean;
  /** The rows are there already, from another loader: mark the tables as copied. */
  readonly adopt?: boolean;
  /** Change nothing; the report says what would be done. */
  readonly dryRun?: boolean;
  /** Labels of source tables (`public.users`); default all of the sync. */
  readonly tables?: readonly string[];
  /** How long a server may be away before the run gives up, in milliseconds. Default 10 minutes. */
  readonly reconnectMs?: number;
}

/** A table of the sync, described on both sides at one moment. Replaced as a whole when it is described anew. */
export interface CopyTable {
  readonly entry: SyncTable;
  readonly label: string;
  readonly capture: Capture;
  readonly source: Table;
  readonly target: Table;
  readonly columns: ColumnPlan;
  /** See sql/catalog/fingerprint. */
  readonly fingerprint: string;
  readonly bytes: number;
}

/** A part that this process is copying. */
export interface Flight {
  readonly captureId: number;
  readonly label: string;
  /** Of the source session. */
  readonly sourcePid: number;
  readonly plannedBytes: number;
  bytes: number;
  rows: number;
  /** Gives the part back: somebody waits for a lock that its source session holds. */
  readonly giveBack: AbortController;
}

export interface Build {
  readonly targetPid: number;
  readonly index: string;
}

export interface CopyRun {
  readonly context: SyncContext;
  readonly sync: string;
  readonly jobs: number;
  readonly indexJobs: number;
  readonly partBytes: number;
  readonly indexMemoryBytes: number;
  readonly overwrite: boolean;
  readonly reconnectMs: number;
  readonly hooks: Hooks;
  /** By capture id: the tables selected. */
  readonly tables: Map<number, CopyTable>;
  /** By capture id: mappings to copy with that the ledger does not have yet. */
  readonly remapped: Map<number, TableMapping | null>;
  /** Capture ids still to prepare, largest first. */
  readonly unprepared: { readonly captureId: number; readonly mode: PrepareMode }[];
  /** Capture ids being prepared now. */
  readonly preparing: Set<number>;
  readonly flights: Set<Flight>;
  readonly builds: Set<Build>;
  /** How often this process tried parts that the target has rejected, by capture id and number: `7.1`. See park-part. */
  readonly rejected: Map<string, number>;
  /** Capture ids whose parts are left alone until this time (epoch milliseconds), and how often that happened. */
  readonly avoided: Map<number, { readonly until: number; readonly times: number }>;
  /** Fires when the caller stops the run, and when another worker has failed. */
  readonly signal: AbortSignal;
}

/** new: only a table nobody has begun. restart: whatever its state. */
export type PrepareMode = "new" | "restart" | "adopt";

/**
 * Describes the sync's tables on both sides. Throws SYNC_UNKNOWN, PATTERN_MATCHES_NOTHING for a table that is not of
 * the sync, TABLE_SHAPE_CHANGED with all tables whose rows do not fit the target, and CONFIG_INVALID with those that
 * are mapped otherwise than the options allow.
 */
export async function loadCopyTables(
  run: CopyRun,
  source: Connection,
  target: Connection,
  { tables: only, remap, restart }: CopyOptions,
): Promise<Map<number, CopyTable>> {
  const { config } = run.context;
  const all = await loadTables(target, config.name);
  const entries = only === undefined ? all : all.filter((entry) => only.includes(labelOf(entry)));
  const strangers = (only ?? []).filter((label) => !all.some((entry) => labelOf(entry) === label));
  if (strangers.length > 0) {
    throw new ReplicateError(
      "PATTERN_MATCHES_NOTHING",
      `sync ${config.name} has no table ${strangers.join(", ")}`,
    );
  }
  if (remap === true || restart === true)
    for (const entry of remapped(config, entries))
      run.remapped.set(entry.captureId, wantedMapping(config, entry));
  return await describe(run, source, target, entries);
}

/** The same for one table whose description is out of date. */
export async function describeAgain(
  run: CopyRun,
  source: Connection,
  target: Connection,
  captureId: number,
): Promise<CopyTable> {
  const entries = (await loadTables(target, run.sync)).filter((entry) => entry.captureId === captureId);
  const [table] = (await describe(run, source, target, entries)).values();
  if (table === undefined) {
    throw new ReplicateError(
      "SYNC_UNKNOWN",
      `a table that was being copied is not part of sync ${run.sync} any more`,
      {
        hint: "Somebody took it out of the sync meanwhile. Run the command again, which copies the others.",
      },
    );
  }
  return table;
}

async function describe(
  run: CopyRun,
  source: Connection,
  target: Connection,
  ledger: readonly SyncTable[],
): Promise<Map<number, CopyTable>> {
  assertNoRemapping(run.context.config, ledger.filter(({ captureId }) => !run.remapped.has(captureId))); // prettier-ignore
  const entries = ledger.map((entry) => {
    const mapping = run.remapped.get(entry.captureId);
    return mapping === undefined ? entry : { ...entry, mapping };
  });
  const [read, targets] = await Promise.all([
    describeSource(source, entries),
    describeTables(
      target,
      entries.map((entry) => entry.targetRelid),
    ).then(byOid),
  ]);
  const { sources, fingerprints, captures } = read;
  const mapped = await mapEntries(source, entries, sources, targets);
  const tables = new Map<number, CopyTable>();
  const problems: Problem[] = [];
  for (const entry of entries) {
    const label = labelOf(entry);
    const from = mapped.get(entry.captureId)?.source ?? sources.get(entry.sourceRelid);
    const to = mapped.get(entry.captureId)?.target;
    const capture = captures.get(entry.captureId);
    const fingerprint = fingerprints.get(entry.sourceRelid);
    if (from === undefined || fingerprint === undefined) {
      problems.push({ subject: label, message: "the table was dropped on the source", remedy: again });
    } else if (to === undefined) {
      problems.push({ subject: label, message: "the table was dropped on the target", remedy: again });
    } else if (capture === undefined) {
      problems.push({ subject: label, message: "its capture is gone from the source", remedy: again });
    } else {
      const columns = columnPlan(from, to);
      // A table that has its rows already is for `follow` to judge.
      if (entry.state === "new" || entry.state === "copying") problems.push(...columns.problems);
      const bytes = tableBytes(from);
      tables.set(entry.captureId, {
        entry,
        label,
        capture,
        source: from,
        target: to,
        columns,
        fingerprint,
        bytes,
      });
    }
  }
  throwProblems(problems);
  return tables;
}

/** Throws TABLE_SHAPE_CHANGED when rows of the source cannot be written to the target. */
export function assertFits(tables: readonly CopyTable[]): void {
  throwProblems(tables.flatMap((table) => table.columns.problems));
}

function throwProblems(problems: readonly Problem[]): void {
  if (problems.length === 0) return;
  const subjects = [...new Set(problems.map((problem) => problem.subject))].join(", ");
  throw new ReplicateError("TABLE_SHAPE_CHANGED", `the target does not fit the source: ${subjects}`, {
    side: "target",
    problems,
  });
}

interface SourceDescription {
  readonly sources: ReadonlyMap<number, Table>;
  readonly captures: ReadonlyMap<number, Capture>;
  readonly fingerprints: ReadonlyMap<number, string>;
}

/** In one snapshot, so that columns and fingerprint tell of the same table. */
async function describeSource(source: Connection, entries: readonly SyncTable[]): Promise<SourceDescription> {
  const oids = entries.map((entry) => entry.sourceRelid);
  const ids = entries.map((entry) => entry.captureId);
  return await source.transaction(async () => {
    const found = await source.rows<{ relid: string; fingerprint: string }>(load("catalog/fingerprint"), [
      oids,
    ]);
    return {
      fingerprints: new Map(found.map((each) => [Number(each.relid), each.fingerprint])),
      sources: byOid(await describeTables(source, oids)),
      captures: new Map((await loadCaptures(source, ids)).map((capture) => [capture.id, capture])),
    };
  }, "begin isolation level repeatable read read only");
}

const again = "replicate init  -- takes in what is new, leaves out what is gone";

function byOid(tables: readonly Table[]): Map<number, Table> {
  return new Map(tables.map((table) => [table.oid, table]));
}

function labelOf(entry: SyncTable): string {
  return tableLabel({ schema: entry.sourceSchema, name: entry.sourceName });
}

/** The physical files that the plan is made for, as the ledger keeps them: JSON of oid to file. */
export function filesOf(table: Table): string {
  return JSON.stringify(Object.fromEntries(storages(table).map((each) => [each.oid, each.file])));
}

/** The leaf partitions that the plan knows, as the ledger keeps them. */
export function partitionsOf(table: Table): string {
  return JSON.stringify(
    Object.fromEntries(table.leaves.map((leaf) => [leaf.oid, { name: leaf.name, bound: leaf.bound }])),
  );
}

/** The columns in a fingerprint: what decides whether rows read now fit those read before. */
export function columnsIn(fingerprint: string): string {
  return JSON.stringify(parseFingerprint(fingerprint).columns);
}

/** Leaves a table's parts alone for a while, longer each time, and says so when it lasts. */
export function avoid(
  run: CopyRun,
  captureId: number,
  { message: reason, isAtOnce = false }: { readonly message: string; readonly isAtOnce?: boolean },
): void {
  if (isAtOnce) return;
  const times = (run.avoided.get(captureId)?.times ?? 0) + 1;
  run.avoided.set(captureId, { until: Date.now() + Math.min(30_000, 500 * 2 ** times), times });
  if (times % 5 !== 0) return;
  const label = run.tables.get(captureId)?.label ?? "a table";
  run.context.emit({ type: "warning", message: `${label} has to wait: ${reason}` });
}
