import { describe, expect, it, test } from "vitest";

import {
  isSelected,
  isSystemSchema,
  parsePattern,
  parseTableName,
  patternMatches,
  selectTables,
  type TableSelection,
} from "../../../src/catalog/patterns.ts";

describe("patternMatches", () => {
  it.each([
    ["public.*", "public", "users", true],
    ["public.*", "publica", "users", false],
    ["*.audit_*", "any where", "audit_", true],
    ["*.audit_*", "x", "my_audit_log", false],
    ["*.*", "a.b", 'c"d', true],
    ["users", "public", "users", true],
    ["users", "other", "users", false],
    ["*", "public", "Any", true],
    ["*", "other", "any", false],
    ["Public.USERS", "public", "users", true],
    ["public.Users", "public", "Users", false],
    ['public."Users"', "public", "Users", true],
    ['public."Users"', "public", "users", false],
    ['"My Schema"."a.b"', "My Schema", "a.b", true],
    ['public."*"', "public", "*", true],
    ['public."*"', "public", "x", false],
    ['public."a"*', "public", "ab", true],
    ['public."A"b?', "public", "Abc", true],
    ['public."say ""hi"""', "public", 'say "hi"', true],
    ["public.user?", "public", "users", true],
    ["public.user?", "public", "user", false],
    ["public.??", "public", "äß", true],
    ["public.?", "public", "😀", true],
    ["public.a.b", "x", "y", undefined],
    ["public.t(1)+[x]", "public", "t(1)+[x]", true],
    ["public.t^$|\\{}", "public", "t^$|\\{}", true],
    ["public.ÄB", "public", "Äb", true],
    ["public.a-b", "public", "a-b", true],
    ['"a\nb"."c\nd"', "a\nb", "c\nd", true],
    ["*.t", "a\nb", "t", true],
    [" public.users ", "public", "users", true],
  ])("%s and %s.%s: %s", (pattern, schema, name, expected) => {
    if (expected === undefined)
      expect(() => patternMatches(pattern, schema, name)).toThrow("more than one dot");
    else expect(patternMatches(pattern, schema, name)).toBe(expected);
  });
});

it.each([
  ["", /part of the name is empty/],
  ["public.", /part of the name is empty/],
  [".users", /part of the name is empty/],
  ['public.""', /part of the name is empty/],
  ["a.b.c", /more than one dot/],
  ['public."Users', /quote is not closed/],
  ["public.my table", /name with spaces is not in double quotes/],
])("refuses %j", (text, message) => {
  expect(() => parsePattern(text)).toThrow(message);
  expect(() => parsePattern(text)).toThrow(expect.objectContaining({ code: "CONFIG_INVALID", exitCode: 2 }));
});

it("tells names from patterns", () => {
  expect(parsePattern('App."Users"').table).toEqual({ schema: "app", name: "Users" });
  expect(parsePattern("app.*").table).toBeNull();
  expect(parseTableName('"*"."?"')).toEqual({ schema: "*", name: "?" });
  expect(() => parseTableName("app.user?")).toThrow(/one table/);
});

describe("selectTables", () => {
  const all = [
    { schema: "app", name: "Users", oid: 1 },
    { schema: "app", name: "audit_log", oid: 2 },
    { schema: "information_schema", name: "sql_parts", oid: 3 },
    { schema: "pg_catalog", name: "pg_class", oid: 4 },
    { schema: "public", name: "users", oid: 5 },
    { schema: "replicate", name: "sync", oid: 6 },
    { schema: "pga", name: "t", oid: 7 },
  ];
  const select = (tables: string[], exclude: string[] = []) => {
    const { selected, ...rest } = selectTables(all, tables, exclude);
    return { oids: selected.map(({ oid }) => oid), ...rest };
  };

  it("selects all but system schemas", () => {
    expect(select([])).toEqual({ oids: [1, 2, 5, 7], unmatchedPatterns: [], unmatchedExcludes: [] });
    expect(select(["*.*"]).oids).toEqual([1, 2, 5, 7]);
  });

  it("keeps the order given, and each table once", () => {
    expect(select(["users", "app.*", 'app."Users"']).oids).toEqual([1, 2, 5]);
  });

  it("takes the excluded ones away and says which patterns fit nothing", () => {
    expect(select(["app.*", "app.users", "pg_catalog.pg_class"], ["*.audit_*", "*.adit_*"])).toEqual({
      oids: [1],
      unmatchedPatterns: ["app.users", "pg_catalog.pg_class"],
      unmatchedExcludes: ["*.adit_*"],
    });
  });

  it("knows the schemas of the server", () => {
    expect(["pg_toast", "pg_temp_3", "information_schema", "replicate"].every(isSystemSchema)).toBe(true);
    expect(["public", "pga", "Replicate"].some(isSystemSchema)).toBe(false);
  });
});

describe("what several inits were told", () => {
  const sales = { tables: ["sales.*"], exclude: [] };
  const all = { tables: [], exclude: [] };
  const without = { tables: ["sales.*"], exclude: ["sales.tmp"] };
  const cases: readonly (readonly [string, readonly TableSelection[], readonly string[], string, boolean])[] =
    [
      ["nothing", [], [], "sales.orders", false],
      ["patterns that fit", [sales], [], "sales.orders", true],
      ["patterns that do not fit", [sales], [], "hr.people", false],
      ["no patterns: every table", [all], [], "hr.people", true],
      ["an earlier init still counts", [sales, { tables: ["hr.*"], exclude: [] }], [], "sales.orders", true],
      ["the last word: left out", [sales, without], [], "sales.tmp", false],
      ["the last word: taken in", [without, { tables: ["sales.tmp"], exclude: [] }], [], "sales.tmp", true],
      ["left out by the settings at hand", [all], ["hr.*"], "hr.people", false],
      ["names with capitals", [{ tables: ['public."Users"'], exclude: [] }], [], "public.Users", true],
      ["names with capitals, folded", [{ tables: ["public.Users"], exclude: [] }], [], "public.Users", false],
    ];
  for (const [what, selections, exclude, table, expected] of cases)
    test(`${what}: ${table} is ${expected ? "meant" : "not meant"}`, () => {
      const [schema = "", name = ""] = table.split(".");
      expect(isSelected({ schema, name }, selections, exclude)).toBe(expected);
    });
});
