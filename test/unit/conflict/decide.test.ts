import { describe, expect, it, vi } from "vitest";

import type {
  Conflict,
  ConflictKind,
  ConflictPolicy,
  ConflictResolver,
  ConflictSide,
} from "../../../src/config/conflict-policy.ts";
import { conflictError, decide, type Decision } from "../../../src/conflict/decide.ts";
import { ReplicateError } from "../../../src/errors.ts";

const early = "2026-05-01T10:00:00.000001Z";
const late = "2026-05-01T10:00:00.000002Z";

type Change = ConflictSide["change"];
type Given = Partial<ConflictSide> & { readonly price?: number | null };

function side(node: string, { price = 1, ...given }: Given): ConflictSide {
  const change = given.change ?? "update";
  return {
    node,
    change,
    at: early,
    image: change === "delete" ? null : { id: 1, price, name: node },
    ...given,
  };
}

/** A conflict between node a, the source, and node b. */
function conflict(source: Given, target: Given, kind: ConflictKind = "update_origin_differs"): Conflict {
  const sides = { source: side("a", source), target: side("b", target) };
  const [ours, theirs] = [sides.source.image?.["price"] ?? null, sides.target.image?.["price"] ?? null] as (
    number | null
  )[];
  const isComparable = ours != null && theirs != null;
  const order = isComparable ? (ours === theirs ? "equal" : ours > theirs ? "source" : "target") : null;
  return { table: "public.t", key: { id: 1 }, kind, ...sides, comparison: order };
}

function mirrored(given: Conflict): Conflict {
  const { source, target, comparison } = given;
  const turned = comparison === "source" ? "target" : comparison === "target" ? "source" : comparison;
  return { ...given, source: target, target: source, comparison: turned };
}

const latest: ConflictPolicy = { kind: "latest" };
const byPrice: ConflictPolicy = { kind: "latest-column", column: "price" };
const order = (...nodes: string[]): ConflictPolicy => ({ kind: "order", nodes });
const custom = (resolve: unknown): ConflictPolicy => ({
  kind: "custom",
  name: "merge.js",
  load: () => Promise.resolve(resolve as ConflictResolver),
});
const winner = async (policy: ConflictPolicy, given: Conflict): Promise<Decision["winner"]> =>
  (await decide(policy, given)).winner;

const pairs: readonly (readonly [Change, Change])[] = [
  ["insert", "insert"],
  ["update", "update"],
  ["update", "delete"],
  ["delete", "update"],
  ["delete", "insert"],
  ["delete", "delete"],
];

