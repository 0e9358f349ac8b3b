/**
 * The reverse way of a switch: captures on the new side and state on both, so that the old side can be kept current once
 * the new one is open. Everything but the position is made before the fence.
 */
import { randomUUID } from "node:crypto";
import { attachCapture, detachCapture } from "../capture/capture.ts";
import { readDefinitions, removals } from "../catalog/definitions.ts";
import { isKeyless, loadCaptures, type Capture } from "../catalog/delta.ts";
import { reversed } from "../catalog/mapping.ts";
import { describeTables, tableLabel } from "../catalog/table.ts";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { failpoint } from "../postgres/failpoint.ts";
import { withBriefLocks } from "../postgres/lock.ts";
import { fill, literal, load } from "../postgres/sql.ts";
import type { SyncContext } from "../state/context.ts";
import { saveAndDropSql } from "../state/deferred.ts";
import { loadTables, type KnownPartition, type SyncTable } from "../state/sync-table.ts";
import { withBoth } from "./ways.ts";

/**
 * Captures the tables of the new side for the reverse way, and registers them on both sides. Can be repeated. `isLive`: the
 * reverse way is followed already, or will be from here on. Throws LOCK_NOT_AVAILABLE, and PERMISSION_DENIED where the
 * role does not own the new side's tables.
 */
export async function createReverse(
  reversed: SyncContext,
  entries: readonly SyncTable[],
  isLive = false,
): Promise<void> {
  const { name } = reversed.config;
  await withBoth(reversed, "cutover", async (fresh, old) => {
    await fresh.rows(
      `insert into replicate.source_sync (name, token, previous_token) values ($1, $2, $2) on conflict (name) do nothing`,
      [name, randomUUID()],
    );
    await old.rows(
      `insert into replicate.sync (name, source_label, token) values ($1, $2, '') on conflict (name) do nothing`,
      [name, reversed.config.source.label],
    );
    await old.rows(`delete from replicate.part where sync = $1`, [name]);
    const tables = await describeTables(fresh, entries.map(({ targetRelid }) => targetRelid)); // prettier-ignore
    // A table that comes this way without a key may go back without one.
    const captures = await loadCaptures(old, entries.map(({ captureId }) => captureId)); // prettier-ignore
    const keyless = new Set(captures.filter(isKeyless).map(({ id }) => id));
    const ids: number[] = [];
    for (const entry of entries) {
      const table = tables.find(({ oid }) => oid === entry.targetRelid);
      if (table === undefined) {
        const label = tableLabel({ schema: entry.targetSchema, name: entry.targetName });
        throw new ReplicateError("TABLE_SHAPE_CHANGED", `${label} does not exist any more`);
      }
      const capture = await attachCapture(
        reversed,
        fresh,
        table,
        "row",
        keyless.has(entry.captureId) ? "reload" : "refuse",
      );
      ids.push(capture.id);
      await register(fresh, old, name, capture, entry, isLive);
      await failpoint("cutover.captured");
    }
    await old.rows(`delete from replicate.sync_table where sync = $1 and capture_id <> all ($2::int[])`, [
      name,
      ids,
    ]);
  });
}

/** One table of the reverse way, as of now; `entry` is the table on the active way. */
async function register(
  fresh: Connection,
  old: Connection,
  sync: string,
  capture: Capture,
  entry: SyncTable,
  isLive: boolean,
): Promise<void> {
  const captureId = capture.id;
  const [shape] = await fresh.rows<{ fingerprint: string }>(load("catalog/fingerprint"), [
    [entry.targetRelid],
  ]);
  const [there] = await old.rows<{ fingerprint: string }>(load("catalog/fingerprint"), [[entry.sourceRelid]]);
  const leaves = await fresh.rows<KnownPartition & { oid: string; isCaptured: boolean }>(
    load("catalog/partitions"),
    [[entry.targetRelid]],
  );
  const partitions = Object.fromEntries(
    leaves
      .filter((leaf) => leaf.isCaptured)
      .map(({ oid, name, bound, triggers }) => [oid, { name, bound, triggers }]),
  );
  const mapping = reversed(entry.mapping);
  // A table that went this way before keeps its figures.
  await old.rows(
    `update replicate.sync_table set capture_id = $2 where sync = $1 and target_relid = $3 and capture_id <> $2`,
    [sync, captureId, entry.sourceRelid],
  );
  await old.rows(
    `insert into replicate.sync_table (sync, capture_id, source_relid, source_schema, source_name,
       target_relid, target_schema, target_name, fingerprint, partitions, state, keyless, mapping, target_fingerprint)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'following', $11, $12, $13)
     on conflict (sync, capture_id) ${
       // What is followed knows better what it has seen.
       isLive
         ? "do nothing"
         : `do update set state = 'following', fingerprint = excluded.fingerprint, partitions = excluded.partitions,
             source_relid = excluded.source_relid, keyless = excluded.keyless, reload_since = null,
             mapping = excluded.mapping, target_fingerprint = excluded.target_fingerprint, definition = null`
     }`,
    [
      sync, captureId, entry.targetRelid, entry.targetSchema, entry.targetName,
      entry.sourceRelid, entry.sourceSchema, entry.sourceName, shape?.fingerprint ?? null, JSON.stringify(partitions),
      isKeyless(capture), mapping === null ? null : JSON.stringify(mapping),
      there?.fingerprint ?? null,
    ], // prettier-ignore
  );
}

