import { describe, expect, it } from "vitest";

import { retry, type RetryOptions } from "../../../src/postgres/retry.ts";

// Trying again: what passes is tried again, a signal ends each pause, and the budget counts from the last success.

const options = (more: Partial<RetryOptions> = {}): RetryOptions => ({
  firstPauseMs: 1,
  longestPauseMs: 4,
  budgetMs: 60_000,
  isPassing: (error) => error instanceof Error && error.message === "away",
  ...more,
});
const away = (): never => {
  throw new Error("away");
};
const never = new AbortController().signal;

describe("retry", () => {
  it("goes on until it works, with pauses that grow to the longest", async () => {
    const pauses: number[] = [];
    let tries = 0;
    const work = async (): Promise<string> => await Promise.resolve((tries += 1) < 6 ? away() : "done");
    const onPause = (_: unknown, retryInMs: number): void => void pauses.push(retryInMs);
    expect(await retry(options({ onPause }), never, work)).toBe("done");
    expect(pauses).toEqual([1, 2, 4, 4, 4]);
  });

  it("begins with short pauses again after a success", async () => {
    const pauses: number[] = [];
    let tries = 0;
    const onPause = (_: unknown, retryInMs: number): void => void pauses.push(retryInMs);
    await retry(options({ onPause }), never, async (onSuccess) => {
      tries += 1;
      if (tries === 4) onSuccess();
      return await Promise.resolve(tries < 6 ? away() : undefined);
    });
    expect(pauses).toEqual([1, 2, 4, 1, 2]);
  });

  it("throws at once what does not pass", async () => {
    let tries = 0;
    const work = async (): Promise<never> => {
      tries += 1;
      return await Promise.reject(new Error("wrong"));
    };
    await expect(retry(options(), never, work)).rejects.toThrow("wrong");
    expect(tries).toBe(1);
  });

  it("is given up once the budget is spent", async () => {
    const work = async (): Promise<never> => await Promise.resolve(away());
    await expect(retry(options({ budgetMs: 5 }), never, work)).rejects.toThrow("away");
    const givenUp = (error: unknown): Error => new Error("stayed away", { cause: error });
    await expect(retry(options({ budgetMs: 5, givenUp }), never, work)).rejects.toThrow("stayed away");
  });

  it("ends in its pause when the signal fires", async () => {
    const stop = new AbortController();
    const policy = options({ firstPauseMs: 3_600_000, longestPauseMs: 3_600_000, onPause: () => setImmediate(() => stop.abort()) }); // prettier-ignore
    await expect(retry(policy, stop.signal, async () => await Promise.resolve(away()))).rejects.toMatchObject(
      { code: "ABORTED" },
    );
  });

  it("says ABORTED where the work has failed because of the signal", async () => {
    const stop = new AbortController();
    const work = async (): Promise<never> => {
      stop.abort();
      return await Promise.reject(new Error("Connection terminated"));
    };
    await expect(retry(options(), stop.signal, work)).rejects.toMatchObject({ code: "ABORTED" });
  });
});
