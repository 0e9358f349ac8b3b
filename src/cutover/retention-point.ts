/**
 * The mark: from here on the source keeps every delta, so that what changed since can be compared during the fence. It is
 * a reader of the captures like a sync, one that never moves on.
 */
import { randomUUID } from "node:crypto";
import { detachCapture } from "../capture/capture.ts";
import type { SyncContext } from "../state/context.ts";
import { markName } from "../state/switch.ts";
import { withBoth } from "../reverse/ways.ts";

/** Sets the mark at the position that the target has now, or returns the one that is there. */
export async function setMark(active: SyncContext): Promise<string> {
  const { name } = active.config;
  const mark = markName(name);
  return await withBoth(active, "cutover", async (source, target) => {
    const [found] = await source.rows<{ position: string | null }>(
      `select position from replicate.source_sync where name = $1`,
      [mark],
    );
    if (found?.position != null) return found.position;
    // Without a position first: it keeps everything. What is thrown away until then is applied at the position read next.
    await source.script("begin");
    await source.rows(
      `insert into replicate.source_sync (name, token, previous_token) values ($1, $2, $2) on conflict (name) do nothing`,
      [mark, randomUUID()],
    );
    await source.rows(
      `insert into replicate.subscription (sync, capture_id, holds)
       select $1, capture_id, false from replicate.subscription where sync = $2 on conflict do nothing`,
      [mark, name],
    );
    await source.script("commit");
    const { position } = await target.row<{ position: string }>(
      `select position from replicate.sync where name = $1`,
      [name],
    );
    await source.rows(`update replicate.source_sync set position = $2 where name = $1`, [mark, position]);
    return position;
  });
}

/** Takes the mark away. Can be repeated. */
export async function clearMark(active: SyncContext): Promise<void> {
  const mark = markName(active.config.name);
  await using source = await active.source("cutover");
  const captures = await source.rows<{ id: number }>(
    `select capture_id as id from replicate.subscription where sync = $1`,
    [mark],
  );
  const context: SyncContext = { ...active, config: { ...active.config, name: mark } };
  for (const { id } of captures) await detachCapture(context, source, id);
  await source.rows(`delete from replicate.source_sync where name = $1`, [mark]);
}
