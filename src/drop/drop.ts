/** Drop: the deferred definitions of the target are restored, the source loses its capture, and no trace is left on either. */
import { detachCapture } from "../capture/capture.ts";
import { tableLabel } from "../catalog/table.ts";
import { forgetConflicts } from "../conflict/log.ts";
import { ReplicateError } from "../errors.ts";
import type { Side } from "../events.ts";
import type { Connection } from "../postgres/connect.ts";
import { failpoint } from "../postgres/failpoint.ts";
import { placeOf, placeText } from "../postgres/place.ts";
import { sqlstateOf, UNDEFINED_TABLE } from "../postgres/sqlstate.ts";
import type { SyncContext } from "../state/context.ts";
import { forgetLeases, type Lease } from "../state/lease.ts";
import { migrateOlder, SCHEMA_LOCK, stateVersion } from "../state/migrate.ts";
import { countDeferred, allKinds } from "../state/deferred.ts";
import { restoreDeferred, type LeftInvalid } from "../state/restore-deferred.ts";
import { readFence, removeFence } from "../fence/fence.ts";
import { endInterleaving } from "../sequences/end-interleaving.ts";
import { endReader, isRunnerAlive } from "../state/runner-lock.ts";
import { closeSource, forgetExpelled } from "../state/source-identity.ts";
import { isSwitching, retentionPointName } from "../state/switch.ts";
import { loadTables } from "../state/sync-table.ts";

export interface DropOptions {
  /** The target is gone, or given up: if it comes back it is told so, and has to be copied anew. */
  readonly sourceOnly?: boolean;
  /** The source is gone. */
  readonly targetOnly?: boolean;
  readonly dryRun?: boolean;
}

export interface SourceOptions extends DropOptions {
  /** The fence around the source's tables stays, and so does schema replicate there. */
  readonly keepsFence?: boolean;
}

export interface DropReport {
  readonly removed: readonly { readonly side: Side; readonly object: string }[];
  /** Objects of the target that were given back. */
  readonly restored: number;
  /** Constraints that are NOT VALID now, because rows of the source break them. */
  readonly leftInvalid: readonly LeftInvalid[];
  readonly dryRun: boolean;
}

/**
 * Removes the sync. Can be interrupted anywhere and repeated. Throws SYNC_UNKNOWN when there is nothing of it,
 * RUNNER_ACTIVE while somebody follows it under another lease than `ours`, and STATEMENT_FAILED when a deferred definition cannot be restored: the ledger stays then.
 */
export async function dropSync(
  context: SyncContext,
  options: SourceOptions = {},
  ours?: Lease,
): Promise<DropReport> {
  const removed: { side: Side; object: string }[] = [];
  const note = (side: Side, object: string): void => {
    removed.push({ side, object });
    if (!options.dryRun) context.emit({ type: "object-removed", side, object });
  };
  let restored = 0;
  let leftInvalid: readonly LeftInvalid[] = [];
  let isKnown = false;

  if (!options.sourceOnly) {
    await using target = await context.target("drop");
    if (await knows(target, "sync", context.config.name)) {
      isKnown = true;
      if (await isRunnerAlive(target, context.config.name, ours)) {
        throw new ReplicateError("RUNNER_ACTIVE", `sync ${context.config.name} is being followed`, {
          hint: "Stop that runner first.",
        });
      }
      if (await isSwitching(target, context.config.name)) {
        throw new ReplicateError(
          "RUNNER_ACTIVE",
          `sync ${context.config.name} is being switched by another process`,
          {
            hint: "Wait for it, or stop it: what it has begun goes with the sync.",
          },
        );
      }
      await warnOfDeferredReloads(context, target);
      if (options.dryRun) {
        restored = await countDeferred(target, context.config.name, { kinds: allKinds });
      } else {
        const paid = await restoreDeferred(context);
        if (paid.failed.length > 0) {
          throw new ReplicateError("STATEMENT_FAILED", "the target did not take everything back", {
            side: "target",
            problems: paid.failed,
            hint: "Repair what the messages say and run drop again: the definitions are kept until then.",
          });
        }
        restored = paid.restored;
        leftInvalid = paid.leftInvalid;
      }
    }
  }
  await giveSequencesBack(context, options, note);
  if (!options.targetOnly) {
    await using source = await context.source("drop");
    isKnown = (await dropSource(context, source, options, note)) || isKnown;
  }
  if (!options.sourceOnly) {
    await using target = await context.target("drop");
    await dropTarget(context, target, options.dryRun ?? false, note);
  }
  // What an interrupted drop left over counts as well.
  if (!isKnown && removed.length === 0)
    throw new ReplicateError(
      "SYNC_UNKNOWN",
      `there is no sync named ${context.config.name} to drop, on the source ${placeText(placeOf(context.config.source))} or the target ${placeText(placeOf(context.config.target))}`,
    );
  return { removed, restored, leftInvalid, dryRun: options.dryRun ?? false };
}