/** Has the reverse way begin with what was changed since its captures were planted. Can be repeated. */
export async function beginReverse(reversed: SyncContext): Promise<void> {
  const { name } = reversed.config;
  await withBoth(reversed, "init", async (fresh, old) => {
    const [begun] = await old.rows(`select 1 from replicate.sync where name = $1 and token <> ''`, [name]);
    if (begun !== undefined) return;
    const { token } = await fresh.row<{ token: string }>(
      `select token from replicate.source_sync where name = $1`,
      [name],
    );
    await old.rows(`update replicate.sync set token = $2, is_closed = false where name = $1`, [name, token]);
  });
}

/** Declares that the old side equals the new one as of now. Both sides are equal, and nobody writes. */
export async function positionReverse(reversed: SyncContext): Promise<void> {
  const { name } = reversed.config;
  const token = randomUUID();
  await withBoth(reversed, "cutover", async (fresh, old) => {
    const { position } = await fresh.row<{ position: string }>(
      `select pg_catalog.txid_current_snapshot()::text as position`,
    );
    await old.guarded(
      `update replicate.sync set position = ${literal(position)}, token = ${literal(token)}, is_closed = false
       where name = ${literal(name)}`,
    );
    await fresh.guarded(
      `update replicate.source_sync
       set position = ${literal(position)}, token = ${literal(token)}, previous_token = ${literal(token)}
       where name = ${literal(name)};
       update replicate.subscription set is_pinned = false where sync = ${literal(name)}`,
    );
  });
}

/**
 * Removes the captures of a way from the side that it reads from. Its state stays, so that it can be planted again.
 * Can be repeated.
 */
export async function detachWay(context: SyncContext): Promise<void> {
  const { name } = context.config;
  await using source = await context.source("cutover");
  const captures = await source.rows<{ id: number }>(
    `select capture_id as id from replicate.subscription where sync = $1 order by 1`,
    [name],
  );
  for (const { id } of captures) {
    await detachCapture(context, source, id);
    await failpoint("cutover.detached");
  }
}

/** Removes what `createReverse` has made of a way that was never followed. */
export async function forgetWay(context: SyncContext): Promise<void> {
  const { name } = context.config;
  await detachWay(context);
  await withBoth(context, "cutover", async (source, target) => {
    await source.guarded(`delete from replicate.source_sync where name = ${literal(name)}`);
    // Foreign keys do not cascade in the replica role.
    const deletions: string[] = [];
    for (const table of ["runner", "deferred", "part", "sync_table"]) {
      deletions.push(`delete from replicate.${table} where sync = ${literal(name)}`);
    }
    deletions.push(`delete from replicate.sync where name = ${literal(name)}`);
    await target.guarded(deletions.join(";\n"));
  });
}

/**
 * Makes the target of a way ready to be written to by us alone: what would act on replicated rows goes into the ledger, as
 * it does at the first copy. Can be repeated. Throws LOCK_NOT_AVAILABLE.
 */
export async function suspendTriggers(context: SyncContext): Promise<void> {
  const { name } = context.config;
  await using target = await context.target("cutover");
  for (const entry of await loadTables(target, name)) {
    const what = tableLabel({ schema: entry.targetSchema, name: entry.targetName });
    const find = async (): Promise<ReturnType<typeof removals>> =>
      removals(await readDefinitions(target, entry.targetRelid), {
        indexes: false,
        foreignKeys: !context.isReplicaRole,
        isReplicaRole: context.isReplicaRole,
        key: null,
      });
    if ((await find()).length === 0) continue;
    await withBriefLocks(target, { what, signal: context.signal }, async () => {
      await target.script(fill("copy/lock-tables", { relid: String(entry.targetRelid) }));
      const away = saveAndDropSql(name, entry.captureId, await find(), () => 0);
      await target.script([...away.save, ...away.drop].join(";\n"));
    });
    await failpoint("cutover.stood-by");
  }
}
