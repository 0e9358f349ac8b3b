/** Takes partitions into a capture, and lets them go. Their rows come and go without a trigger telling. */
import { hasLeafTriggers, type Capture } from "../catalog/delta.ts";
import { tableLabel } from "../catalog/table.ts";
import type { Connection } from "../postgres/connect.ts";
import { withBriefLocks } from "../postgres/lock.ts";
import { fill, ident, qualified } from "../postgres/sql.ts";
import type { SyncContext } from "../state/context.ts";
import { lockCapture } from "./lock-capture.ts";
import { recordAllKeys, recordTruncated } from "./record-changes.ts";
import { captureTrigger, installTruncateTrigger, truncateTrigger } from "./triggers.ts";

/**
 * Takes a new leaf partition in: gives it the triggers it does not inherit and notes the keys of the rows that it
 * brought along, so that the next batch brings them. `wasOff`: it is not new, but changes may have been missed; the
 * batch empties the target's partition first.
 */
export async function adoptLeaf(
  context: SyncContext,
  source: Connection,
  capture: Capture,
  leaf: { readonly oid: number; readonly schema: string; readonly name: string },
  wasOff: boolean,
): Promise<void> {
  await withBriefLocks(source, { what: tableLabel(leaf), signal: context.signal }, async () => {
    await lockCapture(source, capture.id);
    await source.script(`lock table ${qualified(leaf.schema, leaf.name)} in share row exclusive mode`);
    const [row, truncate] = [captureTrigger(capture.id), truncateTrigger(capture.id)];
    const installed = await source.rows<{ name: string; enabled: string }>(
      `select tgname::text as name, tgenabled::text as enabled from pg_catalog.pg_trigger
       where tgrelid = $1 and tgname = any ($2::text[])`,
      [leaf.oid, [row, truncate]],
    );
    const names = installed.map((trigger) => trigger.name);
    if (!names.includes(truncate)) await installTruncateTrigger(source, leaf, capture);
    if (!names.includes(row) && hasLeafTriggers({ kind: "p" }, source.version)) {
      const holes = { id: String(capture.id), table: qualified(leaf.schema, leaf.name) };
      await source.script(fill("capture/row-trigger", holes));
    }
    // Before 13.4, partitions get copies of the root's triggers that are merely enabled.
    for (const trigger of installed.filter(({ enabled }) => enabled === "O")) {
      await source.script(
        `alter table ${qualified(leaf.schema, leaf.name)} enable always trigger ${trigger.name}`,
      );
    }
    if (wasOff) await recordTruncated(source, capture, leaf.oid);
    await recordAllKeys(source, capture, `only ${qualified(leaf.schema, leaf.name)}`);
  });
}

/**
 * Lets a partition go that was detached or dropped, and notes that its rows went. Its TRUNCATE trigger goes too: the
 * target's partition of that name may hold the rows of another one by the time the detached table is truncated.
 */
export async function releaseLeaf(
  context: SyncContext,
  source: Connection,
  capture: Capture,
  leaf: { readonly oid: number; readonly name: string },
): Promise<void> {
  await withBriefLocks(source, { what: leaf.name, signal: context.signal }, async () => {
    await lockCapture(source, capture.id);
    const triggers = await source.rows<{ table: string; trigger: string }>(
      `select tgrelid::pg_catalog.regclass::text as table, tgname::text as trigger
       from pg_catalog.pg_trigger
       where tgrelid = $1 and tgfoid = pg_catalog.to_regproc($2) and not tgisinternal`,
      [leaf.oid, `replicate.capture_${capture.id}`],
    );
    for (const { table, trigger } of triggers)
      await source.script(`drop trigger ${ident(trigger)} on ${table}`);
    const { isShared } = await source.row<{ isShared: boolean }>(
      `select count(*) > 1 as "isShared" from replicate.subscription where capture_id = $1`,
      [capture.id],
    );
    // Each sync that reads the capture notes it in its own time. Where there are several, only a re-read is right for
    // those that have noted it before.
    await recordTruncated(source, capture, isShared ? 0 : leaf.oid);
  });
}
