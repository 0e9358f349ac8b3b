import type pg from "pg";

import { connect, quoteName, serverMajor } from "./admin.ts";

// Says whether two databases hold the same rows, without a line of the product's code: both sides are read
// in the order of their keys' text under collation "C", and walked through side by side.

export interface TableNames {
  /** As in SQL: `public.users`, `sales."Order Items"`. */
  source: string;
  /** The same name as on the source unless given. */
  target?: string;
}

export interface RowDifference {
  table: string;
  /** Text of the key columns, quoted and joined by commas. */
  key: string;
  kind: "missing" | "extra" | "changed" | "duplicate";
  source?: string;
  target?: string;
}

export interface Comparison {
  /** Rows of all tables on the source. */
  rows: number;
  /** At most 100 per table. */
  differences: RowDifference[];
}

const batchRows = 2_000;
const mostPerTable = 100;

const pinnedSettings = [
  ["search_path", "pg_catalog"],
  ["client_encoding", "UTF8"],
  ["timezone", "UTC"],
  ["datestyle", "ISO, MDY"],
  ["intervalstyle", "postgres"],
  ["extra_float_digits", "3"],
  ["bytea_output", "hex"],
  ["lc_monetary", "C"],
  ["xmlbinary", "base64"],
  ["quote_all_identifiers", "off"],
  ["row_security", "off"],
  ["statement_timeout", "0"],
];

/** Compares tables while nobody writes to them, or every table of the source outside of system schemas. */
export async function compareDatabases(
  sourceUrl: string,
  targetUrl: string,
  tables?: readonly (string | TableNames)[],
): Promise<Comparison> {
  const source = await connect(sourceUrl);
  const target = await connect(targetUrl);
  try {
    const settings = [...pinnedSettings];
    const straddles12 = (await serverMajor(source)) >= 12 !== (await serverMajor(target)) >= 12;
    // Rounded, numbers inside of composites and ranges look the same; others are not compared by their text then.
    if (straddles12) settings.push(["extra_float_digits", "0"]);
    for (const client of [source, target]) {
      for (const setting of settings) await client.query("select set_config($1, $2, false)", setting);
      await client.query("begin isolation level repeatable read, read only");
    }
    const comparison: Comparison = { rows: 0, differences: [] };
    for (const names of tables ?? (await tablesOf(source))) {
      const { source: from, target: to = from } = typeof names === "string" ? { source: names } : names;
      comparison.rows += await compareTable(
        { source, target, straddles12 },
        { from, to },
        comparison.differences,
      );
    }
    return comparison;
  } finally {
    await Promise.all([source.end(), target.end()].map((ending) => ending.catch(() => undefined)));
  }
}

/** Roots of partition trees and plain tables; inheritance children stand for themselves. */
async function tablesOf(client: pg.Client): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    `select quote_ident(n.nspname) || '.' || quote_ident(c.relname) as name
       from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where c.relkind in ('r', 'p') and not c.relispartition
        and n.nspname not in ('pg_catalog', 'information_schema', 'replicate') and n.nspname not like 'pg_t%'
      order by 1`,
  );
  return rows.map(({ name }) => name);
}

interface Shape {
  oid: number;
  kind: string;
  /** Name to type, in the table's order; without generated columns. */
  columns: Map<string, string>;
  key: string[];
}

async function compareTable(
  sides: { source: pg.Client; target: pg.Client; straddles12: boolean },
  { from, to }: { from: string; to: string },
  differences: RowDifference[],
): Promise<number> {
  const [source, target] = [await shapeOf(sides.source, from), await shapeOf(sides.target, to)];
  for (const column of source.columns.keys()) {
    if (!target.columns.has(column)) throw new Error(`${to} has no column ${column}`);
  }
  const expressionsOf = (names: Iterable<string>): string[] =>
    Array.from(names, (name) => {
      const [type, other] = [source.columns.get(name) ?? "", target.columns.get(name) ?? ""];
      return textOf(name, type, type === other && sides.straddles12);
    });
  const key = expressionsOf(source.key);
  const row = expressionsOf(source.columns.keys());
  const readers = {
    source: new RowReader(sides.source, from, source, key, row),
    target: new RowReader(sides.target, to, target, key, row),
  };
  let found = 0;
  const report = (difference: Omit<RowDifference, "table">): void => {
    found++;
    if (found <= mostPerTable) differences.push({ table: from, ...difference });
  };
  let ours = await readers.source.next();
  let theirs = await readers.target.next();
  while (ours !== undefined || theirs !== undefined) {
    const order = compareKeys(ours?.key, theirs?.key);
    if (order < 0 && ours !== undefined) {
      report({ key: ours.key, kind: "missing", source: ours.row });
    } else if (order > 0 && theirs !== undefined) {
      const kind = theirs.key === readers.target.previous ? "duplicate" : "extra";
      report({ key: theirs.key, kind, target: theirs.row });
    } else if (ours !== undefined && theirs !== undefined && ours.row !== theirs.row) {
      report({ key: ours.key, kind: "changed", source: ours.row, target: theirs.row });
    }
    if (order <= 0) ours = await readers.source.next();
    if (order >= 0) theirs = await readers.target.next();
  }
  await readers.source.close();
  await readers.target.close();
  return readers.source.count;
}

