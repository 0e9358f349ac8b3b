import { describe, expect, it } from "vitest";

import { parsePattern } from "../../../src/catalog/patterns.ts";
import { compareWidth, tableSettings } from "../../../src/config/overrides.ts";
import { resolveConfig, type SyncOptions } from "../../../src/config/options.ts";
import { policyLabel, policyOf } from "../../../src/config/conflict-policy.ts";
import type { ReplicateError } from "../../../src/errors.ts";
import { mappingOf, targetName } from "../../../src/config/mapping.ts";
import { parks } from "../../../src/parked/policy.ts";
import { isTransformed } from "../../../src/transform/transform-rows.ts";

function settings(overrides: NonNullable<SyncOptions["overrides"]>) {
  return resolveConfig({ source: "host=s dbname=a", target: "host=t dbname=a", overrides }, {});
}

const users = { schema: "public", name: "users" };

/** Every key of an override, with the value of a wide pattern, and that of a narrow one. */
const keys = {
  where: ["x = 1", "x = 2"],
  capture: ["row", "statement"],
  skipNoop: [true, false],
  keyless: ["refuse", "reload"],
  conflict: ["skip", "latest"],
  onRefusal: ["stop", "park"],
  schemaChanges: ["apply", "stop"],
  transform: [true, false],
} as const;

