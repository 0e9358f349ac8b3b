/** The trigger function of a capture: it notes which keys a statement has changed. */
import {
  APPLYING,
  deltaColumns,
  deltaTables,
  isKeyless,
  loadCaptures,
  type Capture,
  type CaptureKeyColumn,
} from "../catalog/delta.ts";
import type { Connection } from "../postgres/connect.ts";
import { fill, ident } from "../postgres/sql.ts";
import { lockCapture } from "./lock-capture.ts";

/** (Re)creates the trigger function of a capture, as its row in replicate.capture says. */
export async function installFunction(source: Connection, capture: Capture): Promise<void> {
  await source.script(functionSql(capture));
}

/**
 * Replaces trigger functions of these captures that are not as this version makes them. A session that is in the old one
 * at the time ends in it.
 */
export async function renewFunctions(source: Connection, ids: readonly number[]): Promise<void> {
  const installed = await source.rows<{ id: number; body: string }>(
    `select c.id, p.prosrc as body from replicate.capture c
     join pg_catalog.pg_proc p on p.proname = ('capture_' || c.id)::pg_catalog.name
     where p.pronamespace = 'replicate'::pg_catalog.regnamespace and c.id = any ($1::int[])`,
    [ids],
  );
  const bodies = new Map(installed.map(({ id, body }) => [id, body]));
  for (const capture of await loadCaptures(source, ids)) {
    if (functionSql(capture).includes(bodies.get(capture.id) ?? "")) continue;
    await source.transaction(async () => {
      // Another sync may rotate it.
      await lockCapture(source, capture.id);
      for (const current of await loadCaptures(source, [capture.id])) await installFunction(source, current);
    });
  }
}

/** Sessions that apply a two-way sync show it by a setting, which is null in all others; but anybody can set it. */
const skipApplied = `if pg_catalog.current_setting('${APPLYING}', true) operator(pg_catalog.<>) '' then
    if exists (
      select from replicate.applying as a
      where a.token operator(pg_catalog.=) pg_catalog.current_setting('${APPLYING}', true)
        and a.pid operator(pg_catalog.=) pg_catalog.pg_backend_pid()
    ) then
      return null;
    end if;
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
    columns: [...deltaColumns(capture), ...(capture.tracksOrigin ? ["op", "changed_at"] : [])].join(", "),
    tag: bodyTag(capture),
    skip_applied: capture.tracksOrigin ? skipApplied : "",
    when_column: capture.tracksOrigin ? ", changed_at" : "",
    when: capture.tracksOrigin ? ", pg_catalog.clock_timestamp()" : "",
    tell_new: capture.tracksOrigin
      ? `, ${capture.method === "row" ? rowOp : statementOp}, pg_catalog.clock_timestamp()`
      : "",
    tell_old: capture.tracksOrigin ? `, 'D'::pg_catalog."char", pg_catalog.clock_timestamp()` : "",
  };
  if (capture.method === "statement") {
    return fill("capture/statement-function", {
      ...common,
      check: checkTypes(keyColumns, (name) => `(select r.${name} from changed_rows as r limit 1)`),
      changed_key: each((column) => keyValue("r", column)),
      // A value that is recorded as it is may be equal to one of another image.
      key_images: each((column, n) => {
        const value = `${keyValue("r", column)}${isText(column) ? IMAGE : ""} as k${n}`;
        return isText(column) ? value : `${value}, ${imageText(`r.${ident(column.name)}`)} as image_${n}`;
      }),
      moved_key: each((_, n) => `o.k${n}`),
    });
  }
  return fill("capture/row-function", {
    ...common,
    // Not by the names of their types, which the session's search path would resolve.
    variables: each((_, n) => {
      const type = `${delta}.${deltaColumns(capture)[n - 1]}%type`;
      return `key_${n} ${type};\n  old_${n} ${type};`;
    }, "\n  "),
    check_new: checkTypes(keyColumns, (name) => `NEW.${name}`),
    check_old: checkTypes(keyColumns, (name) => `OLD.${name}`),
    skip_noop: capture.skipNoop
      ? "if TG_OP operator(pg_catalog.=) 'UPDATE' and not (OLD operator(pg_catalog.*<>) NEW) then\n    return null;\n  end if;"
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

const isText = ({ deltaType }: CaptureKeyColumn): boolean => deltaType === "text";

/** Equal texts are the same there, also where the column's collation takes others for equal. */
const IMAGE = ' collate pg_catalog."C"';

const imageText = (value: string): string => `pg_catalog.format('%s', ${value})${IMAGE}`;

/** What is recorded of a key column of a row, see sql/capture/row-function. */
export function keyValue(row: string, column: CaptureKeyColumn): string {
  const value = `${row}.${ident(column.name)}`;
  return isText(column)
    ? `case when ${value} is null then null else pg_catalog.format('%s', ${value}) end`
    : value;
}

/**
 * Makes sure that columns which are recorded as they are still have their types: the assignment would look for a cast
 * otherwise. `value` gives the column of a row, by its quoted name.
 */
function checkTypes(keyColumns: readonly CaptureKeyColumn[], value: (name: string) => string): string {
  const others = keyColumns
    .filter((column) => !isText(column))
    .map(
      ({ name, typeOid }) =>
        `pg_catalog.pg_typeof(${value(ident(name))}) operator(pg_catalog.<>) ${typeOid}::pg_catalog.oid`,
    );
  return others.length === 0 ? "" : `if ${others.join(" or ")} then raise data_exception; end if;\n    `;
}
