/** Has tables without a key read again now, whatever their size: by a marker that whoever follows does not put off. */
import { recordReload } from "../capture/record-changes.ts";
import type { Connection } from "../postgres/connect.ts";
import { failpoint } from "../postgres/failpoint.ts";

/** Returns a transaction id that no marker is younger than; null where there was nothing to ask for. */
export async function askReload(
  source: Connection,
  tables: readonly { readonly captureId: number }[],
): Promise<string | null> {
  if (tables.length === 0) return null;
  for (const { captureId } of tables) {
    await recordReload(source, captureId);
    await failpoint("cutover.reload-asked");
  }
  const { last } = await source.row<{ last: string }>(`select pg_catalog.txid_current()::text as last`);
  return last;
}

/** Whether the target has everything up to a transaction of the source. */
export async function isCovered(target: Connection, sync: string, txid: string): Promise<boolean> {
  const { covered } = await target.row<{ covered: boolean | null }>(
    `select $2::bigint < pg_catalog.txid_snapshot_xmin(position::pg_catalog.txid_snapshot)
         or pg_catalog.txid_visible_in_snapshot($2::bigint, position::pg_catalog.txid_snapshot) as covered
     from replicate.sync where name = $1`,
    [sync, txid],
  );
  return covered === true;
}
