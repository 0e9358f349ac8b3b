import { expect, it } from "vitest";

import { Feed } from "../../../src/console/feed.ts";
import { mostLogLines, thinned, type Sample } from "../../../src/console/protocol.ts";

const sample = (at: number): Sample => ({
  at,
  lagSeconds: 0,
  lagChanges: 0,
  rowsPerSecond: 1,
  bytesPerSecond: 0,
});

it("keeps the last hour as it is, and older samples one a minute for two days", () => {
  let samples: Sample[] = [];
  const days = 3;
  for (let second = 0; second <= days * 86_400; second += 10)
    samples = thinned([...samples, sample(second * 1000)]);
  const now = days * 86_400_000;
  const recent = samples.filter(({ at }) => now - at <= 3_600_000);
  const older = samples.filter(({ at }) => now - at > 3_600_000);
  expect(recent.length).toBe(361);
  expect(older.length).toBeGreaterThan(47 * 60 - 2);
  expect(older.length).toBeLessThan(47 * 60 + 2);
  expect(samples.every(({ at }) => now - at <= 2 * 86_400_000)).toBe(true);
});

it("holds no more of a day of events than of an hour", () => {
  const feed = new Feed({ name: "a", status: () => new Promise(() => {}) });
  const told: number[] = [];
  feed.subscribe(({ log = [] }) => told.push(log.length));
  for (let n = 0; n < 5000; n++) feed.onEvent({ type: "warning", message: `number ${n}` });
  expect(told.length).toBe(5000);
  expect(feed.view.log.length).toBe(mostLogLines);
  expect(feed.view.log.at(-1)).toMatchObject({ id: 5000, text: "number 4999" });
});
