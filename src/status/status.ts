/** Status: where a sync stands, from any machine, whether its runner lives or not. */
import { foreignSql, unions, windowCountSql } from "../catalog/delta.ts";
import { tableLabel } from "../catalog/table.ts";
import { countPending } from "../conflict/log.ts";
import type { Direction } from "../config/options.ts";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { placeOf, type Place } from "../postgres/place.ts";
import { load } from "../postgres/sql.ts";
import { asReplicateError } from "../postgres/sqlstate.ts";
import type { Side } from "../events.ts";
import type { SyncContext } from "../state/context.ts";
import { readFence, type Fence } from "../fence/fence.ts";
import { readRetainedDeltas, type RetainedDeltas } from "../state/retained-deltas.ts";
import { findNotReplicated, reasonsOf, type NotReplicated } from "../state/newcomers.ts";
import { checkPair } from "../state/source-identity.ts";
import { loadLeftInvalid, type LeftInvalid } from "../state/restore-deferred.ts";
import {
  isRunnerAlive,
  type BatchAtHand,
  type StoredError,
  type StoredMaintenance,
} from "../state/runner-lock.ts";
import { countParked } from "../state/parked.ts";
import { isCutOver, isSwitching, readSwitch, type Switch } from "../state/switch.ts";
import { readSetUp } from "../state/two-way.ts";
import { readSchemaChanges, type SchemaChange } from "../state/schema-changes.ts";
import { loadTables, type SyncTable } from "../state/sync-table.ts";

export type Phase =
  | "new" | "initialised" | "copying" | "copied" | "catching-up" | "following" | "fenced" | "cut-over" | "failed"; // prettier-ignore

export interface Status {
  readonly sync: string;
  readonly phase: Phase;
  readonly direction: Direction;
  /** The two databases. After a cutover the same as before it. */
  readonly source: Place;
  readonly target: Place;
  readonly runner: {
    readonly alive: boolean;
    readonly host: string | null;
    readonly pid: number | null;
    readonly since: string | null;
    /** Its last sign of life, by the target's clock: every few seconds, also in the middle of a batch. */
    readonly seenAt: string | null;
    /** The batch at hand, once it takes more than a moment. */
    readonly batch: BatchAtHand | null;
  };
  readonly copy: {
    readonly tablesDone: number;
    readonly tablesTotal: number;
    readonly rowsDone: number;
    readonly bytesDone: number;
    readonly bytesTotal: number;
    readonly indexesDone: number;
    readonly indexesTotal: number;
    /** Null while nothing runs or nothing is known. */
    readonly etaSeconds: number | null;
  };
  readonly follow: {
    readonly position: string | null;
    readonly batches: number;
    readonly rowsApplied: number;
    readonly rowsPerSecond: number;
    readonly lastBatchAt: string | null;
  };
  readonly lag: {
    /** Deltas on the source that are not applied. Null when the source cannot be asked. */
    readonly rows: number | null;
    /**
     * Age of the oldest change that is not applied, from above: the time since the runner's last look that left nothing to
     * apply. 0 when nothing waits; null while it is not known, as before the first batch, or without the source.
     */
    readonly seconds: number | null;
    /** Who keeps deltas from being thrown away or a table from being captured: the oldest transaction. */
    readonly blockedBy: string | null;
    /** Seconds by which the lag grows each second, over the last minute; negative: it shrinks. Null: not known. */
    readonly trend: number | null;
  };
  /** Of a sync that goes both ways: what applications change on the target. Null: it goes one way, or is not known. */
  readonly back: Pick<Status, "lag" | "follow" | "lastError"> | null;
  /** Sessions of ours that cannot get a lock now. */
  readonly waits: readonly Wait[];
  /** Skipped ones that are to be resolved, as far as the servers can be asked. */
  readonly conflicts: number;
  /** Rows that the target has rejected, and that are parked (see `parked`). */
  readonly parked: number;
  readonly lastError: StoredError | null;
  /** Maintenance that a server rejects at the time: batches go on, and it is tried again by itself. */
  readonly upkeep: StoredMaintenance | null;
  /** `side`: whose objects they are, after a cutover those of the old source. */
  readonly owed: {
    readonly side: Side;
    readonly open: number;
    readonly leftInvalid: readonly LeftInvalid[];
  };
  /** The last cutover or rollback; null: never begun, or undone. `isRunning`: a process is at it now. */
  readonly switch: (Switch & { readonly isRunning: boolean }) | null;
  /** The side whose tables refuse writes of applications, and since when. Null: neither, or not known. */
  readonly fence: { readonly side: Side; readonly since: string } | null;
  /**
   * Syncs of the same source, this one perhaps among them, that have taken nothing for a minute or more, and what the source
   * keeps for them. `isOver`: more than `deltaLimit`.
   */
  readonly held: readonly {
    readonly sync: string;
    readonly since: string;
    readonly bytes: number;
    readonly isOver: boolean;
    /** The command that gives the sync up. */
    readonly giveUp: string;
  }[];
  /** Tables that the sync is meant to replicate and does not, as they were created after `init`. */
  readonly notReplicated: readonly string[];
  /** By table, why it is not taken in; without those that nobody has tried to. */
  readonly notReplicatedReasons: Readonly<Record<string, string>>;
  /** Changes of the source's schema that the target has not yet, and the last ones that it has; the latest first. */
  readonly schemaChanges: readonly SchemaChange[];
  /** Why the source could not be asked, or is not this sync's any more, if so. */
  readonly sourceError: string | null;
  readonly tables: readonly {
    readonly source: string;
    readonly target: string;
    readonly state: SyncTable["state"];
    readonly rows: number;
    readonly bytes: number;
    readonly pending: number | null;
    readonly parked: number;
    readonly lastChangeAt: string | null;
    /**
     * Of a table without a key: since when the target lacks changes for which it has to be read again as a whole, its size
     * on the source then, and whether that is too large to happen before a cutover. Null: nothing of the kind.
     */
    readonly reload: {
      readonly since: string;
      readonly bytes: number;
      readonly isHeld: boolean;
    } | null;
  }[];
}

