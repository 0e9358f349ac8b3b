/** Recorded keys that cannot be read as values of the key's types any more. */
import { deltaColumns, deltaTables, recordedValue, type Capture } from "../catalog/delta.ts";
import { outputText } from "../catalog/text-form.ts";
import type { Connection } from "../postgres/connect.ts";
import { fill } from "../postgres/sql.ts";

/** Why a table is read again then. */
export const UNREADABLE = "a key that was noted as changed cannot be read any more";

/**
 * Where the delta tables of a capture hold keys that cannot be read, notes in their place that the whole table has to be read
 * again. Returns how many there were. Not for a session in a transaction.
 */
export async function mendKeys(source: Connection, capture: Capture): Promise<number> {
  if (capture.keyColumns.length === 0) return 0;
  const columns = deltaColumns(capture);
  // A text is sent as well: of an SQL_ASCII database it may have bytes that nobody can be sent.
  const read = capture.keyColumns.map((column, n) => {
    const value = recordedValue(column, `r.${columns[n]}`);
    return `${value}, pg_catalog.textsend(${outputText(value)})`;
  });
  let rows = 0;
  for (const delta of deltaTables(capture.id)) {
    await source.script(
      fill("capture/mend-keys", {
        delta,
        recorded: columns.join(", "),
        read: read.join(", "),
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
