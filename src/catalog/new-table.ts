/**
 * Makes a table on the target as it is on the source, from what the source's catalogue says: its schemas, types, sequences,
 * columns, partitions, checks, keys, indexes and comments. Without its foreign keys, which are owed until its rows are there.
 */
import type { Connection } from "../postgres/connect.ts";
import { ident, load } from "../postgres/sql.ts";
import { collateSql } from "./column-sql.ts";
import { foreignKeyRemoval, type ForeignKey, type Removal } from "./definitions.ts";
import { tableSql, type Column, type Table } from "./table.ts";

interface NewType {
  readonly schema: string;
  readonly name: string;
  readonly statement: string | null;
  readonly comment: string | null;
}

/** See sql/catalog/new-table. */
const stage = { sequence: 10, identity: 20, key: 50, index: 55 } as const;

interface Part {
  readonly stage: number;
  readonly name: string;
  readonly statement: string;
}

/** What a table of the source is made of. */
export interface NewTable {
  readonly table: Table;
  /** Of the source's server, as in `Connection.version`. */
  readonly version: number;
  readonly types: readonly NewType[];
  readonly parts: readonly Part[];
  /** Its own, and those of its partitions, as far as they have any. */
  readonly foreignKeys: readonly ForeignKey[];
}

/** Columns have been able to be generated, and then not stored, since. */
const GENERATED_SINCE = 120_000;
const VIRTUAL_SINCE = 180_000;
/** Partitioned tables have had indexes since. */
const TREE_INDEXES_SINCE = 110_000;

/** In a transaction of the caller's, so that all of it tells of the same table. */
export async function readNewTable(source: Connection, table: Table): Promise<NewTable> {
  const members = [table.oid, ...table.leaves.map(({ oid }) => oid)];
  const types = await source.rows<NewType>(load("catalog/new-types"), [table.oid]);
  const parts = await source.rows<Part>(load("catalog/new-table"), [table.oid]);
  const keys = await source.rows<ForeignKey>(load("catalog/foreign-keys"), [members]);
  return {
    table: withKey(table, source.version),
    version: source.version,
    types,
    parts,
    foreignKeys: keys.filter(({ relid }) => members.includes(relid)),
  };
}

/** On version 10 the columns of a partitioned table's key may be null on the table, and not in its leaves. */
function withKey(table: Table, version: number): Table {
  if (table.kind !== "p" || version >= TREE_INDEXES_SINCE) return table;
  const names = table.key?.columns.map(({ name }) => name) ?? [];
  const columns = table.columns.map((column) =>
    names.includes(column.name) ? { ...column, notNull: true } : column,
  );
  return { ...table, columns };
}

/** Why a table cannot be made by statements; undefined: it can. */
export function whyNotMade({ table, types }: NewTable, target: Connection): string | undefined {
  const type = types.find(({ statement }) => statement === null);
  if (type !== undefined) return `its type ${type.name} is a range with functions of its own`;
  const generated = table.columns.find((column) => column.generated !== "");
  if (generated !== undefined && target.version < GENERATED_SINCE)
    return `its column ${ident(generated.name)} is generated, which the target's server does not know`;
  return undefined;
}

/**
 * Runs in a transaction of the caller's; returns what was run. Types and sequences that are there by their names are left as they
 * are. Throws what the server says.
 */
export async function makeTable(target: Connection, made: NewTable): Promise<string[]> {
  const { table, types, parts } = made;
  const sequences = parts.filter((part) => part.stage === stage.sequence);
  const schemas = [table, ...table.leaves.flatMap(({ path }) => path), ...types].map(({ schema }) => schema);
  const missing = await target.row<{ schemas: string[]; types: string[]; sequences: string[] }>(
    `select array(select x.name from pg_catalog.unnest($1::text[]) as x (name)
              where not exists (select from pg_catalog.pg_namespace n where n.nspname = x.name)) as "schemas",
            array(select x.name from pg_catalog.unnest($2::text[]) as x (name) where pg_catalog.to_regtype(x.name) is null) as "types",
            array(select x.name from pg_catalog.unnest($3::text[]) as x (name) where pg_catalog.to_regclass(x.name) is null) as "sequences"`,
    [[...new Set(schemas)], types.map(({ name }) => name), sequences.map(({ name }) => name)],
  );
  const isNew = ({ name }: Part): boolean => missing.sequences.includes(name);
  const isThere = (part: Part): boolean => sequences.some(({ name }) => name === part.name) && !isNew(part);
  const statements = [
    ...missing.schemas.map((name) => `create schema ${ident(name)}`),
    ...types
      .filter(({ name }) => missing.types.includes(name))
      .flatMap(({ statement, comment }) => [statement ?? "", ...(comment === null ? [] : [comment])]),
    ...sequences.filter(isNew).map(({ statement }) => statement),
    createSql(made, target.version),
    ...parts
      .filter((part) => part.stage > stage.identity && !isThere(part) && !isLeafKey(made, part, target))
      .map(({ statement }) => statement),
    ...treeKeySql(made, target),
  ];
  await target.script(statements.join(";\n"));
  return statements;
}

function createSql({ table, parts }: NewTable, version: number): string {
  const identities = new Map(
    parts.filter((part) => part.stage === stage.identity).map(({ name, statement }) => [name, statement]),
  );
  const columns = table.columns.map((column) => columnSql(column, identities.get(column.name), version));
  const divided = table.partitionKey === null ? "" : ` partition by ${table.partitionKey}`;
  return `create table ${tableSql(table)} (${columns.join(", ")})${divided}`;
}

function columnSql(column: Column, identity: string | undefined, version: number): string {
  const kind = column.generated === "v" && version >= VIRTUAL_SINCE ? "virtual" : "stored";
  return [
    `${ident(column.name)} ${column.type}${collateSql(column)}`,
    ...(column.generated !== ""
      ? [`generated always as (${column.default ?? ""}) ${kind}`]
      : identity !== undefined
        ? [identity]
        : column.default === null
          ? []
          : [`default ${column.default}`]),
    ...(column.notNull ? ["not null"] : []),
  ].join(" ");
}

/** On version 10 the key of a partitioned table lies in its leaves alone; later versions have it on the table. */
function hasLeafKey({ table, version }: NewTable, target: Connection): boolean {
  return (
    table.kind === "p" &&
    table.key !== null &&
    version < TREE_INDEXES_SINCE &&
    target.version >= TREE_INDEXES_SINCE
  );
}

function isLeafKey(made: NewTable, part: Part, target: Connection): boolean {
  if (!hasLeafKey(made, target) || part.stage !== stage.key) return false;
  return made.table.key?.isPrimary === true ? / PRIMARY KEY \(/.test(part.statement) : false;
}

function treeKeySql(made: NewTable, target: Connection): string[] {
  const { key } = made.table;
  if (key === null || !hasLeafKey(made, target)) return [];
  const columns = key.columns.map(({ name }) => ident(name)).join(", ");
  const kind = key.isPrimary ? "primary key" : "unique";
  return [
    `alter table ${tableSql(made.table)} add ${kind} (${columns})${key.isDeferrable ? " deferrable" : ""}`,
  ];
}

/** Its foreign keys, to be owed to the target's table. */
export function owedForeignKeys({ foreignKeys }: NewTable, target: Connection): Removal[] {
  return foreignKeys.map((key) => foreignKeyRemoval(key, target.version));
}
