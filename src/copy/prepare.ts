/**
 * Makes a table of the target ready for its rows and writes its parts into the ledger, in one transaction: what hangs on
 * the table is saved and removed, rows that are to go are gone, and the plan stands, or nothing of it.
 */
import { pinCapture } from "../capture/capture.ts";
import {
  definitionsIn,
  definitionsSql,
  removals,
  stages,
  type Definitions,
  type Removal,
} from "../catalog/definitions.ts";
import { isKeyless } from "../catalog/delta.ts";
import { keepsColumns } from "../catalog/mapping.ts";
import { readMemberships } from "../catalog/memberships.ts";
import { ownRowsSql } from "../catalog/rows.ts";
import { applicationPathSql, asApplication, OWN_PATH } from "../catalog/search-path.ts";
import { tableLabel, tableSql } from "../catalog/table.ts";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { failpoint, inSteps } from "../postgres/failpoint.ts";
import { withBriefLocks } from "../postgres/lock.ts";
import { fill, literal, load } from "../postgres/sql.ts";
import { asReplicateError, isConnectionFailure } from "../postgres/sqlstate.ts";
import type { SyncContext } from "../state/context.ts";
import { loadKinds, saveAndDropSql } from "../state/deferred.ts";
import { forgetTableSql } from "../state/parked.ts";
import { isTransformed } from "../transform/transform-rows.ts";
import { emitParked, loadPart, PartGivenBack, PlanOutdated, type Loaded, type Part } from "./copy-part.ts";
import { forgetChangesSql } from "./forget-changes.ts";
import {
  partCount,
  planParts,
  smallBytes,
  storageBytes,
  storages,
  targetLeaves,
  type PlannedPart,
} from "./plan.ts";
import { sampleBounds } from "./quantiles.ts";
import { assertFits, filesOf, partitionsOf, type CopyRun, type CopyTable, type PrepareMode } from "./run.ts";
import type { Sessions } from "./sessions.ts";

/** Sources from here on can scan a range of pages without reading the others. */
const pageRangesSince = 140_000;

/** Cuts a table into parts. Reads the source's catalogue, and a sample of the rows where pages cannot be used. */
export async function planTable(
  run: Pick<CopyRun, "partBytes" | "context">,
  source: Connection,
  target: Connection,
  table: CopyTable,
): Promise<PlannedPart[]> {
  const relations = storages(table.source);
  const partBytes = (await needsOneSnapshot(target, table)) ? Infinity : run.partBytes;
  const targetOf = await leafMapping(run.context, source, target, table);
  if (source.version >= pageRangesSince) return planParts(relations, partBytes, targetOf, "pages");
  const bounds = new Map<number, string[][]>();
  for (const storage of relations) {
    const parts = partCount(storage, partBytes);
    if (parts === 1 || table.capture.keyColumns.length === 0) continue;
    const share = storageBytes(storage) / Math.max(1, table.bytes);
    const rows = table.source.kind === "p" ? 0 : table.source.estimatedRows * share;
    bounds.set(storage.oid, await sampleBounds(source, table.source, storage, table.capture, rows, parts));
  }
  return planParts(relations, partBytes, targetOf, bounds);
}

/**
 * Without a key nothing keeps a row that moves between the snapshots of two parts from being copied twice. `follow` makes
 * that good, as the move has left a marker; but a unique index could not be built until then.
 */
async function needsOneSnapshot(target: Connection, table: CopyTable): Promise<boolean> {
  if (!isKeyless(table.capture)) return false;
  const found = await target.rows(
    `select 1 from pg_catalog.pg_index
     where indrelid = any ($1::oid[]) and (indisunique or indisexclusion) limit 1`,
    [[table.target, ...table.target.leaves].map(({ oid }) => oid)],
  );
  return found.length > 0;
}

async function leafMapping(
  { config }: SyncContext,
  source: Connection,
  target: Connection,
  table: CopyTable,
): Promise<(relid: number) => number> {
  const { source: from, target: to } = table;
  // The columns that decide about the partition may have other values there.
  const isKept = keepsColumns(table.entry.mapping) && !isTransformed(config, from.schema, from.name);
  if (from.kind !== "p" || to.kind !== "p" || !isKept) return () => to.oid;
  const [own, other] = await Promise.all([
    readMemberships(source, [from.oid]),
    readMemberships(target, [to.oid]),
  ]);
  return targetLeaves(to, own, other);
}

