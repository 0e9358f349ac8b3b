import { expect, test } from "vitest";

import { relayCopy } from "../../../src/postgres/copy-relay.ts";
import { compareDatabases } from "../../support/compare.ts";
import { freePair, type Pair } from "../../support/database.ts";
import { startVerifiedSync, type VerifiedSync } from "../../support/verified-sync.ts";

interface Zoo {
  type: string;
  /** Literals; the last one is what all of them become when the column is spoiled. */
  values: string[];
  since?: number;
}

const floats = ["0", "-0", "1", "0.1", "1e-300", "3.14159265358979", "0.1::float8 + 0.2::float8", "'NaN'", "'infinity'::float8 - 'infinity'::float8", "'infinity'", "'-infinity'", "42"]; // prettier-ignore

const zoo: Zoo[] = [
  { type: "smallint", values: ["-32768", "32767", "0"] },
  { type: "bigint", values: ["-9223372036854775808", "9223372036854775807", "0"] },
  { type: "numeric", values: ["1.0", "1.00", "0", "'NaN'", "1e200", "-1e-200", "7"] },
  { type: "numeric(12,4)", values: ["1.5", "0", "7"] },
  { type: "real", values: ["0", "'-0'", "0.1", "1e-30", "16777217", "3.4028235e38", "'NaN'", "7"] },
  { type: "double precision", values: floats },
  { type: "double precision[]", values: [...floats.map((each) => `array[${each}, null, 0.1]`), "'{}'", "'[0:1]={1,2}'", "'{{1,2},{3,0.7}}'", "'{7}'"] }, // prettier-ignore
  { type: "real[]", values: ["'{0.1,NULL,1e-30}'", "'{NaN,0.1}'", "'{7}'"] },
  { type: "money", values: ["1234567.89", "-0.01", "7"] },
  { type: "boolean", values: ["true", "false", "null"] },
  { type: "boolean[]", values: ["'{t,f,NULL}'", "'{t}'"] },
  { type: "text", values: ["''", "' '", "'null'", "E'\\\\.'", "E'\\t\\n\\r\\\\'", "'(,)'", "'\"'", "'☃ 𝄞'", "'7'"] }, // prettier-ignore
  { type: "varchar(10)", values: ["'a '", "''", "'7'"] },
  { type: "char(5)", values: ["'a'", "''", "'7'"] },
  { type: '"char"', values: ["'a'", "''", "'7'"] },
  { type: "name", values: ["'n'", "'N n'", "'7'"] },
  { type: "bytea", values: ["'\\x'", "'\\x00ff5c27'", "decode(repeat('00ff', 3000), 'hex')", "'7'"] },
  { type: "date", values: ["'2020-02-29'", "'4713-01-01 BC'", "'infinity'", "'-infinity'", "'7777-07-07'"] },
  { type: "time", values: ["'23:59:59.999999'", "'24:00'", "'07:00'"] },
  { type: "timetz", values: ["'12:00+15:59:59'", "'12:00-03'", "'07:00Z'"] },
  { type: "timestamp", values: ["'2020-01-01 00:00:00.000001'", "'0001-01-01 BC'", "'infinity'", "'7777-07-07'"] }, // prettier-ignore
  { type: "timestamptz", values: ["'2020-03-29 02:30:00.1+02'", "'1883-11-18 12:00 America/New_York'", "'-infinity'", "'7777-07-07Z'"] }, // prettier-ignore
  { type: "interval", values: ["'1 mon -1 day 00:00:01.5'", "'-1 year'", "'24:00'", "'1 day'", "'7 days'"] },
  { type: "uuid", values: ["md5('a')::uuid", "'00000000-0000-0000-0000-000000000007'"] },
  { type: "json", values: [`'{"b":1, "a":1,"a":2}'`, "'null'", "'7'"] },
  { type: "jsonb", values: [`'{"b":1.50, "aa":1,"a":2e3}'`, "'null'", `'"\\u2603"'`, "'7'"] },
  { type: "xml", values: ["'<a b=\"c\"/>'", "'text &amp; more'", "'<seven/>'"] },
  { type: "tsvector", values: ["'a:1A b:2,3'", "'''x y'''", "'seven'"] },
  { type: "tsquery", values: ["'a & (b | !c)'", "'a <2> b'", "'seven'"] },
  { type: "bit(3)", values: ["B'101'", "B'111'"] },
  { type: "bit varying", values: ["B''", "B'0'", "B'00'", "B'111'"] },
  { type: "inet", values: ["'10.0.0.1/24'", "'::1'", "'7.7.7.7'"] },
  { type: "cidr", values: ["'10.0.0.0/8'", "'7.7.7.7/32'"] },
  { type: "macaddr", values: ["'08:00:2b:01:02:03'", "'07:07:07:07:07:07'"] },
  { type: "macaddr8", values: ["'08:00:2b:ff:fe:01:02:03'", "'07:07:07:07:07:07:07:07'"] },
  { type: "point", values: ["'(0.1,-0)'", "'(NaN,1e-300)'", "'(7,7)'"] },
  { type: "line", values: ["'{0.1,2,3}'", "'{7,7,7}'"] },
  { type: "lseg", values: ["'[(0.1,0.2),(0.3,0.4)]'", "'[(7,7),(7,8)]'"] },
  { type: "box", values: ["'(0.1,0.2),(0.3,0.4)'", "'(7,7),(7,8)'"] },
  { type: "path", values: ["'[(0.1,0.2),(0.3,0.4)]'", "'((0.1,0.2),(0.3,0.4))'", "'[(7,7)]'"] },
  { type: "polygon", values: ["'((0.1,0.2),(0.3,0.4),(0,0))'", "'((7,7))'"] },
  { type: "circle", values: ["'<(0.1,0.2),0.3>'", "'<(7,7),7>'"] },
  { type: "point[]", values: ["array['(0.1,0.2)', null]::point[]", "array['(7,7)']::point[]"] },
  { type: "int4range", values: ["'[1,5)'", "'empty'", "'(,)'", "'[7,8)'"] },
  { type: "numrange", values: ["'[1.0,1.00]'", "'(,2.50)'", "'[7,8)'"] },
  { type: "tstzrange", values: ["'[2020-01-01 00:00+02,)'", "'[7777-07-07,)'"] },
  { type: "datemultirange", since: 14, values: ["'{[2020-01-01,2020-02-01),[2021-01-01,)}'", "'{}'"] },
  { type: "jsonpath", since: 12, values: ["'$.a[*] ? (@.b > 1)'", "'$.seven'"] },
  { type: "pg_lsn", values: ["'16/B374D848'", "'0/7'"] },
  { type: "oid", values: ["4294967295", "7"] },
  { type: "txid_snapshot", values: ["'10:20:10,14'", "'7:7:'"] },
  { type: "int[]", values: ["'[0:1]={1,2}'", "'{}'", "'{NULL,1}'", "'{{1},{2}}'", "'{7}'"] },
  { type: "text[]", values: [`'{a,"b,c","",NULL,"NULL","\\"","\\\\"}'`, "'{7}'"] },
  { type: "public.mood", values: ["'sad'", "'very ok'", "null"] },
  { type: "public.mood[]", values: ["'{sad,NULL,\"very ok\"}'", "'{sad}'"] },
  { type: "public.positive", values: ["0.1", "1", "7"] },
  { type: "public.place", values: ["row('a,b', 0.1, '(0.1,0.2)')", "row(null, null, null)", "row('', 'NaN', null)", "null", "row('7', 7, null)"] }, // prettier-ignore
  { type: "public.place[]", values: ["array[row('a', 0.1, null), null, row(null, null, null)]::public.place[]", "'{}'", "array[row('7', 7, null)]::public.place[]"] }, // prettier-ignore
  { type: "public.floatrange", values: ["'[0.1,0.3)'", "'empty'", "'(,0.1]'", "'[7,8)'"] },
  { type: "public.floatrange[]", values: [`'{"[0.1,0.3)"}'`, "'{}'"] },
  { type: "public.nested", values: ["row(row('a', 0.1, null), array[0.1, 0.2], 0.3)", "row(null, null, null)", "null"] }, // prettier-ignore
  { type: "public.positive[]", since: 11, values: ["'{0.1,1}'", "'{7}'"] },
  { type: "public.citext", values: ["'A b'", "''", "'7'"] },
  { type: "public.hstore", values: [`'"b"=>"1", "aa"=>NULL'`, "''", "'seven=>7'"] },
  { type: "public.ltree", values: ["'a.b.c'", "''", "'seven'"] },
];

