/** What a table is: its columns, the key that identifies a row, its leaf partitions. Read from the catalogue. */
import type { Problem } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { ident, qualified, withArgument } from "../postgres/sql.ts";
import { readTypes, typeStructure, type TypeStructure } from "./types.ts";

export interface Column {
  readonly attnum: number;
  readonly name: string;
  /** As in a CREATE TABLE: `character varying(20)`. */
  readonly type: string;
  /** Domains resolved, no length or precision, usable in a cast: `character varying`. */
  readonly baseType: string;
  /** The same with length or precision, as the column or a domain has it: `character varying(20)`. */
  readonly plainType: string;
  readonly baseOid: number;
  /** Oid of the type as declared, a domain maybe. */
  readonly typeOid: number;
  /** `typtype` of the base type: b base, c composite, e enum, r range, m multirange. */
  readonly baseKind: string;
  readonly isBuiltin: boolean;
  readonly isDomain: boolean;
  /** What the base type is made of, where it is not built in. */
  readonly structure?: TypeStructure;
  readonly notNull: boolean;
  readonly hasDefault: boolean;
  readonly default: string | null;
  /** "" none, "a" always, "d" by default. */
  readonly identity: "" | "a" | "d";
  /** "" none, "s" stored, "v" virtual. Generated columns are never read nor written. */
  readonly generated: "" | "s" | "v";
  /** Quoted and qualified, or null where the type has none. */
  readonly collation: string | null;
  /** What a mapping makes of this column of a source, see catalog/mapping. */
  readonly mapped?: MappedColumn;
}

export interface MappedColumn {
  /** The target's column; null: left out. */
  readonly to: string | null;
  /** SQL over the source's row that gives the value; null: the column's own value. */
  readonly as: string | null;
  /** A discriminator's value, which is of the target's type already. */
  readonly isConstant?: boolean;
}

/** A value that tells the rows of one sync from those of others in a table of the target. */
export interface OwnValue {
  readonly column: string;
  readonly value: string;
  /** Base type of the column. */
  readonly type: string;
}

export interface KeyColumn {
  readonly attnum: number;
  readonly name: string;
  /** `operator(schema.=)` of the index: equality as the key itself sees it, whatever the search path. */
  readonly equals: string;
}

export interface Key {
  readonly index: string;
  readonly isPrimary: boolean;
  /** A deferrable key cannot be the arbiter of ON CONFLICT. */
  readonly isDeferrable: boolean;
  readonly columns: readonly KeyColumn[];
}

/** A partition on the way from the root to a leaf. */
export interface PartitionLevel {
  readonly schema: string;
  readonly name: string;
  readonly bound: string;
  /** What it is divided by in turn: `RANGE (day)`; null for the leaf. */
  readonly key: string | null;
}

export interface Leaf {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  /** r table, f foreign table. */
  readonly kind: string;
  /** `FOR VALUES …`, or DEFAULT. */
  readonly bound: string;
  /** From below the root down to the leaf itself. */
  readonly path: readonly PartitionLevel[];
  readonly file: string;
  /** Row security would hide rows from the session's role where the partition is named itself. */
  readonly rowSecurityActive: boolean;
  readonly heapBytes: number;
  readonly toastBytes: number;
}

