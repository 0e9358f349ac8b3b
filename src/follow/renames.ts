/** Columns that were renamed or dropped on the source since the fingerprint was taken. */
import type { TableMapping } from "../catalog/mapping.ts";
import { tableSql, type Column, type Table } from "../catalog/table.ts";
import type { Problem } from "../errors.ts";
import { ident } from "../postgres/sql.ts";

/**
 * What a comparison of both sides alone could only take for a missing column, or not notice at all. `before`: the
 * fingerprint's columns, [attnum, name, type oid, …].
 */
export function renamedAndDropped(
  label: string,
  before: readonly (readonly (string | number)[])[],
  source: Table,
  target: Table,
  mapping: TableMapping | null,
): Problem[] {
  // A column that the mapping names is missed by the mapping; what it writes to is no namesake.
  const named = mapping?.columns ?? {};
  const written = Object.values(named).flatMap(({ to }) => to ?? []);
  const has = (name: string): boolean =>
    !written.includes(name) && target.columns.some((column) => column.name === name);
  return before.flatMap(([attnum, oldName, formerType]): Problem[] => {
    const name = String(oldName);
    if (name in named) return [];
    const column = source.columns.find((each) => each.attnum === attnum);
    if (column === undefined) {
      const successor = source.columns.find((each) => each.name === name);
      if (successor !== undefined) return replaced(label, String(formerType), successor, target);
      if (!has(name)) return [];
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

/** A column of another type has the name now: the target's values need no way to be converted. */
function replaced(label: string, formerType: string, successor: Column, target: Table): Problem[] {
  const column = target.columns.find((each) => each.name === successor.name);
  if (column === undefined || column.type === successor.type || formerType === String(successor.baseOid))
    return [];
  const name = ident(successor.name);
  return [
    {
      subject: label,
      message: `column ${name} was dropped on the source, and added again as ${successor.type}`,
      remedy: `alter table ${tableSql(target)} drop column ${name}, add column ${name} ${successor.type};`,
    },
  ];
}
