/**
 * How the rows of one table reach another: which column feeds which, and in which COPY format. Pure: it decides
 * from two descriptions alone, so that copy, follow and preflight decide alike.
 */
import type { Problem } from "../errors.ts";
import { ident } from "../postgres/sql.ts";
import { addColumnSql, retypeColumnSql } from "./column-sql.ts";
import { sendSingleByte, singleByteForm, type SingleByteForm } from "./single-byte.ts";
import { tableLabel, tableSql, type Column, type Table } from "./table.ts";
import { remakeTypeSql, typeDifference, unqualified } from "./types.ts";

export interface ColumnPair {
  readonly source: Column;
  readonly target: Column;
  /** How a "char" goes as text, where its own form does not do. */
  readonly byteForm?: SingleByteForm;
}

export interface ColumnPlan {
  /** In the source's order; generated columns are left out. */
  readonly columns: readonly ColumnPair[];
  /** Whether COPY may use the binary format for these columns; text otherwise. */
  readonly binary: boolean;
  /** Why rows cannot be carried over, one by one, with the statement that repairs it. Empty: they can. */
  readonly problems: readonly Problem[];
  /** The target's columns that they are about. */
  readonly unfit: readonly string[];
}

/**
 * Built-in types whose binary form is the same on all versions since 10, and whose bytes do not name other
 * objects of the database. Not here: reg… (oids of another database), money (scaled by lc_monetary), tsvector (its
 * send function has had bugs), xml (carries an encoding declaration), and interval (17 has an infinity that older
 * servers would take for an ordinary value, where the text form is refused).
 */
const binarySafe = new Set([
  "boolean", "bytea", '"char"', "name", "bigint", "smallint", "integer", "text", "oid", "json", "jsonb",
  "point", "lseg", "path", "box", "polygon", "line", "circle", "real", "double precision",
  "macaddr", "macaddr8", "cidr", "inet", "character", "bpchar", "character varying", "date",
  "time without time zone", "time with time zone", "timestamp without time zone", "timestamp with time zone",
  '"bit"', "bit varying", "numeric", "uuid",
  "int4range", "int8range", "numrange", "tsrange", "tstzrange", "daterange",
  "int4multirange", "int8multirange", "nummultirange", "tsmultirange", "tstzmultirange", "datemultirange",
]); // prettier-ignore

/** Types that take the text form of the types listed and give it back unchanged. */
const widening: Readonly<Record<string, readonly string[]>> = {
  smallint: ["integer", "bigint", "numeric"],
  integer: ["bigint", "numeric"],
  bigint: ["numeric"],
  real: ["double precision"],
  jsonb: ["json"],
  cidr: ["inet"],
  "time without time zone": [],
};

/** Types that hold any text as it is. */
const textual = new Set(["text", "character varying"]);

/**
 * Pairs the columns of a source table with those of its target: by name, or as the mapping says.
 * Both tables are as `describeTables` gives them, or `mapTables`. `missing`: values that rows of the source have in columns
 * that were added when they were there, for the statements.
 */
export function columnPlan(
  source: Table,
  target: Table,
  missing: ReadonlyMap<string, string> = new Map(),
): ColumnPlan {
  const unfit: string[] = [];
  const problems: Problem[] = [...(source.mappingProblems ?? [])];
  const subject = tableLabel(target);
  const alter = `alter table ${tableSql(target)}`;
  const columns: ColumnPair[] = [];
  const targets = new Map(target.columns.map((column) => [column.name, column]));

  for (const from of source.columns) {
    const targetName = from.mapped === undefined ? from.name : from.mapped.to;
    if (targetName === null) continue;
    const to = targets.get(targetName);
    const name = ident(targetName);
    targets.delete(targetName);
    if (to === undefined) {
      // The target may do without what the source only computes.
      if (from.generated !== "" && from.mapped === undefined) continue;
      if (target.columns.some((column) => column.name === targetName)) {
        problems.push({ subject, message: `two columns of the source go to column ${name}` });
        continue;
      }
      unfit.push(targetName);
      problems.push({
        subject,
        message: `column ${name} is missing on the target`,
        remedy: addColumnSql(
          target,
          from.mapped === undefined ? from : plain(from),
          missing.get(from.name),
          targetName,
        ),
      });
      continue;
    }
    if (from.generated !== "" && to.generated !== "") continue;
    if (from.generated !== "") {
      unfit.push(targetName);
      problems.push({
        subject,
        message: `column ${name} is generated on the source and an ordinary column on the target`,
        remedy: `${alter} drop column ${name}, add column ${name} ${from.type} generated always as (${from.default ?? ""}) stored;`,
      });
      continue;
    }
    if (to.generated !== "") {
      unfit.push(targetName);
      problems.push({
        subject,
        message: `column ${name} is an ordinary column on the source and generated on the target`,
        remedy:
          to.generated === "s"
            ? `${alter} alter column ${name} drop expression;`
            : addColumnSql(target, from, missing.get(from.name)).replace(
                "add column",
                `drop column ${name}, add column`,
              ),
      });
      continue;
    }
    const reason = from.mapped?.isConstant === true ? null : whyNotAssignable(from, to);
    if (reason !== null && from.mapped?.as != null) {
      problems.push({
        subject,
        message: `${from.mapped.as} is ${from.type}, and column ${name} ${to.type} on the target: ${reason}`,
        remedy: `-- in the settings: cast it: (${from.mapped.as})::${to.type}`,
      });
      continue;
    }
    if (reason !== null) {
      // A type of the same name, but not the same, cannot be had by its name.
      const isHomonym = from.isDomain && to.isDomain && unqualified(from.type) === unqualified(to.type);
      unfit.push(targetName);
      problems.push({
        subject,
        message: `column ${name} is ${from.type} on the source and ${to.type} on the target: ${reason}`,
        remedy: hasSameName(from, to)
          ? remakeTypeSql(tableSql(target), from, to)
          : retypeColumnSql(target, isHomonym ? { ...from, type: from.plainType } : from, to),
      });
      continue;
    }
    const byteForm = singleByteForm(source, target, from);
    columns.push({ source: from, target: to, ...(byteForm === null ? {} : { byteForm }) });
  }

  for (const extra of targets.values()) {
    if (extra.notNull && !extra.hasDefault && extra.identity === "" && extra.generated === "") {
      const isLeftOut = source.columns.some(
        ({ name, mapped }) => name === extra.name && mapped !== undefined,
      );
      const why = isLeftOut ? "gets no value from the source" : "exists on the target alone";
      unfit.push(extra.name);
      problems.push({
        subject,
        message: `column ${ident(extra.name)} ${why}, is NOT NULL and has no default`,
        remedy: `${alter} alter column ${ident(extra.name)} drop not null;`,
      });
    }
  }
  if (columns.length === 0 && [...targets.values()].some((column) => column.generated === "")) {
    problems.push({ subject, message: "the tables have no column in common that holds data" });
  }
  return { columns, binary: columns.length > 0 && columns.every(isBinarySafe), problems, unfit };
}

