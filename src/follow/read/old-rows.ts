/**
 * Whether rows that nobody has written to are still the same on both sides after tables changed: only if the catalogues
 * prove it. Pure: it decides from what both tables were when they were the same, and what they are now.
 *
 * What is proven: a value that was carried over stays what it was as long as its column does on both sides (by number,
 * whatever its name), with its type, and no ALTER TABLE has rewritten the rows. A column that both sides have got since has in
 * all rows from before the value that the catalogue keeps for them, or null, until they are rewritten.
 */
import {
  parseFingerprint,
  type Fingerprint,
  type FingerprintColumn,
  type TableForm,
} from "../../catalog/fingerprint.ts";
import type { TableMapping } from "../../catalog/mapping.ts";
import { ident } from "../../postgres/sql.ts";

/** What a table was when its rows were the same on both sides, and what it is now. */
export interface Change {
  readonly before: Fingerprint;
  readonly now: TableForm;
}

export type OldRows =
  | { readonly kind: "same" }
  /** The table has to be read again. `reason` continues a sentence about it. */
  | { readonly kind: "unproven"; readonly reason: string }
  /** An earlier version did not remember what would tell. */
  | { readonly kind: "unknown" };

/** True where nothing has happened to the table that could concern rows from before. */
export function isSameForm(before: Fingerprint, now: Fingerprint): boolean {
  return (
    before.rows !== undefined &&
    before.rows.versions === now.rows?.versions &&
    same(before.columns, now.columns) &&
    same(before.rows.types, now.rows.types) &&
    same(before.rows.links, now.rows.links)
  );
}

/** True where columns and types are what they were, and the rows are in the files in which they were: none was rewritten. */
export function hasSameRows(before: Fingerprint, now: Fingerprint): boolean {
  return (
    before.rows !== undefined &&
    same(before.rows.files, now.rows?.files) &&
    same(before.columns, now.columns) &&
    same(before.rows.types, now.rows?.types) &&
    same(before.rows.links, now.rows?.links)
  );
}

/** `mapping`: how the source's columns go to the target's, now as before. */
export function compareOldRows(source: Change, target: Change, mapping: TableMapping | null): OldRows {
  const sides = { source: sideOf(source), target: sideOf(target) };
  for (const [name, side] of Object.entries(sides)) {
    const reason = rewriteOf(side);
    if (reason !== undefined) return unproven(`${reason} on the ${name}`);
  }
  if (isComputed(mapping) && !sides.source.keepsAll)
    return unproven("columns changed that its mapping may compute with");
  const were = new Set(pairsOf(source.before.columns, target.before.columns, mapping).map(nameOf));
  const now = pairsOf(sides.source.now.columns, sides.target.now.columns, mapping);
  for (const pair of now) {
    const column = ident(pair.to[1]);
    const retyped = [pair.from, pair.to].some((each, n) => {
      const side = n === 0 ? sides.source : sides.target;
      return typeof each !== "string" && side.retyped.has(each[0]);
    });
    if (retyped) return unproven(`column ${column} has another type`);
    if (were.has(nameOf(pair))) continue;
    const isNew =
      typeof pair.from !== "string" &&
      sides.source.added.has(pair.from[0]) &&
      sides.target.added.has(pair.to[0]);
    if (!isNew) return unproven(`column ${column} has had other values before on one side`);
    const values = new Set([...valuesOf(sides.source, pair.from[1]), ...valuesOf(sides.target, pair.to[1])]);
    if (values.size > 1) return unproven(`all rows from before have got a value in the new column ${column}`);
  }
  return sides.source.isUnknown ? { kind: "unknown" } : { kind: "same" };
}

interface FormChange {
  readonly before: Fingerprint;
  readonly now: Fingerprint;
  readonly missing: TableForm["missing"];
  /** By number. */
  readonly added: ReadonlySet<number>;
  readonly retyped: ReadonlySet<number>;
  /** All columns from before are there, under their names and with their types. */
  readonly keepsAll: boolean;
  /** Of a partitioned table nothing was remembered but its columns, and they are the same. */
  readonly isUnknown: boolean;
}

