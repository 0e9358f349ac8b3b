import { afterEach, expect, test, vi } from "vitest";

import { createRandom, seededRandom } from "../../support/random.ts";

afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
});

test("comes again for the same seed, and differs for another", () => {
  const draw = (seed: number): number[] => {
    const random = createRandom(seed);
    return Array.from({ length: 20 }, () => random.int(0, 1_000_000));
  };
  expect(draw(7)).toEqual(draw(7));
  expect(draw(7)).not.toEqual(draw(8));
});

test("stays within bounds and reaches them", () => {
  const random = createRandom(1);
  const drawn = new Set(Array.from({ length: 500 }, () => random.int(-2, 2)));
  expect([...drawn].toSorted((a, b) => a - b)).toEqual([-2, -1, 0, 1, 2]);
  for (let count = 0; count < 500; count++) {
    const number = random.next();
    expect(number).toBeGreaterThanOrEqual(0);
    expect(number).toBeLessThan(1);
  }
});

test("spreads evenly", () => {
  const random = createRandom(42);
  const counts = Array.from({ length: 10 }, () => 0);
  for (let count = 0; count < 10_000; count++) {
    const bucket = random.int(0, 9);
    counts[bucket] = (counts[bucket] ?? 0) + 1;
  }
  for (const count of counts) expect(count).toBeGreaterThan(800);
});

test("shuffles without losing anything", () => {
  const items = Array.from({ length: 100 }, (_, index) => index);
  const shuffled = createRandom(3).shuffle(items);
  expect(shuffled).not.toEqual(items);
  expect(shuffled.toSorted((a, b) => a - b)).toEqual(items);
});

test("picks, and makes text of the given alphabet", () => {
  const random = createRandom(4);
  expect(["a", "b"]).toContain(random.pick(["a", "b"]));
  expect(() => random.pick([])).toThrow("nothing to pick from");
  expect(random.text(50, "xy")).toMatch(/^[xy]{50}$/);
});

test("forks into generators that do not depend on each other's use", () => {
  const draw = (disturbance: number): number => {
    const random = createRandom(5);
    const [first, second] = [random.fork("first"), random.fork("second")];
    for (let count = 0; count < disturbance; count++) first.next();
    return second.next();
  };
  expect(draw(0)).toBe(draw(100));
});

test("prints its seed and takes it from the environment", () => {
  const write = vi.spyOn(process.stderr, "write").mockReturnValue(true);
  vi.stubEnv("REPLICATE_TEST_SEED", "1234");
  const random = seededRandom("writers");
  expect(random.seed).toBe(1234);
  expect(write).toHaveBeenCalledWith("seed writers=1234\n");
  vi.stubEnv("REPLICATE_TEST_SEED", "twelve");
  expect(() => seededRandom("writers")).toThrow("REPLICATE_TEST_SEED");
});