const typesSql = `
  create extension citext schema public; create extension hstore schema public; create extension ltree schema public;
  create type mood as enum ('sad', 'very ok');
  create domain positive as double precision check (value > 0);
  create type place as (name text, height real, at point);
  create type floatrange as range (subtype = float8);
  create type nested as (p place, weights float8[], q positive)`;

async function versionOf(side: Pair["source"]): Promise<number> {
  const [row] = await side.sql<{ major: number }>(
    "select current_setting('server_version_num')::int / 10000 as major",
  );
  return row?.major ?? 0;
}

/** As the product would copy it: as text, under our settings. */
async function copyTable(sync: VerifiedSync, table: string): Promise<void> {
  const context = sync.context();
  await using source = await context.source("test");
  await using target = await context.target("test");
  await relayCopy(source, target, {
    read: `copy (select * from public.${table}) to stdout`,
    write: `copy public.${table} from stdin`,
    signal: context.signal,
  });
}

test("values of every type are equal after a copy, and found when they are not", async () => {
  await using pair = await freePair();
  const oldest = Math.min(await versionOf(pair.source), await versionOf(pair.target));
  const types = zoo.filter(({ since = 10 }) => oldest >= since);
  const columns = types.map(({ type }, index) => `c${index} ${type}`).join(", ");
  await Promise.all(
    [pair.source, pair.target].map((side) =>
      side.sql(`${typesSql}; create table zoo (id int primary key, ${columns})`),
    ),
  );
  const height = Math.max(...types.map(({ values }) => values.length));
  for (let row = 0; row <= height; row++) {
    const values = types.map(({ type, values: literals }) => {
      const literal = literals.slice(0, -1)[row];
      return literal === undefined ? "null" : `(${literal})::${type}`;
    });
    await pair.source.sql(`insert into zoo values (${row}, ${values.join(", ")})`);
  }
  await using sync = await startVerifiedSync(pair);
  await copyTable(sync, "zoo");
  expect(await sync.differences()).toEqual([]);
  expect((await compareDatabases(pair.source.url, pair.target.url)).differences).toEqual([]);

  for (const [index, { type, values }] of types.entries()) {
    await pair.target.sql(`update zoo set c${index} = (${values.at(-1)})::${type} where id = 0`);
  }
  expect(await sync.differences()).toEqual([
    `public.zoo {"id":0} changed ${types.map((_, index) => `c${index}`).join(" ")}`,
  ]);
  expect((await compareDatabases(pair.source.url, pair.target.url)).differences).toHaveLength(1);
});

