import pg from "pg";

import { isBuiltin, type Value, type ZooType } from "./type-zoo.ts";

// The tables that hold the zoo, and what happens to them. Each type is in up to three tables:
// plain: the same on both sides, so that COPY may use binary. forced: the target has another type and order of columns,
// so that it may not. keyed: the type is the key.

export type ZooKind = "plain" | "forced" | "keyed";

export interface ZooTable {
  readonly kind: ZooKind;
  readonly type: ZooType;
  /** As in SQL, the same on both sides. */
  readonly name: string;
  readonly hasList: boolean;
}

const schemas: Record<ZooKind, string> = { plain: "zoo", forced: "forced", keyed: "keyed" };

export function zooTables(types: readonly ZooType[], version: number): ZooTable[] {
  return types.flatMap((type) =>
    (["plain", "forced", "keyed"] as const)
      .filter((kind) => kind !== "keyed" || type.isKey !== false)
      .map((kind) => ({
        kind,
        type,
        name: `${schemas[kind]}.${type.name}`,
        hasList:
          (type.arraysSince ?? 10) <= version && (kind === "forced" || (kind === "plain" && isBuiltin(type))),
      })),
  );
}

export function createTable({ kind, type, name, hasList }: ZooTable, side: "source" | "target"): string {
  if (kind === "keyed")
    return `create table ${name} (value ${type.sql} primary key, note text, seen int default 0)`;
  const columns = [
    kind === "forced" && side === "target" ? "id bigint primary key" : "id int primary key",
    `value ${type.sql}`,
    ...(hasList ? [`list ${listOf(type)}`] : []),
  ];
  const ordered = kind === "forced" && side === "target" ? columns.toReversed() : columns;
  return `create table ${name} (${ordered.join(", ")})`;
}

/** `text collate "C"` is no type that a value can be cast to. */
function castTo(type: ZooType): string {
  return type.sql.split(" collate ")[0] ?? "";
}

function listOf(type: ZooType): string {
  const [element, collation] = type.sql.split(" collate ");
  return `${element}[]${collation === undefined ? "" : ` collate ${collation}`}`;
}

function valueSql(type: ZooType, value: Value): string {
  const text = typeof value === "string" ? pg.escapeLiteral(value) : value.expression;
  return `${text}::${castTo(type)}`;
}

function valuesOf({ kind, type }: ZooTable): Value[] {
  return [
    ...type.values,
    ...(kind === "keyed" ? [] : (type.long ?? [])),
    ...(kind === "forced" ? [] : (type.binaryOnly ?? [])),
  ];
}

/** The n-th array: with NULL, empty, with bounds, of two dimensions, missing, of nothing but NULL. */
function listSql(type: ZooType, n: number): string {
  const at = (index: number): string => valueSql(type, type.values[index % type.values.length] ?? "");
  const [a, b, list] = [at(n), at(n + 1), `${castTo(type)}[]`];
  const forms = [
    `array[${a}, null, ${b}]::${list}`,
    `'{}'::${list}`,
    `(array_fill(null::${castTo(type)}, array[1], array[-1]) || array[${a}, ${b}]::${list})::${list}`,
    `array[array[${a}, ${b}], array[${b}, null]]::${list}`,
    `null::${list}`,
    `array[null]::${list}`,
  ];
  return forms[n % forms.length] ?? "";
}

/** Rows of a plain or forced table; each value is moved `shift` rows on. */
function rowsSql(table: ZooTable, shift: number, which: (index: number) => boolean): string {
  const values = valuesOf(table);
  const rows = values.flatMap((_, index) => {
    if (!which(index)) return [];
    const value = valueSql(table.type, values[(index + shift) % values.length] ?? "");
    return [`(${[index, value, ...(table.hasList ? [listSql(table.type, index + shift)] : [])].join(", ")})`];
  });
  return rows.join(", ");
}

const columnsOf = (table: ZooTable): string => (table.hasList ? "id, value, list" : "id, value");

function insertRows(table: ZooTable, which: (index: number) => boolean): string {
  const rows = rowsSql(table, 0, which);
  return rows === "" ? "" : `insert into ${table.name} (${columnsOf(table)}) values ${rows};`;
}

