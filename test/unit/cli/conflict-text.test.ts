import { expect, it } from "vitest";

import { conflictLines } from "../../../src/cli/conflict-text.ts";
import type { LoggedConflict } from "../../../src/index.ts";

function conflict(changes: Partial<LoggedConflict> = {}): LoggedConflict {
  return {
    id: 42,
    table: "public.users",
    key: { id: 21 },
    kind: "update_origin_differs",
    source: {
      node: "office",
      change: "update",
      at: "2026-05-01T10:00:00.000001Z",
      image: { id: 21, name: "Ann", age: 30, city: null },
    },
    target: {
      node: "cloud",
      change: "update",
      at: "2026-05-01T10:00:00.000002Z",
      image: { id: 21, name: "Anna", age: 30, city: "" },
    },
    constraint: null,
    otherKey: null,
    policy: "latest",
    winner: "target",
    merged: null,
    at: "2026-05-01T10:00:03.000000Z",
    resolved: true,
    resolvedAt: "2026-05-01T10:00:03.000000Z",
    ...changes,
  };
}

const text = (changes: Partial<LoggedConflict> = {}): string => conflictLines(conflict(changes)).join("\n");

it("shows both sides, and the columns that differ", () => {
  expect(text()).toBe(
    [
      "42  public.users id=21: update_origin_differs, 2026-05-01T10:00:03.000000Z",
      "  latest: target won",
      "             source                       target",
      "    made on  office                       cloud",
      "    change   update                       update",
      "    at       2026-05-01T10:00:00.000001Z  2026-05-01T10:00:00.000002Z",
      "    name     Ann                          Anna",
      '    city     null                         ""',
    ].join("\n"),
  );
});

it("says what was decided", () => {
  expect(text({ policy: "skip", winner: "skip", resolved: false })).toContain("\n  skip: to be resolved\n");
  expect(text({ policy: "skip", winner: "source", resolved: false })).toContain(
    "about to be resolved with source",
  );
  const merged = text({
    policy: "custom: merge.js",
    winner: "merged",
    merged: { id: 21, name: "A", age: 30, city: null },
  });
  expect(merged).toContain("custom: merge.js: merged");
  expect(merged).toMatch(/source +target +merged\n/);
  expect(merged).toMatch(/name +Ann +Anna +A$/m);
});

it("shows a row that is gone against every column of the other", () => {
  const gone = text({ target: { node: "cloud", change: "delete", at: null, image: null } });
  expect(gone).toMatch(
    /change +update +delete\n +at .* unknown\n +id +21 +no row\n +name +Ann +no row\n +age/,
  );
});

it("names both keys where two rows want the same value", () => {
  const both = text({
    kind: "multiple_unique_conflicts",
    otherKey: { id: 22 },
    constraint: "users_name_key",
  });
  expect(both).toMatch(/^42 {2}public.users id=21 and id=22, by users_name_key: multiple_unique_conflicts, /);
});

it("keeps values on one line each, and short", () => {
  const image = { id: 21, name: "a\nb", age: { deep: [1] }, city: "x".repeat(100) };
  const shown = text({ source: { ...conflict().source, image } });
  expect(shown).toMatch(/name +"a\\nb" +Anna/);
  expect(shown).toMatch(/age +{"deep":\[1\]} +30/);
  expect(shown).toMatch(/city +x{59}… +""/);
});
