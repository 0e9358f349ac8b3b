/** The triggers of a capture: on the table itself, or on each of its partitions. */
import { hasLeafTriggers, type Capture } from "../catalog/delta.ts";
import { tableSql, type Table } from "../catalog/table.ts";
import type { Connection } from "../postgres/connect.ts";
import { fill, qualified } from "../postgres/sql.ts";

/** Sorts behind the application's own triggers, so that it sees what they made of the row. */
export const captureTrigger = (captureId: number): string => `zzz_replicate_capture_${captureId}`;

export const truncateTrigger = (captureId: number): string => `zzz_replicate_truncate_${captureId}`;

/** The triggers that the table itself has to have for its changes to be captured. */
export function triggerNames(capture: Capture, table: Table, sourceVersion: number): string[] {
  const [row, truncate] = [captureTrigger(capture.id), truncateTrigger(capture.id)];
  if (capture.method === "statement")
    return [...["insert", "update", "delete"].map((event) => `${row}_${event}`), truncate];
  return hasLeafTriggers(table, sourceVersion) ? [truncate] : [row, truncate];
}

export async function installTriggers(source: Connection, table: Table, capture: Capture): Promise<void> {
  const holes = { id: String(capture.id), table: tableSql(table) };
  if (capture.method === "statement") {
    await source.script(fill("capture/statement-triggers", holes));
  } else if (hasLeafTriggers(table, source.version)) {
    for (const leaf of table.leaves) {
      await source.script(
        fill("capture/row-trigger", { ...holes, table: qualified(leaf.schema, leaf.name) }),
      );
    }
  } else {
    await source.script(fill("capture/row-trigger", holes));
  }
  await source.script(fill("capture/truncate-trigger", holes));
}

export async function installTruncateTrigger(
  source: Connection,
  leaf: { readonly schema: string; readonly name: string },
  capture: Capture,
): Promise<void> {
  await source.script(
    fill("capture/truncate-trigger", { id: String(capture.id), table: qualified(leaf.schema, leaf.name) }),
  );
}
