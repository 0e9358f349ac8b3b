import { expect, test } from "vitest";
import { columnPlan } from "../../../src/catalog/columns.ts";
import type { Column, Table } from "../../../src/catalog/table.ts";

const oids: Record<string, number> = {
  integer: 23, bigint: 20, smallint: 21, text: 25, "character varying": 1043, numeric: 1700, bpchar: 1042, uuid: 2950,
  "integer[]": 1007, "bigint[]": 1016, interval: 1186, regclass: 2205, money: 790, tsvector: 3614, json: 114, jsonb: 3802,
  "timestamp with time zone": 1184, "timestamp without time zone": 1114, real: 700, "double precision": 701, "text[]": 1009,
}; // prettier-ignore

function column(name: string, type: string, more: Partial<Column> = {}): Column {
  const baseType = more.baseType ?? type.replace(/\(.*?\)/, "").replace("varchar", "character varying");
  const baseOid = oids[baseType] ?? 16_400;
  return {
    attnum: 1, name, type, baseType, plainType: type.replace("varchar", "character varying"), baseOid, typeOid: baseOid, baseKind: "b", isBuiltin: baseOid < 16_384, isDomain: false, notNull: false,
    hasDefault: false, default: null, identity: "", generated: "", collation: null, ...more,
  }; // prettier-ignore
}

function table(...columns: Column[]): Table {
  return {
    oid: 1, schema: "public", name: "t", kind: "r", owner: "o", isOwned: true, file: "1", isPartition: false, partitionKey: null, hasOids: false, byteForm: "octal", persistence: "p",
    rowSecurity: false, rowSecurityActive: false, estimatedRows: 0, heapBytes: 0, toastBytes: 0, columns, key: null,
    leaves: [], comment: null, hasRules: false, isReferenced: false,
    searchPath: "public",
  }; // prettier-ignore
}

const plan = (source: Column, target: Column): ReturnType<typeof columnPlan> =>
  columnPlan(table(source), table(target));

test.each([
  ["integer", "integer"], ["text", "text"], ["numeric(10,2)", "numeric(10,2)"], ["integer[]", "integer[]"],
  ["character varying(20)", "character varying(20)"], ["character varying(20)", "character varying(30)"],
])("binary: %s to %s", (from, to) => {
  expect(plan(column("a", from), column("a", to))).toMatchObject({ binary: true, problems: [] });
}); // prettier-ignore

test.each([
  ["integer", "bigint"], ["smallint", "numeric"], ["character varying(20)", "text"], ["uuid", "text"],
  ["integer[]", "bigint[]"], ["interval", "interval"], ["regclass", "regclass"], ["money", "money"], ["tsvector", "tsvector"],
  ["real", "double precision"], ["jsonb", "json"], ["integer[]", "text"],
])("text: %s to %s", (from, to) => {
  expect(plan(column("a", from), column("a", to))).toMatchObject({ binary: false, problems: [] });
}); // prettier-ignore

test.each([
  ["bigint", "integer"], ["text", "integer"], ["text", "character varying(10)"], ["character varying(20)", "character varying(10)"],
  ["numeric(10,4)", "numeric(10,2)"], ["numeric", "numeric(10,2)"], ["numeric(10,2)", "numeric(20,4)"],
  ["timestamp with time zone", "timestamp without time zone"], ["timestamp with time zone", "timestamp(3) with time zone"],
  ["integer[]", "integer"], ["integer", "numeric(10,2)"], ["json", "jsonb"],
])("refused: %s to %s", (from, to) => {
  const { problems } = plan(column("a", from), column("a", to));
  expect(problems).toHaveLength(1);
  expect(problems[0]?.remedy).toBe(`alter table "public"."t" alter column "a" type ${from} using "a"::${from};`);
}); // prettier-ignore

test("enums travel as labels: binary under the same name, text into text, never inside arrays", () => {
  const mood = (schema: string): Column => column("a", `${schema}.mood`, { baseKind: "e" });
  expect(plan(mood("public"), mood("other"))).toMatchObject({ binary: true, problems: [] });
  expect(plan(mood("public"), column("a", "text"))).toMatchObject({ binary: false, problems: [] });
  const moods = column("a", "public.mood[]");
  expect(plan(moods, moods)).toMatchObject({ binary: false, problems: [] });
  expect(plan(mood("public"), column("a", "public.other", { baseKind: "e" })).problems).toHaveLength(1);
});

test("domains count as their base type; types of extensions go as text, whatever their schema", () => {
  const domain = column("a", "public.positive", { baseType: "integer", isDomain: true });
  expect(plan(domain, domain)).toMatchObject({ binary: true, problems: [] });
  expect(plan(column("a", "public.citext"), column("a", "ext.citext"))).toMatchObject({
    binary: false,
    problems: [],
  });
  expect(plan(column("a", "text"), column("a", "ext.citext"))).toMatchObject({ binary: false, problems: [] });
  expect(plan(column("a", "public.citext"), column("a", "public.hstore")).problems).toHaveLength(1);
});

