import type { Defaults, Options } from "./options.ts";
import type { Report } from "./report.ts";

export interface Benchmark {
  defaults: Defaults;
  run: (options: Options, report: Report) => Promise<void>;
}

/** Runs every variant once per round, each round in another order, and returns what they gave. */
export async function interleave<Name extends string, Value>(
  rounds: number,
  variants: Readonly<Record<Name, (round: number) => Promise<Value>>>,
): Promise<Record<Name, Value[]>> {
  const names = Object.keys(variants) as Name[];
  const values = Object.fromEntries(names.map((name) => [name, [] as Value[]])) as Record<Name, Value[]>;
  for (let round = 0; round < rounds; round++) {
    const turned = [...names.slice(round % names.length), ...names.slice(0, round % names.length)];
    for (const name of turned) values[name].push(await variants[name](round));
  }
  return values;
}
