/** The trigger function of a capture: it notes which keys a statement has changed. */
import {
  APPLYING,
  deltaColumns,
  deltaTables,
  isKeyless,
  type Capture,
  type CaptureKeyColumn,
} from "../catalog/delta.ts";
import type { Connection } from "../postgres/connect.ts";
import { fill, ident } from "../postgres/sql.ts";

/** (Re)creates the trigger function of a capture, as its row in replicate.capture says. */
export async function installFunction(source: Connection, capture: Capture): Promise<void> {
  await source.script(functionSql(capture));
}

/** Sessions that apply a two-way sync show it by a setting; null, as in all others, is not true. */
const skipApplied = `if pg_catalog.current_setting('${APPLYING}', true) operator(pg_catalog.<>) '' then
    return null;
  end if;`;

const statementOp = `pg_catalog.substr(TG_OP, 1, 1)::pg_catalog."char"`;

const rowOp = `(case when is_moved then 'I' else pg_catalog.substr(TG_OP, 1, 1) end)::pg_catalog."char"`;

/** The trigger function of a capture as SQL. */
export function functionSql(capture: Capture): string {
  const { id, keyColumns } = capture;
  const delta = deltaTables(id)[capture.active === "a" ? 0 : 1];
  if (isKeyless(capture)) return fill("capture/marker-function", { id: String(id), delta });
  const each = (show: (column: CaptureKeyColumn, n: number) => string, separator = ", "): string =>
    keyColumns.map((column, index) => show(column, index + 1)).join(separator);
  const common = {
    id: String(id),
    delta,
    columns: [...deltaColumns(capture), ...(capture.tells ? ["op", "changed_at"] : [])].join(", "),
    tag: bodyTag(capture),
    skip_applied: capture.tells ? skipApplied : "",
    when_column: capture.tells ? ", changed_at" : "",
    when: capture.tells ? ", pg_catalog.clock_timestamp()" : "",
    tell_new: capture.tells
      ? `, ${capture.method === "row" ? rowOp : statementOp}, pg_catalog.clock_timestamp()`
      : "",
    tell_old: capture.tells ? `, 'D'::pg_catalog."char", pg_catalog.clock_timestamp()` : "",
  };
  if (capture.method === "statement") {
    return fill("capture/statement-function", {
      ...common,
      changed_key: each((column) => keyValue("r", column)),
    });
  }
  return fill("capture/row-function", {
    ...common,
    variables: each((column, n) => `key_${n} ${column.deltaType};\n  old_${n} ${column.deltaType};`, "\n  "),
    skip_noop: capture.skipNoop
      ? "if TG_OP = 'UPDATE' and not (OLD operator(pg_catalog.*<>) NEW) then\n    return null;\n  end if;"
      : "",
    read_new_as_key: each((column, n) => `key_${n} := ${keyValue("NEW", column)};`, " "),
    read_old_as_key: each((column, n) => `key_${n} := ${keyValue("OLD", column)};`, " "),
    read_old: each((column, n) => `old_${n} := ${keyValue("OLD", column)};`, " "),
    old_plain: each((column) => `OLD.${ident(column.name)}`),
    new_plain: each((column) => `NEW.${ident(column.name)}`),
    key_variables: each((_, n) => `key_${n}`),
    old_variables: each((_, n) => `old_${n}`),
  });
}

/** A dollar quote that no column name contains. */
function bodyTag(capture: Capture): string {
  let tag = "$capture$";
  for (let n = 1; capture.keyColumns.some((column) => column.name.includes(tag)); n += 1)
    tag = `$capture${n}$`;
  return tag;
}

export function keyValue(row: string, column: CaptureKeyColumn): string {
  const value = `${row}.${ident(column.name)}`;
  return column.deltaType === "text" ? `${value}::pg_catalog.text` : value;
}