/**
 * Whether the indexes stay while the rows go in. Duplicates cannot occur on the way: a row is copied only if its
 * key has no delta, that is, as it was when the capture began, and then all keys were unique.
 */
export function isSmall(table: CopyTable): boolean {
  return table.bytes < smallBytes;
}

/** Others write to the target's table as well: its indexes stay, and only our rows go. */
function isShared(table: CopyTable): boolean {
  return table.target.own !== undefined;
}

/** What a load of the table takes away, for a plan or to be carried out. */
export function tableRemovals(
  table: CopyTable,
  definitions: Definitions,
  mode: PrepareMode,
  isReplicaRole: boolean,
): Removal[] {
  return removals(definitions, {
    indexes: mode !== "adopt" && !isSmall(table) && !isShared(table),
    // Rows adopted satisfy their foreign keys already; later ones are checked only where triggers fire.
    foreignKeys: mode !== "adopt" || !isReplicaRole,
    isReplicaRole,
    key: table.target.key?.index ?? null,
  });
}

/**
 * Prepares a table; a small one is copied in the same transaction. Returns null when another process was faster, else the
 * table if it is copied already. With `outdated`, only while the ledger still holds the plan of that part. Throws as `loadPart` does, TARGET_NOT_EMPTY,
 * LOCK_NOT_AVAILABLE.
 */
export async function prepareTable(
  run: CopyRun,
  sessions: Sessions,
  captureId: number,
  mode: PrepareMode,
  outdated?: Part,
): Promise<readonly Copied[] | null> {
  const [source, target] = await sessions.both();
  const table = run.tables.get(captureId) as CopyTable;
  assertFits([table]);
  const parts = mode === "adopt" ? [] : await planTable(run, source, target, table);
  // The table may have been followed already, and its deltas thrown away once they were applied.
  if (mode === "restart" && outdated === undefined)
    await pinCapture(run.context, source, captureId, table.label);
  const { isReplicaRole } = run.context;
  const { signal } = run;
  let loaded: Loaded | undefined;
  const prepared = await withBriefLocks(target, { what: tableLabel(table.target), signal }, async () => {
    const found = await lockAndLook(run, target, table, outdated);
    if (!isUnchanged(found, mode, outdated)) return null;
    const removed = tableRemovals(table, found.definitions, mode, isReplicaRole);
    const away = saveAndDropSql(run.sync, captureId, removed, bytesOf(table, found.definitions, parts));
    if (mode === "adopt") {
      const forget = forgetTableSql(run.sync, captureId);
      await target.script([...away.save, ...away.drop, forget, adoptedSql(run.sync, table)].join(";\n"));
      return [{ captureId, rows: 0, bytes: 0 }];
    }
    if (found.isFull && mode !== "restart" && !run.overwrite) throw notEmpty([tableLabel(table.target)]);
    const [first] = parts;
    const isWhole = isSmall(table) && table.source.kind === "r" && parts.length === 1 && first !== undefined;
    await inSteps(target, [
      ["copy.prepare.saved", away.save],
      ["copy.prepare.dropped", away.drop],
      [
        "copy.prepare.truncated",
        [...(found.isFull ? [emptySql(table)] : []), ...(await forgetChangesSql(run, target, table))],
      ],
      [
        "copy.prepare.planned",
        [
          ...(isWhole ? [] : [deferAnalyzeSql(run.sync, table)]),
          ...planSql(run.sync, table, parts),
          ...(run.remapped.has(captureId) ? [remappedSql(run.sync, table)] : []),
        ],
      ],
    ]);
    if (!isWhole) return [];
    const { fingerprint, source: { file }, entry: { mapping } } = table; // prettier-ignore
    const part = { ...first, captureId, number: 1, file, fingerprint, mapping };
    let copied: Copied[] = [];
    loaded = await loadPart(run, source, target, table, part, async (result) => {
      const analyze = asApplication(table.target, [`analyze ${tableSql(table.target)}`]);
      const done = [partDoneSql(run.sync, captureId, 1, result), ...analyze];
      // Nobody else has a part of this table, so it can be moved on before the commit.
      const results = await target.script([...done, ...moveOnSql(run.sync, [captureId])].join(";\n"));
      copied = (results.at(-1)?.rows ?? []) as Copied[];
    });
    return copied;
  }).catch((error: unknown) => {
    if (error instanceof PartGivenBack || error instanceof PlanOutdated || isConnectionFailure(error))
      throw error;
    throw asReplicateError(error, `cannot prepare ${tableLabel(table.target)} on the target`, [table.target]);
  });
  // It is in the ledger now, where others may change it.
  run.remapped.delete(captureId);
  await failpoint("copy.prepare.committed");
  if (loaded !== undefined) emitParked(run, loaded);
  return prepared;
}

