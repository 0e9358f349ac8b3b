import { describe, expect, test } from "vitest";

import { keyColumnsSql, keyMatchesSql, keyParametersSql } from "../../../src/verify/key-sql.ts";
import { everything, rangeConditions, rangesBetween, thinOut } from "../../../src/verify/ranges.ts";
import type { TypeParts } from "../../../src/catalog/types.ts";
import { unstableTypes, ValueForms } from "../../../src/verify/value-form.ts";

describe("ranges", () => {
  test("lie side by side and are open at both ends", () => {
    expect(rangesBetween([])).toEqual([everything]);
    expect(rangesBetween(["5", "9"])).toEqual([
      { low: null, high: "5" },
      { low: "5", high: "9" },
      { low: "9", high: null },
    ]);
    expect(rangeConditions({ low: "5", high: "9" }, "t.id", "bigint")).toEqual([
      "t.id operator(pg_catalog.>=) '5'::bigint",
      "t.id operator(pg_catalog.<) '9'::bigint",
    ]);
    expect(rangeConditions(everything, "t.id", "bigint")).toEqual([]);
  });

  test("are thinned out evenly", () => {
    const bounds = Array.from({ length: 99 }, (_, index) => String(index + 1));
    expect(thinOut(bounds, 3)).toEqual(["25", "50", "75"]);
    expect(thinOut(["a", "b"], 3)).toEqual(["a", "b"]);
    expect(thinOut(["a", "b", "c", "d"], 3)).toHaveLength(3);
  });
});

test("keys as SQL", () => {
  const key = [
    { value: 't."id"', type: "integer", collation: null, equals: "operator(pg_catalog.=)" },
    { value: 't."a b"', type: "text", collation: 'public."C x"', equals: "operator(public.=)" },
  ];
  expect(keyColumnsSql(key, "s")).toBe('s1 integer, s2 text collate public."C x"');
  expect(keyMatchesSql(key, (n, { type }) => `x.k${n}::${type}`)).toBe(
    't."id" operator(pg_catalog.=) x.k1::integer and t."a b" operator(public.=) x.k2::text',
  );
  expect(keyParametersSql(key)).toBe(
    "rows from (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) with ordinality as x (k1, k2, n)",
  );
});

describe("value forms", () => {
  const none = {
    element: 0, base: 0, limited: null, subtype: 0, range: null, ranges: 0, attributes: [], labels: [], kind: "b", isBuiltin: true,
    isOfTable: false, extension: null,
  }; // prettier-ignore
  const types = new Map<number, TypeParts>(
    [
      { ...none, oid: 701, name: "double precision" },
      { ...none, oid: 25, name: "text" },
      { ...none, oid: 1022, name: "double precision[]", element: 701 },
      { ...none, oid: 1009, name: "text[]", element: 25 },
      { ...none, oid: 18, name: '"char"' },
      { ...none, oid: 20_000, name: "public.weight", kind: "d", base: 701 },
      {
        ...none,
        oid: 20_001,
        name: "public.place",
        kind: "c",
        attributes: [
          { name: "name", type: 25, limited: "text" },
          { name: "We ight", type: 20_000, limited: "public.weight" },
        ],
      },
      { ...none, oid: 20_002, name: "public.place[]", element: 20_001 },
    ].map((type) => [type.oid, type]),
  );

  test("are the values themselves between versions that write alike", () => {
    expect(unstableTypes(130_000, 180_000)).toEqual({ '"char"': "charsend" });
    expect(unstableTypes(120_000, 150_000)).toEqual({ '"char"': "charsend" });
    expect(Object.keys(unstableTypes(100_000, 110_000))).toEqual(['"char"']);
    expect(Object.keys(unstableTypes(110_000, 120_000))).toContain("double precision");
    const forms = new ValueForms(types, {});
    for (const oid of types.keys()) expect(forms.write('t."x"', oid)).toBe('t."x"');
  });

  test("reach floats wherever they hide", () => {
    const forms = new ValueForms(types, unstableTypes(100_000, 180_000));
    expect(forms.write("x", 25)).toBe("x");
    expect(forms.write("x", 1009)).toBe("x");
    expect(forms.write("x", 18)).toBe("pg_catalog.charsend(x)");
    for (const oid of [701, 1022, 20_000, 20_001, 20_002]) {
      expect(forms.isUnstable(oid)).toBe(true);
      expect(forms.write("x", oid)).toMatch(/float8send|array_send/);
    }
    expect(forms.write("x", 20_001)).toContain('(x)."We ight"');
  });
});
