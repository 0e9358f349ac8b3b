import { describe, expect, it } from "vitest";

import { isReversible, reversed, targetColumn } from "../../../src/catalog/mapping.ts";
import { ownRowsSql, rowsSql } from "../../../src/catalog/rows.ts";
import type { Column, Table } from "../../../src/catalog/table.ts";
import { resolveConfig, type ResolvedConfig, type SyncOptions } from "../../../src/config/options.ts";
import { differ, isSameMapping, mappingOf, targetName } from "../../../src/config/mapping.ts";
import { remapped, remappingProblem, wantedMapping, type LedgerTable } from "../../../src/state/remapping.ts";

function settings(more: Partial<SyncOptions>): ResolvedConfig {
  return resolveConfig({ source: "postgresql://a@b/c", target: "postgresql://d@e/f", ...more }, {});
}

const users = { schema: "public", name: "users" };

describe("settings", () => {
  it("take every form of a column", () => {
    const config = settings({
      schemas: { public: "app" },
      overrides: {
        "public.users": {
          where: "deleted_at is null",
          columns: {
            name: { to: "full_name" },
            flag: null,
            email: "md5(email)",
            born: { to: "year", as: "1" },
            age: { as: "2" },
          },
          discriminator: { shop: 7, open: true },
        },
        "sales.orders": { target: 'public."Orders"' },
      },
    } as Partial<SyncOptions>);
    expect(mappingOf(users, config)).toEqual({
      where: "deleted_at is null",
      columns: {
        age: { to: "age", as: "2" },
        born: { to: "year", as: "1" },
        email: { to: "email", as: "md5(email)" },
        flag: { to: null, as: null },
        name: { to: "full_name", as: null },
      },
      discriminator: { open: "true", shop: "7" },
    });
    expect(mappingOf({ schema: "public", name: "other" }, config)).toBeNull();
    expect(targetName(users, config)).toEqual({ schema: "app", name: "users" });
    expect(targetName({ schema: "sales", name: "orders" }, config)).toEqual({
      schema: "public",
      name: "Orders",
    });
    expect(targetName({ schema: "x", name: "y" }, config)).toEqual({ schema: "x", name: "y" });
  });
});

describe("mappings", () => {
  const names = { where: null, columns: { a: { to: "b", as: null } }, discriminator: {} };
  it("can be undone where names alone change", () => {
    expect(isReversible(null)).toBe(true);
    expect(isReversible(names)).toBe(true);
    expect(reversed(names)).toEqual({
      where: null,
      columns: { b: { to: "a", as: null } },
      discriminator: {},
    });
    expect(isReversible({ ...names, where: "true" })).toBe(false);
    expect(isReversible({ ...names, discriminator: { x: "1" } })).toBe(false);
    expect(isReversible({ ...names, columns: { a: { to: null, as: null } } })).toBe(false);
    expect(isReversible({ ...names, columns: { a: { to: "a", as: "1" } } })).toBe(false);
    expect([targetColumn(names, "a"), targetColumn(names, "c"), targetColumn(null, "a")]).toEqual([
      "b",
      "c",
      "a",
    ]);
  });

  it("are the same in any order of columns", () => {
    const a = { to: "x", as: null };
    const b = { to: null, as: null };
    const one = { where: null, columns: { a, b }, discriminator: {} };
    expect(isSameMapping(one, { columns: { b, a }, discriminator: {}, where: null })).toBe(true);
    expect(isSameMapping(one, { ...one, where: "x" })).toBe(false);
    expect(isSameMapping(one, null)).toBe(false);
    expect(isSameMapping(null, null)).toBe(true);
  });

  it("tell rows apart by a value that differs in the same column", () => {
    expect(differ({ a: 1 }, { a: 2 })).toBe(true);
    expect(differ({ a: 1 }, { a: "1" })).toBe(false);
    expect(differ({ a: 1 }, { b: 2 })).toBe(false);
    expect(differ(undefined, { a: 1 })).toBe(false);
  });
});

describe("a mapping that is remembered", () => {
  const entry = (more: Partial<LedgerTable>): LedgerTable => ({
    sourceSchema: "public",
    sourceName: "users",
    targetSchema: "public",
    targetName: "users",
    state: "following",
    mapping: { where: "a", columns: {}, discriminator: {} },
    ...more,
  });
  const where = (condition: string): ResolvedConfig =>
    settings({ overrides: { "public.users": { where: condition } } });

  it("holds where the settings say the same, or nothing", () => {
    expect(remappingProblem(where("a"), entry({}))).toBeUndefined();
    expect(remappingProblem(settings({}), entry({}))).toBeUndefined();
    expect(wantedMapping(settings({}), entry({}))).toEqual(entry({}).mapping);
  });

  it("is named where they say another, with what to do", () => {
    expect(remappingProblem(where("b"), entry({}))?.remedy).toMatch(/^replicate copy --remap/);
    expect(remappingProblem(where("b"), entry({ state: "new" }))?.remedy).toMatch(/^replicate init/);
    expect(remappingProblem(where("a"), entry({ targetName: "people" }))?.remedy).toMatch(/^replicate drop/);
    const shared = settings({ overrides: { "public.users": { where: "a", discriminator: { x: 1 } } } });
    expect(remappingProblem(shared, entry({}))?.message).toContain("another discriminator");
    expect(
      remapped(where("b"), [entry({}), entry({ mapping: { where: "b", columns: {}, discriminator: {} } })]),
    ).toHaveLength(1);
    expect(() => remapped(shared, [entry({})])).toThrow(expect.objectContaining({ code: "CONFIG_INVALID" }));
    expect(() => remapped(where("b"), [entry({ state: "new" })])).toThrow(
      expect.objectContaining({ code: "CONFIG_INVALID" }),
    );
  });
});

describe("rows", () => {
  const column = (name: string, more: Partial<Column> = {}): Column => ({ name, ...more }) as Column;
  const table = (more: Partial<Table>): Table =>
    ({ schema: "app", name: "t", kind: "r", columns: [column("id"), column("v")], ...more }) as Table;

  it("are read as they are where nothing is computed, filtered or shared", () => {
    const named = table({
      columns: [
        column("id", { mapped: { to: "nr", as: null } }),
        column("v", { mapped: { to: null, as: null } }),
      ],
    });
    for (const each of [table({}), named]) expect(rowsSql(each)).toBe('only "app"."t"');
    expect(rowsSql(table({ kind: "p" }))).toBe('"app"."t"');
    expect(rowsSql(table({}), { schema: "app", name: "leaf" })).toBe('only "app"."leaf"');
    expect(ownRowsSql(table({}))).toBe('only "app"."t" as t');
  });

  it("are read through expressions that may end in comments", () => {
    const mapped = table({
      columns: [column("id"), column("v", { mapped: { to: "w", as: "upper(v) -- loud" } })],
      where: "id > 1",
    });
    expect(rowsSql(mapped)).toBe(
      '(select "t".tableoid, "t".ctid, "t"."id", (upper(v) -- loud\n) as "v" from only "app"."t" as "t" where (id > 1\n))',
    );
  });

  it("are one's own by their values", () => {
    const shared = table({ own: [{ column: "v", value: "it's", type: "text" }] });
    expect(ownRowsSql(shared)).toBe(`only "app"."t" as t where t."v" operator(pg_catalog.=) 'it''s'::text`);
    expect(rowsSql(shared)).toContain(`where "t"."v" operator(pg_catalog.=) 'it''s'::text)`);
  });
});
