/**
 * SQL over the delta tables of a capture: which keys changed. Shared by every stage that reads deltas.
 *
 * A delta table has the columns k1 … kn (the key), `txid` and `truncated`. `truncated` is null for an ordinary
 * change; the oid of the truncated table or leaf for a TRUNCATE (keys are null then); and 0 for a change whose key
 * could not be recorded because the key column was renamed or retyped (the whole table has to be read again).
 * A table without a key has markers alone: 0 for any change, and 1 where somebody asks for it to be read again at once,
 * whatever its size.
 *
 * The delta tables of a capture that tells have in addition `op` (I, U or D; an update that changes the key is the D of
 * the old one and the I of the new one; X: found to differ; null: noted by us), `changed_at` (when the change was made, by the clock of the
 * server where it was made; null: noted by us), `origin` (name of the database where an application made it; null: this
 * one) and `via` (the sync that brought it here; null: an application made it here).
 */
import type { Connection } from "../postgres/connect.ts";
import { literal, own } from "../postgres/sql.ts";
import { ident } from "../postgres/sql.ts";
import type { Column, Key, Table } from "./table.ts";
import { fromText, isSystemType, outputText, toText } from "./text-form.ts";

/** Marker: the whole table has to be read again. */
export const REREAD = 0;
/** The same, without delay. No relation of a user has this oid. */
export const RELOAD_NOW = 1;

/** `op` of a key that was found to differ: whatever the other side has is a conflict. */
export const DISPUTED = "X";
/**
 * The whole table has to be read again, and no change was missed: rows that nobody has written to may differ. Where the other
 * side has changed one, its change stands.
 */
export const REREAD_OLD = 2;

/** Setting that sessions show which apply a two-way sync. */
export const APPLYING = "replicate.applying";

export interface CaptureKeyColumn {
  /** Where the delta tables hold it, if not in k1, k2 …: a retyped column may need another one. */
  readonly deltaColumn?: string;
  readonly name: string;
  readonly attnum: number;
  /** Type of the delta table's column: wide enough that no ALTER TYPE on the source can make an insert fail. */
  readonly deltaType: string;
  /** Type that it is read as: the column's own base type. */
  readonly readType: string;
  /** Oid of the column's type as declared, which the column must still have where its value is recorded as it is. */
  readonly typeOid: number;
  readonly collation: string | null;
  /** `operator(schema.=)`. */
  readonly equals: string;
}

export interface Capture {
  readonly id: number;
  readonly relid: number;
  /** Empty for a table without a key. */
  readonly keyColumns: readonly CaptureKeyColumn[];
  readonly method: "row" | "statement";
  readonly skipNoop: boolean;
  readonly active: "a" | "b";
  /** Whether the deltas tell what was done, when and where, and leave out what a two-way sync applies. */
  readonly tracksOrigin: boolean;
}

/** Reads captures by id, in id order. */
export async function loadCaptures(source: Connection, ids: readonly number[]): Promise<Capture[]> {
  return await source.rows<Capture>(
    `select id, relid::bigint::float8 as relid, key_columns as "keyColumns", method, skip_noop as "skipNoop", active,
            c.tracks_origin as "tracksOrigin"
     from replicate.capture c where id = any ($1::int[]) order by id`,
    [ids],
  );
}

/** Whether the table is read again as a whole when it has changed. */
export function isKeyless(capture: { readonly keyColumns: readonly unknown[] }): boolean {
  return capture.keyColumns.length === 0;
}

/** Both delta tables of a capture; the active one changes with every rotation, so both are always read. */
export function deltaTables(captureId: number): readonly [string, string] {
  return [own(`delta_${captureId}_a`), own(`delta_${captureId}_b`)];
}

/** The columns of the delta tables that hold the key. */
export function deltaColumns(capture: { readonly keyColumns: readonly CaptureKeyColumn[] }): string[] {
  return capture.keyColumns.map((column, index) => column.deltaColumn ?? `k${index + 1}`);
}

/** Base types whose text form is the same under every session setting: their keys are recorded as text. */
const textual = new Set([
  "smallint", "integer", "bigint", "numeric", "text", "character varying", "bpchar", "name", "uuid", "boolean", "oid",
  '"char"', "inet", "cidr", "macaddr", "macaddr8", '"bit"', "bit varying",
]); // prettier-ignore

