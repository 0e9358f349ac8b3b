/** What syncs that have fallen silent keep on their source: deltas that nobody may throw away before they are applied. */
import { baseName, deltaTables, windowSql } from "../catalog/delta.ts";
import type { Connection } from "../postgres/connect.ts";
import { stateVersion } from "./migrate.ts";
import { retentionPointName } from "./switch.ts";

/** A runner that is alive says how far it is far more often. */
const SILENT_SECONDS = 60;
/** Smaller delta tables are not looked into. */
const LEAST_BYTES = 64 * 1024;

export interface RetainedDeltas {
  readonly sync: string;
  /** When its runner was heard of last on the source. */
  readonly since: Date;
  /** Size of the delta tables that wait for it alone or for others too. */
  readonly bytes: number;
  /** The command that gives it up for good. */
  readonly giveUp: string;
}

/** By the name under which the sync is kept: its own, that of its way back, or of a cutover that was begun. */
function giveUp(sync: string): string {
  const base = baseName(sync);
  if (sync === retentionPointName(base)) return `replicate cutover --undo --name ${base}`;
  return `replicate drop --${sync === base ? "source" : "target"}-only --name ${base}`;
}

/** The syncs of this source that have been silent for a minute or more and hold deltas, those that hold most first. */
export async function readRetainedDeltas(source: Connection): Promise<RetainedDeltas[]> {
  if ((await stateVersion(source)) === 0) return [];
  const rows = await source.rows<{
    sync: string;
    since: Date;
    position: string | null;
    captureId: number;
    bytes: readonly [number, number];
  }>(
    `select y.name as sync, coalesce(y.acknowledged_at, y.created_at) as since,
            case when s.is_pinned then null else coalesce(s.since, y.position) end as position, c.id as "captureId",
            array[pg_catalog.pg_relation_size(c.delta_a), pg_catalog.pg_relation_size(c.delta_b)]::float8[] as bytes
     from replicate.source_sync y
     join replicate.subscription s on s.sync = y.name
     join replicate.capture c on c.id = s.capture_id
     where coalesce(y.acknowledged_at, y.created_at) < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $1)
       -- Where conflicts are found and nothing goes back, changes are kept for the comparison.
       and not exists (select 1 from replicate.sync o where o.name || '.reverse' = y.name
         and (o.settings ->> 'tracksTarget')::boolean and o.settings ->> 'direction' = 'one-way')
       and greatest(pg_catalog.pg_relation_size(c.delta_a), pg_catalog.pg_relation_size(c.delta_b)) >= $2`,
    [SILENT_SECONDS, LEAST_BYTES],
  );
  const asked = rows.flatMap((row) =>
    deltaTables(row.captureId).flatMap((table, index) => {
      const bytes = row.bytes[index] ?? 0;
      return bytes < LEAST_BYTES ? [] : [{ ...row, table, bytes }];
    }),
  );
  if (asked.length === 0) return [];
  // One that holds a table finds a row of its window early: it is the oldest there.
  const questions = asked.map(({ table, position }) =>
    position === null ? "true" : `exists (select 1 from ${table} where ${windowSql(position)})`,
  );
  const { answers } = await source.row<{ answers: readonly boolean[] }>(
    `select array[${questions.join(", ")}] as answers`,
  );
  const bySync = new Map<string, RetainedDeltas>();
  for (const [index, { sync, since, bytes }] of asked.entries()) {
    if (answers[index] !== true) continue;
    bySync.set(sync, {
      sync: baseName(sync),
      since,
      bytes: (bySync.get(sync)?.bytes ?? 0) + bytes,
      giveUp: giveUp(sync),
    });
  }
  return [...bySync.values()].toSorted((a, b) => b.bytes - a.bytes);
}
