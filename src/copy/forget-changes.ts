/**
 * What applications have changed on the target before a table is copied, where both sides are captured: it goes with the
 * rows that it was made to. Otherwise the way back would bring it over, or an older row of the source meet it as a conflict.
 */
import { deltaTables, foreignSql } from "../catalog/delta.ts";
import { finishResolutions, resolveConflicts } from "../conflict/resolve.ts";
import { publicId } from "../conflict/log.ts";
import type { Connection } from "../postgres/connect.ts";
import { reverseName } from "../state/switch.ts";
import type { CopyRun, CopyTable } from "./run.ts";

/**
 * For the transaction that empties the table: removes the deltas of what was there. Nobody else can be in the middle of a
 * change, because the table is locked. Other syncs that read them get the whole table once it is copied (see
 * follow/their-deltas).
 */
export async function forgetChangesSql(
  run: CopyRun,
  target: Connection,
  table: CopyTable,
): Promise<string[]> {
  if (!run.context.config.tracksTarget) return [];
  const captures = await target.rows<{ id: number; tracksOrigin: boolean }>(
    `select c.id, c.tracks_origin as "tracksOrigin" from replicate.capture c join replicate.subscription s on s.capture_id = c.id
     where c.relid = $1 and s.sync = $2`,
    [table.target.oid, reverseName(run.sync)],
  );
  return captures.flatMap((capture) =>
    deltaTables(capture.id).map((delta) => `delete from ${delta} where true${foreignSql(capture, run.sync)}`),
  );
}

/**
 * Resolves the skipped conflicts of tables that are to be copied with the source: it would not be read where it has one. The
 * log keeps the target's rows. Before anything is emptied: whoever dies in between leaves keys that are brought by `follow`.
 */
export async function resolveWithSource(
  run: CopyRun,
  source: Connection,
  target: Connection,
  tables: readonly CopyTable[],
): Promise<void> {
  const { config } = run.context;
  if (!config.tracksTarget || tables.length === 0) return;
  await finishResolutions(source, target, run.sync);
  const ids: number[] = [];
  for (const side of [source, target]) {
    const oids = tables.map((table) => (side === source ? table.source.oid : table.target.oid));
    const found = await side.rows<{ id: number }>(
      `select id::float8 as id from replicate.conflict
       where sync = $1 and relid = any ($2::oid[]) and resolved_at is null`,
      [run.sync, oids],
    );
    ids.push(...found.map(({ id }) => publicId(side.side, id)));
  }
  if (ids.length > 0) await resolveConflicts(run.context, ids, "source");
}