/** The type in which delta tables hold a key column. */
export function recordedType(column: Column): string {
  const isTextual = (column.isBuiltin && textual.has(column.baseType)) || column.baseKind === "e";
  return isTextual ? "text" : column.baseType;
}

/** How the columns of a key are recorded and read. */
export function captureKey(table: Table, key: Key): CaptureKeyColumn[] {
  return key.columns.map((keyColumn) => {
    const column = table.columns.find((each) => each.attnum === keyColumn.attnum) as Column;
    return {
      name: column.name,
      attnum: column.attnum,
      deltaType: recordedType(column),
      readType: column.baseType,
      typeOid: column.typeOid,
      collation: column.collation,
      equals: keyColumn.equals,
    };
  });
}

/** A value of a key's type, not null, as delta tables hold it. */
export function recorded({ deltaType, readType }: CaptureKeyColumn, value: string): string {
  return deltaType === readType ? `(${value})::${readType}` : toText(value, readType);
}

/** A recorded key column, as a value of the key's type. */
export function recordedValue({ deltaType, readType }: CaptureKeyColumn, recorded: string): string {
  return deltaType === readType ? `(${recorded})::${readType}` : fromText(recorded, readType);
}

/** Ordinary changes, almost all: without statistics, a planner takes `is null` for one row in 200, and this for all of them. */
const ORDINARY = "(truncated is null)::pg_catalog.int4 <> 0";

/** Condition on `txid` for "not yet applied at this position"; null means nothing was applied yet. */
export function windowSql(position: string | null): string {
  if (position === null) return "true";
  const xmin = position.slice(0, position.indexOf(":"));
  return `txid >= ${BigInt(xmin)} and not pg_catalog.txid_visible_in_snapshot(txid, ${literal(position)}::pg_catalog.txid_snapshot)`;
}

/** Continues a condition on deltas: those that this sync, whichever way it goes, has not brought here itself. */
export function foreignSql(capture: { readonly tracksOrigin: boolean }, sync: string): string {
  return capture.tracksOrigin ? ` and via is distinct from ${literal(baseName(sync))}` : "";
}

/** The name that the user gave to a sync, from the one of its way (see state/switch). */
export function baseName(sync: string): string {
  return sync.replace(/\..*$/, "");
}

/**
 * A query for the changed keys as k1 … kn in their own types, duplicates included, and `more` columns of the deltas.
 * `window` is a condition on txid, see `windowSql`.
 */
export function changedKeysSql(capture: Capture, window: string, more: readonly string[] = []): string {
  const recorded = deltaColumns(capture);
  const keys = capture.keyColumns.map((column, index) => {
    const value = recordedValue(column, recorded[index] as string);
    return `${column.collation === null ? value : `(${value}) collate ${column.collation}`} as k${index + 1}`;
  });
  return deltaTables(capture.id)
    .map((table) => `select ${[...keys, ...more].join(", ")} from ${table} where ${ORDINARY} and ${window}`)
    .join(" union all ");
}

/** Types whose equal values are the same to the last bit. */
const exact = new Set([
  "smallint", "integer", "bigint", "text", "character varying", "name", "uuid", "boolean", "oid", '"char"', "bytea",
  "date", "timestamp without time zone", "timestamp with time zone", "time without time zone", "time with time zone",
  "inet", "cidr", "macaddr", "macaddr8", '"bit"', "bit varying", "money", "pg_lsn",
]); // prettier-ignore

/** Whether values may be equal and yet not the same: 1.0 and 1.00, or what a type or collation takes for equal. */
export function isFolding({ readType, deltaType, collation }: CaptureKeyColumn): boolean {
  // Of types that are not the system's, only enums are recorded as text.
  if (!isSystemType(readType)) return deltaType !== "text";
  // Collations of the system's own tell all texts apart.
  return !exact.has(readType) || (collation !== null && !collation.startsWith("pg_catalog."));
}

/** The images of a key `alias`: the same for values that are the same, and for them alone. */
function keyImages(capture: Capture, alias: string): string[] {
  return capture.keyColumns.map(
    (_, index) => `${outputText(`${alias}.k${index + 1}`)} collate pg_catalog."C"`,
  );
}

