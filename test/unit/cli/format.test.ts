import { describe, expect, it } from "vitest";

import { bar, bytes, columns, count, duration, number, percent, wrap } from "../../../src/text/format.ts";

it.each([
  [0, "0 B"],
  [999, "999 B"],
  [1000, "1.0 kB"],
  [1536, "1.5 kB"],
  [128 * 1024 ** 2, "128 MB"],
  [29.1 * 1024 ** 3, "29.1 GB"],
  [5 * 1024 ** 5, "5.0 PB"],
  [-1, "0 B"],
])("%d bytes are %s", (value, text) => {
  expect(bytes(value)).toBe(text);
});

it.each([
  [0, "0 s"],
  [0.123, "0.12 s"],
  [1.26, "1.3 s"],
  [10, "10 s"],
  [59.6, "1 min"],
  [303, "5 min 3 s"],
  [7200, "2 h"],
  [7440, "2 h 4 min"],
  [86_400 * 3 + 3600 * 5 + 59, "3 d 5 h"],
  [-3, "0 s"],
])("%d seconds are %s", (value, text) => {
  expect(duration(value)).toBe(text);
});

it("says what it counts", () => {
  expect([count(0, "row"), count(1, "row"), count(1_234_567, "row"), count(2, "batch", "batches")]).toEqual([
    "0 rows",
    "1 row",
    "1,234,567 rows",
    "2 batches",
  ]);
  expect(number(1234.6)).toBe("1,235");
});

describe("percent and bar", () => {
  it("say 100 only at the end", () => {
    expect([percent(0, 10), percent(9.99, 10), percent(10, 10), percent(11, 10), percent(0, 0)]).toEqual([
      0, 99, 100, 100, 100,
    ]);
    expect(bar(5, 10, 4)).toBe("[##..]");
    expect(bar(9.9, 10, 4)).toBe("[###.]");
    expect(bar(10, 10, 4)).toBe("[####]");
  });
});

it("aligns columns to the left, and some to the right", () => {
  expect(
    columns(
      [
        ["a", "1", "9 %"],
        ["bcd", "1,000", "10 %"],
        ["e", "x"],
      ],
      [1, 2],
    ),
  ).toEqual(["a        1   9 %", "bcd  1,000  10 %", "e        x"]);
});

it("wraps at spaces and never cuts a word", () => {
  expect(wrap("one two three", 7)).toEqual(["one two", "three"]);
  expect(wrap("extraordinary", 5)).toEqual(["extraordinary"]);
});
