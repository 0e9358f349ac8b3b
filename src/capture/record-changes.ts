/** Notes in the delta tables what is to be read again although no trigger has told of it. */
import {
  deltaColumns,
  deltaTables,
  isKeyless,
  REREAD,
  REREAD_OLD,
  RELOAD_NOW,
  type Capture,
} from "../catalog/delta.ts";
import { fromText } from "../catalog/text-form.ts";
import type { Connection } from "../postgres/connect.ts";
import { keyValue } from "./trigger-function.ts";

/** Notes given keys, in their recorded form, as changed: one array per row. */
export async function recordKeys(
  source: Connection,
  capture: Capture,
  keys: readonly (readonly (string | null)[])[],
): Promise<void> {
  const columns = deltaColumns(capture);
  const values = capture.keyColumns.map((column, index) => fromText(`v ->> ${index}`, column.deltaType));
  await source.transaction(async () => {
    const delta = await activeDelta(source, capture);
    await source.rows(
      `insert into ${delta} (${columns.join(", ")})
       select ${values.join(", ")} from pg_catalog.jsonb_array_elements($1::jsonb) as v`,
      [JSON.stringify(keys)],
    );
  });
}

/** Notes every key of a relation as changed, as if each row had been updated. */
export async function recordAllKeys(source: Connection, capture: Capture, from: string): Promise<void> {
  if (isKeyless(capture)) return await recordReread(source, capture);
  const delta = await activeDelta(source, capture);
  const columns = deltaColumns(capture).join(", ");
  const keys = capture.keyColumns.map((column) => keyValue("r", column)).join(", ");
  // Of another type it would be cast, by who knows what.
  const { isRetyped } = await source.row<{ isRetyped: boolean }>(
    `select exists (
       select from pg_catalog.jsonb_to_recordset($2) as k (name text, "deltaType" text, "typeOid" oid)
       left join pg_catalog.pg_attribute a on a.attrelid = pg_catalog.to_regclass($1) and a.attname = k.name
       where k."deltaType" <> 'text' and a.atttypid is distinct from k."typeOid") as "isRetyped"`,
    [from.replace(/^only /, ""), JSON.stringify(capture.keyColumns)],
  );
  if (isRetyped) return await recordReread(source, capture);
  await source.script(`insert into ${delta} (${columns}) select ${keys} from ${from} as r`);
}

/** The delta table that the triggers write to, which stays so until the transaction ends. */
async function activeDelta(source: Connection, capture: Capture): Promise<string> {
  const [current] = await source.rows<{ active: "a" | "b" }>(
    `select active from replicate.capture where id = $1 for share`,
    [capture.id],
  );
  return deltaTables(capture.id)[current?.active === "b" ? 1 : 0];
}

/** Notes that the whole table has to be read again: changes may have been missed. */
export async function recordReread(source: Connection, capture: Capture): Promise<void> {
  await recordTruncated(source, capture, REREAD);
}

/** The same for a session that is in no transaction. */
export async function recordRereadNow(source: Connection, capture: Capture): Promise<void> {
  await source.transaction(async () => {
    const delta = await activeDelta(source, capture);
    await source.rows(`insert into ${delta} (truncated) values ($1)`, [REREAD]);
  });
}

/** The same because rows that nobody has written to may differ. */
export async function recordOldRows(source: Connection, capture: Capture): Promise<void> {
  await source.transaction(async () => {
    const delta = await activeDelta(source, capture);
    await source.rows(`insert into ${delta} (truncated) values ($1)`, [REREAD_OLD]);
  });
}

/** Asks for a table without a key to be read again with the next batch, whatever its size. */
export async function recordReload(source: Connection, captureId: number): Promise<void> {
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
export async function recordTruncated(source: Connection, capture: Capture, relid: number): Promise<void> {
  const delta = deltaTables(capture.id)[capture.active === "a" ? 0 : 1];
  await source.rows(`insert into ${delta} (truncated) values ($1)`, [relid]);
}

/** Whether the delta tables still tell that a partition was emptied. */
export async function isEmptied(source: Connection, capture: Capture, relid: number): Promise<boolean> {
  const markers = deltaTables(capture.id).map((delta) => `select 1 from ${delta} where truncated = $1`);
  return (await source.rows(`${markers.join(" union all ")} limit 1`, [relid])).length > 0;
}
