/**
 * All that has to be done on the target so that tables which do not fit the source any more fit again: every difference of every
 * such table, each with the statements, to be run in their order.
 */
import type { Side } from "../events.ts";
import type { Problem } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { ident, load } from "../postgres/sql.ts";
import { addColumnSql, unlikeColumn } from "./column-sql.ts";
import { columnPlan } from "./columns.ts";
import { normalise } from "./expression-text.ts";
import { readForms, type FingerprintColumn, type TableForm } from "./fingerprint.ts";
import { keepsColumns, type TableMapping } from "./mapping.ts";
import { afterMoves, renamedAndDropped, type Move } from "./renames.ts";
import { tableSql, type Table } from "./table.ts";

export interface Fitting {
  readonly label: string;
  /** Both as the mapping makes them. */
  readonly source: Table;
  readonly target: Table;
  /** What the source's columns were when the target had them; empty where that is not known. */
  readonly before: readonly FingerprintColumn[];
  readonly mapping: TableMapping | null;
}

/** Whether rows of the source can be carried over as they are now. */
export function isFitting({ label, source, target, before, mapping }: Fitting): boolean {
  return (
    renamedAndDropped(label, before, source, target, mapping).length === 0 &&
    columnPlan(source, target).problems.length === 0
  );
}

interface Constraint {
  readonly relid: string;
  readonly name: string;
  readonly type: "c" | "u" | "x";
  readonly definition: string;
}

/** For tables that do not fit. */
export async function refit(
  source: Connection,
  target: Connection,
  tables: readonly Fitting[],
): Promise<Problem[]> {
  if (tables.length === 0) return [];
  const forms = await readForms(source, tables.map((each) => each.source.oid)); // prettier-ignore
  const read = async (side: Side): Promise<Constraint[]> =>
    await (side === "source" ? source : target).rows<Constraint>(load("catalog/table-constraints"), [
      tables.map((each) => each[side].oid),
    ]);
  const [own, other] = [await read("source"), await read("target")];
  return tables.flatMap((table): Problem[] => {
    const { label, mapping } = table;
    const missing = new Map(
      [...commonValues(forms.get(table.source.oid))].map(([column, { text }]) => [column, text]),
    );
    const moves = renamedAndDropped(label, table.before, table.source, table.target, mapping);
    const to = afterMoves(table.target, moves);
    const plan = columnPlan(table.source, to, missing);
    const ofTable = (all: readonly Constraint[], { oid }: Table): Constraint[] =>
      all.filter(({ relid }) => Number(relid) === oid);
    const isPlain = keepsColumns(mapping);
    const constraints = isPlain
      ? unlikeConstraints(label, to, ofTable(own, table.source), ofTable(other, table.target).map((each) => renamed(each, moves))) // prettier-ignore
      : { extra: [], lacking: [] };
    return [
      // They may stand in the way of another type.
      ...constraints.extra,
      ...moves.map(({ problem }) => problem),
      ...plan.problems.map((problem) => ({ ...problem, subject: label })),
      ...(isPlain ? unlikeColumns(label, table.source, to, target.version) : []),
      ...constraints.lacking,
    ];
  });
}

/** As it will be called once columns have their new names. */
function renamed(constraint: Constraint, moves: readonly Move[]): Constraint {
  const names = new Map(moves.flatMap(({ column, to }) => (to === null ? [] : [[column.name, to] as const])));
  const definition = constraint.definition.replaceAll(/"(?:[^"]|"")+"|[\p{L}_][\p{L}\d_$]*/gu, (word) => {
    const to = names.get(word.startsWith('"') ? word.slice(1, -1).replaceAll('""', '"') : word);
    return to === undefined ? word : /^[a-z_][a-z0-9_]*$/.test(to) ? to : ident(to);
  });
  return { ...constraint, definition };
}

/** The value that all rows have in a column which was added when they were there, where it is one. */
export function commonValues(form: TableForm | undefined): Map<string, { text: string; array: string }> {
  const found = new Map<string, Set<string>>();
  for (const values of form?.missing.values() ?? [])
    for (const [column, value] of values) found.set(column, (found.get(column) ?? new Set()).add(value));
  return new Map(
    [...found].flatMap(([column, [value = "", ...others]]) =>
      others.length > 0 ? [] : [[column, { text: elementOf(value), array: value }]],
    ),
  );
}

/** The only element of an array, as text. */
function elementOf(array: string): string {
  const text = array.slice(1, -1);
  return text.startsWith('"') ? text.slice(1, -1).replaceAll(/\\(.)/gs, "$1") : text;
}

/** Generated columns since this version. */
const GENERATED_SINCE = 120_000;

/** What does not keep rows out, or not yet. */
function unlikeColumns(subject: string, source: Table, target: Table, version: number): Problem[] {
  return source.columns.flatMap((from): Problem[] => {
    const to = target.columns.find(({ name }) => name === from.name);
    if (to === undefined) {
      if (from.generated === "" || version < GENERATED_SINCE) return [];
      const message = `column ${ident(from.name)} is missing on the target`;
      return [{ subject, message, remedy: addColumnSql(target, from) }];
    }
    // Such a column is told already.
    if ((from.generated === "") !== (to.generated === "")) return [];
    const isRetyped = columnPlan({ ...source, columns: [from] }, { ...target, columns: [to] }).problems.length > 0; // prettier-ignore
    const unlike = unlikeColumn(target, from, to, isRetyped);
    return unlike === null ? [] : [{ subject, ...unlike }];
  });
}

function unlikeConstraints(
  subject: string,
  target: Table,
  own: readonly Constraint[],
  other: readonly Constraint[],
): { readonly extra: Problem[]; readonly lacking: Problem[] } {
  const alter = `alter table ${tableSql(target)}`;
  const isIn = (all: readonly Constraint[], { type, definition }: Constraint): boolean =>
    all.some((each) => each.type === type && normalise(each.definition) === normalise(definition));
  const extra = other.filter((each) => !isIn(own, each));
  const lacking = own.filter((each) => !isIn(other, each));
  return {
    extra: extra.map(({ name }) => ({
      subject,
      message: `constraint ${ident(name)} exists on the target alone, or is another one there`,
      remedy: `${alter} drop constraint ${ident(name)};`,
    })),
    lacking: lacking.map(({ name, type, definition }) => {
      const add = `${alter} add constraint ${ident(name)} ${definition}`;
      // Rows from before may break it until follow has brought what has changed.
      const remedy =
        type === "c" && !definition.endsWith(" NO INHERIT")
          ? `${add} not valid;\n-- once follow has caught up: ${alter} validate constraint ${ident(name)};`
          : `-- once follow has caught up: ${add};`;
      return { subject, message: `constraint ${ident(name)} is missing on the target`, remedy };
    }),
  };
}
