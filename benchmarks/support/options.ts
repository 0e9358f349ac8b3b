import { parseArgs } from "node:util";

export interface Options {
  /** Rows of the tables together. */
  rows: number;
  rounds: number;
  /** How long one run of a load lasts. */
  seconds: number;
  /** Tables of the idle benchmark. */
  tables: number;
  /** Queued changes that follow has to apply. */
  changes: number;
  /** Size of the largest value in the memory benchmark. */
  valueBytes: number;
  /** Server versions. */
  source: string;
  target: string;
  /** Parts of a benchmark to run, such as `lag`; all if none is named. */
  only: readonly string[];
  /** File for the results as JSON. */
  json: string | undefined;
}

/** What a benchmark uses where nothing is said. */
export type Defaults = Partial<Pick<Options, "rows" | "rounds" | "seconds" | "tables" | "changes">>;

const whole = { type: "string" } as const;

export const usage = `npm run bench -- copy|capture|follow|verify|memory|link|mapping|hooks|two-way|cutover [options]

  --rows N        rows of the test data
  --changes N     queued changes (follow, memory, mapping, hooks, two-way)
  --rounds N      runs of each variant, of which the median counts (3)
  --seconds N     length of one run of a load
  --tables N      captured tables of the idle part of follow (2000) and two-way (500); tables of cutover (100)
  --value-mb N    largest value of the memory benchmark (200)
  --only PART     one part of the benchmark, several times for more; each names its own
  --source V      major version of the source (13)
  --target V      major version of the target (18)
  --json FILE     also write the results there`;

/** Reads what follows the benchmark's name. Throws TypeError with a sentence for people. */
export function readOptions(args: readonly string[], defaults: Defaults): Options {
  const { values } = parseArgs({
    args: [...args],
    options: {
      rows: whole, changes: whole, rounds: whole, seconds: whole, tables: whole, "value-mb": whole,
      source: whole, target: whole, json: whole, only: { type: "string", multiple: true },
    },
  }); // prettier-ignore
  const number = (name: keyof typeof values, fallback: number): number => {
    const value = values[name] === undefined ? fallback : Number(String(values[name]).replaceAll("_", ""));
    if (!Number.isSafeInteger(value) || value < 1) throw new TypeError(`--${name} has to be a whole number`);
    return value;
  };
  return {
    rows: number("rows", defaults.rows ?? 1_000_000),
    rounds: number("rounds", defaults.rounds ?? 3),
    seconds: number("seconds", defaults.seconds ?? 10),
    tables: number("tables", defaults.tables ?? 2000),
    changes: number("changes", defaults.changes ?? 500_000),
    valueBytes: number("value-mb", 200) * 1024 ** 2,
    source: values.source ?? "13",
    target: values.target ?? "18",
    only: values.only ?? [],
    json: values.json,
  };
}

export function isWanted({ only }: Options, part: string): boolean {
  return only.length === 0 || only.includes(part);
}
