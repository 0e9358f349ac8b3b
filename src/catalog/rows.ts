/**
 * The rows of a table as a sync sees them: all as they are, or those that the mapping's filter keeps, with the values
 * that its expressions give; on the target, those that are the sync's own.
 */
import { ident, literal, qualified } from "../postgres/sql.ts";
import { fromSql, type Table } from "./table.ts";

interface Relation {
  readonly schema: string;
  readonly name: string;
}

/**
 * What to read rows from, to be followed by an alias; of one of the table's partitions where it is given. The columns
 * have the names that the source gives them, computed ones included. A subquery, where one is needed, is of the kind that
 * the planner dissolves, so that indexes and page ranges serve as they do without.
 */
export function rowsSql(table: Table, partition?: Relation): string {
  const from =
    partition === undefined ? fromSql(table) : `only ${qualified(partition.schema, partition.name)}`;
  const isComputed = table.columns.some(({ mapped }) => mapped?.as != null);
  if (!isComputed && table.where === undefined && table.own === undefined) return from;
  // The table's own name, which expressions may use.
  const alias = ident(table.name);
  const columns = table.columns
    .filter(({ mapped }) => mapped === undefined || mapped.to !== null)
    .map(({ name, mapped }) =>
      mapped?.as == null ? `${alias}.${ident(name)}` : `${enclosed(mapped.as)} as ${ident(name)}`,
    );
  const conditions = [
    ...(table.where === undefined ? [] : [enclosed(table.where)]),
    ...ownConditions(table, alias),
  ];
  const where = conditions.length === 0 ? "" : ` where ${conditions.join(" and ")}`;
  return `(select ${[`${alias}.tableoid`, `${alias}.ctid`, ...columns].join(", ")} from ${from} as ${alias}${where})`;
}

/** Conditions that keep a target's rows to the sync's own, over an alias as SQL; none where all are. */
export function ownConditions(target: Table, alias: string): string[] {
  return (target.own ?? []).map(
    ({ column, value, type }) =>
      `${alias}.${ident(column)} operator(pg_catalog.=) ${literal(value)}::${type}`,
  );
}

/** The columns that tell a target's rows apart. */
export function ownColumns({ own = [] }: Table): string[] {
  return own.map(({ column }) => column);
}

/** `only "public"."users" as t where …`: the sync's own rows, for DELETE and for looking whether there are any. */
export function ownRowsSql(target: Table, relation = fromSql(target)): string {
  const conditions = ownConditions(target, "t");
  return `${relation} as t${conditions.length === 0 ? "" : ` where ${conditions.join(" and ")}`}`;
}

/** An expression of the settings, which may end in a comment. */
export function enclosed(expression: string): string {
  return `(${expression}\n)`;
}
