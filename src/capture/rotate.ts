/**
 * Rotation: applied deltas are thrown away by TRUNCATE: of the delta table that the trigger writes to where nobody is writing
 * to it at the moment, otherwise of the other one, after the trigger was pointed away from it. No DELETE, no dead rows.
 */
import { deltaTables, loadCaptures } from "../catalog/delta.ts";
import type { Connection } from "../postgres/connect.ts";
import { failpoint } from "../postgres/failpoint.ts";
import { fill, literal } from "../postgres/sql.ts";
import { LOCK_NOT_AVAILABLE, sqlstateOf } from "../postgres/sqlstate.ts";
import { indexName } from "./delta-index.ts";
import { functionSql } from "./trigger-function.ts";

/** Points the trigger of a capture at its other delta table. Safe against a concurrent rotation. */
export async function switchDelta(source: Connection, captureId: number): Promise<void> {
  await source.transaction(async () => {
    const rows = await source.rows(
      `update replicate.capture set active = case active when 'a' then 'b' else 'a' end
       where id = $1 returning id`,
      [captureId],
    );
    if (rows.length === 0) return;
    const [capture] = await loadCaptures(source, [captureId]);
    if (capture !== undefined) await source.script(functionSql(capture));
  });
  await failpoint("rotate.switched");
}

/**
 * Truncates a delta table (0: a, 1: b) if every sync that reads the capture has applied all of it, see the SQL. Never waits.
 * Returns whether it truncated.
 */
export async function clearDelta(source: Connection, captureId: number, index: number): Promise<boolean> {
  const [capture] = await loadCaptures(source, [captureId]);
  if (capture === undefined) return false;
  const delta = deltaTables(captureId)[index] as string;
  try {
    await source.script(
      fill("capture/clear-delta", {
        id: String(captureId),
        delta,
        index: literal(indexName(captureId, index)),
        foreign: capture.tracksOrigin
          ? " and d.via is distinct from pg_catalog.split_part(s.sync, '.', 1)"
          : "",
      }),
    );
  } catch (error) {
    if (sqlstateOf(error) === LOCK_NOT_AVAILABLE) return false;
    throw error;
  }
  const { bytes } = await source.row<{ bytes: number }>(
    `select pg_catalog.pg_relation_size(${literal(delta)}::pg_catalog.regclass)::float8 as bytes`,
  );
  if (bytes > 0) return false;
  await failpoint("rotate.truncated");
  return true;
}

/** The same for the table that the trigger does not write to. */
export async function clearInactive(source: Connection, captureId: number): Promise<boolean> {
  const [capture] = await loadCaptures(source, [captureId]);
  return capture !== undefined && (await clearDelta(source, captureId, capture.active === "a" ? 1 : 0));
}
