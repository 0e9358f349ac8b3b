/** Changes a capture by statement into one by row: statements on another relation write to its table, which it does not see. */
import { loadCaptures, type Capture } from "../catalog/delta.ts";
import { tableLabel, tableSql, type Table } from "../catalog/table.ts";
import type { Connection } from "../postgres/connect.ts";
import { withBriefLocks } from "../postgres/lock.ts";
import { lockCapture } from "./lock-capture.ts";
import { fill, ident } from "../postgres/sql.ts";
import type { SyncContext } from "../state/context.ts";
import { installFunction } from "./trigger-function.ts";
import { captureTrigger } from "./triggers.ts";

/**
 * Whether there are writes that statement triggers of a table do not see: statements on a parent, and what a subscription
 * applies. $1: oid of the table.
 */
export const WRITTEN_PAST = `select 1 from pg_catalog.pg_inherits where $1::oid in (inhrelid, inhparent)
  union all select 1 from pg_catalog.pg_subscription_rel where srrelid = $1::oid limit 1`;

/** The table has to be read again: what came before was missed. Its triggers are others then, which every sync sees. */
export async function captureByRow(
  context: SyncContext,
  source: Connection,
  capture: Capture,
  table: Table,
): Promise<void> {
  const trigger = captureTrigger(capture.id);
  await withBriefLocks(source, { what: tableLabel(table), signal: context.signal }, async () => {
    // Another sync may have done it.
    await lockCapture(source, capture.id);
    await source.script(`lock table ${tableSql(table)} in share row exclusive mode`);
    const [current] = await loadCaptures(source, [capture.id]);
    if (current?.method !== "statement") return;
    await source.rows(`update replicate.capture set method = 'row' where id = $1`, [capture.id]);
    for (const event of ["insert", "update", "delete"])
      await source.script(`drop trigger if exists ${ident(`${trigger}_${event}`)} on ${tableSql(table)}`);
    await installFunction(source, { ...current, method: "row" });
    await source.script(fill("capture/row-trigger", { id: String(capture.id), table: tableSql(table) }));
  });
}
