/** Status: where a sync stands, from any machine, whether its runner lives or not. */
import { tableLabel } from "../catalog/table.ts";
import { countPending } from "../conflict/log.ts";
import type { Side } from "../events.ts";
import { readFence } from "../fence/fence.ts";
import { placeOf } from "../postgres/place.ts";
import type { SyncContext } from "../state/context.ts";
import { reasonsOf } from "../state/newcomers.ts";
import { countParked } from "../state/parked.ts";
import { loadLeftInvalid } from "../state/restore-deferred.ts";
import {
  isRunnerAlive,
  type BatchAtHand,
  type StoredError,
  type StoredMaintenance,
} from "../state/runner-lock.ts";
import { readSchemaChanges } from "../state/schema-changes.ts";
import { isCutOver, isSwitching, readSwitch, type Switch } from "../state/switch.ts";
import { loadTables, type SyncTable } from "../state/sync-table.ts";
import { readSetUp } from "../state/two-way.ts";
import { askSource, waitsOn, type Waiting } from "./ask-source.ts";
import type { Phase, Status } from "./report.ts";

interface SyncRow {
  readonly position: string | null;
  readonly batches: number;
  readonly rowsApplied: number;
  readonly lastBatchAt: Date | null;
  readonly host: string | null;
  readonly pid: number | null;
  readonly since: Date | null;
  readonly seenAt: Date | null;
  readonly batch: BatchAtHand | null;
  readonly lagTrend: number | null;
  readonly rowsPerSecond: number | null;
  readonly lastError: StoredError | null;
  readonly upkeep: StoredMaintenance | null;
  readonly partsDoneBytes: number;
  readonly copySeconds: number | null;
  readonly indexesDone: number;
  readonly indexesTotal: number;
  readonly deferredOpen: number;
  readonly secondsSinceClear: number | null;
}

/** Throws SYNC_UNKNOWN and the target's connection errors. A source that cannot be reached is part of the answer. */
export async function readStatus(context: SyncContext): Promise<Status> {
  const { name } = context.config;
  await using target = await context.target("status");
  const tables = await loadTables(target, name);
  const row = await target.row<SyncRow>(
    `select s.position, s.batches::float8 as batches, s.last_batch_at as "lastBatchAt",
            extract(epoch from now() - r.clear_at)::float8 as "secondsSinceClear",
            (select coalesce(sum(rows_applied), 0)::float8 from replicate.sync_table where sync = s.name) as "rowsApplied",
            r.host, r.pid, r.since, r.seen_at as "seenAt", r.batch, r.lag_trend as "lagTrend", r.rows_per_second as "rowsPerSecond", r.last_error as "lastError",
            r.maintenance as upkeep,
            (select coalesce(sum(bytes) filter (where done), 0)::float8 from replicate.part where sync = s.name) as "partsDoneBytes",
            (select extract(epoch from max(done_at) - min(done_at))::float8 from replicate.part where sync = s.name) as "copySeconds",
            (select count(*) filter (where restored_at is not null)::int from replicate.deferred
             where sync = s.name and kind in ('key', 'index', 'constraint')) as "indexesDone",
            (select count(*)::int from replicate.deferred
             where sync = s.name and kind in ('key', 'index', 'constraint')) as "indexesTotal",
            (select count(*)::int from replicate.deferred where sync = s.name and restored_at is null) as "deferredOpen"
     from replicate.sync s left join replicate.runner r on r.sync = s.name where s.name = $1`,
    [name],
  );
  const [alive, leftInvalid, waiting] = [
    await isRunnerAlive(target, name),
    await loadLeftInvalid(target, name),
    await askSource(context, target, tables, row),
  ];
  const parked = await countParked(target, name);
  const schemaChanges = await readSchemaChanges(target, name);
  const pendingRows = waiting.rows;
  const known = await readSwitch(target, name);
  const isRunning = known !== undefined && (await isSwitching(target, name));
  const fences = { source: waiting.fence, target: await readFence(target, name) };
  // Where there are two, the one that was put up last is news.
  const fenced = (["source", "target"] as const)
    .flatMap((side) => (fences[side]?.isUp ? [{ side, since: fences[side].fencedAt }] : []))
    .toSorted((a, b) => b.since.getTime() - a.since.getTime())[0];
  const bytesTotal = sum(tables, (table) => table.bytesPlanned);
  const copied = tables.filter((table) => table.state === "copied" || table.state === "following");
  const rate = row.copySeconds !== null && row.copySeconds > 0 ? row.partsDoneBytes / row.copySeconds : 0;
  const left = bytesTotal - row.partsDoneBytes;
  return {
    sync: name,
    direction: (await readSetUp(target, name)).direction,
    source: placeOf(context.config.source),
    target: placeOf(context.config.target),
    back: null,
    phase:
      switchPhase(known, fenced?.side, !waiting.isFenceKnown) ??
      phaseOf(tables, alive, pendingRows, row.lastError),
    runner: {
      alive,
      host: row.host,
      pid: row.pid,
      since: row.since?.toISOString() ?? null,
      seenAt: row.seenAt?.toISOString() ?? null,
      batch: alive ? row.batch : null,
    },
    copy: {
      tablesDone: copied.length,
      tablesTotal: tables.length,
      rowsDone: sum(tables, (table) => table.rowsCopied),
      bytesDone: row.partsDoneBytes,
      bytesTotal,
      indexesDone: row.indexesDone,
      indexesTotal: row.indexesTotal,
      etaSeconds: copied.length < tables.length && rate > 0 ? Math.round(left / rate) : null,
    },
    follow: {
      position: row.position,
      batches: row.batches,
      rowsApplied: row.rowsApplied,
      rowsPerSecond: alive ? (row.rowsPerSecond ?? 0) : 0,
      lastBatchAt: row.lastBatchAt?.toISOString() ?? null,
    },
    lag: {
      rows: pendingRows,
      seconds: lagSeconds(tables, waiting, row.secondsSinceClear),
      blockedBy: waiting.blockedBy,
      trend: alive ? row.lagTrend : null,
    },
    waits: [...waiting.waits, ...(await waitsOn(target))],
    conflicts: (await countPending(target, name)) + waiting.conflicts,
    parked: [...parked.values()].reduce((total, rows) => total + rows, 0),
    lastError: row.lastError,
    upkeep: row.upkeep,
    owed: { side: "target", open: row.deferredOpen, leftInvalid },
    switch: known === undefined ? null : { ...known, isRunning },
    fence: fenced === undefined ? null : { side: fenced.side, since: fenced.since.toISOString() },
    held: waiting.held.map(({ sync, since, bytes, giveUp }) => ({
      sync,
      since: since.toISOString(),
      bytes,
      isOver: bytes > context.config.deltaLimitBytes,
      giveUp,
    })),
    notReplicated: waiting.notReplicated.map(({ table }) => table),
    notReplicatedReasons: reasonsOf(waiting.notReplicated),
    schemaChanges,
    sourceError: waiting.error,
    tables: tables.map((table) => ({
      source: tableLabel({ schema: table.sourceSchema, name: table.sourceName }),
      target: tableLabel({ schema: table.targetSchema, name: table.targetName }),
      state: table.state,
      rows: table.rowsCopied,
      bytes: table.bytesCopied,
      pending: pendingOf(table, waiting.byCapture),
      parked: parked.get(table.captureId) ?? 0,
      lastChangeAt: table.lastChangeAt?.toISOString() ?? null,
      reload:
        table.reloadSince === null
          ? null
          : {
              since: table.reloadSince.toISOString(),
              bytes: table.reloadBytes ?? 0,
              isHeld: (table.reloadBytes ?? 0) > context.config.keylessLimitBytes,
            },
    })),
  };
}