async function shapeOf(client: pg.Client, table: string): Promise<Shape> {
  const { rows } = await client.query<{ oid: string; kind: string }>(
    "select oid::int8, relkind::text as kind from pg_class where oid = to_regclass($1)",
    [table],
  );
  const [found] = rows;
  if (found === undefined) throw new Error(`there is no table ${table}`);
  const columns = await client.query<{ name: string; type: string }>(
    `select a.attname::text as name, format_type(a.atttypid, a.atttypmod) as type
       from pg_attribute a
      where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped
        and coalesce(to_jsonb(a) ->> 'attgenerated', '') = ''
      order by a.attnum`,
    [found.oid],
  );
  const key = await client.query<{ name: string }>(
    `select a.attname::text as name
       from (select * from pg_index
              where indrelid = $1 and indisunique and indpred is null and indexprs is null
              order by indisprimary desc, indisreplident desc, indnatts limit 1) i
       cross join unnest(i.indkey::int2[]) with ordinality as k (attnum, place)
       join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
      where k.place <= coalesce((to_jsonb(i) ->> 'indnkeyatts')::int, i.indnatts)
      order by k.place`,
    [found.oid],
  );
  const types = new Map(columns.rows.map(({ name, type }) => [name, type]));
  return {
    oid: Number(found.oid),
    kind: found.kind,
    columns: types,
    // Without a key, rows are told apart by all they hold.
    key: key.rows.length > 0 ? key.rows.map(({ name }) => name) : [...types.keys()],
  };
}

const senders: Record<string, string> = {
  real: "float4send",
  "double precision": "float8send",
  point: "point_send",
  lseg: "lseg_send",
  path: "path_send",
  box: "box_send",
  polygon: "poly_send",
  line: "line_send",
  circle: "circle_send",
};

/** Never NULL, and NULL is not the empty text. */
function textOf(column: string, type: string, straddles12: boolean): string {
  const value = `t.${quoteName(column)}`;
  // format() writes what the type's output function does, where a cast to text would trim or spell out.
  const text = (straddles12 ? floatTextOf(value, type) : undefined) ?? `format('%s', ${value})`;
  return `case when ${value}::text is null then 'null' else quote_literal(${text}) end`;
}

/** Until version 12 floating point numbers were written with more digits: by their bytes, but for NaN with its many. */
function floatTextOf(value: string, type: string): string | undefined {
  const element = type.replace(/\[\]$/, "");
  const sender = senders[element];
  if (sender === undefined) return undefined;
  const isArray = element !== type;
  const sent = `${isArray ? "array_send" : sender}(${value})::text`;
  if (!["real", "double precision"].includes(element)) return sent;
  const isNaN = isArray ? `'NaN'::${element} = any (${value})` : `${value} = 'NaN'::${element}`;
  return `case when ${isNaN} then ${value}::text else ${sent} end`;
}

interface Row {
  key: string;
  row: string;
}

class RowReader {
  count = 0;
  previous: string | undefined;
  #current: string | undefined;
  readonly #client: pg.Client;
  readonly #cursor: string;
  readonly #declare: string;
  #isDeclared = false;
  #batch: Row[] = [];
  #at = 0;

  constructor(client: pg.Client, table: string, shape: Shape, key: string[], row: string[]) {
    this.#client = client;
    this.#cursor = "compare_rows";
    const only = shape.kind === "p" ? "" : "only ";
    const join = (parts: string[]): string => (parts.length === 0 ? "''" : parts.join(" || ',' || "));
    this.#declare = `declare ${this.#cursor} no scroll cursor for
      select s.key, s.row from (select ${join(key)} as key, ${join(row)} as row from ${only}${table} as t) as s
      order by s.key collate "C", s.row collate "C"`;
  }

  async next(): Promise<Row | undefined> {
    if (!this.#isDeclared) await this.#client.query(this.#declare);
    this.#isDeclared = true;
    if (this.#at === this.#batch.length) {
      this.#batch = (await this.#client.query<Row>(`fetch ${batchRows} from ${this.#cursor}`)).rows;
      this.#at = 0;
    }
    const row = this.#batch[this.#at++];
    this.previous = this.#current;
    this.#current = row?.key;
    if (row === undefined) this.#at = this.#batch.length;
    else this.count++;
    return row;
  }

  async close(): Promise<void> {
    await this.#client.query(`close ${this.#cursor}`);
  }
}

/** The order of collation "C": by bytes. The end of a side comes after everything. */
function compareKeys(a: string | undefined, b: string | undefined): number {
  if (a === b) return 0;
  if (a === undefined) return 1;
  if (b === undefined) return -1;
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}