/** What COPY reads on the source for a value of the column of this number. */
export function sentSql({ columns, binary }: ColumnPlan, attnum: number, value: string): string {
  const pair = binary ? undefined : columns.find((each) => each.source.attnum === attnum);
  return pair?.byteForm === undefined ? value : sendSingleByte(pair.byteForm, value, pair.source);
}

/** Of what an expression gives, no more than the type is known. */
function plain(column: Column): Column {
  return column.mapped?.as == null ? column : { ...column, generated: "", default: null, identity: "" };
}

function isBinarySafe({ source, target }: ColumnPair): boolean {
  return (
    (source.isBuiltin &&
      target.isBuiltin &&
      source.baseOid === target.baseOid &&
      source.baseType === target.baseType &&
      binarySafe.has(elementType(source.baseType))) ||
    (source.baseKind === "e" && target.baseKind === "e" && hasSameName(source, target))
  ); // an enum travels as its label
}

/** Null when every value's text form on the source is taken by the target's type and comes out the same. */
function whyNotAssignable(source: Column, target: Column): string | null {
  const from = elementType(source.baseType);
  const to = elementType(target.baseType);
  const isArray = source.baseType.endsWith("[]");
  if (isArray !== target.baseType.endsWith("[]") && !(isArray && textual.has(to)))
    return "the types do not match";
  const isSame = source.isBuiltin && target.isBuiltin ? from === to : hasSameName(source, target);
  const [own, other] = [source.structure, target.structure];
  if (isSame && own !== undefined && other !== undefined) {
    const difference = typeDifference(own, other, isNarrower);
    if (difference !== null) return difference;
  }
  const isTaken =
    isSame ||
    (textual.has(to) && from !== '"char"') ||
    (widening[from]?.includes(to) ?? false) ||
    (from === "character varying" && isNamed(target, "citext")) ||
    (from === "text" && isNamed(target, "citext"));
  if (!isTaken) return "the types do not match";
  return narrowing(source, target, isSame);
}

/** The same for two built-in types as they are written, somewhere inside of a column's type. */
function isNarrower(source: string, target: string): boolean {
  const plain = (type: string): Limited => ({ plainType: type, baseType: type.replace(/\([\d,-]+\)/, "") });
  return narrowing(plain(source), plain(target), true) !== null;
}

type Limited = Pick<Column, "plainType" | "baseType" | "mapped">;

/** A length, precision or scale on the target that would refuse or round a value of the source. */
function narrowing(source: Limited, target: Limited, isSame: boolean): string | null {
  const limit = modifier(target.plainType);
  if (limit === null) return null;
  const given = isSame || textual.has(elementType(source.baseType)) ? modifier(source.plainType) : null;
  if (given === null && /^(time|timestamp|interval)/.test(target.baseType) && limit[0] === 6) return null;
  const [size, scale = 0] = limit;
  if (elementType(target.baseType) === "numeric") {
    if (given !== null && given[0] - (given[1] ?? 0) <= size - scale && (given[1] ?? 0) === scale)
      return null;
    return "values would be rejected or rounded";
  }
  if (['"bit"', "character", "bpchar"].includes(elementType(target.baseType))) {
    return given !== null && given[0] === size ? null : "values would be rejected or padded";
  }
  if (given !== null && given[0] <= size) return null;
  // Of what an expression gives nobody knows the length; what is too long the target's server rejects.
  if (source.mapped?.as != null && textual.has(elementType(target.baseType))) return null;
  return "values would be rejected or cut";
}

/** The numbers of `numeric(10,2)`, `timestamp(3) with time zone`, `character varying(20)[]`; null without any. */
function modifier(type: string): readonly [number, number?] | null {
  const found = /\((\d+)(?:,(-?\d+))?\)/.exec(type);
  if (found === null) return null;
  return found[2] === undefined ? [Number(found[1])] : [Number(found[1]), Number(found[2])];
}

function elementType(baseType: string): string {
  return baseType.endsWith("[]") ? baseType.slice(0, -2) : baseType;
}

/** Of user-defined types: an extension may live in another schema on the target. */
function hasSameName(source: Column, target: Column): boolean {
  return (
    !source.isBuiltin && !target.isBuiltin && unqualified(source.baseType) === unqualified(target.baseType)
  );
}

function isNamed(column: Column, name: string): boolean {
  return !column.isBuiltin && unqualified(column.baseType) === name;
}
