/** What the new side does not have yet, counted exactly: by the deltas that its position does not cover. */
import { unions, windowCountSql } from "../catalog/delta.ts";
import type { Connection } from "../postgres/connect.ts";
import { load } from "../postgres/sql.ts";

/** Deltas that may be pending when the fence is raised. */
export const FEW_DELTAS = 2000;

/**
 * Deltas of the sync on the source that are not applied on the target, and one for each table that has a deferred reload. The
 * position is read before the source's snapshot is taken, and what is deferred after it, so that 0 is proof: the target has
 * everything that had been committed when this was called.
 */
export async function countPending(source: Connection, target: Connection, sync: string): Promise<number> {
  const { position, joining } = await target.row<{ position: string | null; joining: number }>(
    `select s.position, (select count(*)::int from replicate.sync_table t where t.sync = s.name and t.state <> 'following') as joining
     from replicate.sync s where s.name = $1`,
    [sync],
  );
  if (position === null || joining > 0) return Infinity;
  const dirty = await source.rows<{ id: number }>(load("capture/dirty"), [sync, [], null]);
  const owing = async (): Promise<number> => (await owingReload(target, sync)).length;
  if (dirty.length === 0) return await owing();
  let pending = 0;
  for (const counts of unions(dirty.map(({ id }) => windowCountSql(id, position)))) {
    const some = await source.row<{ pending: number }>(
      `select coalesce(pg_catalog.sum(w.n), 0)::float8 as pending from (${counts}) as w`,
    );
    pending += some.pending;
  }
  return pending + (await owing());
}

/** Tables whose changes the position covers although the target does not have them. */
export async function owingReload(target: Connection, sync: string): Promise<{ captureId: number }[]> {
  return await target.rows<{ captureId: number }>(
    `select t.capture_id as "captureId" from replicate.sync_table t
     where t.sync = $1 and t.reload_since is not null order by 1`,
    [sync],
  );
}
