/** Rows that the target has rejected, as it remembers them: one line per key. */
import type { Connection } from "../postgres/connect.ts";
import { fill, literal } from "../postgres/sql.ts";
import { INVALID_SCHEMA, UNDEFINED_TABLE, sqlstateOf } from "../postgres/sqlstate.ts";

/** A row that was parked. */
export interface ParkedRow {
  readonly id: number;
  /** On the source, quoted where it has to be. */
  readonly table: string;
  /** By column: `{ id: 21 }`. */
  readonly key: Readonly<Record<string, unknown>>;
  /** What the target has said, with its SQLSTATE. */
  readonly error: string;
  readonly sqlstate: string;
  readonly constraint: string | null;
  readonly parkedAt: string;
  readonly triedAt: string;
  readonly tries: number;
}

/** The same for who tries it again. */
export interface ParkedKey {
  readonly id: number;
  readonly captureId: number;
  /** As text, in the capture's order. */
  readonly keyTexts: readonly (string | null)[];
}

/** A row to be parked. */
export interface RejectedRow {
  readonly captureId: number;
  /** The table on the target. */
  readonly relid: number;
  readonly table: string;
  /** Names as on the source. */
  readonly key: Readonly<Record<string, unknown>>;
  /** As text, in the capture's order. */
  readonly keyTexts: readonly (string | null)[];
  /** False: the key could not be read as a value of the target's type. */
  readonly isKeyTyped: boolean;
  readonly sqlstate: string;
  readonly message: string;
  readonly constraint: string | null;
  /** It was not parked before. */
  readonly isNew: boolean;
}

/** The row is rejected because of other rows: what it refers to is missing, or something has what it wants. */
const DEPENDENT = "'{23503,23505,23P01}'::text[]";

const form = (relid: string): string => fill("state/table-form", { relid });

/** How many rows of each capture are parked. None where there is no state. */
export async function countParked(target: Connection, sync: string): Promise<Map<number, number>> {
  try {
    const rows = await target.rows<{ id: number; n: number }>(
      `select capture_id as id, count(*)::int as n from replicate.parked where sync = $1 group by 1`,
      [sync],
    );
    return new Map(rows.map(({ id, n }) => [id, n]));
  } catch (error) {
    if ([UNDEFINED_TABLE, INVALID_SCHEMA].includes(sqlstateOf(error) ?? "")) return new Map();
    throw error;
  }
}

/** Parked rows, oldest first; of some tables of the sync, or with some ids. */
export async function loadParked(
  target: Connection,
  sync: string,
  { captureIds, ids }: { readonly captureIds?: readonly number[]; readonly ids?: readonly number[] } = {},
): Promise<(ParkedRow & ParkedKey)[]> {
  const rows = await target.rows<ParkedRow & ParkedKey & { parkedAt: Date; triedAt: Date }>(
    `select id::float8 as id, capture_id as "captureId", key_texts as "keyTexts", table_name as "table", key,
            message as error, sqlstate, constraint_name as constraint,
            parked_at as "parkedAt", tried_at as "triedAt", tries
     from replicate.parked
     where sync = $1 and ($2::int[] is null or capture_id = any ($2)) and ($3::bigint[] is null or id = any ($3))
     order by id`,
    [sync, captureIds ?? null, ids ?? null],
  );
  return rows.map((row) => ({
    ...row,
    parkedAt: row.parkedAt.toISOString(),
    triedAt: row.triedAt.toISOString(),
  }));
}

