/** Init: state on both sides, and capture on the source. Again: adds what is new, changes nothing else. */
import { randomUUID } from "node:crypto";
import { attachCapture } from "../capture/capture.ts";
import { DescribedTables } from "../catalog/described.ts";
import { tableLabel } from "../catalog/table.ts";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { failpoint } from "../postgres/failpoint.ts";
import {
  gather,
  preflight,
  assertNoneBlocking,
  type Finding,
  type TablePair,
} from "../preflight/preflight.ts";
import type { SyncContext } from "../state/context.ts";
import { migrate, stateVersion } from "../state/migrate.ts";
import { rememberForeign, rememberSelection } from "../state/newcomers.ts";
import { checkPair, assertNotExpelled } from "../state/source-identity.ts";
import { loadKnownTables, loadTables } from "../state/sync-table.ts";
import { forgetTable, registerTable } from "./register.ts";

export interface InitOptions {
  /** Only say what would be done. */
  readonly dryRun?: boolean;
}

export interface InitReport {
  readonly tables: readonly { readonly source: string; readonly target: string; readonly isNew: boolean }[];
  readonly findings: readonly Finding[];
  readonly dryRun: boolean;
}

/**
 * Throws PREFLIGHT_BLOCKED, PATTERN_MATCHES_NOTHING, SAME_DATABASE and the like before anything is changed;
 * LOCK_NOT_AVAILABLE when a table stays locked by somebody, after which the same call carries on.
 */
export async function initSync(context: SyncContext, options: InitOptions = {}): Promise<InitReport> {
  await using source = await context.source("init");
  await using target = await context.target("init");
  const known = await loadKnownTables(target, context.config.name);
  const { findings: found, pairs } = await preflight(
    context,
    source,
    target,
    new Map(known.map((table) => [table.sourceRelid, table])),
  );
  const findings = gather(found);
  assertNoneBlocking(findings);
  const isNew = (pair: TablePair): boolean => !known.some((table) => table.sourceRelid === pair.source.oid);
  const report: InitReport = {
    tables: pairs.map((pair) => ({
      source: tableLabel(pair.source),
      target: tableLabel(pair.target),
      isNew: isNew(pair),
    })),
    findings,
    dryRun: options.dryRun ?? false,
  };
  const registered = await knownSync(context, source, target);
  if (options.dryRun) return report;

  await migrate(source);
  await migrate(target);
  await registerSync(context, source, target, registered);
  // Before the captures: what is created meanwhile is known to be missing.
  await rememberSelection(target, context.config);
  await rememberForeign(source, target, context.config.name);
  await forgetDropped(context, source, target);
  const described = await DescribedTables.of(
    source,
    pairs.map((pair) => pair.source.oid),
  );
  for (const pair of pairs) {
    const capture = await attachCapture(
      context,
      source,
      pair.source,
      pair.override.capture ?? "row",
      pair.keyless,
      described,
    );
    await failpoint("init.captured");
    const registered = await registerTable(source, target, context.config.name, capture, pair);
    if (registered) context.emit({ type: "capture-installed", table: tableLabel(pair.source) });
  }
  return report;
}

interface Known {
  /** The token that the target remembers. */
  readonly target: string | undefined;
  readonly source: { readonly token: string; readonly previous: string } | undefined;
}

/** What both sides know of the sync. Throws SOURCE_LOST, TARGET_RESTORED and SYNC_MISMATCH where that is not one and the same sync. */
async function knownSync(context: SyncContext, source: Connection, target: Connection): Promise<Known> {
  const { name } = context.config;
  const [hasSource, hasTarget] = await Promise.all(
    [source, target].map(async (side) => (await stateVersion(side)) > 0),
  );
  const [remembered] = hasTarget
    ? await target.rows<{ token: string }>(`select token from replicate.sync where name = $1`, [name])
    : [];
  const [found] = hasSource
    ? await source.rows<{ token: string; previous: string }>(
        `select token, previous_token as previous from replicate.source_sync where name = $1`,
        [name],
      )
    : [];
  if (remembered !== undefined && found?.token !== remembered.token)
    await assertNotExpelled(source, name, remembered.token);
  if (
    remembered !== undefined &&
    found !== undefined &&
    ![found.token, found.previous].includes(remembered.token)
  ) {
    await checkPair(source, target, name);
  }
  if (remembered !== undefined && found === undefined) await assertSameSource(target, name);
  if (remembered === undefined && found !== undefined) {
    const captured = await source.rows(`select 1 from replicate.subscription where sync = $1 limit 1`, [
      name,
    ]);
    if (captured.length > 0) {
      // Taking it over would make the other target lose its source.
      throw new ReplicateError(
        "SYNC_MISMATCH",
        `the source has a sync named ${name} already, to another target`,
        {
          side: "source",
          hint: "Use another --name. If that target is gone for good, run `replicate drop --source-only` first.",
        },
      );
    }
  }
  return { source: found, target: remembered?.token };
}

/** For a target whose sync has tables, and a source that does not know it. */
async function assertSameSource(target: Connection, name: string): Promise<void> {
  const [table] = await target.rows<{ isCopied: boolean }>(
    `select state <> 'new' as "isCopied" from replicate.sync_table where sync = $1 order by 1 desc limit 1`,
    [name],
  );
  if (table === undefined) return;
  if (table.isCopied) {
    throw new ReplicateError(
      "SOURCE_LOST",
      `the target has sync ${name}, and this source knows nothing of it`,
      {
        side: "source",
        hint: "Connect to the right source, or run `replicate drop --target-only` and start again.",
      },
    );
  }
  // The numbers of its captures are the other source's.
  throw new ReplicateError(
    "SYNC_MISMATCH",
    `the target has a sync named ${name} already, from another source`,
    {
      side: "target",
      hint: "Use another --name. If that source is gone for good, run `replicate drop --target-only` first.",
    },
  );
}

/** Gives the sync its row on both sides, with a common token. Safe to interrupt anywhere and to repeat. */
async function registerSync(
  context: SyncContext,
  source: Connection,
  target: Connection,
  known: Known,
): Promise<void> {
  const { name } = context.config;
  const token = known.target ?? randomUUID();
  if (known.target === undefined && known.source !== undefined) {
    // An init that went no further.
    await source.rows(
      `update replicate.source_sync set token = $2, previous_token = $2, position = null where name = $1`,
      [name, token],
    );
  }
  await source.rows(
    `insert into replicate.source_sync (name, token, previous_token) values ($1, $2, $2) on conflict (name) do nothing`,
    [name, token],
  );
  await failpoint("init.source-registered");
  await target.rows(
    `insert into replicate.sync (name, source_label, token) values ($1, $2, $3) on conflict (name) do nothing`,
    [name, context.config.source.label, token],
  );
}

/** Tables that were dropped on the source leave the sync; a new table of the same name may join it. */
async function forgetDropped(context: SyncContext, source: Connection, target: Connection): Promise<void> {
  for (const table of await loadTables(target, context.config.name)) {
    const [there] = await source.rows(`select 1 from pg_catalog.pg_class where oid = $1`, [
      table.sourceRelid,
    ]);
    if (there !== undefined) continue;
    const [deferred] = await target.rows(
      `select 1 from replicate.deferred where sync = $1 and capture_id = $2 and restored_at is null limit 1`,
      [context.config.name, table.captureId],
    );
    if (deferred !== undefined) {
      context.emit({
        type: "warning",
        message: `${tableLabel({ schema: table.sourceSchema, name: table.sourceName })} is gone from the source; its indexes on the target come back with the next copy or drop`,
      });
      continue;
    }
    await forgetTable(context, source, target, table.captureId);
  }
}
