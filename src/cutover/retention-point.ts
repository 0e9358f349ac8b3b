/**
 * The retention point: from here on the source keeps every delta, so that what changed since can be compared during the fence. It is
 * a reader of the captures like a sync, one that never moves on.
 */
import { randomUUID } from "node:crypto";
import { detachCapture } from "../capture/capture.ts";
import type { SyncContext } from "../state/context.ts";
import { retentionPointName } from "../state/switch.ts";
import { withBoth } from "../reverse/ways.ts";

/** Sets the retention point at the position that the target has now, or returns the one that is there. */
export async function setRetentionPoint(active: SyncContext): Promise<string> {
  const { name } = active.config;
  const retentionPoint = retentionPointName(name);
  return await withBoth(active, "cutover", async (source, target) => {
    const [found] = await source.rows<{ position: string | null }>(
      `select position from replicate.source_sync where name = $1`,
      [retentionPoint],
    );
    if (found?.position != null) return found.position;
    // Without a position first: it keeps everything. What is thrown away until then is applied at the position read next.
    await source.script("begin");
    await source.rows(
      `insert into replicate.source_sync (name, token, previous_token) values ($1, $2, $2) on conflict (name) do nothing`,
      [retentionPoint, randomUUID()],
    );
    await source.rows(
      `insert into replicate.subscription (sync, capture_id, holds)
       select $1, capture_id, false from replicate.subscription where sync = $2 on conflict do nothing`,
      [retentionPoint, name],
    );
    await source.script("commit");
    const { position } = await target.row<{ position: string }>(
      `select position from replicate.sync where name = $1`,
      [name],
    );
    await source.rows(`update replicate.source_sync set position = $2 where name = $1`, [
      retentionPoint,
      position,
    ]);
    return position;
  });
}

/** Takes the retention point away. Can be repeated. */
export async function clearRetentionPoint(active: SyncContext): Promise<void> {
  const retentionPoint = retentionPointName(active.config.name);
  await using source = await active.source("cutover");
  const captures = await source.rows<{ id: number }>(
    `select capture_id as id from replicate.subscription where sync = $1`,
    [retentionPoint],
  );
  const context: SyncContext = { ...active, config: { ...active.config, name: retentionPoint } };
  for (const { id } of captures) await detachCapture(context, source, id);
  await source.rows(`delete from replicate.source_sync where name = $1`, [retentionPoint]);
}
