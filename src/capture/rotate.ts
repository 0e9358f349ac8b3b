/**
 * Rotation: applied deltas are thrown away by TRUNCATE of the delta table that the trigger does not write to, after the
 * trigger was pointed at the other one. No DELETE, no dead rows.
 */
import { deltaTables, foreignSql, loadCaptures, windowSql } from "../catalog/delta.ts";
import type { Connection } from "../postgres/connect.ts";
import { failpoint } from "../postgres/failpoint.ts";
import { LOCK_NOT_AVAILABLE, sqlstateOf } from "../postgres/sqlstate.ts";
import { dropSql } from "./delta-index.ts";
import { functionSql } from "./trigger-function.ts";

/** Points the trigger of a capture at its other delta table. Safe against a concurrent rotation. */
export async function switchDelta(source: Connection, captureId: number): Promise<void> {
  await source.transaction(async () => {
    const rows = await source.rows(
      `update replicate.capture set active = case active when 'a' then 'b' else 'a' end, rotated_at = now()
       where id = $1 returning id`,
      [captureId],
    );
    if (rows.length === 0) return;
    const [capture] = await loadCaptures(source, [captureId]);
    if (capture !== undefined) await source.script(functionSql(capture));
  });
  await failpoint("rotate.switched");
}

/**
 * Truncates the inactive delta table if every sync that reads the capture has applied all of it. Never waits: a writer
 * in flight, or a reader, postpones it. A late writer that still has the old function may add rows
 * afterwards; they are read like all others. Returns whether it truncated.
 */
export async function clearInactive(source: Connection, captureId: number): Promise<boolean> {
  try {
    return await source.transaction(async () => {
      const [capture] = await loadCaptures(source, [captureId]);
      if (capture === undefined) return false;
      const index = capture.active === "a" ? 1 : 0;
      const inactive = deltaTables(captureId)[index];
      await source.script(`lock table ${inactive} in access exclusive mode nowait`);
      const readers = await source.rows<{ sync: string; holds: boolean; position: string | null }>(
        `select s.sync, s.holds, y.position
         from replicate.subscription s join replicate.source_sync y on y.name = s.sync
         where s.capture_id = $1
         -- Who has been silent for longest is most likely the one who needs it.
         order by y.acknowledged_at nulls first`,
        [captureId],
      );
      for (const { sync, holds, position } of readers) {
        if (holds || position === null) return false;
        // A statement of its own, so that its snapshot is taken under the lock.
        const { isOpen } = await source.row<{ isOpen: boolean }>(
          `select exists (select 1 from ${inactive} where ${windowSql(position)}${foreignSql(capture, sync)}) as "isOpen"`,
        );
        if (isOpen) return false;
      }
      await source.script(`truncate ${inactive}; ${dropSql(captureId, index)}`);
      await failpoint("rotate.truncated");
      return true;
    });
  } catch (error) {
    if (sqlstateOf(error) === LOCK_NOT_AVAILABLE) return false;
    throw error;
  }
}