/** As long as both sides know which tables, and so which sequences, belong together. */
async function giveSequencesBack(
  context: SyncContext,
  options: DropOptions,
  note: (side: Side, object: string) => void,
): Promise<void> {
  await using source = options.targetOnly ? undefined : await context.source("drop");
  await using target = options.sourceOnly ? undefined : await context.target("drop");
  const sides = [source, target].filter((each) => each !== undefined);
  for (const { side, sequence } of await endInterleaving(context, sides, options.dryRun === true))
    note(side, `share of sequence ${sequence}`);
}

/** Tables whose last changes the target never got. */
async function warnOfDeferredReloads(context: SyncContext, target: Connection): Promise<void> {
  for (const table of await loadTables(target, context.config.name)) {
    if (table.reloadSince === null) continue;
    const label = tableLabel({ schema: table.targetSchema, name: table.targetName });
    context.emit({
      type: "warning",
      message: `${label} on the target lacks changes since ${table.reloadSince.toISOString()}: it has no key and was not read again`,
    });
  }
}

async function knows(connection: Connection, table: "sync" | "source_sync", sync: string): Promise<boolean> {
  if ((await stateVersion(connection)) === 0) return false;
  return (await connection.rows(`select 1 from replicate.${table} where name = $1`, [sync])).length > 0;
}

async function dropSource(
  context: SyncContext,
  source: Connection,
  { dryRun = false, sourceOnly = false, keepsFence = false }: SourceOptions,
  note: (side: Side, object: string) => void,
): Promise<boolean> {
  const { name } = context.config;
  const isKnown = await knows(source, "source_sync", name);
  // It refuses where somebody reads on.
  if (isKnown && sourceOnly && !dryRun) {
    await migrateOlder(source);
    await endReader(source, name);
  }
  if (!keepsFence) await dropFence(context, source, dryRun, note);
  if (isKnown) {
    if (!dryRun) {
      await migrateOlder(source);
      // First of all: interrupted from here on, nobody may follow what is not recorded any more.
      await closeSource(source, name);
    }
    const captures = await source.rows<{ id: number; table: string; isShared: boolean }>(
      `select c.id, coalesce(c.relid::pg_catalog.regclass::text, 'a dropped table') as table,
              exists (select 1 from replicate.subscription o where o.capture_id = c.id and o.sync not in ($1, $2)) as "isShared"
       from replicate.subscription s join replicate.capture c on c.id = s.capture_id
       where s.sync = $1 order by c.id`,
      [name, retentionPointName(name)],
    );
    if (!dryRun) await dropRetentionPoint(context, source);
    for (const capture of captures) {
      if (!dryRun) await detachCapture(context, source, capture.id);
      if (!capture.isShared) note("source", `capture of ${capture.table}`);
      await failpoint("drop.detached");
    }
    if (!dryRun) {
      await forgetConflicts(source, name);
      await source.rows(`delete from replicate.source_sync where name = $1`, [name]);
      if (!sourceOnly) await forgetExpelled(source, name);
      await forgetLeases(source, name);
    }
  }
  await dropSchema(source, dryRun ? { table: "source_sync", name } : undefined, note);
  return isKnown;
}

