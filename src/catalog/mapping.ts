/**
 * How a table is mapped: which rows, which columns, computed how, under which names. `mapTables` writes it into the
 * descriptions of both tables; whoever reads rows by `rowsSql` and pairs columns by `columnPlan` has it right then.
 */
import type { Problem } from "../errors.ts";
import type { Connection, Results } from "../postgres/connect.ts";
import { ident, literal, load } from "../postgres/sql.ts";
import { sqlstateOf } from "../postgres/sqlstate.ts";
import { enclosed } from "./rows.ts";
import {
  fromSql,
  tableLabel,
  typeDescriber,
  type Column,
  type MappedColumn,
  type OwnValue,
  type Table,
} from "./table.ts";

/** As the target remembers it, see `SyncTable`. */
export interface TableMapping {
  /** SQL condition on the source's row. */
  readonly where: string | null;
  /** By the source's column, or by the target's where the source has none of that name. */
  readonly columns: Readonly<Record<string, MappedColumn>>;
  /** Column of the target to the value that our rows have there, as text. */
  readonly discriminator: Readonly<Record<string, string>>;
}

export interface Mapped {
  readonly source: Table;
  readonly target: Table;
}

/** True where nothing is lost on the way: the mapping changes names alone, so there is a way back. */
export function isReversible(mapping: TableMapping | null): boolean {
  return (
    mapping === null ||
    (mapping.where === null &&
      Object.keys(mapping.discriminator).length === 0 &&
      Object.values(mapping.columns).every(({ to, as }) => to !== null && as === null))
  );
}

/** True where the target's columns have the names and values of the source's. */
export function keepsColumns(mapping: TableMapping | null): boolean {
  return (
    mapping === null ||
    [mapping.columns, mapping.discriminator].every((each) => Object.keys(each).length === 0)
  );
}

/** The mapping of the way back. Only for one that is reversible. */
export function reversed(mapping: TableMapping | null): TableMapping | null {
  if (mapping === null) return null;
  const names = Object.entries(mapping.columns).flatMap(([name, { to }]) =>
    to === null ? [] : [[to, { to: name, as: null }] as const],
  );
  return { where: null, columns: Object.fromEntries(names), discriminator: {} };
}

/** The name that a column of the source has on the target; null where it is not carried over as it is. */
export function targetColumn(mapping: TableMapping | null, name: string): string | null {
  const column = mapping?.columns[name];
  if (column === undefined) return name;
  return column.as === null ? column.to : null;
}

/**
 * Both tables of each pair as the mapping makes them, in order; those without one as they are. Asks the source for the
 * types of all expressions at once. What is wrong with a mapping becomes a problem of its source table, see `columnPlan`.
 */
export async function mapTables(
  source: Connection,
  pairs: readonly (Mapped & { readonly mapping: TableMapping | null })[],
): Promise<Mapped[]> {
  const wishes = pairs.map(({ source: table, target, mapping }) =>
    mapping === null ? null : wishOf(table, target, mapping),
  );
  await describeExpressions(
    source,
    wishes.filter((wish) => wish !== null),
  );
  return pairs.map(({ source: from, target: to }, index) => {
    const wish = wishes[index];
    if (wish == null) return { source: from, target: to };
    return { source: mappedSource(wish), target: wish.own.length === 0 ? to : { ...to, own: wish.own } };
  });
}

interface Entry {
  readonly captureId: number;
  readonly sourceRelid: number;
  readonly targetRelid: number;
  readonly mapping: TableMapping | null;
}

/** The same for the tables of a sync, given by oid: by capture id. Those that one side lacks are missing. */
export async function mapEntries(
  source: Connection,
  entries: readonly Entry[],
  sources: ReadonlyMap<number, Table>,
  targets: ReadonlyMap<number, Table>,
): Promise<Map<number, Mapped>> {
  const pairs = entries.flatMap(({ captureId, sourceRelid, targetRelid, mapping }) => {
    const [from, to] = [sources.get(sourceRelid), targets.get(targetRelid)];
    return from === undefined || to === undefined ? [] : [{ captureId, source: from, target: to, mapping }];
  });
  const mapped = await mapTables(source, pairs);
  return new Map(pairs.map(({ captureId }, index) => [captureId, mapped[index] as Mapped]));
}

/** An expression of the settings, with what the source says of it. */
export interface Expression {
  /** `where`, `columns.email`. */
  readonly setting: string;
  readonly sql: string;
  type?: ExpressionType;
}

type ExpressionType = Pick<
  Column,
  "type" | "baseType" | "plainType" | "baseOid" | "baseKind" | "isBuiltin" | "isDomain" | "structure"
>;

/** What is wished of one table. */
interface Wish {
  readonly table: Table;
  readonly where: Expression | null;
  readonly columns: readonly {
    readonly name: string;
    readonly mapped: MappedColumn;
    readonly expression: Expression;
  }[];
  readonly own: readonly OwnValue[];
  readonly problems: Problem[];
}

function wishOf(table: Table, target: Table, { where, columns, discriminator }: TableMapping): Wish {
  const typeOf = (column: string): Column | undefined => target.columns.find(({ name }) => name === column);
  const constants = Object.entries(discriminator).map(([column, value]) => {
    // A type of the target's own is unknown to the source.
    const type = typeOf(column)?.isBuiltin === true ? typeOf(column)?.baseType : "pg_catalog.text";
    return [column, { to: column, as: `${literal(value)}::${type}`, isConstant: true }] as const;
  });
  const entries: Readonly<Record<string, MappedColumn>> = { ...columns, ...Object.fromEntries(constants) };
  return {
    table,
    where: where === null ? null : { setting: "where", sql: where },
    columns: Object.entries(entries).map(([name, mapped]) => {
      const setting = `${mapped.isConstant === true ? "discriminator" : "columns"}.${name}`;
      return { name, mapped, expression: { setting, sql: mapped.as ?? "" } };
    }),
    own: Object.entries(discriminator).map(([column, value]) => {
      return { column, value, type: typeOf(column)?.baseType ?? "text" };
    }),
    problems: [],
  };
}

