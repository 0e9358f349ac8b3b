/** Columns that were renamed or dropped on the source since the fingerprint was taken. */
import { tableSql, type Table } from "../catalog/table.ts";
import type { Problem } from "../errors.ts";
import { ident } from "../postgres/sql.ts";

/**
 * What a comparison of both sides alone could only take for a missing column, or not notice at all. `before`: the
 * fingerprint's columns, [attnum, name, …].
 */
export function renamedAndDropped(
  label: string,
  before: readonly (readonly (string | number)[])[],
  source: Table,
  target: Table,
): Problem[] {
  const has = (name: string): boolean => target.columns.some((column) => column.name === name);
  return before.flatMap(([attnum, oldName]): Problem[] => {
    const name = String(oldName);
    const column = source.columns.find((each) => each.attnum === attnum);
    if (column === undefined) {
      if (!has(name) || source.columns.some((each) => each.name === name)) return [];
      return [
        {
          subject: label,
          message: `column ${ident(name)} was dropped on the source`,
          remedy: `alter table ${tableSql(target)} drop column ${ident(name)};`,
        },
      ];
    }
    if (column.name === name || has(column.name) || !has(name)) return [];
    return [
      {
        subject: label,
        message: `column ${ident(name)} was renamed to ${ident(column.name)} on the source`,
        remedy: `alter table ${tableSql(target)} rename column ${ident(name)} to ${ident(column.name)};`,
      },
    ];
  });
}
