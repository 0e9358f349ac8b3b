/** Clears away what was begun for a new table that is gone from the source, or is another one by now. */
import { detachCapture } from "../capture/capture.ts";
import { describeTables, tableSql } from "../catalog/table.ts";
import { ownRowsSql } from "../catalog/rows.ts";
import { applicationPathSql, OWN_PATH } from "../catalog/search-path.ts";
import { forgetTable } from "../init/register.ts";
import { withBriefLocks } from "../postgres/lock.ts";
import { forgetJoining, keepLease, targetMadeFor } from "../state/joining.ts";
import type { Sides } from "./take-in.ts";

/**
 * Safe to interrupt anywhere and to repeat. What follows already is left alone; so is a table that is in the ledger and there, unless
 * `isOther`: it is another one by now, and its copy cannot go on.
 */
export async function abandon(
  { context, lease, source, target }: Sides,
  sourceOid: number,
  isOther: boolean,
): Promise<void> {
  const { name } = context.config;
  const ours = await targetMadeFor(target, name, sourceOid);
  const [entry] = await target.rows<{ captureId: number; state: string; isCopied: boolean }>(
    `select capture_id as "captureId", state, rows_copied > 0 as "isCopied"
     from replicate.sync_table where sync = $1 and source_relid = $2`,
    [name, sourceOid],
  );
  if (entry?.state === "following") return;
  if (entry !== undefined && !isOther) {
    const [there] = await source.rows(`select 1 from pg_catalog.pg_class where oid = $1`, [sourceOid]);
    if (there !== undefined) return;
  }
  if (ours !== undefined) {
    const limits = { what: "a new table", signal: context.signal, budgetMs: 30_000 };
    await withBriefLocks(target, limits, async () => {
      await keepLease(target, lease);
      const [table] = await describeTables(target, [ours]);
      if (table === undefined) return;
      const results = await target.script(
        `${applicationPathSql(table)}; select exists (select 1 from ${ownRowsSql(table)}) as full; ${OWN_PATH}`,
      );
      const isFull = (results[1]?.rows[0] as { full: boolean } | undefined)?.full === true;
      // Rows that we have not brought are somebody's.
      if (isFull && entry?.isCopied !== true) return;
      await target.script(`drop table ${tableSql(table)}`);
    });
  }
  if (entry !== undefined) await forgetTable(context, source, target, entry.captureId);
  const captures = await source.rows<{ id: number }>(
    `select c.id from replicate.capture c join replicate.subscription s on s.capture_id = c.id
     where c.relid = $1 and s.sync = $2`,
    [sourceOid, name],
  );
  for (const { id } of captures) await detachCapture(context, source, id);
  await forgetJoining(target, name, [sourceOid]);
}