/** What waits for a table that does not follow yet may be older than the runner's last look, which left it out. */
function lagSeconds(
  tables: readonly SyncTable[],
  { rows, byCapture }: Waiting,
  sinceClear: number | null,
): number | null {
  if (rows === null || rows === 0) return rows;
  const isElsewhere = tables.some(
    ({ state, captureId }) => state !== "following" && (byCapture?.get(captureId) ?? 0) > 0,
  );
  return isElsewhere ? null : sinceClear;
}

/** A deferred reload counts as one change. */
function pendingOf(table: SyncTable, byCapture: ReadonlyMap<number, number> | null): number | null {
  const least = table.reloadSince === null ? 0 : 1;
  return byCapture === null ? null : Math.max(byCapture.get(table.captureId) ?? 0, least);
}

const sum = (tables: readonly SyncTable[], value: (table: SyncTable) => number): number =>
  tables.reduce((total, table) => total + value(table), 0);

/** The phase of a sync that is being switched or was; undefined where it simply goes from source to target. */
function switchPhase(
  known: Switch | undefined,
  fenced: Side | undefined,
  isSourceAway: boolean,
): Phase | undefined {
  const isTarget = isCutOver(known);
  const primary = isTarget ? "target" : "source";
  // Neither side can be written to. Where the source cannot be asked, better said too often: also while it is undone.
  const isBegun = known?.step === "fencing" || (known?.step === "preparing" && known.fencedAt !== null);
  const isPerhaps = isSourceAway && known?.way === "cutover" && isBegun;
  if (fenced === primary || isPerhaps) return "fenced";
  return isTarget ? "cut-over" : undefined;
}

function phaseOf(
  tables: readonly SyncTable[],
  alive: boolean,
  pending: number | null,
  lastError: StoredError | null,
): Phase {
  // Who tries again has not failed; if he is dead by now, that is what there is to say.
  if (lastError !== null && !lastError.cleared && !lastError.isRetrying && !alive) return "failed";
  if (tables.length === 0) return "new";
  if (tables.every((table) => table.state === "new")) return "initialised";
  if (tables.some((table) => ["new", "copying", "loaded"].includes(table.state))) return "copying";
  if (tables.some((table) => table.state === "copied")) return alive ? "catching-up" : "copied";
  return pending !== null && pending > 10_000 ? "catching-up" : "following";
}
