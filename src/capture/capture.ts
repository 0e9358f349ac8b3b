/** Capture: triggers on the source that note which keys changed. Attached and removed table by table. */
import {
  APPLYING,
  captureKey,
  deltaColumns,
  deltaTables,
  isKeyless,
  loadCaptures,
  REREAD,
  RELOAD_NOW,
  type Capture,
  type CaptureKeyColumn,
  hasLeafTriggers,
} from "../catalog/delta.ts";
import { describeTables, tableLabel, tableSql, type Key, type Table } from "../catalog/table.ts";
import type { CaptureMethod, KeylessPolicy } from "../config.ts";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { withBriefLocks } from "../postgres/lock.ts";
import { fill, ident, load, qualified } from "../postgres/sql.ts";
import type { SyncContext } from "../state/context.ts";

/** Sorts behind the application's own triggers, so that it sees what they made of the row. */
const captureTrigger = (captureId: number): string => `zzz_replicate_capture_${captureId}`;
const truncateTrigger = (captureId: number): string => `zzz_replicate_truncate_${captureId}`;

/**
 * Makes sure that the table is captured and that this sync reads the capture. One transaction; the lock waits out
 * writers in flight, so every transaction that commits later has its deltas. Returns the capture.
 * A table without a key is captured only if `keyless` allows it; one that has got a key since is captured by its key from
 * now on. Throws LOCK_NOT_AVAILABLE; the driver's errors where privileges are missing.
 */
