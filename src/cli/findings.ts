/** Findings of preflight, for people: what is wrong, and the statement that repairs it. */
import type { DropReport, PreflightReport } from "../index.ts";
import { count } from "../text/format.ts";
import { toJson } from "./output.ts";

type Findings = PreflightReport["findings"];

/** Lines of one remedy that are shown, and characters of one. */
const mostRemedyLines = 16;
const mostRemedyColumns = 400;

const order = ["blocking", "warning", "note"] as const;

export function findingLines(findings: Findings): string[] {
  if (findings.length === 0) return ["no findings"];
  const summary = order.flatMap((severity) => {
    const number = findings.filter((each) => each.severity === severity).length;
    return number === 0 ? [] : [severity === "blocking" ? `${number} blocking` : count(number, severity)];
  });
  return [
    `findings: ${summary.join(", ")}`,
    ...order.flatMap((severity) =>
      findings
        .filter((each) => each.severity === severity)
        .flatMap(({ subject, message, remedy }) => [
          `  ${severity}: ${subject}: ${message}`,
          ...remedyLines(remedy).map((line) => `      ${line}`),
        ]),
    ),
  ];
}

/** Statements for hundreds of tables are for programs to read. */
function remedyLines(remedy: string | undefined): string[] {
  const lines = remedy === undefined ? [] : remedy.split("\n").map(shortened);
  const hidden = lines.length - mostRemedyLines;
  if (hidden <= 1) return lines;
  const tail = lines.slice(-2).filter((line) => line.startsWith("-- or "));
  const shown = lines.slice(0, mostRemedyLines - tail.length);
  return [...shown, `-- and ${count(hidden, "more line")}; --json has all`, ...tail];
}

function shortened(line: string): string {
  return line.length <= mostRemedyColumns || !line.startsWith("-- ")
    ? line
    : `${line.slice(0, mostRemedyColumns - 1)}…`;
}

/** Constraints that rows of the source break, so that they could only be restored as NOT VALID. */
export function leftInvalidLines(constraints: DropReport["leftInvalid"]): string[] {
  return constraints.flatMap(({ table, constraint, reason }) => [
    `  ${constraint} on ${table} stays NOT VALID:`,
    `      ${reason}`,
  ]);
}

/** What the settings come to for each table, and which override says so. */
export function settingLines(settings: NonNullable<PreflightReport["settings"]>): string[] {
  return settings.flatMap(({ table, target, settings: own }) => [
    `${table}${target === table ? "" : ` -> ${target}`}${Object.keys(own).length === 0 ? ": as the sync" : ""}`,
    ...Object.entries(own).map(([key, { value, from }]) => `  ${key}: ${toJson(value)}  (${from})`),
  ]);
}
