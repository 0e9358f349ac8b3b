import { expect, test } from "vitest";

import { checkShares, firstBeyond } from "../../../src/sequences/shares.ts";
import { seededRandom } from "../../support/random.ts";

test("odd and even numbers, upwards and downwards", () => {
  const [odd, even] = [
    { shares: 2, share: 1 },
    { shares: 2, share: 2 },
  ];
  expect([firstBeyond(0n, 1n, odd), firstBeyond(0n, 1n, even)]).toEqual([1n, 2n]);
  expect([firstBeyond(101n, 1n, odd), firstBeyond(101n, 1n, even)]).toEqual([103n, 102n]);
  expect([firstBeyond(-1n, -1n, odd), firstBeyond(-1n, -1n, even)]).toEqual([-3n, -2n]);
  expect([firstBeyond(0n, 5n, odd), firstBeyond(0n, 5n, even)]).toEqual([5n, 10n]);
});

test("shares never have a number in common, wherever each begins", () => {
  const random = seededRandom("shares");
  for (let times = 0; times < 500; times += 1) {
    const shares = random.int(2, 7);
    const increment = BigInt(random.int(1, 9)) * (random.bool(0.5) ? 1n : -1n);
    const owner = new Map<bigint, number>();
    for (let share = 1; share <= shares; share += 1) {
      const given = BigInt(random.int(-500, 500));
      let next = firstBeyond(given, increment, { shares, share });
      expect(increment > 0n ? next > given : next < given).toBe(true);
      // No more than one round of all shares is left out.
      const left = next - given;
      expect(left < 0n ? -left : left).toBeLessThanOrEqual(
        (increment < 0n ? -increment : increment) * BigInt(shares),
      );
      for (let n = 0; n < 50; n += 1, next += increment * BigInt(shares)) {
        expect(owner.get(next) ?? share).toBe(share);
        owner.set(next, share);
      }
    }
  }
});

test("everything that is wrong with shares is told at once", () => {
  expect(() => checkShares({ shares: 1, sourceShare: 0, targetShare: 0 })).toThrow(
    expect.objectContaining({
      code: "CONFIG_INVALID",
      problems: ["shares", "sourceShare", "targetShare", "targetShare"].map((subject) =>
        expect.objectContaining({ subject }),
      ),
    }),
  );
  expect(checkShares({ shares: 3, targetShare: 3 })).toEqual({
    source: { shares: 3, share: 1 },
    target: { shares: 3, share: 3 },
  });
});
