/** What runs beside the workers: it keeps the source's application from waiting for us, and reports progress. */
import type { SyncEvent, TableProgress } from "../events.ts";
import { LOOK_MS, Patience } from "../postgres/lock-watch.ts";
import { load } from "../postgres/sql.ts";
import { sleep } from "../postgres/sleep.ts";
import { Rise } from "./rise.ts";
import type { CopyRun } from "./run.ts";
import { withSessions } from "./sessions.ts";

const intervalMs = 1000;

/**
 * Gives a part back as soon as somebody waits for a lock that its session holds. An ALTER TABLE that waits behind us
 * makes all later statements on the table wait behind it. Runs until the signal fires.
 */
export async function yieldToWaiters(run: CopyRun, done: AbortSignal, onOpen: () => void): Promise<void> {
  const pause = AbortSignal.any([run.signal, done]);
  await withSessions(run, "copy (lock watch)", { isNeeded: true }, async (sessions, onSuccess) => {
    const source = await sessions.source();
    onOpen();
    onSuccess();
    const patience = new Patience();
    while (!done.aborted) {
      const flights = [...run.flights];
      if (flights.length > 0) {
        const blocked = await patience.look(source, flights.map((flight) => flight.sourcePid)); // prettier-ignore
        for (const flight of flights) if (blocked.has(flight.sourcePid)) flight.giveBack.abort();
      }
      await sleep(LOOK_MS, pause).catch(() => undefined);
      run.signal.throwIfAborted();
    }
  });
}

/** Stands for all tables together; capture ids begin at 1. */
const allTables = 0;

interface Sample {
  readonly at: number;
  readonly bytes: number;
}

/** Figures of the ledger. Bytes are of the plan: heap and TOAST on the source. */
interface LedgerTotals {
  readonly bytesTotal: number;
  readonly bytesDone: number;
  readonly rows: number;
  readonly sent: number;
  readonly indexesTotal: number;
  readonly indexesDone: number;
}

const totalsSql = `
  select coalesce(sum(p.bytes), 0)::float8 as "bytesTotal",
         coalesce(sum(p.bytes) filter (where p.done), 0)::float8 as "bytesDone",
         coalesce(sum(p.rows), 0)::float8 as "rows",
         coalesce(sum(p.copied_bytes), 0)::float8 as "sent",
         (select count(*)::int from replicate.deferred o
          where o.sync = $1 and o.capture_id = any ($2) and o.kind in ('key', 'index', 'constraint')) as "indexesTotal",
         (select count(*)::int from replicate.deferred o
          where o.sync = $1 and o.capture_id = any ($2) and o.kind in ('key', 'index', 'constraint')
            and o.restored_at is not null) as "indexesDone"
  from replicate.part p where p.sync = $1 and p.capture_id = any ($2)`;

const tableTotalsSql = `
  select capture_id as "captureId", sum(bytes)::float8 as "bytesTotal",
         coalesce(sum(bytes) filter (where done), 0)::float8 as "bytesDone", coalesce(sum(rows), 0)::float8 as "rows"
  from replicate.part where sync = $1 and capture_id = any ($2) group by capture_id`;

/** Emits `copy-progress` about once a second, from the ledger and the parts in flight. Runs until the signal fires. */
export async function reportProgress(run: CopyRun, done: AbortSignal): Promise<void> {
  const samples: Sample[] = [];
  const rises = new Map<number, Rise>();
  const pause = AbortSignal.any([run.signal, done]);
  await withSessions(run, "copy (progress)", { isNeeded: false }, async (sessions, onSuccess) => {
    const target = await sessions.target();
    onSuccess();
    const ids = [...run.tables.keys()];
    while (!done.aborted) {
      await sleep(intervalMs, pause).catch(() => undefined);
      run.signal.throwIfAborted();
      if (done.aborted) break;
      const totals = await target.row<LedgerTotals>(totalsSql, [run.sync, ids]);
      const flying = [...new Set([...run.flights].map((flight) => flight.captureId))];
      const tables =
        flying.length === 0
          ? []
          : await target.rows<LedgerTotals & { captureId: number }>(tableTotalsSql, [run.sync, flying]);
      const pids = [...run.builds].map((build) => build.targetPid);
      const phases =
        pids.length === 0 || target.version < 120_000
          ? []
          : await target.rows<{ pid: number; phase: string; percent: number | null }>(load("copy/building"), [
              pids,
            ]);
      run.context.emit(progressEvent(run, totals, tables, phases, samples, rises));
    }
  });
}

function progressEvent(
  run: CopyRun,
  totals: LedgerTotals,
  tables: readonly (Pick<LedgerTotals, "bytesTotal" | "bytesDone" | "rows"> & { captureId: number })[],
  phases: readonly { pid: number; phase: string; percent: number | null }[],
  samples: Sample[],
  rises: Map<number, Rise>,
): SyncEvent {
  const rise = (captureId: number): Rise => {
    const known = rises.get(captureId) ?? new Rise();
    rises.set(captureId, known);
    return known;
  };
  // A part's bytes on the wire are not those it has on the source's disk: scaled by what the finished parts show.
  const scale = totals.sent > 0 ? totals.bytesDone / totals.sent : 1;
  const inFlight = (captureId?: number): { bytes: number; rows: number } =>
    [...run.flights]
      .filter((flight) => captureId === undefined || flight.captureId === captureId)
      .reduce(
        (sum, flight) => ({
          bytes: sum.bytes + Math.min(flight.plannedBytes, flight.bytes * scale),
          rows: sum.rows + flight.rows,
        }),
        { bytes: 0, rows: 0 },
      );
  const unplanned = run.unprepared.reduce(
    (sum, each) => sum + (run.tables.get(each.captureId)?.bytes ?? 0),
    0,
  );
  const flying = inFlight();
  const bytesTotal = Math.round(totals.bytesTotal + unplanned);
  const bytesDone = rise(allTables).done(totals.bytesDone, flying.bytes, bytesTotal);
  const now = Date.now();
  samples.push({ at: now, bytes: bytesDone });
  // Over the last half minute: a restart or a large value must not swing the estimate for longer.
  while (samples.length > 2 && now - (samples[0]?.at ?? now) > 30_000) samples.shift();
  const first = samples[0] as Sample;
  const seconds = (now - first.at) / 1000;
  const rate = seconds > 0 ? Math.max(0, (bytesDone - first.bytes) / seconds) : 0;
  const building = [...run.builds].map((build) => {
    const found = phases.find((each) => each.pid === build.targetPid);
    return { index: build.index, phase: found?.phase ?? "starting", percent: found?.percent ?? null };
  });
  return {
    type: "copy-progress",
    rowsDone: totals.rows + flying.rows,
    bytesDone,
    bytesTotal,
    bytesPerSecond: Math.round(rate),
    etaSeconds: rate > 0 ? Math.round(Math.max(0, bytesTotal - bytesDone) / rate) : null,
    indexesDone: totals.indexesDone,
    indexesTotal: totals.indexesTotal,
    tables: tables.map((each): TableProgress => {
      const own = inFlight(each.captureId);
      return {
        table: run.tables.get(each.captureId)?.label ?? "",
        rowsDone: each.rows + own.rows,
        bytesDone: rise(each.captureId).done(each.bytesDone, own.bytes, each.bytesTotal),
        bytesTotal: each.bytesTotal,
      };
    }),
    building,
  };
}
