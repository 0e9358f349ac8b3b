/** What a table is in full, for changes of it that are to be made elsewhere too: sql/catalog/definition. */
import type { Connection } from "../postgres/connect.ts";
import { load } from "../postgres/sql.ts";

export interface ColumnDefinition {
  readonly attnum: number;
  readonly name: string;
  /** As in a CREATE TABLE: `character varying(20)`. */
  readonly type: string;
  /** The same without length or precision. */
  readonly baseType: string;
  readonly typeOid: number;
  readonly isBuiltin: boolean;
  /** Null where it is the type's own. */
  readonly collation: string | null;
  readonly notNull: boolean;
  /** Of a generated column what it is generated from. */
  readonly default: string | null;
  readonly identity: "" | "a" | "d";
  readonly generated: "" | "s" | "v";
  /** It comes from a parent alone. */
  readonly isInherited: boolean;
  /** Null where it is the type's own. */
  readonly storage: string | null;
  readonly statistics: number | null;
  readonly compression: string | null;
  readonly comment: string | null;
  /** That of a serial or identity column. */
  readonly sequence: SequenceDefinition | null;
}

export interface SequenceDefinition {
  readonly schema: string;
  readonly name: string;
  readonly type: string;
  readonly start: string;
  readonly increment: string;
  readonly min: string;
  readonly max: string;
  readonly cache: string;
  readonly cycle: boolean;
}

export interface ConstraintDefinition {
  readonly oid: number;
  readonly name: string;
  /** check, unique, primary key, exclusion, foreign key */
  readonly type: "c" | "u" | "p" | "x" | "f";
  readonly definition: string;
  readonly isValidated: boolean;
  readonly isDeferrable: boolean;
  readonly isDeferred: boolean;
  readonly isInherited: boolean;
  readonly comment: string | null;
  readonly references: { readonly schema: string; readonly name: string } | null;
}

/** An index that is no constraint's. */
export interface PlainIndexDefinition {
  readonly oid: number;
  readonly name: string;
  readonly definition: string;
  readonly isValid: boolean;
  readonly comment: string | null;
}

export interface TableDefinition {
  readonly schema: string;
  readonly name: string;
  readonly kind: string;
  readonly comment: string | null;
  readonly columns: readonly ColumnDefinition[];
  readonly constraints: readonly ConstraintDefinition[];
  readonly indexes: readonly PlainIndexDefinition[];
}

/** By oid; of tables that are gone there is none. */
export async function readTableDefinitions(
  connection: Connection,
  oids: readonly number[],
): Promise<Map<number, TableDefinition>> {
  if (oids.length === 0) return new Map();
  const rows = await connection.rows<{ relid: number; definition: TableDefinition }>(
    load("catalog/definition"),
    [oids],
  );
  return new Map(rows.map(({ relid, definition }) => [relid, definition]));
}