export interface Table {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  /** r ordinary, p partitioned; others are refused by preflight. */
  readonly kind: string;
  readonly owner: string;
  /** The session's role has the rights of the owner. */
  readonly isOwned: boolean;
  /** Physical file; another one after a rewrite or TRUNCATE. "0" for a partitioned table. */
  readonly file: string;
  readonly isPartition: boolean;
  /** Made WITH OIDS, as it could be before 12: rows have a hidden column that is not replicated. */
  readonly hasOids: boolean;
  /** How its server writes a "char" over 127: `octal`, or as it is, in the encoding of this name. */
  readonly byteForm: string;
  /** `RANGE (day)`; null unless partitioned. */
  readonly partitionKey: string | null;
  /** p permanent, u unlogged, t temporary. */
  readonly persistence: string;
  /** ON CONFLICT is refused where a rule acts on INSERT or UPDATE, even a disabled one. */
  readonly hasRules: boolean;
  /** A foreign key of some table points here, or to a partition: TRUNCATE is refused. */
  readonly isReferenced: boolean;
  readonly rowSecurity: boolean;
  /** Row security would hide rows from the session's role. */
  readonly rowSecurityActive: boolean;
  readonly estimatedRows: number;
  readonly heapBytes: number;
  readonly toastBytes: number;
  readonly columns: readonly Column[];
  readonly key: Key | null;
  /** Empty unless partitioned. */
  readonly leaves: readonly Leaf[];
  readonly comment: string | null;
  /** Under which the application's own code is evaluated, see catalog/search-path. */
  readonly searchPath: string;
  /** Of a mapped source: SQL over its row, for the rows that are replicated alone. */
  readonly where?: string;
  /** Of a mapped source: what is wrong with the mapping. */
  readonly mappingProblems?: readonly Problem[];
  /** Of a target that others write to as well: which rows are ours. */
  readonly own?: readonly OwnValue[];
}

/** Describes the tables that exist among these oids, sorted by schema and name. */
export async function describeTables(connection: Connection, oids: readonly number[]): Promise<Table[]> {
  const relations = `'{${oids.join(",")}}'`;
  const [tables, paths] = await connection.script(
    ["catalog/tables", "catalog/search-path"].map((path) => withArgument(path, relations)).join(";\n"),
  );
  const pathOf = new Map(
    ((paths?.rows ?? []) as { relid: number; path: string }[]).map(({ relid, path }) => [relid, path]),
  );
  const found = ((tables?.rows ?? []) as Table[]).map((row) => {
    const oid = Number(row.oid);
    return { ...row, oid, searchPath: pathOf.get(oid) ?? "" };
  });
  const describe = await typeDescriber(
    connection,
    found.flatMap(({ columns }) => columns),
  );
  return found.map((table) => ({ ...table, columns: table.columns.map(describe) }));
}

type TypeOfColumn = Pick<Column, "baseOid" | "isBuiltin">;

/** Adds to columns, or to expressions, what their types are made of, where these are not built in. */
export async function typeDescriber<Described extends TypeOfColumn>(
  connection: Connection,
  columns: readonly Described[],
): Promise<(column: Described) => Described & Pick<Column, "structure">> {
  const oids = [...new Set(columns.filter(({ isBuiltin }) => !isBuiltin).map(({ baseOid }) => baseOid))];
  if (oids.length === 0) return (column) => column;
  const types = await readTypes(connection, [], oids);
  return (column) => {
    // One that was dropped meanwhile is noticed with its table.
    const isKnown = !column.isBuiltin && types.has(column.baseOid);
    return isKnown ? { ...column, structure: typeStructure(column.baseOid, types) } : column;
  };
}

/** The table and its partitions where row security would hide rows from the session's role. */
export function hidingRelations(table: Table): readonly { readonly schema: string; readonly name: string }[] {
  return [table, ...table.leaves].filter(({ rowSecurityActive }) => rowSecurityActive);
}

/** Columns that hold data of their own: generated ones are computed on either side. */
export function dataColumns(table: Table): readonly Column[] {
  return table.columns.filter((column) => column.generated === "");
}

/** The name as SQL. */
export function tableSql(table: { readonly schema: string; readonly name: string }): string {
  return qualified(table.schema, table.name);
}

/** The name as people write it: `public.users`, quoted only where needed. */
export function tableLabel(table: { readonly schema: string; readonly name: string }): string {
  const show = (name: string): string => (/^[a-z_][a-z0-9_$]*$/.test(name) ? name : ident(name));
  return `${show(table.schema)}.${show(table.name)}`;
}

/** Size that counts for planning: heap and TOAST of the table and of its leaves. */
export function tableBytes(table: Table): number {
  return [table, ...table.leaves].reduce((sum, each) => sum + each.heapBytes + each.toastBytes, 0);
}

/** `from` clause for reading the rows that are the table's own: not those of classic inheritance children. */
export function fromSql(table: Table): string {
  return table.kind === "p" ? tableSql(table) : `only ${tableSql(table)}`;
}