export async function attachCapture(
  context: SyncContext,
  source: Connection,
  table: Table,
  method: CaptureMethod,
  keyless: KeylessPolicy,
): Promise<Capture> {
  const label = tableLabel(table);
  const onWait = (blockedBy: string, attempt: number): void =>
    context.emit({ type: "capture-waiting", table: label, blockedBy, attempt });
  return await withBriefLocks(source, { what: label, signal: context.signal, onWait }, async () => {
    const [known] = await source.rows<{
      id: number;
      skipNoop: boolean;
      tells: boolean;
      isKeyless: boolean;
      isSubscribed: boolean;
    }>(
      `select c.id, c.skip_noop as "skipNoop", c.tells, c.key_columns = '[]' as "isKeyless", s.sync is not null as "isSubscribed"
       from replicate.capture c left join replicate.subscription s on s.capture_id = c.id and s.sync = $2
       where c.relid = $1 for update of c`,
      [table.oid, context.config.name],
    );
    const getsKey = known?.isKeyless === true && table.key !== null;
    const tells = context.config.isTwoSided;
    const getsTold = known?.tells === false && tells;
    if (known?.isSubscribed && !getsKey && !getsTold) return await loadOne(source, known.id);
    await source.script(`lock table ${tableSql(table)} in share row exclusive mode`);
    // Under the lock the shape cannot change any more.
    const [locked] = await describeTables(source, [table.oid]);
    if (locked === undefined || (locked.key === null && keyless === "refuse"))
      throw new ReplicateError("CAPTURE_BROKEN", `${label} has no key any more`);
    const id = known?.id ?? (await createCapture(source, locked, locked.key === null ? "statement" : method));
    if (tells && known?.tells !== true) await tellChanges(source, id);
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
export async function holdCapture(
  context: SyncContext,
  source: Connection,
  captureId: number,
  label: string,
): Promise<void> {
  await withBriefLocks(source, { what: label, signal: context.signal }, async () => {
    const [capture] = await loadCaptures(source, [captureId]);
    if (capture?.skipNoop) {
      const [table] = await describeTables(source, [capture.relid]);
      if (table !== undefined)
        await source.script(`lock table ${tableSql(table)} in share row exclusive mode`);
      await recordNoops(source, capture);
    }
    await source.rows(`update replicate.subscription set holds = true where sync = $1 and capture_id = $2`, [
      context.config.name,
      captureId,
    ]);
  });
}

async function recordNoops(source: Connection, capture: Capture): Promise<void> {
  await source.rows(`update replicate.capture set skip_noop = false where id = $1`, [capture.id]);
  await installFunction(source, { ...capture, skipNoop: false });
}

async function loadOne(source: Connection, id: number): Promise<Capture> {
  const [capture] = await loadCaptures(source, [id]);
  if (capture === undefined) throw new ReplicateError("INTERNAL", `capture ${id} vanished`);
  return capture;
}

async function createCapture(source: Connection, table: Table, wished: CaptureMethod): Promise<number> {
  const keyColumns = table.key === null ? [] : captureKey(table, table.key);
  // Statement triggers do not see writes that name another relation of a partition or inheritance tree.
  const [relative] = await source.rows(
    `select 1 from pg_catalog.pg_inherits where $1::oid in (inhrelid, inhparent) limit 1`,
    [table.oid],
  );
  const method = relative === undefined ? wished : "row";
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
    tells: false,
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
async function tellChanges(source: Connection, captureId: number): Promise<void> {
  for (const delta of deltaTables(captureId))
    await source.script(
      `alter table ${delta} add column op "char", add column changed_at timestamptz, add column origin text, add column via text`,
    );
  await source.rows(`update replicate.capture set tells = true where id = $1`, [captureId]);
  await installFunction(source, await loadOne(source, captureId));
}

/**
 * From here on a capture that knew no key notes keys: the triggers stay, their function changes. What was noted before is
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
  await noteReread(source, capture);
}

/** (Re)creates the trigger function of a capture, as its row in replicate.capture says. */
export async function installFunction(source: Connection, capture: Capture): Promise<void> {
  await source.script(functionSql(capture));
}

/** Sessions that apply a two-way sync show it by a setting; null, as in all others, is not true. */
const skipApplied = `if pg_catalog.current_setting('${APPLYING}', true) operator(pg_catalog.<>) '' then
    return null;
  end if;`;
const statementOp = `pg_catalog.substr(TG_OP, 1, 1)::pg_catalog."char"`;
const rowOp = `(case when is_moved then 'I' else pg_catalog.substr(TG_OP, 1, 1) end)::pg_catalog."char"`;

/** The trigger function of a capture as SQL. */
export function functionSql(capture: Capture): string {
  const { id, keyColumns } = capture;
  const delta = deltaTables(id)[capture.active === "a" ? 0 : 1];
  if (isKeyless(capture)) return fill("capture/marker-function", { id: String(id), delta });
  const each = (show: (column: CaptureKeyColumn, n: number) => string, separator = ", "): string =>
    keyColumns.map((column, index) => show(column, index + 1)).join(separator);
  const common = {
    id: String(id),
    delta,
    columns: [...deltaColumns(capture), ...(capture.tells ? ["op", "changed_at"] : [])].join(", "),
    tag: bodyTag(capture),
    skip_applied: capture.tells ? skipApplied : "",
    when_column: capture.tells ? ", changed_at" : "",
    when: capture.tells ? ", pg_catalog.clock_timestamp()" : "",
    tell_new: capture.tells
      ? `, ${capture.method === "row" ? rowOp : statementOp}, pg_catalog.clock_timestamp()`
      : "",
    tell_old: capture.tells ? `, 'D'::pg_catalog."char", pg_catalog.clock_timestamp()` : "",
  };
  if (capture.method === "statement") {
    return fill("capture/statement-function", {
      ...common,
      changed_key: each((column) => keyValue("r", column)),
    });
  }
  return fill("capture/row-function", {
    ...common,
    variables: each((column, n) => `key_${n} ${column.deltaType};\n  old_${n} ${column.deltaType};`, "\n  "),
    skip_noop: capture.skipNoop
      ? "if TG_OP = 'UPDATE' and not (OLD operator(pg_catalog.*<>) NEW) then\n    return null;\n  end if;"
      : "",
    read_new_as_key: each((column, n) => `key_${n} := ${keyValue("NEW", column)};`, " "),
    read_old_as_key: each((column, n) => `key_${n} := ${keyValue("OLD", column)};`, " "),
    read_old: each((column, n) => `old_${n} := ${keyValue("OLD", column)};`, " "),
    old_plain: each((column) => `OLD.${ident(column.name)}`),
    new_plain: each((column) => `NEW.${ident(column.name)}`),
    key_variables: each((_, n) => `key_${n}`),
    old_variables: each((_, n) => `old_${n}`),
  });
}

/** A dollar quote that no column name contains. */
function bodyTag(capture: Capture): string {
  let tag = "$capture$";
  for (let n = 1; capture.keyColumns.some((column) => column.name.includes(tag)); n += 1)
    tag = `$capture${n}$`;
  return tag;
}

function keyValue(row: string, column: CaptureKeyColumn): string {
  const value = `${row}.${ident(column.name)}`;
  return column.deltaType === "text" ? `${value}::pg_catalog.text` : value;
}

/** The triggers that the table itself has to have for its changes to be captured. */
export function triggerNames(capture: Capture, table: Table, sourceVersion: number): string[] {
  const [row, truncate] = [captureTrigger(capture.id), truncateTrigger(capture.id)];
  if (capture.method === "statement")
    return [...["insert", "update", "delete"].map((event) => `${row}_${event}`), truncate];
  return hasLeafTriggers(table, sourceVersion) ? [truncate] : [row, truncate];
}

async function installTriggers(source: Connection, table: Table, capture: Capture): Promise<void> {
  const holes = { id: String(capture.id), table: tableSql(table) };
  if (capture.method === "statement") {
    await source.script(fill("capture/statement-triggers", holes));
  } else if (hasLeafTriggers(table, source.version)) {
    for (const leaf of table.leaves) {
      await source.script(
        fill("capture/row-trigger", { ...holes, table: qualified(leaf.schema, leaf.name) }),
      );
    }
  } else {
    await source.script(fill("capture/row-trigger", holes));
  }
  await source.script(fill("capture/truncate-trigger", holes));
}

async function installTruncateTrigger(
  source: Connection,
  leaf: { readonly schema: string; readonly name: string },
  capture: Capture,
): Promise<void> {
  await source.script(
    fill("capture/truncate-trigger", { id: String(capture.id), table: qualified(leaf.schema, leaf.name) }),
  );
}

/**
 * Takes a new leaf partition in: gives it the triggers it does not inherit and notes the keys of the rows that it
 * brought along, so that the next batch brings them. `wasOff`: it is not new, but changes may have been missed; the
 * batch empties the target's partition first.
 */
export async function adoptLeaf(
  context: SyncContext,
  source: Connection,
  capture: Capture,
  leaf: { readonly oid: number; readonly schema: string; readonly name: string },
  wasOff: boolean,
): Promise<void> {
  await withBriefLocks(source, { what: tableLabel(leaf), signal: context.signal }, async () => {
    await source.script(`lock table ${qualified(leaf.schema, leaf.name)} in share row exclusive mode`);
    const [row, truncate] = [captureTrigger(capture.id), truncateTrigger(capture.id)];
    const installed = await source.rows<{ name: string; enabled: string }>(
      `select tgname::text as name, tgenabled::text as enabled from pg_catalog.pg_trigger
       where tgrelid = $1 and tgname = any ($2::text[])`,
      [leaf.oid, [row, truncate]],
    );
    const names = installed.map((trigger) => trigger.name);
    if (!names.includes(truncate)) await installTruncateTrigger(source, leaf, capture);
    if (!names.includes(row) && hasLeafTriggers({ kind: "p" }, source.version)) {
      const holes = { id: String(capture.id), table: qualified(leaf.schema, leaf.name) };
      await source.script(fill("capture/row-trigger", holes));
    }
    // Before 13.4, partitions get copies of the root's triggers that are merely enabled.
    for (const trigger of installed.filter(({ enabled }) => enabled === "O")) {
      await source.script(
        `alter table ${qualified(leaf.schema, leaf.name)} enable always trigger ${trigger.name}`,
      );
    }
    if (wasOff) await noteTruncated(source, capture, leaf.oid);
    await noteAllKeys(source, capture, `only ${qualified(leaf.schema, leaf.name)}`);
  });
}

/**
 * Lets a partition go that was detached or dropped, and notes that its rows went. Its TRUNCATE trigger goes too: the
 * target's partition of that name may hold the rows of another one by the time the detached table is truncated.
 */
export async function releaseLeaf(
  context: SyncContext,
  source: Connection,
  capture: Capture,
  leaf: { readonly oid: number; readonly name: string },
): Promise<void> {
  await withBriefLocks(source, { what: leaf.name, signal: context.signal }, async () => {
    const triggers = await source.rows<{ table: string; trigger: string }>(
      `select tgrelid::pg_catalog.regclass::text as table, tgname::text as trigger
       from pg_catalog.pg_trigger
       where tgrelid = $1 and tgfoid = pg_catalog.to_regproc($2) and not tgisinternal`,
      [leaf.oid, `replicate.capture_${capture.id}`],
    );
    for (const { table, trigger } of triggers)
      await source.script(`drop trigger ${ident(trigger)} on ${table}`);
    const { isShared } = await source.row<{ isShared: boolean }>(
      `select count(*) > 1 as "isShared" from replicate.subscription where capture_id = $1`,
      [capture.id],
    );
    // Each sync that reads the capture notes it in its own time. Where there are several, only a re-read is right for
    // those that have noted it before.
    await noteTruncated(source, capture, isShared ? 0 : leaf.oid);
  });
}

/** Notes every key of a relation as changed, as if each row had been updated. Returns how many. */
async function noteAllKeys(source: Connection, capture: Capture, from: string): Promise<number> {
  if (isKeyless(capture)) {
    await noteReread(source, capture);
    return 1;
  }
  const [current] = await source.rows<{ active: "a" | "b" }>(
    `select active from replicate.capture where id = $1 for share`,
    [capture.id],
  );
  const delta = deltaTables(capture.id)[current?.active === "b" ? 1 : 0];
  const columns = deltaColumns(capture).join(", ");
  const keys = capture.keyColumns.map((column) => keyValue("r", column)).join(", ");
  const [result] = await source.script(`insert into ${delta} (${columns}) select ${keys} from ${from} as r`);
  return result?.rowCount ?? 0;
}

/** Notes given keys, in their recorded form, as changed: one array per row. */
export async function noteKeys(
  source: Connection,
  capture: Capture,
  keys: readonly (readonly (string | null)[])[],
): Promise<void> {
  const columns = deltaColumns(capture);
  const values = capture.keyColumns.map((column, index) => `(v ->> ${index})::${column.deltaType}`);
  await source.transaction(async () => {
    const [current] = await source.rows<{ active: "a" | "b" }>(
      `select active from replicate.capture where id = $1 for share`,
      [capture.id],
    );
    const delta = deltaTables(capture.id)[current?.active === "b" ? 1 : 0];
    await source.rows(
      `insert into ${delta} (${columns.join(", ")})
       select ${values.join(", ")} from pg_catalog.jsonb_array_elements($1::jsonb) as v`,
      [JSON.stringify(keys)],
    );
  });
}

/** Notes that the whole table has to be read again: changes may have been missed. */
export async function noteReread(source: Connection, capture: Capture): Promise<void> {
  await noteTruncated(source, capture, REREAD);
}

/** Asks for a table without a key to be read again with the next batch, whatever its size. */
export async function noteReload(source: Connection, captureId: number): Promise<void> {
  await source.transaction(async () => {
    const [capture] = await source.rows<{ active: "a" | "b" }>(
      `select active from replicate.capture where id = $1 for share`,
      [captureId],
    );
    if (capture === undefined) return;
    const delta = deltaTables(captureId)[capture.active === "a" ? 0 : 1];
    await source.rows(`insert into ${delta} (truncated) values ($1)`, [RELOAD_NOW]);
  });
}

/** Notes that a relation of the table lost all its rows without a trigger telling. */
export async function noteTruncated(source: Connection, capture: Capture, relid: number): Promise<void> {
  const delta = deltaTables(capture.id)[capture.active === "a" ? 0 : 1];
  await source.rows(`insert into ${delta} (truncated) values ($1)`, [relid]);
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
  const { relid } = await source.row<{ relid: number }>(
    `select relid::bigint::float8 as relid from replicate.capture where id = $1`,
    [captureId],
  );
  const [table] = await describeTables(source, [relid]);
  const what = table === undefined ? `relation ${relid}` : tableLabel(table);
  return await withBriefLocks(source, { what, signal: context.signal }, async () => {
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
    await source.rows(`select 1 from replicate.capture where id = $1 for update`, [captureId]);
    const rows = await source.rows(
      `update replicate.capture c set skip_noop = true
       where id = $1 and method = 'row'
         and not exists (select 1 from replicate.subscription s where s.capture_id = c.id and s.holds)
       returning id`,
      [captureId],
    );
    if (rows.length > 0) await installFunction(source, await loadOne(source, captureId));
    return rows.length > 0;
  });
}