test.each([
  // A check is a matter of rows; less room cuts trailing spaces, and rounds, without a word.
  ["text", "text", true], ["numeric", "numeric", true], ["character varying(5)", "character varying(9)", true], ["character varying(5)", "text", true],
  ["text", "character varying(5)", false], ["numeric", "numeric(4)", false], ["numeric(10,2)", "numeric(10,1)", false],
  ["timestamp without time zone", "timestamp(2) without time zone", false], ["integer", "smallint", false],
])("%s to a domain over %s", (from, to, isTaken) => {
  const over = to.replace(/\(.*?\)/, "");
  const domain = column("a", "public.d", { baseType: over, baseOid: oids[over] ?? 9000, isBuiltin: true, plainType: to, isDomain: true });
  expect(plan(column("a", from), domain).problems).toHaveLength(isTaken ? 0 : 1);
}); // prettier-ignore

test("pairs by name, in the source's order, and leaves generated columns out", () => {
  const source = table(
    column("a", "integer"),
    column("g", "integer", { generated: "s" }),
    column("b", "text"),
  );
  const target = table(
    column("b", "text"),
    column("g", "integer", { generated: "v" }),
    column("a", "integer"),
    column("extra", "text"),
    column("stamp", "text", { notNull: true, hasDefault: true }),
  );
  const { columns, problems, binary } = columnPlan(source, target);
  expect(columns.map((pair) => [pair.source.name, pair.target.name])).toEqual([["a", "a"], ["b", "b"]]); // prettier-ignore
  expect(problems).toEqual([]);
  expect(binary).toBe(true);
});

test("says what is missing, with the statement that adds it", () => {
  const { problems } = columnPlan(
    table(column("a", "integer"), column('we"ird', "character varying(20)")),
    table(column("a", "integer"), column("must", "text", { notNull: true })),
  );
  expect(problems).toEqual([
    {
      subject: "public.t",
      message: 'column "we""ird" is missing on the target',
      remedy: 'alter table "public"."t" add column "we""ird" character varying(20);',
    },
    {
      subject: "public.t",
      message: 'column "must" exists on the target alone, is NOT NULL and has no default',
      remedy: 'alter table "public"."t" alter column "must" drop not null;',
    },
  ]);
});

test("a column generated on one side only is refused", () => {
  const plain = column("g", "integer");
  const stored = column("g", "integer", { generated: "s", default: "(a * 2)" });
  expect(plan(plain, stored).problems[0]?.remedy).toContain("drop expression");
  expect(plan(stored, plain).problems[0]?.remedy).toContain("generated always as ((a * 2)) stored");
});

test("tables without columns fit each other", () => {
  expect(columnPlan(table(), table())).toEqual({ columns: [], binary: false, problems: [], unfit: [] });
});

test("a mapping's columns go where it says, and are left out, computed and constant", () => {
  const mapped = (name: string, type: string, to: string | null, as: string | null = null): Column =>
    column(name, type, { mapped: { to, as } });
  const source = table(
    column("id", "integer"), mapped("name", "text", "full_name"), mapped("flag", "boolean", null),
    mapped("email", "text", "email", "md5(email)"), column("shop", "text", { mapped: { to: "shop", as: "'7'", isConstant: true } }),
  ); // prettier-ignore
  const target = table(
    column("id", "integer"), column("full_name", "text"), column("email", "character varying(40)"), column("shop", "integer"),
    column("flag", "boolean"),
  ); // prettier-ignore
  const { columns, problems } = columnPlan(source, target);
  expect(problems).toEqual([]);
  expect(columns.map((pair) => [pair.source.name, pair.target.name])).toEqual([
    ["id", "id"], ["name", "full_name"], ["email", "email"], ["shop", "shop"],
  ]); // prettier-ignore
});

test("what a mapping cannot mean is a problem each", () => {
  const source = table(
    column("a", "integer", { mapped: { to: "b", as: null } }), column("b", "integer"),
    column("c", "integer", { mapped: { to: "c", as: "c + 0.5" } }), column("d", "integer", { mapped: { to: null, as: null } }),
  ); // prettier-ignore
  const target = table(
    column("b", "integer"),
    column("c", "uuid"),
    column("d", "integer", { notNull: true }),
  );
  const { problems } = columnPlan(
    { ...source, mappingProblems: [{ subject: "public.t", message: "first" }] },
    target,
  );
  expect(problems.map(({ message }) => message)).toEqual([
    "first",
    'two columns of the source go to column "b"',
    'c + 0.5 is integer, and column "c" uuid on the target: the types do not match',
    'column "d" gets no value from the source, is NOT NULL and has no default',
  ]);
});
