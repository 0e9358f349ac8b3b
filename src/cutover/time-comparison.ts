/** How long it takes to compare what has changed, found by doing it while applications write. */
import { ReplicateError } from "../errors.ts";
import type { SyncContext } from "../state/context.ts";
import type { SyncTable } from "../state/sync-table.ts";
import { ChangeComparison, ChangePlans } from "../verify/verify.ts";
import type { RetentionPoints } from "./retention-point.ts";

/** What is left to be compared while fenced. */
export interface Uncompared {
  readonly points: RetentionPoints;
  readonly plans: ChangePlans;
}

export interface TimedComparison {
  readonly seconds: number;
  readonly tables: number;
  readonly rows: number;
  /** Size of tables that have to be compared as a whole, and were not. */
  readonly wholeBytes: number;
}

/** Larger delta tables hold what was not applied for long; it is not compared for a try. */
const MOST_DELTA_BYTES = 4 * 1024 * 1024;
/** Before all transactions: whatever a delta table holds came later. */
const BEGINNING = "1:1:";
/** What the rehearsal has blockers for, or does not need. */
const NOT_TRIED = ["TABLE_SHAPE_CHANGED", "CAPTURE_BROKEN", "SOURCE_LOST", "TOO_MANY_CONNECTIONS"];

/**
 * Compares as in the fence: what has changed since the points, or else what the delta tables hold, which is about as much. Null
 * where that cannot be done.
 */
export async function timeComparison(
  active: SyncContext,
  entries: readonly SyncTable[],
  known: Uncompared | undefined,
): Promise<TimedComparison | null> {
  try {
    await using comparison = new ChangeComparison(active);
    const pair = await comparison.open(entries.length);
    let options: Uncompared;
    if (known === undefined) {
      const sizes = await pair.source.rows<{ id: number; bytes: number }>(
        `select id, (pg_catalog.pg_relation_size(delta_a) + pg_catalog.pg_relation_size(delta_b))::float8 as bytes
         from replicate.capture where id = any ($1::int[])`,
        [entries.map(({ captureId }) => captureId)],
      );
      const small = sizes.filter(({ bytes }) => bytes <= MOST_DELTA_BYTES);
      options = { points: new Map(small.map(({ id }) => [id, BEGINNING])), plans: new ChangePlans() };
    } else options = known;
    const { points: since, plans } = options;
    const tried = entries.filter(({ captureId }) => since.has(captureId));
    const once = async (): Promise<TimedComparison> => {
      const startedAt = performance.now();
      const report = await comparison.run({ entries: tried, since, plans, isLive: true });
      const seconds = (performance.now() - startedAt) / 1000;
      return { seconds, tables: report.changed, rows: report.rows, wholeBytes: report.wholeBytes };
    };
    // The first time tables are planned, which is not done while fenced.
    if (known === undefined) await once();
    return await once();
  } catch (error) {
    if (error instanceof ReplicateError && NOT_TRIED.includes(error.code)) return null;
    throw error;
  }
}
