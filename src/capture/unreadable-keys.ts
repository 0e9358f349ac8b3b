/** Recorded keys that cannot be read as values of the key's types any more. */
import { deltaColumns, deltaTables, recordedValue, type Capture } from "../catalog/delta.ts";
import type { Connection } from "../postgres/connect.ts";
import { fill } from "../postgres/sql.ts";

/**
 * Where the delta tables of a capture hold keys that cannot be read, notes in their place that the whole table has to be read
 * again. Returns how many there were. Not for a session in a transaction.
 */
export async function mendKeys(source: Connection, capture: Capture): Promise<number> {
  // Those that are recorded as they are need no reading.
  if (capture.keyColumns.every(({ deltaType, readType }) => deltaType === readType)) return 0;
  const columns = deltaColumns(capture);
  let rows = 0;
  for (const delta of deltaTables(capture.id)) {
    await source.script(
      fill("capture/mend-keys", {
        delta,
        recorded: columns.join(", "),
        read: capture.keyColumns.map((column, n) => recordedValue(column, `r.${columns[n]}`)).join(", "),
        none: columns.map((column) => `${column} = null`).join(", "),
        same: columns.map((column) => `d.${column} is not distinct from r.${column}`).join(" and "),
      }),
    );
    const { mended } = await source.row<{ mended: number }>(
      `select pg_catalog.current_setting('replicate.mended')::int as mended`,
    );
    rows += mended;
  }
  return rows;
}