function updateRows(table: ZooTable, shift: number, which: (index: number) => boolean): string {
  const rows = rowsSql(table, shift, which);
  if (rows === "") return "";
  const list = table.hasList ? ", list = s.list" : "";
  return `update ${table.name} as t set value = s.value${list}
    from (values ${rows}) as s (${columnsOf(table)}) where t.id = s.id;`;
}

/** Keyed rows are named by their notes. Values that are the same key as an earlier one are left out. */
function insertKeys(table: ZooTable, which: (index: number) => boolean): string {
  return valuesOf(table)
    .map((value, index) =>
      which(index)
        ? `insert into ${table.name} (value, note) values (${valueSql(table.type, value)}, '${index}') on conflict do nothing;`
        : "",
    )
    .join("\n");
}

function keyAt(table: ZooTable, index: number): string {
  const values = valuesOf(table);
  return valueSql(table.type, values[index % values.length] ?? "");
}

export type Phase = "load" | "before copy" | "insert and update" | "change keys" | "delete";

/** What a phase does to one table, as one script. */
export function phaseSql(table: ZooTable, phase: Phase): string {
  return table.kind === "keyed" ? keyedPhase(table, phase) : rowPhase(table, phase);
}

function rowPhase(table: ZooTable, phase: Phase): string {
  const { name } = table;
  switch (phase) {
    case "load":
      return `${insertRows(table, (n) => n % 2 === 0)} insert into ${name} (id) values (1000);`;
    case "before copy":
      return `${updateRows(table, 1, (n) => n % 4 === 0)} delete from ${name} where id = 2; insert into ${name} (id) values (1001);`;
    case "insert and update":
      return `${insertRows(table, (n) => n % 2 === 1 || n === 2)} ${updateRows(table, 2, (n) => n % 4 !== 2)}`;
    case "change keys":
      return `update ${name} set id = id + 2000 where id % 3 = 0; update ${name} set value = null where id % 5 = 1;
        ${updateRows(table, 0, (n) => n % 5 === 2)}`;
    case "delete":
      return `delete from ${name} where id % 2 = 0; ${insertRows(table, (n) => n % 3 !== 0 && n % 2 === 0)}`;
  }
}

function keyedPhase(table: ZooTable, phase: Phase): string {
  const { name, type } = table;
  const insertAt = (index: number): string =>
    `insert into ${name} (value, note) values (${keyAt(table, index)}, '${index}') on conflict do nothing;`;
  switch (phase) {
    case "load":
      return insertKeys(table, (n) => n % 2 === 0);
    case "before copy":
      return `update ${name} set seen = 1 where note::int % 4 = 0; delete from ${name} where note = '2'; ${insertAt(2)}`;
    case "insert and update":
      return `${insertKeys(table, (n) => n % 2 === 1)} update ${name} set seen = seen + 1; ${lookAlikes(table, "plant")}`;
    case "change keys":
      // A row takes the key that another one has given up.
      return `delete from ${name} where note = '0'; update ${name} set value = ${keyAt(table, 0)}, note = 'moved' where note = '1';
        ${insertAt(1)} ${lookAlikes(table, "swap")} update ${name} set value = value where seen = 2;`;
    case "delete":
      return `delete from ${name} where seen = 1; ${type.values.length > 2 ? insertAt(2) : ""}`;
  }
}

/** A key becomes another that is equal to it: the row stays one row, and its bytes have to arrive. */
function lookAlikes({ type, name }: ZooTable, act: "plant" | "swap"): string {
  return (type.lookAlikes ?? [])
    .map(([one, other], index) =>
      act === "plant"
        ? `delete from ${name} where value = ${valueSql(type, one)};
           insert into ${name} (value, note, seen) values (${valueSql(type, one)}, 'alike ${index}', 9);`
        : `update ${name} set value = ${valueSql(type, other)} where note = 'alike ${index}';`,
    )
    .join("\n");
}

/** Whether COPY is expected to use binary. */
export function isBinary({ kind, type }: ZooTable): boolean {
  return kind !== "forced" && type.isBinary;
}
