// Every type a column can have, with the values that are most easily lost on the way.

export interface ZooType {
  /** Name of the tables that hold it; a plain lower-case word. */
  readonly name: string;
  /** As in CREATE TABLE. User-defined types are made by `zooDefinitions`. */
  readonly sql: string;
  /** Input texts. A value whose text form would not do is given as an SQL expression. */
  readonly values: readonly Value[];
  /** Can be a key; true unless told otherwise. */
  readonly isKey?: boolean;
  /** Values that are no keys: above all, those that are too long for an index. */
  readonly long?: readonly Value[];
  /** Pairs that are equal to the key, and yet not the same. */
  readonly lookAlikes?: readonly (readonly [Value, Value])[];
  /** First major version that has the type. */
  readonly since?: number;
  readonly needs?: Feature;
  /** First major version that has arrays of it. */
  readonly arraysSince?: number;
  /** Values with no text form that every version takes; they travel in binary only. */
  readonly binaryOnly?: readonly Value[];
  /** COPY is expected to carry it in binary between columns of this type. */
  readonly isBinary: boolean;
  /** Where the text form differs between versions: an expression over `%` that does not. */
  readonly image?: string;
}

export type Value = string | { readonly expression: string };

/** What a server may have been built without. */
export type Feature = "icu" | "xml" | "hstore" | "citext" | "ltree" | "cube";

/** Extensions live where a careless search path does not find them. */
export const extensionSchema = '"Ext ension"';

const raw = String.raw;
const sql = (expression: string): Value => ({ expression });
const everyByte = sql(
  raw`(select string_agg(set_byte('\x00'::bytea, 0, g), ''::bytea order by g) from generate_series(0, 255) g)`,
);

/** Texts that COPY, arrays, composites or a careless quoting take for something else. */
const awkwardTexts: readonly string[] = [
  "", " ", "  two  ", "NULL", "null", raw`\N`, raw`\.`, `\n\\.\n`, "\t", "\r", "\r\n", "a\tb\nc", raw`back\slash\\`,
  raw`\x41\101\u0041`, '"', '"quoted"', "'", "it's", "{}", "{a,NULL}", "(,)", '("a,b")', "[1:2]={1,2}", "$$", "%s %1$s", "-0",
  "\u0001\u0008\u000b\u000c\u007f", "é", "e\u0301", "\u{1F600}", "\u2028", "\ufeff", "ß", "İ", "👩‍👩‍👧‍👦",
]; // prettier-ignore

const numbers = (least: string, most: string): string[] => ["0", "1", "-1", least, most];