/** Parks rows, in the transaction that goes on without them. Those that were parked before stay so. */
export async function park(target: Connection, sync: string, rows: readonly RejectedRow[]): Promise<void> {
  await target.rows(
    `with r as (
       select * from pg_catalog.jsonb_to_recordset($2::jsonb) as r (
         "captureId" int, relid oid, "table" text, key jsonb, "keyTexts" text[], "isKeyTyped" boolean, sqlstate text,
         message text, "constraint" text, "isNew" boolean)
     ), f as (
       select relid, ${form("relid")} as form from (select distinct relid from r) as t
     ), again as (
       update replicate.parked as p
       set sqlstate = r.sqlstate, message = r.message, constraint_name = r."constraint",
           table_form = f.form, tried_at = pg_catalog.now(), tries = p.tries + 1
       from r join f using (relid) where p.sync = $1 and p.capture_id = r."captureId" and p.key_texts = r."keyTexts"
       returning p.capture_id, p.key_texts
     )
     insert into replicate.parked (sync, capture_id, relid, table_name, key, key_texts, is_key_typed, sqlstate, message,
                                   constraint_name, table_form)
     select $1, r."captureId", relid, r."table", r.key, r."keyTexts", r."isKeyTyped", r.sqlstate, r.message,
            r."constraint",
            -- Once more soon: the others may have come with the same batch.
            case when r."isNew" and r.sqlstate = any (${DEPENDENT}) then '' else f.form end
     from r join f using (relid) where not exists (
       select 1 from again where again.capture_id = r."captureId" and again.key_texts = r."keyTexts")`,
    [sync, JSON.stringify(rows)],
  );
}

/**
 * Takes up to `most` keys that are to be tried again: where the target's table has changed since, and those that were not
 * tried for `pauseSeconds`. They count as tried from now on.
 */
export async function takeDue(
  target: Connection,
  sync: string,
  captureIds: readonly number[],
  { pauseSeconds, most }: { readonly pauseSeconds: number; readonly most: number },
): Promise<ParkedKey[]> {
  return await target.rows<ParkedKey>(
    `update replicate.parked as p set tried_at = pg_catalog.now(), table_form = f.form
     from (
       select id, form from replicate.parked as d
       join (select relid, ${form("relid")} as form
             from (select distinct relid from replicate.parked where sync = $1) as t) as f using (relid)
       where d.sync = $1 and d.capture_id = any ($2::int[])
         and (d.table_form <> f.form or d.tried_at < pg_catalog.now() - $3 * interval '1 second')
       order by d.tried_at, d.id limit $4
     ) as f
     where p.id = f.id
     returning p.id::float8 as id, p.capture_id as "captureId", p.key_texts as "keyTexts"`,
    [sync, captureIds, pauseSeconds, most],
  );
}

/** Has rows that depend on others tried again soon: some others were settled. */
export async function wakeDependents(target: Connection, sync: string): Promise<void> {
  await target.rows(
    `update replicate.parked set table_form = '' where sync = $1 and sqlstate = any (${DEPENDENT})`,
    [sync],
  );
}

/** A condition on a key, given as an array of texts: whether it is parked. False where there is no state. */
export async function isParkedSql(
  target: Connection,
  sync: string,
  captureId: number,
  keyTexts: string,
): Promise<string> {
  const { exists } = await target.row<{ exists: boolean }>(
    `select pg_catalog.to_regclass('replicate.parked') is not null as exists`,
  );
  if (!exists) return "false";
  return `exists (select 1 from replicate.parked as p
    where p.sync = ${literal(sync)} and p.capture_id = ${captureId} and p.key_texts operator(pg_catalog.=) ${keyTexts})`;
}

/** A statement that forgets all that is parked of a table: its rows come anew. */
export function forgetTableSql(sync: string, captureId: number): string {
  return `delete from replicate.parked where sync = ${literal(sync)} and capture_id = ${captureId}`;
}

/** A statement that forgets what is parked of a table, but for what was parked in this very transaction. */
export function forgetParkedSql(sync: string, captureId: number, condition: string): string {
  return `with gone as (
      delete from replicate.parked as p
      where p.sync = ${literal(sync)} and p.capture_id = ${captureId} and p.tried_at <> pg_catalog.now() and (${condition})
      returning 1)
    select count(*) as settled, ${captureId} as capture from gone`;
}
