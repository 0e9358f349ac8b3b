/**
 * Makes a table of the target ready for its rows and writes its parts into the ledger, in one transaction: what hangs on
 * the table is saved and removed, rows that are to go are gone, and the plan stands, or nothing of it.
 */
import { holdCapture } from "../capture/capture.ts";
import { readDefinitions, removals, stages, type Definitions, type Removal } from "../catalog/definitions.ts";
import { fromSql, tableLabel, tableSql } from "../catalog/table.ts";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { failpoint } from "../postgres/failpoint.ts";
import { withBriefLocks } from "../postgres/lock.ts";
import { literal, load } from "../postgres/sql.ts";
import { asReplicateError, isConnectionFailure } from "../postgres/sqlstate.ts";
import { loadKinds, takeAway } from "../state/owed.ts";
import { loadPart, PartGivenBack, PlanOutdated, type Part } from "./copy-part.ts";
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
  run: Pick<CopyRun, "partBytes">,
  source: Connection,
  target: Connection,
  table: CopyTable,
): Promise<PlannedPart[]> {
  const relations = storages(table.source);
  const targetOf = await leafMapping(source, target, table);
  if (source.version >= pageRangesSince) return planParts(relations, run.partBytes, targetOf, "pages");
  const bounds = new Map<number, string[][]>();
  for (const storage of relations) {
    const parts = partCount(storage, run.partBytes);
    if (parts === 1 || table.capture.keyColumns.length === 0) continue;
    const share = storageBytes(storage) / Math.max(1, table.bytes);
    const rows = table.source.kind === "p" ? 0 : table.source.estimatedRows * share;
    bounds.set(storage.oid, await sampleBounds(source, storage, table.capture, rows, parts));
  }
  return planParts(relations, run.partBytes, targetOf, bounds);
}

async function leafMapping(
  source: Connection,
  target: Connection,
  table: CopyTable,
): Promise<(relid: number) => number> {
  if (table.source.kind !== "p" || table.target.kind !== "p") return () => table.target.oid;
  const conditions = async (connection: Connection, oids: number[]): Promise<Map<number, string>> => {
    const rows = await connection.rows<{ oid: number; condition: string | null }>(
      load("copy/leaf-conditions"),
      [oids],
    );
    return new Map(rows.flatMap((row) => (row.condition === null ? [] : [[row.oid, row.condition]])));
  };
  return targetLeaves(
    table.source,
    table.target,
    await conditions(source, table.source.leaves.map((leaf) => leaf.oid)),
    await conditions(target, table.target.leaves.map((leaf) => leaf.oid)),
  ); // prettier-ignore
}

/**
 * Whether the indexes stay while the rows go in. Duplicates cannot occur on the way: a row is copied only if its
 * key has no delta, that is, as it was when the capture began, and then all keys were unique.
 */
export function isSmall(table: CopyTable): boolean {
  return table.bytes < smallBytes;
}

/** What a load of the table takes away, for a plan or to be carried out. */
export function tableRemovals(
  table: CopyTable,
  definitions: Definitions,
  mode: PrepareMode,
  isReplicaRole: boolean,
): Removal[] {
  return removals(definitions, {
    indexes: mode !== "adopt" && !isSmall(table),
    // Rows adopted satisfy their foreign keys already; later ones are checked only where triggers fire.
    foreignKeys: mode !== "adopt" || !isReplicaRole,
    isReplicaRole,
    key: table.target.key?.index ?? null,
  });
}

/**
 * Prepares a table; a small one is copied in the same transaction. Returns false when another process was faster. With
 * `outdated`, only while the ledger still holds the plan of that part. Throws as `loadPart` does, TARGET_NOT_EMPTY,
 * LOCK_NOT_AVAILABLE.
 */