describe("settings of a table", () => {
  it.each([
    ["public.*", "public.users"],
    ["public.*", "users"],
    ["*.*", "public.*"],
    ["*.*", "*.users"],
    ["public.*", "*.users"],
    ["public.u*", "public.us*"],
    ["public.u*", "public.u????"],
    ["public.*s", "public.*users"],
    ["p*.users", "public.users"],
    ["public.user?", "public.users"],
    ["public.?*", "public.?????"],
    ["*.user*", "p*.user*"],
  ])("%s is wider than %s, in whatever order they are written", (wide, narrow) => {
    expect(compareWidth(parsePattern(narrow), parsePattern(wide))).toBeLessThan(0);
    expect(compareWidth(parsePattern(wide), parsePattern(narrow))).toBeGreaterThan(0);
    for (const [key, [one, other]] of Object.entries(keys)) {
      const both = [
        [wide, { [key]: one }],
        [narrow, { [key]: other }],
      ] as const;
      for (const order of [both, both.toReversed()]) {
        const config = Object.fromEntries(order);
        expect(tableSettings(users, { overrides: config }), key).toEqual({ [key]: other });
      }
    }
  });

  it("are merged key by key, whichever override is first and has other keys", () => {
    const parts = [
      ["*.*", { keyless: "reload" }],
      ["public.*", { capture: "statement", onRefusal: "park" }],
      ["*.us*", { skipNoop: true, onRefusal: "stop" }],
      [
        "public.users",
        { where: "deleted_at is null", columns: { email: "md5(email)" }, target: "app.people" },
      ],
    ] as const;
    for (const order of [parts, parts.toReversed()]) {
      const config = settings(Object.fromEntries(order) as SyncOptions["overrides"] & object);
      expect(tableSettings(users, config)).toEqual({
        keyless: "reload",
        capture: "statement",
        skipNoop: true,
        onRefusal: "stop",
        where: "deleted_at is null",
        columns: { email: "md5(email)" },
        target: "app.people",
      });
      expect(mappingOf(users, config)).toMatchObject({ where: "deleted_at is null" });
      expect(targetName(users, config)).toEqual({ schema: "app", name: "people" });
    }
  });

  it("are asked for in one way by everybody", () => {
    const parts = [
      ["public.*", { conflict: "latest", onRefusal: "park", transform: true }],
      ["public.users", { conflict: "source-wins", onRefusal: "stop", transform: false }],
    ] as const;
    for (const order of [parts, parts.toReversed()]) {
      const { overrides } = { overrides: Object.fromEntries(order) };
      const config = {
        overrides: resolved(overrides),
        conflict: { kind: "skip" },
        onRefusal: "stop",
      } as const;
      const table = (name: string) => ({ capture: { keyColumns: [1] }, source: { schema: "public", name } });
      expect(policyLabel(policyOf(config, "public", "users"))).toBe("source-wins");
      expect(policyLabel(policyOf(config, "public", "orders"))).toBe("latest");
      expect([parks(config, {}, table("users")), parks(config, {}, table("orders"))]).toEqual([false, true]);
      expect(isTransformed(config, "public", "users")).toBe(false);
      expect(isTransformed(config, "public", "orders")).toBe(true);
    }
    function resolved(
      overrides: Record<string, { conflict: string; onRefusal: string; transform: boolean }>,
    ) {
      return Object.fromEntries(
        Object.entries(overrides).map(([key, { conflict, ...rest }]) => [
          key,
          { ...rest, conflict: { kind: conflict } },
        ]),
      ) as never;
    }
  });

  it("merge columns and discriminators name by name, so that no mask is lost", () => {
    const config = settings({
      "public.users": { columns: { flag: null }, discriminator: { shop: 7 } },
      "public.*": { columns: { email: "md5(email)", flag: "true" }, discriminator: { shop: 1, part: "a" } },
    });
    expect(mappingOf(users, config)).toEqual({
      where: null,
      columns: { email: { to: "email", as: "md5(email)" }, flag: { to: null, as: null } },
      discriminator: { part: "a", shop: "7" },
    });
  });

  it.each(Object.entries(keys))("take %s back with null", (key, [wide]) => {
    const overrides = { "*.*": { [key]: wide }, "public.users": { [key]: null } };
    expect(tableSettings(users, settings(overrides))).toEqual({});
  });

  it("take a target, columns and a discriminator back with null", () => {
    const config = settings({
      "public.*": { columns: { email: null }, discriminator: { shop: 1 } },
      "public.users": { columns: null, discriminator: null, target: null },
    });
    expect(mappingOf(users, config)).toBeNull();
    expect(targetName(users, config)).toEqual(users);
  });

  it("are those of the first where neither is narrower", () => {
    const one = { "public.us*": { capture: "row" }, "public.*rs": { capture: "statement" } } as const;
    expect(tableSettings(users, settings(one))).toEqual({ capture: "row" });
  });

  it("may not be given twice for the same tables", () => {
    const twice = { users: { capture: "row" }, "public.USERS": { skipNoop: true } } as const;
    expect(() => settings(twice)).toThrow(
      expect.objectContaining({
        code: "CONFIG_INVALID",
        problems: [
          {
            subject: "overrides.public.USERS",
            message: "means the same tables as users: put both into one",
          },
        ],
      }) as ReplicateError,
    );
  });
});

describe("width", () => {
  // Inclusion of two patterns is found here by trying all short names.
  const words = ["", "a", "b", "aa", "ab", "ba", "bb", "aab", "aba", "bab", "abab", "aaaa", "baab", "abba"];
  const patterns = [
    "a",
    "ab",
    "*",
    "?",
    "??",
    "a*",
    "*a",
    "*a*",
    "?*",
    "a?",
    "?b",
    "a*b",
    "*b*a*",
    "ab*",
    "a?*",
    "**",
    "?*?",
  ];
  const fits = (pattern: string): string[] =>
    words.filter((word) => parsePattern(`x.${pattern}`).name.test(word));

  it("never prefers what fits more", () => {
    let compared = 0;
    for (const one of patterns) {
      for (const other of patterns) {
        const [few, many] = [fits(one), fits(other)];
        if (few.length >= many.length || !few.every((word) => many.includes(word))) continue;
        // The short words do not tell ?* from ??* and the like, which is why only those that they tell are compared.
        const compare = compareWidth(parsePattern(`x.${one}`), parsePattern(`x.${other}`));
        expect(compare, `${one} is in ${other}`).toBeLessThan(0);
        compared += 1;
      }
    }
    expect(compared).toBeGreaterThan(40);
  });
});
