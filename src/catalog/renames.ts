/** Columns that were renamed or dropped on the source since the fingerprint was taken. */
import type { Problem } from "../errors.ts";
import { ident } from "../postgres/sql.ts";
import type { FingerprintColumn } from "./fingerprint.ts";
import type { TableMapping } from "./mapping.ts";
import { tableSql, type Column, type Table } from "./table.ts";

/** What was done to a column of the source, and has to be done on the target. */
export interface Move {
  readonly problem: Problem;
  /** The target's column, and its new name; null: it goes. */
  readonly column: Column;
  readonly to: string | null;
}

/**
 * What a comparison of both sides alone could only take for a missing column, or not notice at all. `before`: the
 * fingerprint's columns.
 */
export function renamedAndDropped(
  label: string,
  before: readonly FingerprintColumn[],
  source: Table,
  target: Table,
  mapping: TableMapping | null,
): Move[] {
  // A column that the mapping names is missed by the mapping; what it writes to is no namesake.
  const named = mapping?.columns ?? {};
  const written = Object.values(named).flatMap(({ to }) => to ?? []);
  const columnOf = (name: string): Column | undefined =>
    written.includes(name) ? undefined : target.columns.find((column) => column.name === name);
  const alter = `alter table ${tableSql(target)}`;
  return before.flatMap(([attnum, name, formerType]): Move[] => {
    const there = columnOf(name);
    if (name in named || there === undefined) return [];
    const column = source.columns.find((each) => each.attnum === attnum);
    const dropped = { column: there, to: null };
    if (column === undefined) {
      const successor = source.columns.find((each) => each.name === name);
      // A column of the same type takes its place: its values come, whatever the target's column has.
      if (successor !== undefined && (there.type === successor.type || formerType === successor.baseOid))
        return [];
      const message =
        successor === undefined
          ? `column ${ident(name)} was dropped on the source`
          : `column ${ident(name)} was dropped on the source, and added again as ${successor.type}`;
      const remedy = `${alter} drop column ${ident(name)};`;
      return [{ ...dropped, problem: { subject: label, message, remedy } }];
    }
    if (column.name === name || columnOf(column.name) !== undefined) return [];
    const message = `column ${ident(name)} was renamed to ${ident(column.name)} on the source`;
    const remedy = `${alter} rename column ${ident(name)} to ${ident(column.name)};`;
    return [{ column: there, to: column.name, problem: { subject: label, message, remedy } }];
  });
}

/** The table once all of it is done. */
export function afterMoves(target: Table, moves: readonly Move[]): Table {
  const columns = target.columns.flatMap((column): Column[] => {
    const move = moves.find((each) => each.column.attnum === column.attnum);
    if (move === undefined) return [column];
    return move.to === null ? [] : [{ ...column, name: move.to }];
  });
  return { ...target, columns };
}
