/** The settings that map a table: their forms, the check of each, and what they come to for a table. */
import type { TableMapping } from "../catalog/mapping.ts";
import { parsePattern, parseTableName, type TableName } from "../catalog/patterns.ts";
import { tableLabel, type MappedColumn } from "../catalog/table.ts";
import { tableSettings, type Merged } from "./overrides.ts";
import type { Check } from "./checks.ts";

/**
 * Of a column of the source: null leaves it out, text is an SQL expression that gives the value, `to` is another name on
 * the target. A name that is not the source's is a column of the target alone, which needs an expression.
 */
export type ColumnSetting = string | null | { readonly to?: string; readonly as?: string };

/** The part of a table's override that maps it. */
export interface MappingSettings {
  /** Name of the table on the target: `app.users`. */
  readonly target?: string | null;
  /** SQL condition on a row of the source: others are not on the target. */
  readonly where?: string | null;
  /** By exact name. Columns that are not named are carried over as they are. */
  readonly columns?: Readonly<Record<string, ColumnSetting>> | null;
  /**
   * Columns of the target with the value that tells the rows of this sync from those of others in the same table. They are
   * part of the table's key there, and nothing is done to rows with other values.
   */
  readonly discriminator?: Readonly<Record<string, string | number | boolean>> | null;
}

export const mappingNames = ["target", "where", "columns", "discriminator"] as const;

/** Checks `where`, `columns` and `discriminator` of one override. */
export function checkMapping(
  check: Check,
  path: string,
  given: Readonly<Record<string, unknown>>,
): Pick<MappingSettings, "where" | "columns" | "discriminator"> {
  const expression = (at: string, value: unknown): string | undefined => {
    const text = check.text(at, value);
    return text?.trim() === "" ? check.problem(at, "is empty: an SQL expression is needed") : text;
  };
  const where = given["where"] == null ? undefined : expression(`${path}.where`, given["where"]);
  const columns: Record<string, ColumnSetting> = {};
  for (const [name, value] of Object.entries(check.object(`${path}.columns`, given["columns"] ?? {}))) {
    const at = `${path}.columns.${name}`;
    if (value === null) columns[name] = null;
    else if (typeof value === "object") {
      const { to, as } = check.object(at, value, ["to", "as"]);
      if (to === undefined && as === undefined)
        check.problem(at, "needs a name (to), an expression (as), or both");
      const setting = {
        ...(to === undefined ? {} : { to: expression(`${at}.to`, to) ?? "" }),
        ...(as === undefined ? {} : { as: expression(`${at}.as`, as) ?? "" }),
      };
      columns[name] = setting;
    } else if (typeof value === "string") columns[name] = expression(at, value) ?? "";
    else check.problem(at, "has to be null, an SQL expression in quotes, or { to: …, as: … }");
  }
  const discriminator: Record<string, string | number | boolean> = {};
  for (const [name, value] of Object.entries(
    check.object(`${path}.discriminator`, given["discriminator"] ?? {}),
  )) {
    const at = `${path}.discriminator.${name}`;
    if (typeof value === "string" || typeof value === "number" || typeof value === "boolean")
      discriminator[name] = value;
    else check.problem(at, "has to be a value: a text, a number, true or false");
    if (name in columns) check.problem(at, "is set by columns already");
  }
  return {
    ...(where === undefined ? {} : { where }),
    ...(Object.keys(columns).length === 0 ? {} : { columns: Object.freeze(columns) }),
    ...(Object.keys(discriminator).length === 0 ? {} : { discriminator: Object.freeze(discriminator) }),
  };
}

/** Checks `schemas`. */
export function checkSchemas(check: Check, value: unknown): Record<string, string> {
  const schemas: Record<string, string> = {};
  for (const [from, to] of Object.entries(check.object("schemas", value ?? {})))
    schemas[from] = check.text(`schemas.${from}`, to) ?? "";
  return schemas;
}