export async function prepareTable(
  run: CopyRun,
  sessions: Sessions,
  captureId: number,
  mode: PrepareMode,
  outdated?: Part,
): Promise<boolean> {
  const source = await sessions.source();
  const target = await sessions.target();
  const table = run.tables.get(captureId) as CopyTable;
  assertFits([table]);
  const parts = mode === "adopt" ? [] : await planTable(run, source, target, table);
  // The table may have been followed already, and its deltas thrown away once they were applied.
  if (mode === "restart" && outdated === undefined)
    await holdCapture(run.context, source, captureId, table.label);
  const { isReplicaRole } = run.context;
  const { signal } = run;
  const isPrepared = await withBriefLocks(target, { what: tableLabel(table.target), signal }, async () => {
    // The table before the ledger: parts that are being written hold the table, and want the ledger at their end.
    await lockTables(target, table);
    if (!(await isUnchanged(run, target, captureId, mode, outdated))) return false;
    const definitions = await readDefinitions(target, table.target.oid);
    const taken = tableRemovals(table, definitions, mode, isReplicaRole);
    await takeAway(target, run.sync, captureId, taken, bytesOf(table, definitions, parts));
    if (mode === "adopt") {
      await target.script(adoptedSql(run.sync, table));
      return true;
    }
    await makeEmpty(run, target, table, mode);
    const [first] = parts;
    const isWhole = isSmall(table) && table.source.kind === "r" && parts.length === 1 && first !== undefined;
    if (!isWhole) await oweAnalyze(target, run.sync, captureId, table);
    await writePlan(run.sync, target, table, parts);
    await failpoint("copy.prepare.planned");
    if (isWhole) {
      const { file } = table.source;
      await loadPart(
        run,
        source,
        target,
        table,
        { ...first, captureId, number: 1, file, fingerprint: table.fingerprint },
        async (result) => {
          await target.script(
            `${partDoneSql(run.sync, captureId, 1, result)}; analyze ${tableSql(table.target)}`,
          );
        },
      );
    }
    return true;
  }).catch((error: unknown) => {
    if (error instanceof PartGivenBack || error instanceof PlanOutdated || isConnectionFailure(error))
      throw error;
    throw asReplicateError(error, `cannot prepare ${tableLabel(table.target)} on the target`);
  });
  await failpoint("copy.prepare.committed");
  return isPrepared;
}

/** Whether the ledger still says what this preparation is based on. Locks the table's row. */
async function isUnchanged(
  run: CopyRun,
  target: Connection,
  captureId: number,
  mode: PrepareMode,
  outdated: Part | undefined,
): Promise<boolean> {
  const [now] = await target.rows<{ state: string; file: string | null; fingerprint: string | null }>(
    `select state, source_file::jsonb ->> $3::text as file, fingerprint
     from replicate.sync_table where sync = $1 and capture_id = $2 for update`,
    [run.sync, captureId, String(outdated?.sourceRelid ?? 0)],
  );
  if (now === undefined) return false;
  if (mode !== "restart") return now.state === "new";
  return outdated === undefined || (now.file === outdated.file && now.fingerprint === outdated.fingerprint);
}

function adoptedSql(sync: string, table: CopyTable): string {
  return `update replicate.sync_table
    set state = 'copied', fingerprint = ${literal(table.fingerprint)}, partitions = ${literal(partitionsOf(table.source))},
        source_file = null, bytes_planned = 0, rows_copied = 0, bytes_copied = 0
    where sync = ${literal(sync)} and capture_id = ${table.entry.captureId}`;
}