test("keys of many types are matched and named", async () => {
  await using pair = await freePair();
  const keys: [type: string, values: string[]][] = [
    ["smallint", ["-1", "2"]],
    ["numeric", ["0.10", "'NaN'"]],
    ["double precision", ["0.1", "'NaN'", "'-infinity'"]],
    ["real", ["0.1", "16777216"]],
    ["boolean", ["true", "false"]],
    ["char(4)", ["'a'", "''"]],
    ["bytea", ["'\\x00ff'", "'\\x'"]],
    ["date", ["'4713-01-01 BC'", "'infinity'"]],
    ["timestamptz", ["'2020-01-01 00:00:00.1+03'", "'-infinity'"]],
    ["interval", ["'1 day'", "'-1 mon 3 hours'"]],
    ["uuid", ["md5('x')::uuid"]],
    ["inet", ["'10.0.0.1/24'", "'::'"]],
    ["text[]", [`'{a,"b,c",NULL}'`, "'{}'"]],
    ["int4range", ["'[1,5)'", "'empty'"]],
    ["jsonb", [`'{"a": [1.50]}'`, "'null'"]],
    ["bit varying", ["B'01'", "B''"]],
    ["public.mood", ["'sad'", "'very ok'"]],
    ["public.positive", ["0.1", "7"]],
    ["public.citext", ["'A b'", "''"]],
    ["public.ltree", ["'a.b'", "''"]],
  ];
  const create = keys
    .map(([type], index) => `create table k${index} (k ${type} primary key, v int)`)
    .join(";");
  await Promise.all([pair.source, pair.target].map((side) => side.sql(`${typesSql}; ${create}`)));
  for (const [index, [type, values]] of keys.entries()) {
    for (const value of values)
      await pair.source.sql(`insert into k${index} values ((${value})::${type}, 1)`);
  }
  await using sync = await startVerifiedSync(pair);
  for (const index of keys.keys()) await copyTable(sync, `k${index}`);
  expect(await sync.differences()).toEqual([]);

  // Pending keys are recognised on both sides.
  for (const index of keys.keys()) await pair.source.sql(`update k${index} set v = 2`);
  const { tables, equal } = await sync.verify();
  expect(equal).toBe(true);
  expect(new Map(tables.map(({ table, rows, pending }) => [table, [rows, pending]]))).toEqual(
    new Map(keys.map(([, values], index) => [`public.k${index}`, [0, values.length]])),
  );

  for (const index of keys.keys()) {
    await pair.source.sql(`truncate replicate.delta_${index + 1}_a`);
  }
  const found = await sync.verify();
  for (const [index, [, values]] of keys.entries()) {
    const report = found.tables.find(({ table }) => table === `public.k${index}`);
    expect(report?.differences.map(({ kind, columns }) => [kind, ...columns])).toEqual(
      values.map(() => ["changed", "v"]),
    );
  }
  const namesOf = (index: number): unknown[] =>
    found.tables.find(({ table }) => table === `public.k${index}`)?.differences.map(({ key }) => key["k"]) ??
    [];
  expect(namesOf(0)).toEqual([-1, 2]);
  expect(namesOf(1)).toEqual(["0.10", "NaN"]);
  expect(namesOf(4)).toEqual([false, true]);
});

