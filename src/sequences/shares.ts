/**
 * Numbers shared out between databases: of N shares, each has the numbers that leave the same remainder, so that no two
 * databases give out the same number, however far each has come. Two shares are the odd and the even numbers.
 */
import { ReplicateError, type Problem } from "../errors.ts";

export interface Share {
  /** Into how many shares numbers are divided. */
  readonly shares: number;
  /** Which of them, from 1. */
  readonly share: number;
}

/** What a side's share depends on, checked. */
export interface SidesShares {
  readonly source: Share;
  readonly target: Share;
}

const MOST_SHARES = 1000;

/** Throws CONFIG_INVALID with everything that is wrong. */
export function checkShares(given: {
  readonly shares?: number;
  readonly sourceShare?: number;
  readonly targetShare?: number;
}): SidesShares {
  const { shares = 2, sourceShare = 1, targetShare = 2 } = given;
  const problems: Problem[] = [];
  const isIn = (value: number, least: number, most: number): boolean =>
    Number.isInteger(value) && value >= least && value <= most;
  if (!isIn(shares, 2, MOST_SHARES))
    problems.push({ subject: "shares", message: `has to be a whole number from 2 to ${MOST_SHARES}` });
  for (const [subject, value] of [
    ["sourceShare", sourceShare],
    ["targetShare", targetShare],
  ] as const) {
    if (!isIn(value, 1, shares))
      problems.push({
        subject,
        message: `has to be a whole number from 1 to ${shares}, the number of shares`,
      });
  }
  if (sourceShare === targetShare)
    problems.push({ subject: "targetShare", message: "has to be another one than the source's" });
  if (problems.length > 0)
    throw new ReplicateError(
      "CONFIG_INVALID",
      "the shares of the source and the target do not fit together",
      { problems },
    );
  return { source: { shares, share: sourceShare }, target: { shares, share: targetShare } };
}

/** The first number of a share beyond `given`, in the direction of the sequence. `increment`: the one before. */
export function firstBeyond(given: bigint, increment: bigint, { shares, share }: Share): bigint {
  const size = increment < 0n ? -increment : increment;
  const step = size * BigInt(shares);
  const remainder = (size * BigInt(share)) % step;
  const distance = (from: bigint, to: bigint): bigint => (((to - from) % step) + step) % step;
  if (increment < 0n) return given - 1n - distance(remainder, given - 1n);
  return given + 1n + distance(given + 1n, remainder);
}

/** The later one of two values, in the direction of the sequence. */
export function later(a: bigint, b: bigint, increment: bigint): bigint {
  return a > b === increment > 0n ? a : b;
}
