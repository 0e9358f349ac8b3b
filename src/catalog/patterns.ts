/**
 * Which tables are meant: `public.*`, `*.audit_*`, `users`, `sales."Order.Items"`.
 *
 * A pattern is `schema.table`; without a schema it means `public`. `*` stands for any characters and `?` for one. As
 * in SQL, a name without quotes is folded to lower case, and inside of double quotes everything is meant as it is
 * written, with `""` for a quote.
 */
import { ReplicateError } from "../errors.ts";

export interface Pattern {
  /** As written. */
  readonly text: string;
  /** The only table it can mean, or null where it has a `*` or `?`. */
  readonly table: TableName | null;
  readonly schema: RegExp;
  readonly name: RegExp;
  readonly width: { readonly schema: Width; readonly name: Width };
}

/** How much a part of a pattern leaves open. */
export interface Width {
  /** Characters that are written out. */
  readonly letters: number;
  /** Characters of the shortest name that fits. */
  readonly least: number;
  /** `*`; several in a row are one. */
  readonly stars: number;
}

export interface TableName {
  readonly schema: string;
  readonly name: string;
}

export interface Selection<T> {
  /** In the order of `all`. */
  readonly selected: readonly T[];
  /** Patterns of `tables` that no table fits. */
  readonly unmatchedPatterns: readonly string[];
  /** Patterns of `exclude` that no table fits: harmless, and often a misspelling. */
  readonly unmatchedExcludes: readonly string[];
}

interface Part {
  /** Regular expression source. */
  source: string;
  /** The name itself, as long as it has no wildcard. */
  name: string | null;
  letters: number;
  questions: number;
  stars: number;
  /** Whether a `*` came since the last character that is written out. */
  isOpen: boolean;
}

function emptyPart(): Part {
  return { source: "", name: "", letters: 0, questions: 0, stars: 0, isOpen: false };
}

function widthOf({ letters, questions, stars }: Part): Width {
  return { letters, least: letters + questions, stars };
}

const publicPart: Part = { ...emptyPart(), source: "public", name: "public", letters: 6 };

/** Reads one pattern. Throws CONFIG_INVALID with one problem. */
export function parsePattern(text: string): Pattern {
  const parts: Part[] = [emptyPart()];
  const token = /"((?:[^"]|"")*)"|([*?])|(\.)|([^"*?.\s]+)|([^])/gy;
  for (const [, quoted, wildcard, dot, plain] of text.trim().matchAll(token)) {
    const part = parts.at(-1) as Part;
    if (dot !== undefined) {
      parts.push(emptyPart());
    } else if (wildcard !== undefined) {
      part.source += wildcard === "*" ? "[^]*" : "[^]";
      part.name = null;
      if (wildcard === "?") part.questions++;
      else if (!part.isOpen) part.stars++;
      part.isOpen ||= wildcard === "*";
    } else if (quoted !== undefined || plain !== undefined) {
      // Like the server with a multi-byte encoding, only ASCII letters are folded.
      const literal =
        quoted?.replaceAll('""', '"') ??
        (plain ?? "").replaceAll(/[A-Z]+/g, (letters) => letters.toLowerCase());
      part.source += literal.replaceAll(/[\\^$.*+?()[\]{}|/]/g, String.raw`\$&`);
      if (part.name !== null) part.name += literal;
      part.letters += Array.from(literal).length;
      part.isOpen = false;
    } else {
      throw invalid(
        text,
        'a quote is not closed, or a name with spaces is not in double quotes: public."My Table"',
      );
    }
  }
  if (parts.some(({ source }) => source === "")) throw invalid(text, "a part of the name is empty");
  if (parts.length > 2)
    throw invalid(text, 'it has more than one dot: put a name with dots into quotes: public."a.b"');
  const name = parts.at(-1) as Part;
  const schema = parts.length === 2 ? (parts[0] as Part) : publicPart;
  return {
    text,
    table: schema.name === null || name.name === null ? null : { schema: schema.name, name: name.name },
    schema: new RegExp(`^${schema.source}$`, "u"),
    name: new RegExp(`^${name.source}$`, "u"),
    width: { schema: widthOf(schema), name: widthOf(name) },
  };
}

/** Reads the name of one table, written like a pattern without `*` and `?`. Throws CONFIG_INVALID. */
export function parseTableName(text: string): TableName {
  const { table } = parsePattern(text);
  if (table === null) throw invalid(text, "the name of one table is needed here, without * and ?");
  return table;
}

export function patternMatches(pattern: Pattern | string, schema: string, name: string): boolean {
  const parsed = typeof pattern === "string" ? parsePattern(pattern) : pattern;
  return parsed.schema.test(schema) && parsed.name.test(name);
}

/** Schemas that belong to the server or to us: no pattern selects from them. */
export function isSystemSchema(schema: string): boolean {
  return schema === "information_schema" || schema === "replicate" || schema.startsWith("pg_");
}

/**
 * Of `all`, what `tables` selects and `exclude` does not take away. No `tables` means every one.
 * Throws CONFIG_INVALID when a pattern cannot be read.
 */
export function selectTables<T extends TableName>(
  all: readonly T[],
  tables: readonly string[],
  exclude: readonly string[],
): Selection<T> {
  const candidates = all.filter(({ schema }) => !isSystemSchema(schema));
  const wanted = tables.map(parsePattern);
  const unwanted = exclude.map(parsePattern);
  const fits = (pattern: Pattern, table: T): boolean => patternMatches(pattern, table.schema, table.name);
  const unmatched = (patterns: readonly Pattern[]): string[] =>
    patterns.filter((each) => !candidates.some((table) => fits(each, table))).map(({ text }) => text);
  return {
    selected: candidates.filter(
      (table) =>
        (wanted.length === 0 || wanted.some((each) => fits(each, table))) &&
        !unwanted.some((each) => fits(each, table)),
    ),
    unmatchedPatterns: unmatched(wanted),
    unmatchedExcludes: unmatched(unwanted),
  };
}

/** What one `init` was told: patterns to take, none of them meaning every table, and patterns to leave out. */
export interface TableSelection {
  readonly tables: readonly string[];
  readonly exclude: readonly string[];
}

/** Whether a table is meant, by what several `init`s were told in turn: the last one that says something of it decides. */
export function isSelected(
  { schema, name }: TableName,
  selections: readonly TableSelection[],
  exclude: readonly string[] = [],
): boolean {
  const fits = (patterns: readonly string[]): boolean =>
    patterns.some((pattern) => patternMatches(pattern, schema, name));
  if (fits(exclude)) return false;
  for (const each of selections.toReversed()) {
    if (fits(each.exclude)) return false;
    if (each.tables.length === 0 || fits(each.tables)) return true;
  }
  return false;
}

function invalid(pattern: string, message: string): ReplicateError {
  return new ReplicateError("CONFIG_INVALID", `the table pattern ${pattern} cannot be read: ${message}`, {
    problems: [{ subject: pattern, message }],
  });
}