test("types that differ between the sides are compared as COPY would carry them", async () => {
  await using pair = await freePair();
  const columns: [source: string, target: string, value: string, other: string][] = [
    ["smallint", "bigint", "-5", "6"],
    ["integer", "numeric", "5", "5.0"],
    ["real", "double precision", "0.1", "0.2"],
    ["real[]", "double precision[]", "'{0.1,NaN}'", "'{0.1}'"],
    ["varchar(20)", "text", "'a '", "'a'"],
    ["char(5)", "text", "'a'", "'a'"],
    ["public.mood", "text", "'sad'", "'SAD'"],
    ["boolean", "text", "true", "'true'"],
    ["jsonb", "json", `'{"a": 1}'`, `'{"a":1}'`],
    ["cidr", "inet", "'10.1.2.3/32'", "'10.1.2.3/31'"],
    ["numeric(6,2)", "public.price", "1.5", "1.6"],
    ["int[]", "bigint[]", "'{1,2}'", "'{2,1}'"],
    ["text", "public.citext", "'Ab'", "'aB'"],
    ["interval", "text", "'1 day 02:00'", "'1 day'"],
    ["timestamptz", "text", "'2020-01-01 12:00+02'", "'2020-01-01 12:00:00+02'"],
  ];
  const tableOf = (side: 0 | 1): string =>
    `${typesSql}; create domain price as numeric(8,2);
     create table t (id int primary key, ${columns.map((column, index) => `c${index} ${column[side]}`).join(", ")});
     create table k (k ${side === 0 ? "public.mood" : "text"}, n ${side === 0 ? "smallint" : "bigint"}, v int, primary key (k, n))`;
  await pair.source.sql(tableOf(0));
  await pair.target.sql(tableOf(1));
  await pair.source.sql(
    `insert into t values (1, ${columns.map(([type, , value]) => `(${value})::${type}`).join(", ")});
     insert into t (id) values (2);
     insert into k values ('sad', 1, 1), ('sad', 2, 1), ('very ok', 1, 1)`,
  );
  await using sync = await startVerifiedSync(pair);
  await copyTable(sync, "t");
  await copyTable(sync, "k");
  expect(await sync.differences()).toEqual([]);
  for (const [index, [, , , other]] of columns.entries()) {
    await pair.target.sql(`update t set c${index} = ${other} where id = 1`);
  }
  await pair.target.sql("update k set v = 2 where n = 2; insert into k values ('other', 1, 1)");
  expect(await sync.differences()).toEqual([
    `public.k {"k":"other","n":1} extra`,
    `public.k {"k":"sad","n":2} changed v`,
    `public.t {"id":1} changed ${columns.map((_, index) => `c${index}`).join(" ")}`,
  ]);
});

test("single bytes that no text can hold are compared by their bytes", async () => {
  await using pair = await freePair();
  const table = `create table t (id int primary key, c "char", a "char"[]); insert into t values (1, 'é', '{é,x}'), (2, 'a', '{a}')`;
  await Promise.all([pair.source.sql(table), pair.target.sql(table)]);
  await using sync = await startVerifiedSync(pair);
  expect(await sync.differences()).toEqual([]);
  await pair.target.sql("update t set c = '☃', a = '{☃,x}' where id = 1");
  expect(await sync.differences()).toEqual([`public.t {"id":1} changed c a`]);
});

test("servers of other encodings hold the same text", async () => {
  await using pair = await freePair({
    createOptions: "template template0 encoding 'UTF8' lc_collate 'C' lc_ctype 'C'",
  });
  await using latin = await freePair({
    createOptions: "template template0 encoding 'LATIN1' lc_collate 'C' lc_ctype 'C'",
  });
  const text = "create table t (k text primary key, v text, a text[])";
  await latin.source.sql(
    `${text}; insert into t values ('é', 'Größe ü', '{ä,"ö ß"}'), ('\u0085\u00a0', '\u00a0', '{}'), ('plain', '', null)`,
  );
  await pair.target.sql(text);
  await using sync = await startVerifiedSync({ source: latin.source, target: pair.target });
  await copyTable(sync, "t");
  expect(await sync.differences()).toEqual([]);
  await pair.target.sql("update t set v = v || '!'");
  expect((await sync.differences()).length).toBe(3);
});
