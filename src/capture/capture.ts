/** Capture: triggers on the source that note which keys changed. Attached and removed table by table. */
import {
  captureKey,
  deltaTables,
  loadCaptures,
  type Capture,
  type CaptureKeyColumn,
} from "../catalog/delta.ts";
import type { DescribedTables } from "../catalog/described.ts";
import { describeTables, tableLabel, tableSql, type Key, type Table } from "../catalog/table.ts";
import type { CaptureMethod, KeylessPolicy } from "../config/options.ts";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { withBriefLocks } from "../postgres/lock.ts";
import { fill, ident, load } from "../postgres/sql.ts";
import type { SyncContext } from "../state/context.ts";
import { WRITTEN_PAST } from "./by-row.ts";
import { lockCapture } from "./lock-capture.ts";
import { recordReread } from "./record-changes.ts";
import { installFunction } from "./trigger-function.ts";
import { installTriggers, installTruncateTrigger } from "./triggers.ts";

/**
 * Makes sure that the table is captured and that this sync reads the capture. One transaction; the lock waits out
 * writers in flight, so every transaction that commits later has its deltas. Returns the capture.
 * A table without a key is captured only if `keyless` allows it; one that has got a key since is captured by its key from
 * now on. `described`: of this session, where many tables are captured. Throws LOCK_NOT_AVAILABLE; the driver's errors where privileges are missing.
 */
export async function attachCapture(
  context: SyncContext,
  source: Connection,
  table: Table,
  method: CaptureMethod,
  keyless: KeylessPolicy,
  described?: DescribedTables,
): Promise<Capture> {
  const label = tableLabel(table);
  const onWait = (blockedBy: string, attempt: number): void =>
    context.emit({ type: "capture-waiting", table: label, blockedBy, attempt });
  return await withBriefLocks(source, { what: label, signal: context.signal, onWait }, async () => {
    const [known] = await source.rows<{
      id: number;
      skipNoop: boolean;
      tracksOrigin: boolean;
      isKeyless: boolean;
      isSubscribed: boolean;
    }>(
      `select c.id, c.skip_noop as "skipNoop", c.tracks_origin as "tracksOrigin", c.key_columns = '[]' as "isKeyless", s.sync is not null as "isSubscribed"
       from replicate.capture c left join replicate.subscription s on s.capture_id = c.id and s.sync = $2
       where c.relid = $1 for update of c`,
      [table.oid, context.config.name],
    );
    const getsKey = known?.isKeyless === true && table.key !== null;
    const tracksOrigin = context.config.tracksTarget;
    const getsOrigin = known?.tracksOrigin === false && tracksOrigin;
    if (known?.isSubscribed && !getsKey && !getsOrigin) return await loadOne(source, known.id);
    await source.script(`lock table ${tableSql(table)} in share row exclusive mode`);
    // Under the lock the shape cannot change any more.
    const locked = await (described?.now(table.oid) ?? describeOne(source, table.oid));
    if (locked === undefined || (locked.key === null && keyless === "refuse"))
      throw new ReplicateError("CAPTURE_BROKEN", `the source's ${label} has lost its key`, {
        hint: "Give the table a primary key again, leave it out (--exclude-tables), or have it read as a whole (--keyless reload). Then run the command again.",
      });
    const id = known?.id ?? (await createCapture(source, locked, locked.key === null ? "statement" : method));
    if (tracksOrigin && known?.tracksOrigin !== true) await trackOrigin(source, id);
    if (known?.isKeyless && locked.key !== null)
      await captureByKey(source, await loadOne(source, id), locked, locked.key);
    // A copy must see every update: one that changes nothing still moves the row. The lock has waited out those who
    // may have run the old function.
    if (known?.skipNoop) await recordNoops(source, await loadOne(source, id));
    await source.rows(
      `insert into replicate.subscription (sync, capture_id) values ($1, $2) on conflict do nothing`,
      [context.config.name, id],
    );
    return await loadOne(source, id);
  });
}

/**
 * Keeps the deltas of a table from now on until `follow` has taken the table in again, because it is copied anew, and
 * has every update recorded (see attachCapture).
 */
export async function pinCapture(
  context: SyncContext,
  source: Connection,
  captureId: number,
  label: string,
): Promise<void> {
  await withBriefLocks(source, { what: label, signal: context.signal }, async () => {
    await lockCapture(source, captureId);
    const [capture] = await loadCaptures(source, [captureId]);
    if (capture?.skipNoop) {
      const [table] = await describeTables(source, [capture.relid]);
      if (table !== undefined)
        await source.script(`lock table ${tableSql(table)} in share row exclusive mode`);
      await recordNoops(source, capture);
    }
    await source.rows(
      `update replicate.subscription set is_pinned = true where sync = $1 and capture_id = $2`,
      [context.config.name, captureId],
    );
  });
}

async function recordNoops(source: Connection, capture: Capture): Promise<void> {
  await source.rows(`update replicate.capture set skip_noop = false where id = $1`, [capture.id]);
  await installFunction(source, { ...capture, skipNoop: false });
}

async function describeOne(source: Connection, oid: number): Promise<Table | undefined> {
  return (await describeTables(source, [oid]))[0];
}

async function loadOne(source: Connection, id: number): Promise<Capture> {
  const [capture] = await loadCaptures(source, [id]);
  if (capture === undefined) throw new ReplicateError("INTERNAL", `capture ${id} vanished`);
  return capture;
}

