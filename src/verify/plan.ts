/** What has to be known to compare one table: the statements' parts, for either side. */
import type { Side } from "../events.ts";
import { columnPlan, type ColumnPair } from "../catalog/columns.ts";
import { mapEntries } from "../catalog/mapping.ts";
import { rowsSql } from "../catalog/rows.ts";
import { loadCaptures, type Capture } from "../catalog/delta.ts";
import {
  describeTables,
  fromSql,
  tableBytes,
  tableLabel,
  type Column,
  type Table,
} from "../catalog/table.ts";
import { readTypes } from "../catalog/types.ts";
import { ReplicateError, type Problem } from "../errors.ts";
import type { ResolvedConfig } from "../config/options.ts";
import { isTransformed } from "../transform/transform-rows.ts";
import type { Connection } from "../postgres/connect.ts";
import { ident } from "../postgres/sql.ts";
import type { SyncTable } from "../state/sync-table.ts";
import type { Checksum } from "./checksum.ts";
import type { KeyColumnSql } from "./key-sql.ts";
import { unstableTypes, ValueForms } from "./value-form.ts";

/** One side of a table as SQL. The table's alias is `t` throughout. */
export interface SideSql {
  readonly relid: number;
  /** `only "public"."users"`: to be locked or sampled. */
  readonly table: string;
  /** Under which rows are read, see catalog/search-path. */
  readonly searchPath: string;
  /** Its rows as the sync sees them, see `rowsSql`. */
  readonly rows: string;
  /** Forms of the compared columns, in the same order on both sides. */
  readonly fields: readonly string[];
  readonly key: readonly KeyColumnSql[];
  readonly keyFields: readonly string[];
}

export interface TablePlan {
  readonly entry: SyncTable;
  readonly label: string;
  readonly targetLabel: string;
  readonly capture: Capture;
  readonly isPartitioned: boolean;
  /** Names of the compared columns, as on the source. */
  readonly columns: readonly string[];
  readonly source: SideSql;
  readonly target: SideSql;
  /** The table and its leaves, on the side that has more of them. */
  readonly relations: number;
  /** Heap and TOAST on the source. */
  readonly bytes: number;
  readonly heapBytes: number;
  /** Key columns whose types differ between the sides are checked before a key of the target is recorded as changed. */
  readonly key: readonly { readonly name: string; readonly source: Column; readonly target: Column }[];
  /** The columns when the plan was made, see `shapeSql`. */
  readonly sourceShape: string;
  readonly targetShape: string;
}

/** Values in tables with less TOAST than this cannot be so large, even uncompressed, that they need care. */
const CAREFUL_TOAST_BYTES = 64 * 1024;

/** The columns of a table as JSON, in the form that they have in the fingerprint (catalog/fingerprint). */
export const shapeSql = (relid: number | string): string =>
  `(select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(
       a.attnum, a.attname, a.atttypid::bigint, a.atttypmod, a.attcollation::bigint,
       a.generated) order by a.attnum), '[]'::jsonb)::text
    from (select '' as attgenerated) as before12
    cross join lateral (
      select x.attnum, x.attname, x.atttypid, x.atttypmod, x.attcollation, attgenerated::text as generated
      from pg_catalog.pg_attribute x where x.attrelid = ${relid} and x.attnum > 0 and not x.attisdropped) as a)`;

/**
 * Makes the plans of some tables. Throws TABLE_SHAPE_CHANGED, with all problems, where the sides do not fit each other
 * any more, and CAPTURE_BROKEN where a capture is gone.
 */
