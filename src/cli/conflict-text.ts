/** A conflict for people: what met, what was decided, and the columns that differ. */
import type { LoggedConflict } from "../index.ts";
import { columns } from "../text/format.ts";

/** Longer values are cut. */
const widest = 60;

export function conflictLines(conflict: LoggedConflict): string[] {
  const { id, table, key, otherKey, kind, constraint, source, target, merged, at } = conflict;
  const other = otherKey === null ? "" : ` and ${keyText(otherKey)}, by ${constraint}`;
  const sides = [source, target];
  const rows = sides.map(({ image }) => image);
  if (merged !== null) rows.push(merged);
  const names = [...new Set(rows.flatMap((row) => Object.keys(row ?? {})))];
  const cells = (value: (row: LoggedConflict["merged"]) => string): string[] => rows.map(value);
  const lines = [
    ["", "source", "target", ...(merged === null ? [] : ["merged"])],
    ["made on", ...sides.map(({ node }) => node)],
    ["change", ...sides.map(({ change }) => change)],
    ["at", ...sides.map((side) => side.at ?? "unknown")],
    ...names
      .map((name) => [name, ...cells((row) => (row === null ? "no row" : valueText(row[name] ?? null)))])
      .filter(([, first, ...rest]) => rest.some((each) => each !== first)),
  ];
  return [
    `${id}  ${table} ${keyText(key)}${other}: ${kind}, ${at}`,
    `  ${decisionText(conflict)}`,
    ...columns(lines).map((line) => `    ${line}`),
  ];
}

function decisionText({ kind, policy, winner, resolved, merged, constraint }: LoggedConflict): string {
  if (kind === "delete_missing") return "both sides have deleted it";
  const cannot = merged === null ? "" : `another row has a value of the merged one, by ${constraint}; `;
  if (winner === "skip") return `${policy}: ${cannot}to be resolved`;
  if (!resolved) return `${policy}: about to be resolved with ${winner}, which was interrupted: say it again`;
  return winner === "merged" ? `${policy}: merged` : `${policy}: ${winner} won`;
}

function keyText(key: LoggedConflict["key"]): string {
  return Object.entries(key).map(([name, value]) => `${name}=${valueText(value)}`).join(", "); // prettier-ignore
}

/** On one line, and cut where it is long. */
function valueText(value: unknown): string {
  // oxlint-disable-next-line no-control-regex -- those are what would spoil the lines
  const isPlain = typeof value === "string" && value !== "" && !/[\u0000-\u001F\u007F]/.test(value);
  const text = isPlain ? value : JSON.stringify(value);
  return text.length <= widest ? text : `${text.slice(0, widest - 1)}…`;
}
