import { expect, test } from "vitest";
import { Rise } from "../../../src/copy/rise.ts";

const steps: readonly {
  readonly what: string;
  /** Committed, in flight, total, and what is shown. */
  readonly looks: readonly (readonly [number, number, number, number])[];
}[] = [
  { what: "what is in flight counts", looks: [[0, 10, 100, 10], [0, 25, 100, 25], [40, 5, 100, 45]] },
  { what: "a part that is given back leaves the bar where it was", looks: [[20, 51, 100, 71], [20, 0, 100, 71], [61, 0, 100, 71], [80, 0, 100, 80]] },
  { what: "an estimate that turns out too high does as well", looks: [[0, 60, 100, 60], [50, 0, 100, 60]] },
  { what: "a total that grows takes nothing of the share", looks: [[50, 0, 100, 50], [50, 0, 200, 100], [120, 0, 200, 120]] },
  { what: "no more than the whole", looks: [[90, 30, 100, 100], [100, 0, 100, 100]] },
  { what: "a table that begins anew is shown as such", looks: [[61, 10, 100, 71], [0, 5, 100, 5]] },
  { what: "nothing to copy", looks: [[0, 0, 0, 0], [0, 0, 0, 0]] },
]; // prettier-ignore

for (const { what, looks } of steps)
  test(`progress of a copy: ${what}`, () => {
    const rise = new Rise();
    const shown = looks.map(([committed, inFlight, total]) => rise.done(committed, inFlight, total));
    expect(shown).toEqual(looks.map((look) => look[3]));
  });