export async function planTables(
  source: Connection,
  target: Connection,
  checksum: Checksum,
  entries: readonly SyncTable[],
): Promise<TablePlan[]> {
  const [captures, from, to] = await Promise.all([
    loadCaptures(source, entries.map((entry) => entry.captureId)),
    describeSide(source, entries.map((entry) => entry.sourceRelid)),
    describeSide(target, entries.map((entry) => entry.targetRelid)),
  ]); // prettier-ignore
  const mapped = await mapEntries(source, entries, from.tables, to.tables);
  const senders = unstableTypes(source.version, target.version);
  const oids = (side: Side): number[] => [...mapped.values()].map((each) => each[side].oid);
  const computed = [...mapped.values()].flatMap((each) => each.source.columns.filter(isComputed));
  const [ownTypes, otherTypes] = await Promise.all([
    readTypes(source, oids("source"), computed.map(({ baseOid }) => baseOid)),
    readTypes(target, oids("target"), []),
  ]); // prettier-ignore
  const forms = { source: new ValueForms(ownTypes, senders), target: new ValueForms(otherTypes, senders) };
  const problems: Problem[] = [];
  const plans: TablePlan[] = [];
  for (const entry of entries) {
    const label = tableLabel({ schema: entry.sourceSchema, name: entry.sourceName });
    const capture = captures.find((each) => each.id === entry.captureId);
    if (capture === undefined) {
      throw new ReplicateError("CAPTURE_BROKEN", `the capture of ${label} is gone from the source`, {
        side: "source",
      });
    }
    const { source: sourceTable, target: targetTable } = mapped.get(entry.captureId) ?? {};
    if (sourceTable === undefined || targetTable === undefined) {
      const side = from.tables.has(entry.sourceRelid) ? "target" : "source";
      problems.push({ subject: label, message: `its table on the ${side} does not exist any more` });
      continue;
    }
    const columns = columnPlan(sourceTable, targetTable);
    const pairs = [...columns.columns, ...computedPairs(sourceTable, targetTable)];
    const key = capture.keyColumns.map((keyColumn) => ({
      name: keyColumn.name,
      pair: pairs.find((pair) => pair.source.name === keyColumn.name),
    }));
    for (const each of key.filter(({ pair }) => pair === undefined)) {
      problems.push({
        subject: label,
        message: `its key column ${ident(each.name)} does not exist any more`,
      });
    }
    problems.push(...columns.problems.map((problem) => ({ ...problem, subject: label })));
    if (columns.problems.length > 0 || key.some(({ pair }) => pair === undefined)) continue;

    const keyPairs = key.flatMap(({ pair }) => (pair === undefined ? [] : [pair]));
    const isCareful = [sourceTable, targetTable].some((table) => toastBytes(table) > CAREFUL_TOAST_BYTES);
    const write = (pair: ColumnPair): FieldPair => fieldPair(pair, forms, isCareful ? checksum : null);
    const fields = pairs.map(write);
    const keyFields = keyPairs.map(write);
    plans.push({
      entry,
      label,
      targetLabel: tableLabel(targetTable),
      capture,
      isPartitioned: sourceTable.kind === "p",
      columns: pairs.map((pair) => pair.source.name),
      source: {
        relid: sourceTable.oid,
        table: fromSql(sourceTable),
        rows: rowsSql(sourceTable),
        searchPath: sourceTable.searchPath,
        fields: fields.map((field) => field.source),
        keyFields: keyFields.map((field) => field.source),
        key: keyPairs.map(({ source: column }, index) =>
          keyColumnSql(column, capture.keyColumns[index]?.equals ?? ""),
        ),
      },
      target: {
        relid: targetTable.oid,
        table: fromSql(targetTable),
        rows: rowsSql(targetTable),
        searchPath: targetTable.searchPath,
        fields: fields.map((field) => field.target),
        keyFields: keyFields.map((field) => field.target),
        key: keyPairs.map(({ target: column }, index) =>
          keyColumnSql(column, targetEquals(targetTable, column, capture.keyColumns[index]?.equals)),
        ),
      },
      relations: 1 + Math.max(sourceTable.leaves.length, targetTable.leaves.length),
      bytes: tableBytes(sourceTable),
      heapBytes: [sourceTable, ...sourceTable.leaves].reduce((sum, each) => sum + each.heapBytes, 0),
      key: keyPairs.map((pair) => ({ name: pair.source.name, ...pair })),
      sourceShape: from.shapes.get(sourceTable.oid) ?? "",
      targetShape: to.shapes.get(targetTable.oid) ?? "",
    });
  }
  if (problems.length > 0) {
    throw new ReplicateError(
      "TABLE_SHAPE_CHANGED",
      "some tables cannot be compared, because their shape changed",
      {
        problems,
      },
    );
  }
  return plans;
}

interface SideDescription {
  readonly tables: ReadonlyMap<number, Table>;
  readonly shapes: ReadonlyMap<number, string>;
}