function expressionsOf({ where, columns }: Wish): Expression[] {
  const computed = columns.filter(({ mapped }) => mapped.as !== null).map(({ expression }) => expression);
  return where === null ? computed : [...computed, where];
}

/** Fills in the types of all expressions; what the source does not understand becomes a problem. */
async function describeExpressions(source: Connection, wishes: readonly Wish[]): Promise<void> {
  const asked = wishes.filter((wish) => expressionsOf(wish).length > 0);
  if (asked.length === 0) return;
  const fields: { readonly expression: Expression; readonly oid: number; readonly modifier: number }[] = [];
  const take = (expressions: readonly Expression[], result: Results[number] | undefined): void => {
    for (const [n, { dataTypeID, dataTypeModifier }] of (result?.fields ?? []).entries())
      fields.push({ expression: expressions[n] as Expression, oid: dataTypeID, modifier: dataTypeModifier });
  };
  const all = await tryScript(
    source,
    asked.map((wish) => describeSql(wish.table, expressionsOf(wish))).join(";\n"),
  );
  for (const [index, wish] of asked.entries()) {
    if (!(all instanceof Error)) {
      take(expressionsOf(wish), all[index]);
      continue;
    }
    // Some expression is wrong: one by one, to tell which.
    for (const expression of expressionsOf(wish)) {
      const alone = await tryScript(source, describeSql(wish.table, [expression]));
      if (!(alone instanceof Error)) take([expression], alone[0]);
      else
        wish.problems.push({
          subject: tableLabel(wish.table),
          message: `${expression.setting}: the source says: ${alone.message}`,
        });
    }
  }
  const types = await source.rows<ExpressionType>(load("catalog/expression-types"), [
    fields.map(({ oid }) => oid),
    fields.map(({ modifier }) => modifier),
  ]);
  const describe = await typeDescriber(source, types);
  for (const [n, { expression }] of fields.entries()) expression.type = describe(types[n] as ExpressionType);
}

/** A query that returns no row, whose columns are the expressions. */
function describeSql(table: Table, expressions: readonly Expression[]): string {
  const columns = expressions.map(({ sql }) => enclosed(sql)).join(", ");
  return `select ${columns} from ${fromSql(table)} as ${ident(table.name)} limit 0`;
}

/** The results, or what the server objected to. */
async function tryScript(source: Connection, script: string): Promise<Results | Error> {
  try {
    return await source.script(script);
  } catch (error) {
    return objection(source, error);
  }
}

/** What a server says of an expression; throws what it says of anything else, such as a lock that somebody holds. */
export function objection(server: Connection, error: unknown): Error {
  const isOfExpression = /^(0A|22|2F|42|P0)/.test(sqlstateOf(error) ?? "");
  if (server.isBroken || !isOfExpression || !(error instanceof Error)) throw error;
  return error;
}

function mappedSource({ table, where, columns: wished, problems }: Wish): Table {
  const fail = (setting: string, message: string): void =>
    void problems.push({ subject: tableLabel(table), message: `${setting}: ${message}` });
  const isKey = (column: Column): boolean =>
    table.key?.columns.some(({ attnum }) => attnum === column.attnum) === true;
  const columns = table.columns.map((column): Column => {
    const wish = wished.find(({ name }) => name === column.name);
    if (wish === undefined) return column;
    const { mapped, expression } = wish;
    if (isKey(column) && (mapped.to === null || mapped.as !== null)) {
      const what = mapped.to === null ? "left out" : "computed";
      fail(expression.setting, `a column of the key cannot be ${what}: rows are found by it`);
      return column;
    }
    if (mapped.as === null) return { ...column, mapped };
    // What the source could not make sense of is a problem already.
    if (expression.type === undefined) return { ...column, mapped: { to: null, as: null } };
    return computed(column.attnum, column.name, expression.type, mapped);
  });
  for (const [index, { name, mapped, expression }] of wished.entries()) {
    if (table.columns.some((column) => column.name === name)) continue;
    if (mapped.as === null) {
      // One that is left out may be dropped from the source.
      if (mapped.to !== null) fail(expression.setting, "the source has no such column");
    } else if (expression.type !== undefined)
      columns.push(computed(NO_COLUMN - index, name, expression.type, mapped));
  }
  if (where?.type !== undefined && where.type.baseType !== "boolean")
    fail(where.setting, `has to be a condition, and is of type ${where.type.type}`);
  // What the settings say means what it says under our own search path, where it was checked.
  const hasExpressions = where !== null || columns.some(({ mapped }) => mapped?.as != null);
  return {
    ...table,
    columns,
    ...(where === null ? {} : { where: where.sql }),
    ...(hasExpressions ? { searchPath: "pg_catalog" } : {}),
    mappingProblems: problems,
  };
}

/** From here down no column has a number, not even those of the system. */
const NO_COLUMN = -100;

function computed(attnum: number, name: string, type: ExpressionType, mapped: MappedColumn): Column {
  return {
    ...type,
    attnum,
    name,
    mapped,
    notNull: false,
    hasDefault: false,
    default: null,
    identity: "",
    generated: "",
    collation: null,
    typeOid: 0,
  };
}
