/**
 * The slow path: rows of the tables that ask for it become JavaScript objects, go through the hook `transformRow`, and
 * travel on. Works on COPY's text format, a row at a time, so that memory does not grow with the table.
 */
import type { ColumnPlan } from "../catalog/columns.ts";
import type { ResolvedConfig } from "../config/options.ts";
import { tableSettings } from "../config/overrides.ts";
import { hookFailed, type Row, type TransformRow } from "../config/hooks.ts";

/** Whether a table of the source asks for its rows to be transformed. */
export function isTransformed(
  config: Pick<ResolvedConfig, "overrides">,
  schema: string,
  name: string,
): boolean {
  return tableSettings({ schema, name }, config).transform === true;
}

/** The same columns in the format that can be read here. */
export function asText(plan: ColumnPlan): ColumnPlan {
  return { ...plan, binary: false };
}

/** Where the fields of a line of COPY data belong. */
export interface RowLayout {
  /** On the source, quoted where it has to be. */
  readonly table: string;
  /** Name of each field's column on the source; null: the field says whether there is a row (`t`, `f`). */
  readonly fields: readonly (string | null)[];
  /** Columns of the key, and those that tell whose a row is: they stay as they are. */
  readonly keys: readonly string[];
}

const NEWLINE = 0x0a;
const NULL = String.raw`\N`;
const escapes: Readonly<Record<string, string>> = { b: "\b", f: "\f", n: "\n", r: "\r", t: "\t", v: "\v" };
const escaped: Readonly<Record<string, string>> = {
  "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t",
}; // prettier-ignore

export interface TransformedRows {
  /** Data to go on, perhaps none. The memory is the caller's. */
  readonly data: Buffer;
  /** Rows that came. */
  readonly rows: number;
}

/** Transforms one COPY. */
export class RowTransformer {
  readonly #layout: RowLayout;
  readonly #present: number;
  readonly #transform: TransformRow;
  /** The beginning of a row whose end has not come yet. */
  #rest: Buffer[] = [];

  constructor(layout: RowLayout, transform: TransformRow) {
    this.#layout = layout;
    this.#present = layout.fields.indexOf(null);
    this.#transform = transform;
  }

  /** Takes a piece of data, which need not end where a row does. Throws HOOK_FAILED. */
  add(piece: Buffer): TransformedRows {
    const end = piece.lastIndexOf(NEWLINE) + 1;
    if (end === 0) {
      this.#rest.push(Buffer.from(piece));
      return { data: Buffer.alloc(0), rows: 0 };
    }
    const text = Buffer.concat([...this.#rest, piece.subarray(0, end)]).toString();
    this.#rest = end < piece.length ? [Buffer.from(piece.subarray(end))] : [];
    const lines = text.split("\n");
    lines.pop();
    const out: string[] = [];
    for (const line of lines) {
      const changed = this.#line(line);
      if (changed !== null) out.push(changed, "\n");
    }
    return { data: Buffer.from(out.join("")), rows: lines.length };
  }

  /** Null: nothing is left of the row. */
  #line(line: string): string | null {
    const fields = line.split("\t");
    const hasFlag = this.#present >= 0;
    if (hasFlag && fields[this.#present] === "f") return line;
    const row: Record<string, string | null> = {};
    for (const [index, name] of this.#layout.fields.entries())
      if (name !== null) row[name] = decoded(fields[index] ?? NULL);
    const { table, keys } = this.#layout;
    let result: ReturnType<TransformRow>;
    try {
      result = this.#transform({ ...row }, { table });
    } catch (error) {
      throw hookFailed("transformRow", error instanceof Error ? error.message : String(error), error);
    }
    if (result === null) {
      if (!hasFlag) return null;
      return fields.map((field, index) => (index === this.#present ? "f" : this.#isKey(index) ? field : NULL)).join("\t"); // prettier-ignore
    }
    const wrong = (said: string): Error => hookFailed("transformRow", `${said}, for a row of ${table}`);
    if (typeof result !== "object") throw wrong(`it returned ${typeof result} and no row`);
    if (result instanceof Promise) throw wrong("it returned a promise, and has to answer at once");
    for (const [name, value] of Object.entries(result)) {
      if (!(name in row)) throw wrong(`it returned a column ${name} that the table does not have`);
      if (value !== null && typeof value === "object") throw wrong(`it returned an object as ${name}`);
      if (keys.includes(name) && String(value) !== row[name]) throw wrong(`it changed the key ${name}`);
    }
    return fields
      .map((field, index) => {
        const name = this.#layout.fields[index];
        if (name == null || !Object.hasOwn(result, name)) return field;
        const value = result[name];
        return value === undefined ? field : encoded(value);
      })
      .join("\t");
  }

  #isKey(index: number): boolean {
    return this.#layout.keys.includes(this.#layout.fields[index] ?? "");
  }
}

function decoded(field: string): string | null {
  if (!field.includes("\\")) return field;
  if (field === NULL) return null;
  return field.replaceAll(/\\(.)/gs, (_, character: string) => escapes[character] ?? character);
}

function encoded(value: Row[string] | number | bigint | boolean): string {
  if (value === null) return NULL;
  return String(value).replaceAll(/[\\\n\r\t]/g, (character) => escaped[character] ?? character);
}
