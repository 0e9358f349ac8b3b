/**
 * The type "char", one byte, in COPY's text format. A byte over 127 is written \351 by servers from 16 on, which read that too; older
 * ones write and read the byte itself, which is another one, or none, in another encoding.
 */
import { literal } from "../postgres/sql.ts";
import type { Column, Table } from "./table.ts";

/**
 * octal: the source writes what the target reads. refused: the target cannot be told such a byte, so that reading one on the source is
 * an error. Absent: what the type's own functions do is right, or is refused by the target.
 */
export type SingleByteForm = "octal" | "refused";

type Described = Pick<Table, "byteForm">;

export function singleByteForm(source: Described, target: Described, column: Column): SingleByteForm | null {
  if (!column.isBuiltin || source.byteForm === target.byteForm) return null;
  if (column.baseType === '"char"') return target.byteForm === "octal" ? "octal" : "refused";
  return column.baseType === '"char"[]' ? "refused" : null;
}

/** The value, an expression, as it is sent. */
export function sendSingleByte(form: SingleByteForm, value: string, column: Column): string {
  const byte = (of: string): string => `pg_catalog.get_byte(pg_catalog.charsend(${of}), 0)`;
  if (form === "octal") {
    const number = byte(value);
    return (
      `case when ${number} > 127 then pg_catalog.concat(pg_catalog.chr(92), ${number} >> 6, (${number} >> 3) & 7, ${number} & 7) ` +
      `else (${value})::pg_catalog.text end`
    );
  }
  const isHigh =
    column.baseType === '"char"'
      ? `${byte(value)} > 127`
      : `exists (select 1 from pg_catalog.unnest(${value}) as u (e) where ${byte("u.e")} > 127)`;
  // The cast fails. It depends on the row, so that it is not tried before there is such a one.
  const why = `column ${column.name} of type ${column.baseType} holds a byte over 127, which the target cannot read; leave the column out by a mapping`;
  const failing = `pg_catalog.concat(${literal(why)}, pg_catalog.left((${value})::pg_catalog.text, 0))`;
  return `case when ${isHigh} then (${failing})::pg_catalog.int4::pg_catalog.text else (${value})::pg_catalog.text end`;
}