describe.each(pairs)("%s against %s", (change, otherChange) => {
  const later = conflict({ change, at: late }, { change: otherChange });
  const earlier = conflict({ change }, { change: otherChange, at: late });

  it.each(["source-wins", "target-wins", "skip", "error"] as const)(
    "%s does not look at it",
    async (kind) => {
      const expected = { "source-wins": "source", "target-wins": "target", skip: "skip", error: "error" }[
        kind
      ];
      for (const each of [later, earlier, mirrored(later)])
        expect(await winner({ kind }, each)).toBe(expected);
    },
  );

  it("latest takes the later change, whichever it is", async () => {
    expect([await winner(latest, later), await winner(latest, earlier)]).toEqual(["source", "target"]);
    expect([await winner(latest, mirrored(later)), await winner(latest, mirrored(earlier))]).toEqual([
      "target",
      "source",
    ]);
  });

  it("latest takes the greater node at the same time, and a known time before an unknown one", async () => {
    const same = conflict({ change }, { change: otherChange });
    expect([await winner(latest, same), await winner(latest, mirrored(same))]).toEqual(["target", "source"]);
    expect(await winner(latest, conflict({ change }, { change: otherChange, at: null }))).toBe("source");
    expect(await winner(latest, conflict({ change, at: null }, { change: otherChange }))).toBe("target");
    // Sides that were found to differ: a row stays rather than none.
    const isRowKept = change !== "delete" && otherChange === "delete";
    expect(await winner(latest, conflict({ change, at: null }, { change: otherChange, at: null }))).toBe(
      isRowKept ? "source" : "target",
    );
  });

  it("order takes the node named first", async () => {
    for (const each of [later, earlier]) {
      expect(await winner(order("c", "a", "b"), each)).toBe("source");
      expect(await winner(order("b", "a"), each)).toBe("target");
      expect(await winner(order("c", "b"), each)).toBe("target");
      expect(await winner(order("a"), each)).toBe("source");
      expect(await winner(order("c", "d"), each)).toBe("error");
    }
  });

  it("custom is asked, and told everything", async () => {
    for (const result of ["source", "target", "skip"] as const) {
      let seen: unknown;
      const resolve = (each: Conflict): string => {
        seen = each;
        return result;
      };
      expect(await decide(custom(resolve), later)).toEqual({ winner: result });
      expect(seen).toEqual(later);
    }
  });

  it("a column is compared where both rows are there, else the times", async () => {
    const cheapButLater = conflict({ change, at: late, price: 1 }, { change: otherChange, price: 2 });
    const isDeleted = change === "delete" || otherChange === "delete";
    expect(await winner(byPrice, cheapButLater)).toBe(isDeleted ? "source" : "target");
    expect(await winner(byPrice, mirrored(cheapButLater))).toBe(isDeleted ? "target" : "source");
  });
});

describe("the latest column", () => {
  it("that is null loses; the greater node wins a draw, whatever the times", async () => {
    expect(await winner(byPrice, conflict({ at: late, price: null }, { price: 1 }))).toBe("target");
    expect(await winner(byPrice, conflict({ price: 1 }, { at: late, price: null }))).toBe("source");
    expect(await winner(byPrice, conflict({ at: late, price: null }, { price: null }))).toBe("target");
    expect(await winner(byPrice, conflict({ at: late, price: 3 }, { price: 3 }))).toBe("target");
  });
});

it("a policy that treats both sides alike decides the same from either side", async () => {
  const times = [null, early, late];
  const prices = [null, 1, 2];
  const policies = [
    latest,
    byPrice,
    order("b", "c"),
    order("a"),
    order("c"),
    { kind: "skip" },
    { kind: "error" },
  ];
  const turned = { source: "target", target: "source" } as const;
  let compared = 0;
  for (const [change, otherChange] of pairs)
    for (const at of times)
      for (const otherAt of times)
        for (const price of prices)
          for (const otherPrice of prices)
            for (const policy of policies as ConflictPolicy[]) {
              const given = conflict(
                { change, at, price },
                { change: otherChange, at: otherAt, price: otherPrice },
              );
              const found = await winner(policy, given);
              const wanted = turned[found as keyof typeof turned] ?? found;
              const message = `${JSON.stringify(policy)} ${JSON.stringify(given)}`;
              expect(await winner(policy, mirrored(given)), message).toBe(wanted);
              compared++;
            }
  expect(compared).toBe(6 * 3 ** 4 * 7);
});

