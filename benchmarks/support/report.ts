import { writeFile } from "node:fs/promises";
import { cpus, totalmem } from "node:os";

import type { Options } from "./options.ts";

export interface Sample {
  /** Of one run. */
  values: readonly number[];
  unit: string;
}

export interface Result {
  what: string;
  /** What was measured; the median of its values counts. */
  measured: Sample;
  /** What it is compared with, in the same run. */
  against?: { what: string } & Sample;
  /** The goal, for the measured value itself or for its relation to what it is compared with. */
  goal?: { of: "value" | "ratio"; is: "at most" | "at least"; limit: number };
}

function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** Between the two nearest values, as everywhere. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].toSorted((a, b) => a - b);
  const place = (sorted.length - 1) * share;
  const [low, high] = [sorted[Math.floor(place)] ?? Number.NaN, sorted[Math.ceil(place)] ?? Number.NaN];
  return low + (high - low) * (place % 1);
}

/** Collects what a benchmark finds and prints each result at once, so that a long run shows something. */
export class Report {
  readonly #results: Result[] = [];
  readonly #skipped: string[] = [];

  add(result: Result): void {
    this.#results.push(result);
    console.log(`   => ${row(result).filter(Boolean).join("  ")}`);
  }

  note(text: string): void {
    console.log(`   ${text}`);
  }

  /** A part that this machine cannot run. */
  skip(text: string): void {
    this.#skipped.push(text);
    console.log(`   skipped: ${text}`);
  }

  async end(name: string, options: Options): Promise<void> {
    const rows = [["", "measured", "compared with", "ratio", "goal", ""], ...this.#results.map(row)];
    const widths = (rows[0] ?? []).map((_, column) =>
      Math.max(...rows.map((each) => each[column]?.length ?? 0)),
    );
    console.log(`\n${name}\n`);
    for (const each of rows) {
      console.log(
        each
          .map((cell, column) => cell.padEnd(widths[column] ?? 0))
          .join("  ")
          .trimEnd(),
      );
    }
    for (const text of this.#skipped) console.log(`skipped: ${text}`);
    if (options.json === undefined) return;
    const machine = {
      cores: cpus().length,
      model: cpus()[0]?.model,
      memoryBytes: totalmem(),
      node: process.version,
    };
    const results = this.#results.map((result) => ({
      ...result,
      median: median(result.measured.values),
      ratio: ratioOf(result),
      reached: isReached(result),
    }));
    const document = { benchmark: name, options, machine, results, skipped: this.#skipped };
    await writeFile(options.json, `${JSON.stringify(document, null, 2)}\n`);
  }
}

function row(result: Result): string[] {
  const { what, measured, against, goal } = result;
  const ratio = ratioOf(result);
  const reached = isReached(result);
  return [
    what,
    sample(measured),
    against === undefined ? "" : `${sample(against)} ${against.what}`,
    ratio === undefined ? "" : figure(ratio),
    goal === undefined ? "" : `${goal.of === "ratio" ? "ratio " : ""}${goal.is} ${figure(goal.limit)}`,
    reached === undefined ? "" : reached ? "reached" : "MISSED",
  ];
}

function ratioOf({ measured, against }: Result): number | undefined {
  return against === undefined ? undefined : median(measured.values) / median(against.values);
}

function isReached(result: Result): boolean | undefined {
  const { goal, measured } = result;
  if (goal === undefined) return undefined;
  const value = goal.of === "ratio" ? ratioOf(result) : median(measured.values);
  if (value === undefined) return undefined;
  return goal.is === "at most" ? value <= goal.limit : value >= goal.limit;
}

function sample({ values, unit }: Sample): string {
  const spread = values.length > 1 ? ` (${figure(Math.min(...values))}–${figure(Math.max(...values))})` : "";
  return `${figure(median(values))} ${unit}${spread}`;
}

/** Three digits, since no more are meant. */
function figure(value: number): string {
  if (Math.abs(value) >= 100) return Math.round(value).toLocaleString("en-US");
  return String(Number(value.toPrecision(3)));
}