async function dropTarget(
  context: SyncContext,
  target: Connection,
  dryRun: boolean,
  note: (side: Side, object: string) => void,
): Promise<void> {
  const { name } = context.config;
  await dropFence(context, target, dryRun, note);
  if (await knows(target, "sync", name)) {
    note("target", `state of sync ${name}`);
    if (!dryRun) {
      await target.transaction(async () => {
        // One by one: foreign keys do not cascade in the replica role.
        for (const table of [
          "deferred",
          "runner",
          "part",
          "sync_table",
          "switch",
          "parked",
          "schema_change",
          "newcomer",
        ])
          await target.rows(`delete from replicate.${table} where sync = $1`, [name]);
        await forgetConflicts(target, name);
        await target.rows(`delete from replicate.sync where name = $1`, [name]);
      });
      await forgetLeases(target, name);
    }
  }
  await failpoint("drop.forgotten");
  await dropSchema(target, dryRun ? { table: "sync", name } : undefined, note);
}

/** Removes what keeps applications from writing to the sync's tables on this side, whether it stands or is lifted. */
async function dropFence(
  context: SyncContext,
  connection: Connection,
  dryRun: boolean,
  note: (side: Side, object: string) => void,
): Promise<void> {
  if ((await stateVersion(connection)) === 0) return;
  const { name } = context.config;
  if ((await readFence(connection, name)) === undefined) return;
  const { side } = connection;
  if (dryRun) note(side, "the fence around the tables");
  else for (const object of await removeFence(connection, name, context)) note(side, object);
}

/** Ends the reading of captures on behalf of a cutover that was begun. */
async function dropRetentionPoint(context: SyncContext, source: Connection): Promise<void> {
  const mark = retentionPointName(context.config.name);
  await source.rows(`delete from replicate.subscription where sync = $1`, [mark]);
  await source.rows(`delete from replicate.source_sync where name = $1`, [mark]);
}

/**
 * Removes schema replicate when no sync uses this database in either role. `pretending`: only says so, as if this row
 * were gone.
 */
async function dropSchema(
  connection: Connection,
  pretending: { readonly table: "sync" | "source_sync"; readonly name: string } | undefined,
  note: (side: Side, object: string) => void,
): Promise<void> {
  await connection.transaction(async () => {
    if ((await stateVersion(connection)) === 0) return;
    const isThere = await connection.script(SCHEMA_LOCK).then(
      () => true,
      (error: unknown) => {
        // Another drop was faster.
        if (sqlstateOf(error) === UNDEFINED_TABLE) return false;
        throw error;
      },
    );
    if (!isThere) return;
    const gone = (table: "sync" | "source_sync"): string | null =>
      pretending?.table === table ? pretending.name : null;
    const { syncs } = await connection.row<{ syncs: number }>(
      `select (select count(*) from replicate.sync where name is distinct from $1)::int
              + (select count(*) from replicate.source_sync where name is distinct from $2)::int
              + (select count(*) from replicate.capture c where $2::text is null or exists (
                   select 1 from replicate.subscription s where s.capture_id = c.id and s.sync <> $2))::int as syncs`,
      [gone("sync"), gone("source_sync")],
    );
    if (syncs > 0) return;
    // A fence that was to stay.
    const fences = await connection.rows(`select 1 from replicate.fence where sync is distinct from $1`, [
      pretending?.name,
    ]);
    if (fences.length > 0) return;
    note(connection.side, "schema replicate");
    if (pretending === undefined) await connection.script("drop schema replicate cascade");
  });
}