describe("a custom resolver", () => {
  const given = conflict({ price: 3 }, { price: 4, at: late });
  const row = { id: 1, price: 7, name: "both" };

  it("may be asynchronous, and merge", async () => {
    const resolve = async ({ source, target }: Conflict): Promise<unknown> => {
      await Promise.resolve();
      const price = Number(source.image?.["price"]) + Number(target.image?.["price"]);
      return { row: { ...source.image, price, name: "both" } };
    };
    expect(await decide(custom(resolve), given)).toEqual({ winner: "merged", image: row });
  });

  it("may bring a deleted row back", async () => {
    const deleted = conflict({ change: "delete" }, { price: 4 });
    const resolve = ({ target }: Conflict): unknown => ({ row: { ...target.image, price: 7, name: "both" } });
    expect(await decide(custom(resolve), deleted)).toEqual({ winner: "merged", image: row });
  });

  it("cannot change what it is given", async () => {
    const resolve = ({ source }: Conflict): string => {
      (source.image as Record<string, unknown>)["price"] = 0;
      return "source";
    };
    await expect(decide(custom(resolve), given)).rejects.toMatchObject({ code: "CONFLICT_RESOLVER_FAILED" });
    expect(given.source.image?.["price"]).toBe(3);
  });

  it("that throws stops the sync, with the table and the key", async () => {
    const cause = new Error("no price list");
    const resolve = (): never => {
      throw cause;
    };
    const error: unknown = await decide(custom(resolve), given).catch((each: unknown) => each);
    expect(error).toMatchObject({
      code: "CONFLICT_RESOLVER_FAILED",
      exitCode: 3,
      retry: "never",
      message:
        "custom: merge.js: it failed with no price list, for public.t id=1 (update_origin_differs: update on a, update on b)",
      cause,
    });
  });

  it("that never answers stops the sync as well", async () => {
    vi.useFakeTimers();
    try {
      const resolve = async (): Promise<never> => await new Promise(() => undefined);
      const decided = decide(custom(resolve), given).catch((each: unknown) => each);
      await vi.runAllTimersAsync();
      expect(await decided).toMatchObject({
        code: "CONFLICT_RESOLVER_FAILED",
        message: expect.stringMatching(
          /^custom: merge.js: it did not answer within 10 seconds, for public.t id=1 /,
        ) as string,
      });
    } finally {
      vi.useRealTimers();
    }
  });

  it("that answers leaves no timer behind", async () => {
    vi.useFakeTimers();
    try {
      await decide(custom(() => "source"), given); // prettier-ignore
      expect(vi.getTimerCount()).toBe(0);
    } finally {
      vi.useRealTimers();
    }
  });

  it.each<[unknown, RegExp]>([
    [undefined, /neither "source", "target", "skip" nor/],
    ["merged", /neither/],
    [{ winner: "source" }, /neither/],
    [{ row, winner: "source" }, /neither/],
    [{ row: null }, /neither/],
    [{ row: [row] }, /neither/],
    [{ row: { ...row, colour: "red" } }, /a row with a column colour/],
    [{ row: { id: 1, price: 7 } }, /a row without the column name/],
    [{ row: { ...row, name: undefined } }, /a row without the column name/],
    [{ row: { ...row, id: 2 } }, /a row with another key in id/],
    [{ row: { ...row, id: "1" } }, /a row with another key in id/],
  ])("may not return %j", async (result, message) => {
    await expect(
      decide(
        custom(() => result),
        given,
      ),
    ).rejects.toThrow(message);
  });

  it("may merge with a null, but not two rows that want the same value", async () => {
    expect(
      await winner(
        custom(() => ({ row: { ...row, name: null } })),
        given,
      ),
    ).toBe("merged");
    const unique = {
      ...conflict({}, {}, "multiple_unique_conflicts"),
      constraint: "t_name_key",
      otherKey: { id: 2 },
    };
    await expect(
      decide(
        custom(() => ({ row })),
        unique,
      ),
    ).rejects.toThrow(/one of them has to go, for public.t id=1 \(multiple_unique_conflicts by t_name_key: /);
  });
});

it("the error of a conflict names table, key, kind and both nodes", () => {
  const error = conflictError({ kind: "error" }, conflict({}, { change: "delete" }, "update_missing"));
  expect(error).toBeInstanceOf(ReplicateError);
  expect(error).toMatchObject({
    code: "CONFLICT",
    exitCode: 1,
    message: "changed on both sides: public.t id=1 (update_missing: update on a, delete on b)",
  });
  const unnamed = conflictError({ kind: "order", nodes: ["c"] }, conflict({}, {}));
  expect(unnamed.message).toMatch(/; order: c names neither$/);
});