async function describeSide(connection: Connection, oids: readonly number[]): Promise<SideDescription> {
  // The shapes first: what changes from here on is noticed in the parts.
  const shapes = await connection.rows<{ oid: string; shape: string }>(
    `select c.oid::bigint as oid, ${shapeSql("c.oid")} as shape
     from pg_catalog.pg_class c where c.oid = any ($1::oid[])`,
    [oids],
  );
  const tables = await describeTables(connection, oids);
  return {
    tables: new Map(tables.map((table) => [table.oid, table])),
    shapes: new Map(shapes.map((row) => [Number(row.oid), row.shape])),
  };
}

function isComputed({ mapped }: Column): boolean {
  return mapped?.as != null;
}

/** Generated columns that both sides store. Nobody copies them, so they tell whether both sides compute alike. */
function computedPairs(source: Table, target: Table): ColumnPair[] {
  return source.columns.flatMap((column) => {
    const other = target.columns.find((each) => each.name === (column.mapped?.to ?? column.name));
    if (column.mapped?.to === null) return [];
    return column.generated === "s" && other?.generated === "s" ? [{ source: column, target: other }] : [];
  });
}

interface FieldPair {
  readonly source: string;
  readonly target: string;
}

/** Types with a precision or scale that decides how a value is written. */
const scaled = /^(numeric|time|timestamp|interval)/;
/** Types of the target that hold any other type's text as it is. */
const textual = /^(text|character varying|name|json)(\[\])?$/;
const whole = /^(smallint|integer|bigint)$/;

function fieldPair(
  pair: ColumnPair,
  forms: { readonly source: ValueForms; readonly target: ValueForms },
  careful: Checksum | null,
): FieldPair {
  const { source, target } = pair;
  const [from, to] = [value(source), value(target)];
  if (careful !== null) {
    const kinds = [source, target].map((column) => (column.isBuiltin ? column.baseType : ""));
    if (kinds.every((kind) => kind === "bytea")) {
      return { source: careful.largeBytes(from), target: careful.largeBytes(to) };
    }
    if (kinds.every((kind) => kind === "text" || kind === "character varying")) {
      return { source: careful.largeText(from), target: careful.largeText(to) };
    }
  }
  const targetForm = forms.target.write(to, target.baseOid);
  const cast = castFor(pair);
  if (cast === null) {
    // Where the target keeps the text, the source's text is what COPY has sent.
    const isKeptAsText = source.baseType !== target.baseType && textual.test(target.baseType);
    return { source: isKeptAsText ? from : forms.source.write(from, source.baseOid), target: targetForm };
  }
  const casted = `((${from})::pg_catalog.text::${cast})`;
  // What a built-in type is made of is the same on both servers.
  return { source: forms.target.write(casted, target.baseOid), target: targetForm };
}

/** The type that a value of the source has to be cast to, through its text, to look like the target's; or null. */
function castFor({ source, target }: ColumnPair): string | null {
  if (!target.isBuiltin || source.plainType === target.plainType) return null;
  // Rounded as it is there, but not refused as it may have been.
  const rounded = target.plainType.replace(/^numeric\(\d+,/, "numeric(1000,");
  if (source.baseType === target.baseType) {
    return scaled.test(target.baseType) && target.plainType !== target.baseType ? rounded : null;
  }
  if (textual.test(target.baseType) || !source.isBuiltin) return null;
  if (whole.test(source.baseType) && (whole.test(target.baseType) || target.plainType === "numeric"))
    return null;
  return rounded;
}

function keyColumnSql(column: Column, equals: string): KeyColumnSql {
  return {
    // A domain's operators may want the same type on both sides.
    value: column.isDomain ? `(${value(column)})::${column.baseType}` : value(column),
    type: column.baseType,
    collation: column.collation,
    equals,
  };
}

function targetEquals(table: Table, column: Column, sourceEquals: string | undefined): string {
  const inKey = table.key?.columns.find((each) => each.attnum === column.attnum);
  if (inKey !== undefined) return inKey.equals;
  return column.isBuiltin || sourceEquals === undefined ? "operator(pg_catalog.=)" : sourceEquals;
}

function value(column: Column): string {
  return `t.${ident(column.name)}`;
}

function toastBytes(table: Table): number {
  return [table, ...table.leaves].reduce((sum, each) => sum + each.toastBytes, 0);
}

/** Whether both sides should have the same rows: a hook may make anything of them. */
export function isComparable(config: ResolvedConfig, entry: SyncTable): boolean {
  return !isTransformed(config, entry.sourceSchema, entry.sourceName);
}