function sideOf({ before, now: { text, missing } }: Change): FormChange {
  const now = parseFingerprint(text);
  const numbered = new Map(before.columns.map((column) => [column[0], column]));
  const retyped = now.columns.filter((column) => {
    const was = numbered.get(column[0]);
    return was !== undefined && !keepsValues(was[2], column[2]);
  });
  return {
    before,
    now,
    missing,
    added: new Set(now.columns.map(([attnum]) => attnum).filter((attnum) => !numbered.has(attnum))),
    retyped: new Set(retyped.map(([attnum]) => attnum)),
    keepsAll: before.columns.every(([attnum, name, type]) =>
      now.columns.some((column) => column[0] === attnum && column[1] === name && column[2] === type),
    ),
    isUnknown: before.rows === undefined && before.file === 0 && same(before.columns, now.columns),
  };
}

/** Types that hold the same bytes and show them alike: their rows need no rewrite to go from one to the other. */
const TEXTUAL: readonly number[] = [25, 1043]; // text, character varying

function keepsValues(was: number, is: number): boolean {
  return was === is || (TEXTUAL.includes(was) && TEXTUAL.includes(is));
}

/** What has happened to the rows themselves, or to what their values say. */
function rewriteOf({ before, now, isUnknown }: FormChange): string | undefined {
  if (isUnknown) return undefined;
  const files = before.rows?.files ?? (before.file === 0 ? undefined : { [onlyFile(now)]: `${before.file}` });
  // What rewrites one partition in this way rewrites all of them.
  const known = Object.entries(files ?? {}).filter(([oid]) => now.rows?.files[oid] !== undefined);
  const isMoved =
    known.length === 0
      ? Object.keys(now.rows?.files ?? {}).length > 0
      : known.some(([oid, file]) => now.rows?.files[oid] !== file);
  if (isMoved && before.rows?.versions !== now.rows?.versions) return "it was rewritten";
  const links = Object.entries(before.rows?.links ?? {});
  if (links.some(([oid, link]) => (now.rows?.links[oid] ?? link) !== link))
    return "a partition of it was detached and attached again";
  for (const [oid, was] of Object.entries(before.rows?.types ?? {})) {
    const is = now.rows?.types[oid];
    if (is === undefined) continue;
    const isKept =
      Array.isArray(was) || Array.isArray(is)
        ? same(was, is)
        : // A label that is new says nothing of rows from before.
          Object.entries(was).every(([label, text]) => (is as Record<string, string>)[label] === text);
    if (!isKept) return "a type of its columns shows its values in another way";
  }
  return undefined;
}

/** Of a table that is not partitioned. */
function onlyFile(now: Fingerprint): string {
  return Object.keys(now.rows?.files ?? {})[0] ?? "";
}

/** What rows from before have in a column that was added since; null is written as it cannot be a value. */
function valuesOf({ before, now, missing }: FormChange, column: string): string[] {
  const all = Object.keys(now.rows?.files ?? {});
  // A partition that came later may have got its column at once. Where there is no other, it may have not.
  const known = all.filter((oid) => before.rows?.files[oid] !== undefined);
  return (known.length > 0 ? known : all).map((oid) => missing.get(Number(oid))?.get(column) ?? "null");
}

/** A column of the target, and what it is fed from: a column of the source, or an expression. */
interface Pair {
  readonly from: FingerprintColumn | string;
  readonly to: FingerprintColumn;
}

function nameOf({ from, to }: Pair): string {
  return `${typeof from === "string" ? from : from[0]} ${to[0]}`;
}

function pairsOf(
  source: readonly FingerprintColumn[],
  target: readonly FingerprintColumn[],
  mapping: TableMapping | null,
): Pair[] {
  const fed = new Map<string, FingerprintColumn | string>();
  for (const column of source) {
    const mapped = mapping?.columns[column[1]];
    const to = mapped === undefined ? column[1] : mapped.to;
    if (to !== null && (column[5] === "" || mapped !== undefined)) fed.set(to, mapped?.as ?? column);
  }
  for (const [name, { to, as }] of Object.entries(mapping?.columns ?? {}))
    if (to !== null && as !== null && !source.some((column) => column[1] === name)) fed.set(to, as);
  for (const [name, value] of Object.entries(mapping?.discriminator ?? {})) fed.set(name, `= ${value}`);
  return target.flatMap((to): Pair[] => {
    const from = fed.get(to[1]);
    return from === undefined || to[5] !== "" ? [] : [{ from, to }];
  });
}

/** Whether the rows or values that are replicated depend on expressions. */
function isComputed(mapping: TableMapping | null): boolean {
  return (
    mapping !== null &&
    (mapping.where !== null || Object.values(mapping.columns).some(({ as }) => as !== null))
  );
}

function unproven(reason: string): OldRows {
  return { kind: "unproven", reason };
}

const same = (one: unknown, other: unknown): boolean => JSON.stringify(one) === JSON.stringify(other);
