/** Findings of preflight, for people: what is wrong, and the statement that repairs it. */
import type { DropReport, PreflightReport } from "../index.ts";
import { count } from "./format.ts";
import { toJson } from "./output.ts";

type Findings = PreflightReport["findings"];

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
          ...(remedy === undefined ? [] : remedy.split("\n").map((line) => `      ${line}`)),
        ]),
    ),
  ];
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