/** The types that come with the server. */
const builtin: readonly ZooType[] = [
  { name: "smallint", sql: "smallint", values: numbers("-32768", "32767"), isBinary: true },
  { name: "integer", sql: "integer", values: numbers("-2147483648", "2147483647"), isBinary: true },
  {
    name: "bigint",
    sql: "bigint",
    values: [...numbers("-9223372036854775808", "9223372036854775807"), "9007199254740993"],
    isBinary: true,
  },
  {
    name: "numeric",
    sql: "numeric",
    values: [
      "0", "0.00", "1.0", "-1.000", "NaN", "1e1000", "-1e-1000", "12345678901234567890.123456789012345678901", "0.1", "10000",
    ],
    lookAlikes: [["2.0", "2.00"], ["3.000", "3"], ["7", "7.0000000000"]],
    isBinary: true,
  },
  { name: "numeric_infinity", sql: "numeric", values: ["Infinity", "-Infinity", "NaN"], since: 14, isBinary: true },
  { name: "numeric_scale", sql: "numeric(10,2)", values: ["1.5", "-99999999.99", "0", "NaN"], isBinary: true },
  { name: "numeric_negative_scale", sql: "numeric(3,-2)", values: ["12345", "-99949", "0"], since: 15, isBinary: true },
  {
    name: "real",
    sql: "real",
    values: ["1", "-1.5", "NaN", "Infinity", "-Infinity", "0.1", "1e-45", "3.4028235e38", "1.17549435e-38", "16777217", "-0", "0"],
    lookAlikes: [["0", "-0"]],
    isBinary: true,
  },
  {
    name: "double",
    sql: "double precision",
    values: [
      "1", "-1.5", "NaN", "Infinity", "-Infinity", "0.1", "0.30000000000000004", "5e-324", "1.7976931348623157e308",
      "2.2250738585072014e-308", "9007199254740993", "123456789.12345679", "-0", "0",
    ],
    lookAlikes: [["0", "-0"]],
    isBinary: true,
  },
  { name: "money", sql: "money", values: ["0", "-0.01", "1234567.89", "92233720368547758.07"], isBinary: false },
  {
    name: "text",
    sql: "text",
    values: awkwardTexts,
    long: [sql("repeat('x', 100000)"), sql("(select string_agg(md5(g::text), '') from generate_series(1, 3000) g)")],
    isBinary: true,
  },
  { name: "varchar", sql: "varchar(40)", values: awkwardTexts, isBinary: true },
  {
    name: "char",
    sql: "char(5)",
    values: ["", "a", "a b", raw`\N`, raw`\.`, "12345", "\t\n", "éé"],
    isBinary: true,
  },
  { name: "bpchar", sql: "bpchar", values: ["", "a", " a", "NULL"], lookAlikes: [["b", "b   "]], isBinary: true },
  { name: "name", sql: "name", values: ["", "a", "Ünï cödé", "x".repeat(63), '"'], isBinary: true },
  {
    name: "quoted_char",
    sql: '"char"',
    values: ["", "a", " ", "\t", "\n", '"', "'"],
    binaryOnly: [sql(`(-1)::"char"`), sql(`(-128)::"char"`)],
    isBinary: true,
  },
  { name: "collated_text", sql: 'text collate "POSIX"', values: ["a", "B", "b", "é"], isBinary: true },
  {
    name: "bytea",
    sql: "bytea",
    values: [raw`\x`, raw`\x00`, raw`\x5c2e`, raw`\x5c4e`, raw`\x0a5c2e0a`, raw`\xff`, everyByte],
    long: [sql(raw`(select string_agg(decode(md5(g::text), 'hex'), '\x00') from generate_series(1, 5000) g)`)],
    isBinary: true,
  },
  { name: "boolean", sql: "boolean", values: ["true", "false"], isBinary: true },
  {
    name: "date",
    sql: "date",
    values: ["2020-02-29", "infinity", "-infinity", "4713-01-01 BC", "0001-12-31 BC", "0001-01-01", "5874897-12-31", "1900-03-01"],
    isBinary: true,
  },
  {
    name: "time",
    sql: "time",
    values: ["00:00:00", "24:00:00", "23:59:59.999999", "12:00:00.000001"],
    isBinary: true,
  },
  {
    name: "timetz",
    sql: "timetz",
    values: ["00:00:00+15:59:59", "24:00:00-15:59", "12:00:00.123456+05:45", "12:00:00-00:00:30", "06:15:00.123456+00"],
    isBinary: true,
  },
  {
    name: "timestamp",
    sql: "timestamp",
    values: [
      "infinity", "-infinity", "4713-01-01 00:00:00 BC", "0044-03-15 12:00:00 BC", "294276-12-31 23:59:59.999999", "2000-01-01",
      "1999-12-31 23:59:59.999999", "2020-10-25 02:30:00", "2020-01-02 03:04:05.000001",
    ],
    isBinary: true,
  },
  {
    name: "timestamptz",
    sql: "timestamptz",
    values: [
      "infinity", "-infinity", "4713-01-01 00:00:00+00 BC", "0044-03-15 12:00:00+00 BC", "294276-12-30 23:59:59.999999+00",
      "2000-01-01 00:00:00+00", "2020-10-25 00:30:00+00", "2020-10-25 01:30:00+00", "1883-11-18 12:03:58+00",
      "2020-01-02 03:04:05.000001+05:45",
    ],
    isBinary: true,
  },
  { name: "timestamp_seconds", sql: "timestamptz(0)", values: ["2020-01-02 03:04:05.6+00", "infinity"], isBinary: true },
  {
    name: "interval",
    sql: "interval",
    values: [
      "0", "-1 day", "+1 mon -1 day", "-1 mon +1 day -00:00:01", "+1 day -24:00:01", "-0.000001 sec", "178000000 years",
      "-178000000 years", "+2 years -3 mons +4 days -05:06:07.000008", "100000 hours",
    ],
    lookAlikes: [["3 days", "72:00:00"], ["2 mons", "60 days"], ["4 mons", "119 days 24:00:00"]],
    isBinary: false,
  },
  { name: "interval_infinity", sql: "interval", values: ["infinity", "-infinity"], since: 17, isBinary: false },
  { name: "interval_fields", sql: "interval day to second(2)", values: ["1 day 02:03:04.56", "-00:00:00.01"], isBinary: false },
  { name: "uuid", sql: "uuid", values: [...["0", "f", "a"].map((x) => x.repeat(32)), "12345678-9ABC-DEF0-1234-56789abcdef0"], isBinary: true },
  { name: "bit", sql: "bit(9)", values: ["000000000", "111111111", "100000001"], isBinary: true },
  { name: "varbit", sql: "bit varying", values: ["", "0", "00", "1", "101010101"], isBinary: true },
  {
    name: "inet",
    sql: "inet",
    values: ["10.0.0.1", "10.0.0.1/8", "10.0.0.0/8", "::1", "::ffff:1.2.3.4/96", "0.0.0.0/0", "::/0", "fe80::1/64"],
    isBinary: true,
  },
  { name: "cidr", sql: "cidr", values: ["10.0.0.0/8", "10.0.0.0/32", "::/0", "2001:db8::/32", "0.0.0.0/0"], isBinary: true },
  { name: "macaddr", sql: "macaddr", values: ["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "08:00:2b:01:02:03"], isBinary: true },
  { name: "macaddr8", sql: "macaddr8", values: ["08:00:2b:01:02:03", "ff:ff:ff:ff:ff:ff:ff:ff"], isBinary: true },
  {
    name: "json",
    sql: "json",
    values: [
      raw`{"a":1,"a":2, "b" : null}`, "[1.0,1.00]", raw`"\u0000"`, "null", raw`"\\N"`, `{"a":\n\t1}`, "1e400", raw`"\ud83d\ude00"`, " {} ",
    ],
    isKey: false,
    isBinary: true,
  },
  {
    name: "jsonb",
    sql: "jsonb",
    values: ["{}", "[]", "null", '"null"', raw`"\\N"`, raw`"\\."`, raw`{"a":{"b":[1,null,"x\n\ty"]},"":""}`, "1e400", "-0", '""'],
    lookAlikes: [['{"a":1.0}', '{"a":1.00}'], ["[3, 5.0]", "[3.0, 5]"]],
    isBinary: true,
  },
  { name: "jsonpath", sql: "jsonpath", values: ["$", raw`$."a b"[*] ? (@.x > 1.5)`, "strict $.**"], since: 12, isKey: false, isBinary: false },
  {
    name: "xml",
    sql: "xml",
    values: [
      "", "text &amp; more", "<a b='&quot;'>\n<c/></a>", '<?xml version="1.0" encoding="UTF-8"?><a>é</a>', "<a/><b/>", "<![CDATA[\\N]]>",
    ],
    needs: "xml",
    isKey: false,
    isBinary: false,
  },
  {
    name: "tsvector",
    sql: "tsvector",
    values: ["", "'a':1A,2B 'b''c':3,16383", raw`'\\':1 'NULL'`, "' ' 'é':5C"],
    isBinary: false,
  },
  {
    name: "tsquery",
    sql: "tsquery",
    values: ["", "'a' & !'b' | 'c':*AB", "'fat' <-> 'rat' <3> 'cat'", raw`'it''s' & '\\'`],
    isBinary: false,
  },
  ...(
    [
      ["point", ["(0,0)", "(-0,0)", "(NaN,Infinity)", "(1e-300,-1e300)", "(0.1,0.30000000000000004)"]],
      ["line", ["{1,-1,0}", "{0.1,0.2,-0}"]],
      ["lseg", ["[(0,0),(1,-1.1)]", "[(0,0),(0,0)]"]],
      ["box", ["(1,1),(0,0)", "(0.1,NaN),(-0,-Infinity)"]],
      ["path", ["((0,0),(1,1))", "[(0,0),(1,1),(0.1,2)]", "[(0,0)]"]],
      ["polygon", ["((0,0),(1,1),(1,0.1))", "((0,0))"]],
      ["circle", ["<(0,0),0>", "<(0.1,-2),1e-05>", "<(1,1),Infinity>"]],
    ] as const
  ).map(([name, values]): ZooType => ({ name, sql: name, values, isKey: false, isBinary: true })),
  { name: "oid", sql: "oid", values: ["0", "4294967295"], isBinary: true },
  { name: "xid", sql: "xid", values: ["0", "4294967295"], isKey: false, isBinary: false },
  { name: "xid8", sql: "xid8", values: ["0", "18446744073709551615"], since: 13, isBinary: false },
  { name: "cid", sql: "cid", values: ["0", "4294967295"], isKey: false, isBinary: false },
  { name: "tid", sql: "tid", values: ["(0,0)", "(4294967295,65535)"], isBinary: false },
  { name: "pg_lsn", sql: "pg_lsn", values: ["0/0", "FFFFFFFF/FFFFFFFF", "16/B374D848"], isBinary: false },
  { name: "txid_snapshot", sql: "txid_snapshot", values: ["10:20:10,14,15", "10:10:"], isKey: false, isBinary: false },
  { name: "pg_snapshot", sql: "pg_snapshot", values: ["10:20:10,14,15", "10:10:"], since: 13, isKey: false, isBinary: false },
  { name: "refcursor", sql: "refcursor", values: ["", "a b"], isKey: false, isBinary: false, image: "%::text" },
  { name: "int2vector", sql: "int2vector", values: ["", "1 2 -3"], isKey: false, arraysSince: Infinity, isBinary: false },
  { name: "oidvector", sql: "oidvector", values: ["", "1 4294967295"], arraysSince: Infinity, isBinary: false },
  { name: "aclitem", sql: "aclitem", values: ["pg_monitor=r*w/pg_monitor", "=U/pg_monitor"], isKey: false, isBinary: false, image: "%::text" },
  // Their text names an object, so that the same text is another oid on the other side.
  { name: "regclass", sql: "regclass", values: ["pg_class", "kinds.landmark", "-"], isBinary: false, image: "%::text" },
  { name: "regtype", sql: "regtype", values: ["integer", "kinds.mood", "kinds.mood[]"], isBinary: false, image: "%::text" },
  { name: "regproc", sql: "regproc", values: ["now", "-"], isBinary: false, image: "%::text" },
  { name: "regprocedure", sql: "regprocedure", values: ["abs(integer)", "kinds.answer(integer)"], isBinary: false, image: "%::text" },
  { name: "regoperator", sql: "regoperator", values: ["+(integer,integer)"], isBinary: false, image: "%::text" },
  { name: "regrole", sql: "regrole", values: ["pg_monitor", "-"], isBinary: false, image: "%::text" },
  { name: "regnamespace", sql: "regnamespace", values: ["pg_catalog", "kinds"], isBinary: false, image: "%::text" },
  { name: "regconfig", sql: "regconfig", values: ["english", "simple"], isBinary: false, image: "%::text" },
  { name: "int4range", sql: "int4range", values: ["empty", "(,)", "[1,5]", "[,3)", "[2147483646,2147483647)"], isBinary: true },
  { name: "int8range", sql: "int8range", values: ["empty", "[-9223372036854775808,0]"], isBinary: true },
  {
    name: "numrange",
    sql: "numrange",
    values: ["empty", "[1.0,1.00]", "(,NaN)", "[-1.5,)"],
    lookAlikes: [["[1.0,2)", "[1.00,2.0)"]],
    isBinary: true,
  },
  { name: "daterange", sql: "daterange", values: ["[infinity,infinity]", "[2020-01-01,2020-02-01]", "[4713-01-01 BC,)"], isBinary: true },
  { name: "tsrange", sql: "tsrange", values: ['["2020-01-01 00:00:00","2020-01-02 00:00:00")', "(-infinity,infinity)"], isBinary: true },
  { name: "tstzrange", sql: "tstzrange", values: ['["2020-01-01 00:00:00+00","2020-01-02 00:00:00+02")', "[-infinity,)"], isBinary: true },
  ...(
    [
      ["int4multirange", ["{}", "{[1,2),[5,6]}", "{(,)}"]],
      ["nummultirange", ["{[1.0,2.00),(3,NaN)}", "{}"]],
      ["datemultirange", ["{[2020-01-01,2020-02-01),[2021-01-01,infinity]}"]],
      ["tsmultirange", ['{["2020-01-01 00:00:00","2020-01-02 00:00:00")}']],
      ["tstzmultirange", ['{["2020-01-01 00:00:00+00","2020-01-02 00:00:00+02"),[2022-01-01 00:00:00+00,)}']],
      ["int8multirange", ["{[-9223372036854775808,0]}"]],
    ] as const
  ).map(([name, values]): ZooType => ({ name, sql: name, values, since: 14, isBinary: true })),
]; // prettier-ignore

/** The types of `zooDefinitions` and of extensions. */
const ownTypes: readonly ZooType[] = [
  {
    name: "enum",
    sql: "kinds.mood",
    values: ["", "sad", "NULL", 'quo"te', "com,ma", "é", raw`\N`],
    isBinary: true,
  },
  { name: "domain_numeric", sql: "kinds.amount", values: ["1.5", "-2", "NaN"], arraysSince: 11, isBinary: true },
  { name: "domain_text", sql: "kinds.word", values: ["", raw`\.`, "NULL"], arraysSince: 11, isBinary: true },
  { name: "domain_domain", sql: "kinds.short_word", values: ["", "abc"], arraysSince: 11, isBinary: true },
  {
    name: "domain_array",
    sql: "kinds.some_numbers",
    values: ["{}", "{1,NULL,2}", "[-1:0]={5,6}"],
    // The array constructor would make one array of two dimensions of them.
    arraysSince: Infinity,
    isBinary: true,
  },
  { name: "domain_enum", sql: "kinds.good_mood", values: ["", "é"], arraysSince: 11, isBinary: true },
  {
    name: "composite",
    sql: "kinds.pair",
    values: ["(,,)", '(1,"",)', raw`(1,"a,b""c\\N",1.00)`, '(-1,NULL,"NaN")', '(0," ",0)'],
    lookAlikes: [["(7,x,1.0)", "(7,x,1.00)"]],
    isBinary: false,
  },
  {
    name: "nested_composite",
    sql: "kinds.nest",
    values: [raw`("(1,""a b"",2.50)","{""(,,)"",NULL}","é","{{1,2},{3,4}}")`],
    // In PL/pgSQL of version 10, a composite within a composite cannot be missing: it is there, with empty fields.
    long: ["(,,,)", "(,,,{})"],
    isBinary: false,
  },
  {
    name: "float_range",
    sql: "kinds.float_range",
    values: ["empty", "[0.1,0.30000000000000004)", "(-Infinity,NaN]", "[-0,)"],
    lookAlikes: [["[0,1)", "[-0,1)"]],
    isBinary: false,
    image: "encode(range_send(%), 'hex')",
  },
  {
    name: "text_range",
    sql: "kinds.text_range",
    values: [raw`["",a)`, raw`["\\N","\\x"]`, '["a,b","c)d")'],
    isBinary: false,
  },
  { name: "float_multirange", sql: "kinds.float_multirange", values: ["{}", "{[0.1,0.2),[3,)}"], since: 14, isBinary: false },
  {
    name: "case_blind",
    sql: "text collate kinds.case_blind",
    values: ["a", "B", "é", "", " ", "straße"],
    lookAlikes: [["Word", "wORD"], ["É", "e\u0301"]],
    since: 12,
    needs: "icu",
    isBinary: true,
  },
  {
    name: "citext",
    sql: `${extensionSchema}.citext`,
    values: ["a", "B", "é", "", raw`\N`, "NULL", "a\tb"],
    lookAlikes: [["Word", "wORD"]],
    needs: "citext",
    isBinary: false,
  },
  {
    name: "hstore",
    sql: `${extensionSchema}.hstore`,
    values: ["", '"a"=>NULL', '"a"=>"NULL"', raw`"a b"=>"\"", ""=>""`, raw`"\\N"=>"\\."`],
    needs: "hstore",
    isBinary: false,
  },
  { name: "ltree", sql: `${extensionSchema}.ltree`, values: ["", "Top.Science", "top.science", "a_1.B"], needs: "ltree", isBinary: false },
  { name: "lquery", sql: `${extensionSchema}.lquery`, values: ["*.a*@.b|c%.*{1,2}"], needs: "ltree", isKey: false, isBinary: false },
  {
    name: "cube",
    sql: `${extensionSchema}.cube`,
    values: ["(0.1,2),(3,0.30000000000000004)", "(1)", "()"],
    // Older servers write its numbers otherwise and have no binary form of it, so that verify cannot compare arrays.
    since: 12,
    needs: "cube",
    isBinary: false,
    // Without a send function before 14; shortest digits since 12.
    image: `array(select (case when u.n = 1 then ${extensionSchema}.cube_ll_coord(%, i) else ${extensionSchema}.cube_ur_coord(%, i) end)::numeric
              from generate_series(1, 2) as u (n), generate_series(1, ${extensionSchema}.cube_dim(%)) as i)::text`,
  },
]; // prettier-ignore

/** Its arrays travel in binary if it does: what an array says of its elements is the same everywhere. */
export function isBuiltin(type: ZooType): boolean {
  return builtin.includes(type);
}

/** The zoo as far as two servers of these versions have it. */
export function typeZoo(version: number, has: (feature: Feature) => boolean): ZooType[] {
  return [...builtin, ...ownTypes].filter(
    (type) => (type.since ?? 10) <= version && (type.needs === undefined || has(type.needs)),
  );
}

/**
 * Types, and objects that values name. On the target the labels of the enum stand in another order, so that neither
 * its oids nor its sorting are the source's.
 */
export function zooDefinitions(
  side: "source" | "target",
  version: number,
  has: (feature: Feature) => boolean,
): string {
  const labels = ["'sad'", "''", "'NULL'", "'quo\"te'", "'com,ma'", "'é'", raw`E'\\N'`];
  const extensions = (["hstore", "citext", "ltree", "cube"] as const).filter(has);
  return `
    create schema kinds; create schema zoo; create schema forced; create schema keyed; create schema ${extensionSchema};
    ${extensions.map((name) => `create extension ${name} schema ${extensionSchema};`).join("\n")}
    create type kinds.mood as enum (${(side === "source" ? labels : labels.toReversed()).join(", ")});
    create domain kinds.amount as numeric(10, 2) check (value <> 0);
    create domain kinds.word as text;
    create domain kinds.short_word as kinds.word check (length(value) <= 3);
    create domain kinds.some_numbers as int[];
    create domain kinds.good_mood as kinds.mood check (value <> 'sad');
    create type kinds.pair as (a int, b text, c numeric);
    create type kinds.nest as (first kinds.pair, more kinds.pair[], feeling kinds.mood, grid int[]);
    create type kinds.float_range as range (subtype = float8);
    create type kinds.text_range as range (subtype = text, collation = "C");
    ${version >= 12 && has("icu") ? `create collation kinds.case_blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);` : ""}
    create function kinds.answer(int) returns int language sql as 'select 42';
    create view kinds.landmark as select 1;`;
}
