/** Quoting and loading of SQL. Every hole in a statement goes through one of these functions. */
import { readFileSync } from "node:fs";
import pgFormat from "pg-format";

/** Always quoted, so that no list of reserved words can be out of date. */
export function ident(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

export function qualified(schema: string, name: string): string {
  return `${ident(schema)}.${ident(name)}`;
}

/** A text literal, or NULL. For data definition and short settings; row data never travel as literals. */
export function literal(value: string | number | bigint | boolean | null): string {
  return typeof value === "string" || value === null ? pgFormat.literal(value) : String(value);
}

/** The name of one of our own objects, which needs no quotes. */
export function own(name: string): string {
  return `replicate.${name}`;
}

const loaded = new Map<string, string>();

/** A file under `sql/`, by its path without the ending: `load("catalog/tables")`. */
export function load(path: string): string {
  let text = loaded.get(path);
  if (text === undefined) {
    text = readFileSync(new URL(`../../sql/${path}.sql`, import.meta.url), "utf8");
    loaded.set(path, text);
  }
  return text;
}

/** A query file with its only parameter written in, for scripts, which take none. */
export function withArgument(path: string, sql: string): string {
  return load(path)
    .replaceAll(/^\s*--.*$/gm, "")
    .replaceAll("$1", () => sql);
}

/**
 * Fills a template from `sql/`: `{{name}}` is replaced by the SQL text given, as it is. The caller quotes, with
 * `ident` or `literal`, where the value is made. Throws on a hole without a value and on a value without a hole.
 */
export function fill(path: string, holes: Readonly<Record<string, string>>): string {
  const unused = new Set(Object.keys(holes));
  const text = load(path).replaceAll(/\{\{(\w+)\}\}/g, (_, name: string) => {
    const value = holes[name];
    if (value === undefined) throw new Error(`sql/${path}.sql: no value for {{${name}}}`);
    unused.delete(name);
    return value;
  });
  if (unused.size > 0) throw new Error(`sql/${path}.sql has no {{${[...unused].join("}}, {{")}}}`);
  return text;
}