async function createCapture(source: Connection, table: Table, wished: CaptureMethod): Promise<number> {
  const keyColumns = table.key === null ? [] : captureKey(table, table.key);
  const [past] = await source.rows(WRITTEN_PAST, [table.oid]);
  const method = past === undefined ? wished : "row";
  const { id } = await source.row<{ id: number }>(
    `insert into replicate.capture (relid, key_columns, method, skip_noop, delta_a, delta_b)
     values ($1, $2, $3, false, 0, 0) returning id`,
    [table.oid, JSON.stringify(keyColumns), method],
  );
  const columns = deltaColumnsSql(keyColumns).map((column) => `${column}, `).join(""); // prettier-ignore
  for (const delta of deltaTables(id)) await source.script(fill("capture/delta-table", { delta, columns }));
  const [a, b] = deltaTables(id);
  await source.rows(
    `update replicate.capture set delta_a = $2::regclass, delta_b = $3::regclass where id = $1`,
    [id, a, b],
  );
  const capture: Capture = {
    id,
    relid: table.oid,
    keyColumns,
    method,
    skipNoop: false,
    active: "a",
    tracksOrigin: false,
  };
  await installFunction(source, capture);
  await installTriggers(source, table, capture);
  for (const leaf of table.leaves) await installTruncateTrigger(source, leaf, capture);
  return id;
}

function deltaColumnsSql(keyColumns: readonly CaptureKeyColumn[]): string[] {
  return keyColumns.map((column, index) => {
    const collation = column.collation === null ? "" : ` collate ${column.collation}`;
    return `k${index + 1} ${column.deltaType}${collation}`;
  });
}

/** From here on the deltas of a capture tell what was done, when and where. The table is locked. */
async function trackOrigin(source: Connection, captureId: number): Promise<void> {
  for (const delta of deltaTables(captureId))
    await source.script(
      `alter table ${delta} add column op "char", add column changed_at timestamptz, add column origin text, add column via text`,
    );
  await source.rows(`update replicate.capture set tracks_origin = true where id = $1`, [captureId]);
  await installFunction(source, await loadOne(source, captureId));
}

/**
 * From here on a capture that knew no key notes keys: the triggers stay, their function changes. What was recorded before is
 * part of one last re-read. The table is locked, so nobody is in the old function.
 */
async function captureByKey(source: Connection, capture: Capture, table: Table, key: Key): Promise<void> {
  const keyColumns = captureKey(table, key);
  const columns = deltaColumnsSql(keyColumns).map((column) => `add column ${column}`);
  for (const delta of deltaTables(capture.id))
    await source.script(`alter table ${delta} ${columns.join(", ")}`);
  await source.rows(`update replicate.capture set key_columns = $2 where id = $1`, [
    capture.id,
    JSON.stringify(keyColumns),
  ]);
  await installFunction(source, { ...capture, keyColumns });
  await recordReread(source, capture);
}

/**
 * Ends a sync's reading of a capture, and removes the capture from the source when no other sync reads it. Returns
 * the names of what was removed. A table that is gone already is no error.
 */
export async function detachCapture(
  context: SyncContext,
  source: Connection,
  captureId: number,
): Promise<string[]> {
  const { relid, schema, name } = await source.row<{ relid: number; schema: string | null; name: string }>(
    `select k.relid::bigint::float8 as relid, n.nspname::text as schema, c.relname::text as name
     from replicate.capture k
     left join pg_catalog.pg_class c on c.oid = k.relid
     left join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where k.id = $1`,
    [captureId],
  );
  const what = schema === null ? `relation ${relid}` : tableLabel({ schema, name });
  return await withBriefLocks(source, { what, signal: context.signal }, async () => {
    // Whoever is just about to read it is seen then.
    await lockCapture(source, captureId);
    await source.rows(`delete from replicate.subscription where sync = $1 and capture_id = $2`, [
      context.config.name,
      captureId,
    ]);
    const [other] = await source.rows(`select 1 from replicate.subscription where capture_id = $1`, [
      captureId,
    ]);
    if (other !== undefined) return [];
    const triggers = await source.rows<{ table: string; trigger: string }>(load("capture/triggers-of"), [
      captureId,
    ]);
    for (const { table: on, trigger } of triggers) {
      await source.script(`drop trigger if exists ${ident(trigger)} on ${on}`);
    }
    const [a, b] = deltaTables(captureId);
    await source.script(
      `drop function if exists replicate.capture_${captureId}(); drop table if exists ${a}, ${b}`,
    );
    await source.rows(`delete from replicate.capture where id = $1`, [captureId]);
    return [...triggers.map(({ table: on, trigger }) => `trigger ${trigger} on ${on}`), a, b];
  });
}

/** Turns no-op suppression on, once no sync copies the table any more. Returns whether it is on now. */
export async function enableSkipNoop(source: Connection, captureId: number): Promise<boolean> {
  return await source.transaction(async () => {
    // A sync that is about to copy the table holds this lock until its subscription can be seen.
    await lockCapture(source, captureId);
    const rows = await source.rows(
      `update replicate.capture c set skip_noop = true
       where id = $1 and method = 'row'
         and not exists (select 1 from replicate.subscription s where s.capture_id = c.id and s.is_pinned)
       returning id`,
      [captureId],
    );
    if (rows.length > 0) await installFunction(source, await loadOne(source, captureId));
    return rows.length > 0;
  });
}