/** A session of ours that waits for a lock, or tries again and again to get one without making others wait. */
export interface Wait {
  readonly side: Side;
  /** As in pg_stat_activity: `replicate init`. */
  readonly session: string;
  /** The table, as far as it is known. */
  readonly what: string;
  readonly seconds: number | null;
  readonly blockedBy: string | null;
}

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

async function waitsOn(connection: Connection): Promise<Wait[]> {
  const rows = await connection.rows<Omit<Wait, "side">>(load("status/waits"));
  return rows.map((row) => ({ side: connection.side, ...row }));
}

interface Waiting {
  readonly rows: number | null;
  readonly byCapture: ReadonlyMap<number, number> | null;
  readonly blockedBy: string | null;
  readonly waits: readonly Wait[];
  readonly conflicts: number;
  readonly error: string | null;
  readonly fence: Fence | undefined;
  /** The source could be asked at least for that. */
  readonly isFenceKnown: boolean;
  readonly held: readonly RetainedDeltas[];
  readonly notReplicated: readonly NotReplicated[];
}

/** Counts the deltas that wait on the source. */
async function askSource(
  context: SyncContext,
  target: Connection,
  tables: readonly SyncTable[],
  { position }: Pick<SyncRow, "position">,
): Promise<Waiting> {
  let source: Connection | undefined;
  let fence: Fence | undefined;
  let isFenceKnown = false;
  try {
    source = await context.source("status");
    fence = await readFence(source, context.config.name);
    isFenceKnown = true;
    await checkPair(source, target, context.config.name);
    const byCapture = new Map<number, number>();
    const sized = await source.rows<{ id: number; tracksOrigin: boolean }>(
      `select c.id, c.tracks_origin as "tracksOrigin" from replicate.subscription s join replicate.capture c on c.id = s.capture_id
       where s.sync = $1 and pg_catalog.pg_relation_size(c.delta_a) + pg_catalog.pg_relation_size(c.delta_b) > 0`,
      [context.config.name],
    );
    const counts = sized.map(({ id, tracksOrigin }) => {
      const entry = tables.find((table) => table.captureId === id);
      const from = entry?.state === "following" ? position : null;
      return `select ${id} as id, n::float8 as n from (${windowCountSql(id, from, foreignSql({ tracksOrigin }, context.config.name))}) as w`;
    });
    for (const some of unions(counts))
      for (const { id, n } of await source.rows<{ id: number; n: number }>(some)) byCapture.set(id, n);
    const [oldest] = await source.rows<{ pid: number; user: string; seconds: number; state: string }>(
      `select pid, coalesce(usename, '?')::text as user, coalesce(state, 'state not shown') as state,
              extract(epoch from clock_timestamp() - xact_start)::int as seconds
       from pg_catalog.pg_stat_activity
       where datname = pg_catalog.current_database() and backend_xid is not null
         and xact_start < clock_timestamp() - interval '1 minute'
         and application_name not like 'replicate %'
       order by xact_start limit 1`,
    );
    return {
      rows: [...byCapture.values()].reduce((total, n) => total + n, 0),
      byCapture,
      blockedBy:
        oldest === undefined
          ? null
          : `pid ${oldest.pid} of ${oldest.user}, ${oldest.state}, has a transaction open for ${oldest.seconds} s`,
      waits: await waitsOn(source),
      conflicts: await countPending(source, context.config.name),
      error: null,
      fence,
      isFenceKnown,
      held: await readRetainedDeltas(source),
      notReplicated: await findNotReplicated(context.config, source, target),
    };
  } catch (error) {
    const failure = error instanceof ReplicateError ? error : asReplicateError(error, "asking the source");
    return {
      rows: null,
      byCapture: null,
      blockedBy: null,
      waits: [],
      conflicts: 0,
      error: failure.message,
      fence,
      isFenceKnown,
      held: [],
      notReplicated: [],
    };
  } finally {
    await source?.close();
  }
}