/** Locks everything that the removal will touch, so that two tables with a foreign key between them can be prepared at once. */
async function lockTables(target: Connection, table: CopyTable): Promise<void> {
  const names = await target.rows<{ name: string }>(load("copy/locks"), [table.target.oid]);
  const list = names.map(({ name }) => name).join(", ");
  await target.script(`lock table ${list} in access exclusive mode`);
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

/** Empties the table where that is asked for. Throws TARGET_NOT_EMPTY. */
async function makeEmpty(
  run: CopyRun,
  target: Connection,
  table: CopyTable,
  mode: PrepareMode,
): Promise<void> {
  const { full } = await target.row<{ full: boolean }>(
    `select exists (select 1 from ${fromSql(table.target)}) as full`,
  );
  if (!full) return;
  if (mode !== "restart" && !run.overwrite) throw notEmpty([tableLabel(table.target)]);
  const only = table.target.kind === "p" ? "" : "only ";
  await target.script(`truncate table ${only}${tableSql(table.target)}`);
  await failpoint("copy.prepare.truncated");
}

export function notEmpty(labels: readonly string[]): ReplicateError {
  const what =
    labels.length === 1 ? "this table of the target holds rows" : "these tables of the target hold rows";
  return new ReplicateError("TARGET_NOT_EMPTY", `${what}: ${labels.join(", ")}`, {
    problems: labels.map((subject) => ({ subject, message: "is not empty" })),
  });
}

async function oweAnalyze(
  target: Connection,
  sync: string,
  captureId: number,
  table: CopyTable,
): Promise<void> {
  await target.rows(
    `insert into replicate.owed (sync, capture_id, kind, object_name, table_name, stage, statements, bytes)
     select $1, $2, 'analyze', $3, $3, $4, array[$5], $6
     where not exists (
       select 1 from replicate.owed where sync = $1 and capture_id = $2 and kind = 'analyze' and restored_at is null)`,
    [
      sync,
      captureId,
      tableLabel(table.target),
      stages.analyze,
      `analyze ${tableSql(table.target)}`,
      Math.round(table.bytes),
    ],
  );
}

async function writePlan(
  sync: string,
  target: Connection,
  table: CopyTable,
  parts: readonly PlannedPart[],
): Promise<void> {
  const { captureId } = table.entry;
  await target.rows(`delete from replicate.part where sync = $1 and capture_id = $2`, [sync, captureId]);
  await target.rows(
    `insert into replicate.part (sync, capture_id, number, source_relid, target_relid, split, low, high, bytes)
     select $1, $2, p.n, (p.part ->> 'sourceRelid')::oid, (p.part ->> 'targetRelid')::oid, p.part ->> 'split',
            nullif(p.part -> 'low', 'null'), nullif(p.part -> 'high', 'null'), (p.part ->> 'bytes')::bigint
     from pg_catalog.jsonb_array_elements($3::jsonb) with ordinality as p (part, n)`,
    [sync, captureId, JSON.stringify(parts)],
  );
  await target.rows(
    `update replicate.sync_table
     set state = 'copying', source_file = $3, fingerprint = $4, partitions = $5, bytes_planned = $6,
         rows_copied = 0, bytes_copied = 0
     where sync = $1 and capture_id = $2`,
    [
      sync,
      captureId,
      filesOf(table.source),
      table.fingerprint,
      partitionsOf(table.source),
      parts.reduce((sum, part) => sum + part.bytes, 0),
    ],
  );
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

/**
 * Moves tables on: to `loaded` when no part is left, to `copied` when nothing is owed that deltas need. Runs after the
 * commit that may have made it so, as a transaction of its own; whoever commits last sees all others. The last
 * statement returns the tables that became `copied`: captureId, rows, bytes.
 */
export function moveOnSql(sync: string, captureIds: readonly number[]): string {
  const tables = `t.sync = ${literal(sync)} and t.capture_id = any ('{${captureIds.join(",")}}'::int[])`;
  const kinds = loadKinds.map((kind) => literal(kind)).join(", ");
  return `begin;
    update replicate.sync_table t set state = 'loaded'
      where ${tables} and t.state = 'copying' and not exists (
        select 1 from replicate.part p where p.sync = t.sync and p.capture_id = t.capture_id and not p.done);
    update replicate.sync_table t set state = 'copied'
      where ${tables} and t.state = 'loaded' and not exists (
        select 1 from replicate.owed o where o.sync = t.sync and o.capture_id = t.capture_id
          and o.restored_at is null and o.kind in (${kinds}))
      returning t.capture_id as "captureId", t.rows_copied::float8 as "rows", t.bytes_copied::float8 as "bytes";
    commit`;
}
