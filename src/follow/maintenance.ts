/** What is done on the source and the target between batches, so that neither grows. */
import { enableSkipNoop } from "../capture/capture.ts";
import { tableSql } from "../catalog/table.ts";
import { tableSettings } from "../config/overrides.ts";
import { pruneConflicts } from "../conflict/log.ts";
import { finishResolutions } from "../conflict/resolve.ts";
import type { Connection } from "../postgres/connect.ts";
import { saidBy } from "../postgres/server-words.ts";
import { isRetryableConflict } from "../postgres/sqlstate.ts";
import type { SyncContext } from "../state/context.ts";
import type { BatchTable } from "./apply/batch-table.ts";
import type { FollowedTables } from "./followed-tables.ts";

/** Turns no-op suppression on for the tables whose settings ask for it, once they follow. */
export async function skipNoops(
  context: SyncContext,
  source: Connection,
  tables: FollowedTables,
): Promise<void> {
  for (const shape of tables.shapes) {
    if (shape.capture.skipNoop || tableSettings(shape.source, context.config).skipNoop !== true) continue;
    if (await enableSkipNoop(source, shape.capture.id)) tables.recordSkipNoop(shape.capture.id);
  }
}

/** Rows that a reload has deleted make room for those of the next one, sooner than autovacuum would see to it. */
export async function vacuumReloaded(
  context: SyncContext,
  target: Connection,
  tables: readonly BatchTable[],
): Promise<void> {
  for (const { shape, mode } of tables) {
    if (mode.kind !== "reload" || mode.isLarge) continue;
    await target.script(`vacuum ${tableSql(shape.target)}`).catch((error: unknown) => {
      if (target.isBroken) throw error;
      context.log.debug({ table: shape.label, error: saidBy(error) }, "could not be vacuumed");
    });
  }
}

/**
 * Completes resolutions of conflicts that were interrupted, and forgets conflicts that were resolved long ago. Where somebody
 * holds an entry, that is left for another time.
 */
export async function tendConflicts(
  { config, log }: SyncContext,
  source: Connection,
  target: Connection,
): Promise<void> {
  try {
    await finishResolutions(source, target, config.name);
    for (const connection of [source, target])
      await pruneConflicts(connection, config.name, config.conflictLog.keepSeconds);
  } catch (error) {
    if (!isRetryableConflict(error)) throw error;
    log.debug({ error: saidBy(error) }, "the log of conflicts could not be tended");
  }
}