interface Found {
  /** Null: the table left the sync. */
  readonly ledger: {
    readonly state: string;
    readonly file: string | null;
    readonly fingerprint: string | null;
  } | null;
  readonly isFull: boolean;
  readonly definitions: Definitions;
}

/**
 * Locks everything that the removal will touch, and reads under the locks what is there. The tables come before the
 * ledger: parts that are being written hold their table, and want the ledger at their end.
 */
async function lockAndLook(
  run: CopyRun,
  target: Connection,
  table: CopyTable,
  outdated: Part | undefined,
): Promise<Found> {
  const { captureId } = table.entry;
  // Of a shared table nothing is taken away but what would act on rows, and others are at work in it.
  const isLocked = !isShared(table) || !run.context.isReplicaRole;
  const results = await target.script(
    `${isLocked ? fill("copy/lock-tables", { relid: String(table.target.oid) }) : "select 1"};
     select state, source_file::jsonb ->> ${literal(String(outdated?.sourceRelid ?? 0))} as file, fingerprint
       from replicate.sync_table where sync = ${literal(run.sync)} and capture_id = ${captureId} for update;
     ${applicationPathSql(table.target)};
     select exists (select 1 from ${ownRowsSql(table.target)}) as full;
     ${OWN_PATH};
     ${definitionsSql(table.target.oid)}`,
  );
  const [ledger, contents] = [results[1], results[3]].flatMap((result) => [result?.rows[0] as unknown]);
  return {
    ledger: (ledger as Found["ledger"] | undefined) ?? null,
    isFull: (contents as { full: boolean }).full,
    definitions: definitionsIn(target.version, results),
  };
}

/** Whether the ledger still says what this preparation is based on. */
function isUnchanged({ ledger }: Found, mode: PrepareMode, outdated: Part | undefined): boolean {
  if (ledger === null) return false;
  if (mode !== "restart") return ledger.state === "new";
  return (
    outdated === undefined || (ledger.file === outdated.file && ledger.fingerprint === outdated.fingerprint)
  );
}

function emptySql(table: CopyTable): string {
  if (isShared(table))
    return asApplication(table.target, [`delete from ${ownRowsSql(table.target)}`]).join("; ");
  return `truncate table ${table.target.kind === "p" ? "" : "only "}${tableSql(table.target)}`;
}

function adoptedSql(sync: string, table: CopyTable): string {
  return `update replicate.sync_table
    set state = 'copied', fingerprint = ${literal(table.fingerprint)}, partitions = ${literal(partitionsOf(table.source))},
        target_fingerprint = ${targetFingerprintSql(table)}, source_file = null, bytes_planned = 0, rows_copied = 0, bytes_copied = 0${settledSql(table)}
    where sync = ${literal(sync)} and capture_id = ${table.entry.captureId}`;
}

/** How much a relation will hold once its indexes are built: the source's sizes, shared out where they cannot be told apart. */
function bytesOf(
  table: CopyTable,
  { tree }: Definitions,
  parts: readonly PlannedPart[],
): (relid: number) => number {
  const direct = new Map<number, number>();
  for (const part of parts) direct.set(part.targetRelid, (direct.get(part.targetRelid) ?? 0) + part.bytes);
  const leaves = Math.max(1, tree.filter((member) => member.kind !== "p").length);
  const shared = (direct.get(table.target.oid) ?? 0) / leaves;
  return (relid) => (relid === table.target.oid ? table.bytes : (direct.get(relid) ?? shared));
}

export function notEmpty(labels: readonly string[]): ReplicateError {
  const what =
    labels.length === 1 ? "this table of the target holds rows" : "these tables of the target hold rows";
  return new ReplicateError("TARGET_NOT_EMPTY", `${what}: ${labels.join(", ")}`, {
    problems: labels.map((subject) => ({ subject, message: "is not empty" })),
  });
}

function deferAnalyzeSql(sync: string, table: CopyTable): string {
  const label = literal(tableLabel(table.target));
  const { captureId } = table.entry;
  return `insert into replicate.deferred (sync, capture_id, kind, object_name, table_name, stage, statements, bytes)
    select ${literal(sync)}, ${captureId}, 'analyze', ${label}, ${label}, ${stages.analyze},
           array[${literal(`analyze ${tableSql(table.target)}`)}], ${Math.round(table.bytes)}
    where not exists (
      select 1 from replicate.deferred
      where sync = ${literal(sync)} and capture_id = ${captureId} and kind = 'analyze' and restored_at is null)`;
}

