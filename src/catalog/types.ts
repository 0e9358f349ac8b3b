/**
 * What types are made of, to the bottom. Two types of one name need not be the same: a value of one may be refused by the
 * other, or mean something else there.
 */
import type { Connection } from "../postgres/connect.ts";
import { ident, load } from "../postgres/sql.ts";

/** A type as sql/catalog/types tells of it. */
export interface TypeParts {
  readonly oid: number;
  readonly name: string;
  readonly kind: string;
  readonly isBuiltin: boolean;
  readonly element: number;
  readonly base: number;
  readonly limited: string | null;
  readonly subtype: number;
  readonly range: string | null;
  readonly ranges: number;
  readonly isOfTable: boolean;
  readonly attributes: readonly { readonly name: string; readonly type: number; readonly limited: string }[];
  readonly labels: readonly string[];
  readonly extension: string | null;
}

/** Types by oid, of one server. */
export type TypeCatalog = ReadonlyMap<number, TypeParts>;

/** The types that the columns of these tables are made of, and these types with what they are made of. */
export async function readTypes(
  connection: Connection,
  tables: readonly number[],
  others: readonly number[],
): Promise<TypeCatalog> {
  const types = await connection.rows<TypeParts>(load("catalog/types"), [tables, others]);
  return new Map(types.map((type) => [type.oid, type]));
}

/** The same as a tree. `limited`: with length, precision or scale. */
export type TypeStructure =
  | {
      readonly kind: "plain";
      readonly name: string;
      readonly limited: string;
      readonly isBuiltin: boolean;
      readonly extension: string | null;
    }
  | { readonly kind: "enum"; readonly name: string; readonly labels: readonly string[] }
  | {
      readonly kind: "composite";
      readonly name: string;
      /** The type of a table's rows. */
      readonly isOfTable: boolean;
      readonly attributes: readonly { readonly name: string; readonly type: TypeStructure }[];
    }
  | { readonly kind: "array" | "domain" | "multirange"; readonly name: string; readonly of: TypeStructure }
  | { readonly kind: "range"; readonly name: string; readonly of: TypeStructure; readonly details: string };

export function typeStructure(oid: number, types: TypeCatalog, limited?: string): TypeStructure {
  const type = types.get(oid);
  if (type === undefined) throw new Error(`type ${oid} is not described`);
  const { name } = type;
  const of = (part: number, more?: string): TypeStructure => typeStructure(part, types, more);
  if (!type.isBuiltin) {
    if (type.kind === "e") return { kind: "enum", name, labels: type.labels };
    if (type.kind === "d") return { kind: "domain", name, of: of(type.base, type.limited ?? undefined) };
    if (type.kind === "c") {
      const attributes = type.attributes.map((each) => ({
        name: each.name,
        type: of(each.type, each.limited),
      }));
      return { kind: "composite", name, isOfTable: type.isOfTable, attributes };
    }
    if (type.kind === "r") return { kind: "range", name, of: of(type.subtype), details: type.range ?? "" };
    if (type.kind === "m") return { kind: "multirange", name, of: of(type.ranges) };
    if (type.element !== 0) return { kind: "array", name, of: of(type.element) };
  }
  const { isBuiltin, extension } = type;
  return { kind: "plain", name, limited: limited ?? name, isBuiltin, extension };
}

/**
 * Why a value of one type would not be the same value of the other, as a part of a sentence that the type's name begins;
 * null where it would. Labels that one enum lacks are no reason: such a value is refused, or does not occur. `narrows`: whether
 * the second of two built-in types with length or precision refuses or changes values of the first.
 */
export function typeDifference(
  source: TypeStructure,
  target: TypeStructure,
  narrows: (source: string, target: string) => boolean,
): string | null {
  const deeper = (one: TypeStructure, two: TypeStructure): string | null => typeDifference(one, two, narrows);
  if (source.kind !== target.kind) {
    return `${source.name} is of kind ${kindLabel(source)} on the source and ${kindLabel(target)} on the target`;
  }
  if (source.kind === "plain" && target.kind === "plain") {
    const isSame =
      source.isBuiltin && target.isBuiltin
        ? source.name === target.name && !narrows(source.limited, target.limited)
        : unqualified(source.limited) === unqualified(target.limited);
    if (!isSame) return `${source.limited} on the source is ${target.limited} on the target`;
    // What an old version has without its extension is the same in it.
    const isOther =
      source.extension !== null && target.extension !== null && source.extension !== target.extension;
    if (!isOther) return null;
    return `${source.name} is of extension ${source.extension} on the source and of ${target.extension} on the target`;
  }
  if (source.kind !== "array" && unqualified(source.name) !== unqualified(target.name))
    return `${source.name} on the source is ${target.name} on the target`;
  if (source.kind === "composite" && target.kind === "composite") {
    const [own, other] = [source, target].map(({ attributes }) =>
      attributes.map(({ name }) => ident(name)).join(", "),
    );
    if (own !== other)
      return `${source.name} consists of (${own}) on the source and of (${other}) on the target`;
    for (const [n, attribute] of source.attributes.entries()) {
      const found = deeper(attribute.type, (target.attributes[n] as typeof attribute).type);
      if (found !== null) return `in attribute ${ident(attribute.name)} of ${source.name}, ${found}`;
    }
    return null;
  }
  if ("of" in source && "of" in target) {
    const found = deeper(source.of, target.of);
    if (found !== null) return source.kind === "array" ? found : `in ${source.name}, ${found}`;
  }
  if (source.kind === "range" && target.kind === "range" && source.details !== target.details)
    return `${source.name} has ${source.details} on the source and ${target.details} on the target`;
  return null;
}

function kindLabel({ kind }: TypeStructure): string {
  return kind === "plain" ? "base" : kind;
}

/** Without its schema: an extension may live in another one on the target. */
export function unqualified(type: string): string {
  const found = /(?:"(?:[^"]|"")*"|[^."]+)$/.exec(type);
  return found?.[0] ?? type;
}

interface OfType {
  readonly name: string;
  readonly baseType: string;
  readonly structure?: TypeStructure;
}

/** Statements for the target that make a column's type what it is on the source and keep the values, where that can be said. */
export function remakeTypeSql(table: string, source: OfType, target: OfType): string {
  const [own, other] = [source.structure, target.structure];
  const type = target.baseType;
  if (own?.kind !== "composite" || other?.kind !== "composite" || own.isOfTable || other.isOfTable)
    return `-- make type ${type} of the target what it is on the source; verify --schema tells in what they differ`;
  const column = ident(target.name);
  const former = ident(`${unquoted(unqualified(type))}_before`);
  const schema = type.slice(0, type.length - unqualified(type).length);
  const attributes = own.attributes.map(({ name, type: of }) => `${ident(name)} ${of.kind === "plain" ? of.limited : of.name}`); // prettier-ignore
  const values = own.attributes.map(({ name }) =>
    other.attributes.some((each) => each.name === name) ? `(${column}).${ident(name)}` : "null",
  );
  return [
    `alter type ${type} rename to ${former};`,
    `create type ${type} as (${attributes.join(", ")});`,
    `alter table ${table} alter column ${column} type ${type} using case when ${column} is distinct from null then row(${values.join(", ")})::${type} end;  -- and so for every column of the type`,
    `drop type ${schema}${former};`,
  ].join("\n");
}

function unquoted(name: string): string {
  return name.startsWith('"') ? name.slice(1, -1).replaceAll('""', '"') : name;
}
