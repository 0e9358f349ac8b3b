import { expect, test } from "vitest";

import type { Fingerprint, TableForm } from "../../../src/catalog/fingerprint.ts";
import { compareOldRows, type Change } from "../../../src/follow/read/old-rows.ts";

// What servers cannot easily be brought to show: partitions that came and went between two looks.

const id = [1, "id", 23, -1, 0, ""] as const;
const x = [2, "x", 23, -1, 0, ""] as const;

function fingerprint(
  columns: Fingerprint["columns"],
  versions: string,
  files: Record<string, string>,
): Fingerprint {
  return { columns, keys: ["1"], triggers: [], rows: { versions, files, links: {}, types: {} } };
}

function change(before: Fingerprint, now: Fingerprint, missing: TableForm["missing"] = new Map()): Change {
  return { before, now: { text: JSON.stringify(now), missing } };
}

const added = new Map([[10, new Map([["x", "{5}"]])]]);
const source = change(fingerprint([id], "7", { 10: "10" }), fingerprint([id, x], "7 8", { 10: "10" }), added);
const none = fingerprint([id], "7", {});

test("both sides have got the same value", () => {
  expect(compareOldRows(source, source, null)).toEqual({ kind: "same" });
});

test("all partitions of the target are new: nothing tells that their rows were not rewritten", () => {
  const target = change(
    none,
    fingerprint([id, x], "7 8", { 20: "21" }),
    new Map([[20, new Map([["x", "{5}"]])]]),
  );
  expect(compareOldRows(source, target, null)).toMatchObject({ kind: "unproven" });
});

test("one of them is new: the others tell", () => {
  const now = fingerprint([id, x], "7 8", { 10: "10", 20: "21" });
  expect(compareOldRows(source, change(source.before, now, added), null)).toEqual({ kind: "same" });
  const moved = fingerprint([id, x], "7 8", { 10: "11", 20: "21" });
  expect(compareOldRows(source, change(source.before, moved, added), null)).toMatchObject({
    kind: "unproven",
    reason: "it was rewritten on the target",
  });
});

test("another file without another version of the columns is no rewrite of values", () => {
  const moved = change(source.before, fingerprint([id], "7", { 10: "11" }));
  expect(compareOldRows(moved, moved, null)).toEqual({ kind: "same" });
});

test("expressions of a mapping: a column that they may use has gone", () => {
  const mapping = { where: "id > 5", columns: {}, discriminator: {} };
  const two = fingerprint([id, x], "7", { 10: "10" });
  const one = change(two, fingerprint([id], "7", { 10: "10" }));
  expect(compareOldRows(one, one, mapping)).toMatchObject({ kind: "unproven" });
  expect(compareOldRows(one, one, null)).toEqual({ kind: "same" });
});
