/** A table enters the ledger of a sync, or leaves it. */
import { detachCapture } from "../capture/capture.ts";
import { isKeyless, type Capture } from "../catalog/delta.ts";
import type { Connection } from "../postgres/connect.ts";
import { load } from "../postgres/sql.ts";
import type { TablePair } from "../preflight/preflight.ts";
import type { SyncContext } from "../state/context.ts";
import type { KnownPartition } from "../state/sync-table.ts";

/** Remembers the table with the shape that its capture started with. Returns false when it was known. */
export async function registerTable(
  source: Connection,
  target: Connection,
  sync: string,
  capture: Capture,
  pair: TablePair,
): Promise<boolean> {
  const [shape] = await source.rows<{ fingerprint: string }>(load("catalog/fingerprint"), [
    [pair.source.oid],
  ]);
  // One that came while the others were captured is taken in by the first batch.
  const leaves = await source.rows<{
    oid: string;
    name: string;
    bound: string;
    triggers: string;
    isCaptured: boolean;
  }>(load("catalog/partitions"), [[pair.source.oid]]);
  const partitions: Record<string, KnownPartition> = Object.fromEntries(
    leaves
      .filter((leaf) => leaf.isCaptured)
      .map(({ oid, name, bound, triggers }) => [oid, { name, bound, triggers }]),
  );
  const [inserted] = await target.rows<{ isNew: boolean }>(
    `insert into replicate.sync_table as t (sync, capture_id, source_relid, source_schema, source_name,
       target_relid, target_schema, target_name, fingerprint, partitions, keyless, mapping)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
     on conflict (sync, capture_id) do update
       set keyless = excluded.keyless, (target_relid, target_schema, target_name, mapping) =
         (select x.relid, x.schema, x.name, x.mapping from (values
            (true, excluded.target_relid, excluded.target_schema, excluded.target_name, excluded.mapping),
            (false, t.target_relid, t.target_schema, t.target_name, t.mapping))
          as x (is_new, relid, schema, name, mapping) where x.is_new = (t.state = 'new'))
     returning xmax = 0 as "isNew"`,
    [
      sync, capture.id, pair.source.oid, pair.source.schema, pair.source.name,
      pair.target.oid, pair.target.schema, pair.target.name, shape?.fingerprint ?? null, JSON.stringify(partitions),
      isKeyless(capture), pair.mapping === null ? null : JSON.stringify(pair.mapping),
    ], // prettier-ignore
  );
  return inserted?.isNew === true;
}

/** Takes a table out of the sync: its capture, where no other sync reads it, and what the target knows of it. */
export async function forgetTable(
  context: SyncContext,
  source: Connection,
  target: Connection,
  captureId: number,
): Promise<void> {
  const sync = context.config.name;
  const [captured] = await source.rows(`select 1 from replicate.capture where id = $1`, [captureId]);
  if (captured !== undefined) await detachCapture(context, source, captureId);
  await target.rows(`delete from replicate.deferred where sync = $1 and capture_id = $2`, [sync, captureId]);
  await target.rows(`delete from replicate.parked where sync = $1 and capture_id = $2`, [sync, captureId]);
  await target.rows(
    `delete from replicate.schema_change where sync = $1 and capture_id = $2 and state <> 'applied'`,
    [sync, captureId],
  );
  await target.rows(`delete from replicate.sync_table where sync = $1 and capture_id = $2`, [
    sync,
    captureId,
  ]);
}
