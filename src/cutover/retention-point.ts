/**
 * The retention point, from here on the source keeps every delta, so that what changed since can be compared during
 * the fence. It is a reader of the captures like a sync. A table's own point is moved on once what has changed until then was
 * compared.
 */
import { randomUUID } from "node:crypto";
import { detachCapture } from "../capture/capture.ts";
import type { Connection } from "../postgres/connect.ts";
import type { SyncContext } from "../state/context.ts";
import { retentionPointName } from "../state/switch.ts";
import { withBoth } from "../reverse/ways.ts";

/** Positions by capture. */
export type RetentionPoints = ReadonlyMap<number, string>;

/**
 * Sets the retention point at the position that the target has now, for all tables that have none yet: one that is there stays. Returns
 * each table's point.
 */
export async function setRetentionPoint(active: SyncContext): Promise<RetentionPoints> {
  const { name } = active.config;
  const retentionPoint = retentionPointName(name);
  return await withBoth(active, "cutover", async (source, target) => {
    // Everything is kept first. What is thrown away until then is applied at the position read next.
    await source.script("begin");
    await source.rows(
      `insert into replicate.source_sync (name, token, previous_token) values ($1, $2, $2) on conflict (name) do nothing`,
      [retentionPoint, randomUUID()],
    );
    await source.rows(
      `insert into replicate.subscription (sync, capture_id, is_pinned)
       select $1, capture_id, true from replicate.subscription where sync = $2 on conflict do nothing`,
      [retentionPoint, name],
    );
    await source.script("commit");
    const { position } = await target.row<{ position: string }>(
      `select position from replicate.sync where name = $1`,
      [name],
    );
    await source.script("begin");
    await source.rows(`update replicate.source_sync set position = $2 where name = $1 and position is null`, [
      retentionPoint,
      position,
    ]);
    await source.rows(
      `update replicate.subscription set is_pinned = false, since = $2 where sync = $1 and is_pinned`,
      [retentionPoint, position],
    );
    await source.script("commit");
    return await readRetentionPoints(source, retentionPoint);
  });
}

async function readRetentionPoints(source: Connection, retentionPoint: string): Promise<RetentionPoints> {
  const found = await source.rows<{ id: number; position: string }>(
    `select s.capture_id as id, coalesce(s.since, y.position) as position
     from replicate.subscription s join replicate.source_sync y on y.name = s.sync where s.sync = $1`,
    [retentionPoint],
  );
  return new Map(found.map(({ id, position }) => [id, position]));
}

/** Moves the points of some tables on, up to which they were compared. Returns those of all. */
export async function moveRetentionPoints(
  active: SyncContext,
  source: Connection,
  upTo: RetentionPoints,
): Promise<RetentionPoints> {
  const retentionPoint = retentionPointName(active.config.name);
  const ids = [...upTo.keys()];
  await source.rows(
    `update replicate.subscription s set since = m.position
     from (select unnest($2::int[]) as id, unnest($3::text[]) as position) as m
     where s.sync = $1 and s.capture_id = m.id`,
    [retentionPoint, ids, ids.map((id) => upTo.get(id))],
  );
  return await readRetentionPoints(source, retentionPoint);
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
