import { expect, test } from "vitest";
import { planParts, type PlannedPart, type Storage } from "../../../src/copy/plan.ts";

const storage = (pages: number, toastBytes = 0): Storage => ({
  oid: 7,
  schema: "public",
  name: "t",
  file: "1",
  heapBytes: pages * 8192,
  toastBytes,
});
const plan = (of: Storage, partBytes: number): PlannedPart[] => planParts([of], partBytes, () => 70, "pages");

test("a small or empty relation is one part", () => {
  expect(plan(storage(0), 1000)).toEqual([
    { sourceRelid: 7, targetRelid: 70, split: "whole", low: null, high: null, bytes: 0 },
  ]);
  expect(plan(storage(10), 10 * 8192)).toMatchObject([{ split: "whole" }]);
});

test("parts by pages join without a gap and are open at both ends", () => {
  for (const pages of [2, 3, 7, 100, 1001]) {
    for (const partPages of [1, 2, 3, 10]) {
      const parts = plan(storage(pages), partPages * 8192);
      if (parts.length === 1) continue;
      expect(parts).toHaveLength(Math.ceil(pages / partPages));
      expect(parts[0]?.low).toBeNull();
      expect(parts.at(-1)?.high).toBeNull();
      for (const [index, part] of parts.entries()) {
        if (index > 0) expect(part.low).toBe(parts[index - 1]?.high);
        const size = Number(part.high ?? pages) - Number(part.low ?? 0);
        expect(size).toBeGreaterThanOrEqual(Math.floor(pages / parts.length));
        expect(size).toBeLessThanOrEqual(Math.ceil(pages / parts.length));
      }
    }
  }
});

test("what lies out of line counts, but a page is never cut", () => {
  expect(plan(storage(100, 900 * 8192), 100 * 8192)).toHaveLength(10);
  expect(plan(storage(4, 10_000 * 8192), 100 * 8192)).toHaveLength(4);
  expect(plan(storage(1_000_000), 8192)).toHaveLength(10_000);
});

test("key bounds make one part more than there are bounds", () => {
  const bounds = new Map([[7, [["a", "1"], ["b", "2"]]]]); // prettier-ignore
  const parts = planParts([storage(30)], 10 * 8192, () => 70, bounds);
  expect(parts.map(({ split, low, high }) => [split, low, high])).toEqual([
    ["keys", null, ["a", "1"]],
    ["keys", ["a", "1"], ["b", "2"]],
    ["keys", ["b", "2"], null],
  ]);
  expect(planParts([storage(30)], 8192, () => 70, new Map())).toMatchObject([{ split: "whole" }]);
});