/** Of a sync whose target is written to as well: reports what cannot be compared with the target's rows, nor undone. */
export function checkOneWay(check: Check, overrides: Readonly<Record<string, MappingSettings>>): void {
  for (const [table, override] of Object.entries(overrides)) {
    for (const name of ["where", "columns", "discriminator"] as const) {
      if (override[name] == null) continue;
      check.problem(
        `overrides.${table}.${name}`,
        "is for one direction and conflict source-wins: else tables may have another name or schema (target, schemas) and no more",
      );
    }
  }
}

/** Reports tables that are written to by several overrides without a discriminator that tells their rows apart. */
export function checkTargets(check: Check, overrides: Readonly<Record<string, MappingSettings>>): void {
  const known: { readonly text: string; readonly label: string; readonly values: Values | undefined }[] = [];
  for (const [text, { target }] of Object.entries(overrides)) {
    if (target == null) continue;
    let label: string;
    let settings: Merged<MappingSettings>;
    try {
      label = tableLabel(parseTableName(target));
      const { table } = parsePattern(text);
      if (table === null) continue;
      settings = tableSettings(table, { overrides });
    } catch {
      continue; // What cannot be read has been reported.
    }
    const values = settings.discriminator;
    const other = known.find((each) => each.label === label && !differ(each.values, values));
    if (other !== undefined) {
      check.problem(
        `overrides.${text}.target`,
        `${other.text} is mapped to the same table: each needs a discriminator with a value of its own`,
      );
    }
    known.push({ text, label, values });
  }
}

type Values = Readonly<Record<string, string | number | boolean>>;

/** True when no row can have the values of both. */
export function differ(one: Values | undefined, two: Values | undefined): boolean {
  return Object.entries(one ?? {}).some(([column, value]) => {
    const other = two?.[column];
    return other !== undefined && String(other) !== String(value);
  });
}

interface Mappings {
  readonly overrides: Readonly<Record<string, MappingSettings>>;
  readonly schemas: Readonly<Record<string, string>>;
}

/** What the table is called on the target. */
export function targetName(table: TableName, settings: Mappings): TableName {
  const { target } = tableSettings(table, settings);
  if (target !== undefined) return parseTableName(target);
  return { schema: settings.schemas[table.schema] ?? table.schema, name: table.name };
}

/** The mapping of one table; null: its rows as they are. */
export function mappingOf(table: TableName, settings: Mappings): TableMapping | null {
  const { where, columns, discriminator } = tableSettings(table, settings);
  if (where === undefined && columns === undefined && discriminator === undefined) return null;
  return {
    where: where ?? null,
    columns: sorted(columns ?? {}, (setting, name): MappedColumn => {
      if (setting === null) return { to: null, as: null };
      if (typeof setting === "string") return { to: name, as: setting };
      return { to: setting.to ?? name, as: setting.as ?? null };
    }),
    discriminator: sorted(discriminator ?? {}, String),
  };
}

/** True when the settings say anything of how tables are mapped. */
export function hasMapping({ overrides, schemas }: Mappings): boolean {
  return (
    Object.keys(schemas).length > 0 ||
    Object.values(overrides).some((each) => mappingNames.some((name) => each[name] != null))
  );
}

/** Whether two mappings are the same, in whatever order they name their columns. */
export function isSameMapping(one: TableMapping | null, two: TableMapping | null): boolean {
  const plain = (mapping: TableMapping | null): string =>
    mapping === null
      ? ""
      : JSON.stringify([
          mapping.where,
          sorted(mapping.columns, ({ to, as }) => [to, as]),
          sorted(mapping.discriminator, (value) => value),
        ]);
  return plain(one) === plain(two);
}

function sorted<T, R>(
  record: Readonly<Record<string, T>>,
  each: (value: T, name: string) => R,
): Record<string, R> {
  const names = Object.keys(record).toSorted();
  return Object.fromEntries(names.map((name) => [name, each(record[name] as T, name)]));
}