/** The changed keys, each image once. */
export function changedImagesSql(capture: Capture, window: string): string {
  const changed = `(${changedKeysSql(capture, window)}) as c`;
  if (!capture.keyColumns.some(isFolding)) return `select distinct * from ${changed}`;
  return `select distinct on (${keyImages(capture, "c").join(", ")}) c.* from ${changed}`;
}

/** Continues a match of a row with a key (see keyMatchSql): that they are not only equal but the same. */
export function sameImageSql(capture: Capture, rowAlias: string, keyAlias: string): string {
  const images = keyImages(capture, keyAlias);
  return capture.keyColumns
    .map(
      (column, n) =>
        ` and ${outputText(`(${rowAlias}.${ident(column.name)})::${column.readType}`)} = ${images[n]}`,
    )
    .join("");
}

/**
 * The changed keys, each once, with `op` (the first of its changes: I, U, D, or null where we recorded the key; X if one of them is), `changed_at`
 * and `origin` of the last one. For captures that tell.
 * `byImage`: keys that are equal but not the same are told apart.
 */
export function changesWithOriginSql(capture: Capture, window: string, byImage = false): string {
  const keys = capture.keyColumns.map((_, index) => `c.k${index + 1}`).join(", ");
  const groups = byImage ? [keys, ...keyImages(capture, "c")].join(", ") : keys;
  return `select ${keys}, case when pg_catalog.bool_or(op = '${DISPUTED}') then '${DISPUTED}' else (pg_catalog.array_agg(op order by changed_at))[1] end as op, pg_catalog.max(changed_at) as changed_at,
      (pg_catalog.array_agg(origin order by changed_at desc nulls last))[1] as origin
    from (${changedKeysSql(capture, window, ["op", "changed_at", "origin"])}) as c group by ${groups}`;
}

/** A query for `changed_at` of each TRUNCATE in the window. For captures that tell. */
export function emptiedSql(captureId: number, window: string): string {
  const others = [REREAD, RELOAD_NOW, REREAD_OLD].join(", ");
  return deltaTables(captureId)
    .map((delta) => `select changed_at from ${delta} where truncated not in (${others}) and ${window}`)
    .join(" union all ");
}

/**
 * `(t."id")::bigint operator(pg_catalog.=) d.k1 and …`: joins a row alias with an alias that has k1 … kn. The cast is for
 * domains over enums, arrays, composites and ranges, whose operators want the same type on both sides.
 */
export function keyMatchSql(capture: Capture, rowAlias: string, keyAlias: string): string {
  return capture.keyColumns
    .map(
      (column, index) =>
        `(${rowAlias}.${ident(column.name)})::${column.readType} ${column.equals} ${keyAlias}.k${index + 1}`,
    )
    .join(" and ");
}

/**
 * One row per capture: how many deltas the window holds, and which markers (see catalog/delta). `more` continues the
 * condition, see `foreignSql`.
 */
export function windowCountSql(captureId: number, position: string | null, more = ""): string {
  const rows = deltaTables(captureId).map(
    (delta) => `select truncated from ${delta} where ${windowSql(position)}${more}`,
  );
  return `select ${captureId} as id, count(*) as n, pg_catalog.array_agg(distinct truncated) filter (where truncated is not null) as markers
    from (${rows.join(" union all ")}) as w`;
}

/** Captures whose deltas one statement may count: it holds locks on all of their delta tables. */
const COUNTED_AT_ONCE = 50;

/** As few statements as may be, each the union of queries such as `windowCountSql` returns. */
export function unions(queries: readonly string[]): string[] {
  const statements: string[] = [];
  for (let at = 0; at < queries.length; at += COUNTED_AT_ONCE)
    statements.push(queries.slice(at, at + COUNTED_AT_ONCE).join(" union all "));
  return statements;
}

/**
 * Whether each leaf of a partitioned table has row triggers of its own: version 10 knows no others, and on 11 and 12 only
 * a superuser can have the copies that leaves get fire always.
 */
export function hasLeafTriggers(table: Pick<Table, "kind">, sourceVersion: number): boolean {
  return table.kind === "p" && sourceVersion < 130_000;
}
