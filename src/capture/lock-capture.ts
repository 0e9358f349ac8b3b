/**
 * The order of locks around a capture: its row first, then its table, then the rest. Whoever has the table keeps all writers
 * waiting, so that he must not wait for the row himself.
 */
import type { Connection } from "../postgres/connect.ts";

/** Keeps others from changing the capture until the end of the transaction. Before any lock on its table. */
export async function lockCapture(source: Connection, captureId: number): Promise<void> {
  await source.rows(`select 1 from replicate.capture where id = $1 for update`, [captureId]);
}
