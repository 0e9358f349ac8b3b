/**
 * How a value is written so that equal values look equal on both servers. The output function's text is, for almost
 * every type, the same on all versions under our session settings; this file knows the exceptions.
 *
 * A form is an SQL expression that becomes one field of `row(…)::text`. There, NULL is nothing and '' is "", and
 * whatever would end a field is quoted.
 */
import type { TypeCatalog, TypeParts } from "../catalog/types.ts";
import { ident } from "../postgres/sql.ts";

/** Written with 17 digits up to version 11, with as few as are needed since 12: compared by their bytes. */
const floats: Readonly<Record<string, string>> = {
  real: "float4send",
  "double precision": "float8send",
  point: "point_send",
  lseg: "lseg_send",
  path: "path_send",
  box: "box_send",
  polygon: "poly_send",
  line: "line_send",
  circle: "circle_send",
};

/** Bytes above 127 are written as themselves up to version 15, in whatever encoding, as \ooo since 16. */
const singleBytes: Readonly<Record<string, string>> = { '"char"': "charsend" };

/** Send functions of the types whose text forms differ between two servers of these versions. */
export function unstableTypes(
  sourceVersion: number,
  targetVersion: number,
): Readonly<Record<string, string>> {
  const straddles = (version: number): boolean => sourceVersion >= version !== targetVersion >= version;
  return { ...(straddles(120_000) ? floats : {}), ...singleBytes };
}

/** Writes values of one server. */
export class ValueForms {
  readonly #types: TypeCatalog;
  readonly #senders: Readonly<Record<string, string>>;

  constructor(types: TypeCatalog, senders: Readonly<Record<string, string>>) {
    this.#types = types;
    this.#senders = senders;
  }

  /** The form of `expression`, which is of the type with this oid. */
  write(expression: string, type: number): string {
    return this.isUnstable(type) ? this.#write(expression, type) : expression;
  }

  isUnstable(oid: number): boolean {
    const type = this.#types.get(oid);
    if (type === undefined) return false;
    return (
      this.#senders[type.name] !== undefined ||
      [type.element, type.base, type.subtype, type.ranges, ...type.attributes.map((each) => each.type)].some(
        (part) => part !== 0 && part !== oid && this.isUnstable(part),
      )
    );
  }

  #write(expression: string, oid: number): string {
    const type = this.#types.get(oid) as TypeParts;
    const sender = this.#senders[type.name];
    if (sender !== undefined) return scalarForm(expression, type.name, sender);
    if (type.base !== 0) {
      const base = this.#types.get(type.base) as TypeParts;
      return this.write(`((${expression})::${base.name})`, type.base);
    }
    // The binary form of a range names no types.
    if (type.subtype !== 0) return `pg_catalog.range_send(${expression})`;
    if (type.ranges !== 0) return `pg_catalog.multirange_send(${expression})`;
    if (type.attributes.length > 0) {
      const fields = type.attributes.map((each) =>
        this.write(`(${expression}).${ident(each.name)}`, each.type),
      );
      // A record of nulls "is null", but is not the same as no record.
      return `case when (${expression}) is distinct from null then row(${fields.join(", ")})::pg_catalog.text end`;
    }
    return this.#array(expression, type.element);
  }

  #array(array: string, element: number): string {
    // The binary form of an array of its own would do, but for the oids of user-defined types, and for NaN, which has
    // many bit patterns: then the elements are written one by one. unnest() stands in the select list because in
    // FROM it would give the fields of composites instead of the values.
    const written =
      `pg_catalog.concat(pg_catalog.array_dims(${array}), array(` +
      `select row(${this.write("u.e", element)})::pg_catalog.text from (select pg_catalog.unnest(${array}) as e) as u))`;
    const { name } = this.#types.get(element) as TypeParts;
    const sent = `pg_catalog.array_send(${array})::pg_catalog.text`;
    if (floatTypes.includes(name)) {
      return `case when 'NaN'::${name} = any (${array}) then ${written} else ${sent} end`;
    }
    if (this.#senders[name] !== undefined) return sent;
    return `case when (${array}) is not null then ${written} end`;
  }
}

const floatTypes: readonly string[] = ["real", "double precision"];

function scalarForm(expression: string, name: string, sender: string): string {
  const sent = `pg_catalog.${sender}(${expression})`;
  if (!floatTypes.includes(name)) return sent;
  return `case when (${expression}) = 'NaN'::${name} then 'NaN'::pg_catalog.bytea else ${sent} end`;
}