function planSql(sync: string, table: CopyTable, parts: readonly PlannedPart[]): string[] {
  const { captureId } = table.entry;
  const where = `where sync = ${literal(sync)} and capture_id = ${captureId}`;
  return [
    forgetTableSql(sync, captureId),
    `delete from replicate.part ${where}`,
    `insert into replicate.part (sync, capture_id, number, source_relid, target_relid, split, low, high, bytes)
     select ${literal(sync)}, ${captureId}, p.n, (p.part ->> 'sourceRelid')::oid, (p.part ->> 'targetRelid')::oid,
            p.part ->> 'split', nullif(p.part -> 'low', 'null'), nullif(p.part -> 'high', 'null'),
            (p.part ->> 'bytes')::bigint
     from pg_catalog.jsonb_array_elements(${literal(JSON.stringify(parts))}::jsonb) with ordinality as p (part, n)`,
    `update replicate.sync_table
     set state = 'copying', source_file = ${literal(filesOf(table.source))}, fingerprint = ${literal(table.fingerprint)},
         target_fingerprint = ${targetFingerprintSql(table)}, partitions = ${literal(partitionsOf(table.source))},
         rows_copied = 0, bytes_copied = 0,
         bytes_planned = ${parts.reduce((sum, part) => sum + part.bytes, 0)}${settledSql(table)}
     ${where}`,
  ];
}

/** Of the emptied table, which nobody else can alter before the end of the transaction. */
function targetFingerprintSql({ target }: CopyTable): string {
  return `(select f.fingerprint from (${load("catalog/fingerprint").replaceAll("$1", literal(`{${target.oid}}`))}) as f)`;
}

/** From here on the table's rows are those of another mapping. */
function remappedSql(sync: string, { entry: { captureId, mapping } }: CopyTable): string {
  return `update replicate.sync_table set mapping = ${literal(mapping === null ? null : JSON.stringify(mapping))}::jsonb
    where sync = ${literal(sync)} and capture_id = ${captureId}`;
}

/** All rows come anew: a reload that was deferred is not any more. */
function settledSql(table: CopyTable): string {
  return isKeyless(table.capture) ? ", reload_since = null" : "";
}

/** Crosses a part out, in the transaction that loaded it. */
export function partDoneSql(
  sync: string,
  captureId: number,
  number: number,
  result: { readonly rows: number; readonly bytes: number },
): string {
  const table = `sync = ${literal(sync)} and capture_id = ${captureId}`;
  return `update replicate.part
      set done = true, rows = ${result.rows}, copied_bytes = ${result.bytes}, done_at = pg_catalog.clock_timestamp()
      where ${table} and number = ${number};
    update replicate.sync_table
      set rows_copied = rows_copied + ${result.rows}, bytes_copied = bytes_copied + ${result.bytes} where ${table}`;
}

/** A table that is ready for deltas now. */
export interface Copied {
  readonly captureId: number;
  readonly rows: number;
  readonly bytes: number;
}

/**
 * Moves tables on: to `loaded` when no part is left, to `copied` when nothing is deferred that deltas need. For a transaction
 * of its own, after the commit that may have made it so: then whoever commits last sees what all others did. The
 * last statement returns the tables that became `copied`.
 */
export function moveOnSql(sync: string, captureIds: readonly number[]): readonly [string, string] {
  const tables = `t.sync = ${literal(sync)} and t.capture_id = any ('{${captureIds.join(",")}}'::int[])`;
  const kinds = loadKinds.map((kind) => literal(kind)).join(", ");
  return [
    `update replicate.sync_table t set state = 'loaded'
      where ${tables} and t.state = 'copying' and not exists (
        select 1 from replicate.part p where p.sync = t.sync and p.capture_id = t.capture_id and not p.done)`,
    `update replicate.sync_table t set state = 'copied'
      where ${tables} and t.state = 'loaded' and not exists (
        select 1 from replicate.deferred o where o.sync = t.sync and o.capture_id = t.capture_id
          and o.restored_at is null and o.kind in (${kinds}))
      returning t.capture_id as "captureId", t.rows_copied::float8 as "rows", t.bytes_copied::float8 as "bytes"`,
  ];
}
