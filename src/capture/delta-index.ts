/**
 * Indexes on delta tables that have grown because a sync takes nothing, so that the others need not read all of them with
 * every batch. They go when the table is truncated.
 */
import { randomUUID } from "node:crypto";
import { deltaTables } from "../catalog/delta.ts";
import type { Connection } from "../postgres/connect.ts";
import { fill, literal, own } from "../postgres/sql.ts";
import { giveBack, takeLease } from "../state/lease.ts";

/** Smaller tables are read as fast without. */
const INDEX_BYTES = 16 * 1024 * 1024;

/** Qualified. `index`: 0 for the first delta table, 1 for the second. */
export const indexName = (captureId: number, index: number): string => own(unqualified(captureId, index));

const unqualified = (captureId: number, index: number): string =>
  `delta_${captureId}_${index === 0 ? "a" : "b"}_txid`;

/**
 * Gives the delta tables of these captures their indexes where they are large, and tells the indexes that are there of
 * what came since. Waits for transactions that are open now: not for a session that has more to do. Does nothing while
 * another process is at it.
 */
export async function indexDeltas(source: Connection, captureIds: readonly number[]): Promise<void> {
  const lease = { name: "index", token: randomUUID() };
  if (!(await takeLease(source, lease, { isBound: true })).isTaken) return;
  try {
    for (const captureId of captureIds) await indexBoth(source, captureId);
  } finally {
    if (!source.isBroken) await giveBack(source, lease);
  }
}

async function indexBoth(source: Connection, captureId: number): Promise<void> {
  for (const [index, delta] of deltaTables(captureId).entries()) {
    const name = indexName(captureId, index);
    const [table] = await source.rows<{ bytes: number; isValid: boolean | null }>(
      `select pg_catalog.pg_relation_size(c.oid)::float8 as bytes,
                (select i.indisvalid from pg_catalog.pg_index i
                 where i.indexrelid = pg_catalog.to_regclass($2)) as "isValid"
         from pg_catalog.pg_class c where c.oid = pg_catalog.to_regclass($1)`,
      [delta, name],
    );
    if (table === undefined || table.bytes < INDEX_BYTES) continue;
    if (table.isValid === true) {
      await source.rows(`select pg_catalog.brin_summarize_new_values(${literal(name)}::pg_catalog.regclass)`);
      continue;
    }
    // One that was interrupted.
    if (table.isValid === false) await source.script(`drop index ${name}`);
    await source.script(fill("capture/delta-index", { index: unqualified(captureId, index), delta }));
    // Without it nobody knows how little of the table is new.
    await source.script(`analyze ${delta} (txid)`);
  }
}
