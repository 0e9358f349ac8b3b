/**
 * 64-bit hashes of texts that come out the same on both servers, and which function to use for them.
 */
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";

/** A way to make a bigint of a text, and the first version that has it. */
interface HashFunction {
  readonly since: number;
  /** Whether `sql` mentions its argument more than once, so that it had better be computed before. */
  readonly isTwofold: boolean;
  sql(text: string): string;
}

/** In order of preference. No md5: servers in FIPS mode refuse it. */
const hashFunctions: readonly HashFunction[] = [
  { since: 110_000, isTwofold: false, sql: (text) => `pg_catalog.hashtextextended(${text} collate "C", 0)` },
  {
    since: 100_000,
    isTwofold: true,
    // Two hashes of 32 bits. The prefix changes the state in which the second one begins.
    sql: (text) =>
      `(pg_catalog.hashtext(${text} collate "C")::bigint << 32` +
      ` | pg_catalog.hashtext(('~' || ${text}) collate "C")::bigint & 4294967295)`,
  },
  {
    since: 110_000,
    isTwofold: false,
    sql: (text) =>
      `('x' || pg_catalog.encode(pg_catalog.substr(pg_catalog.sha256(pg_catalog.convert_to(${text}, 'UTF8')), 1, 8), 'hex'))::bit(64)::bigint`,
  },
];

/** Above this size a value is hashed by itself: its text, quoted within its row's, would take a multiple of it. */
const LARGE_VALUE_BYTES = 8 * 1024 * 1024;
const SLICE_BYTES = 4 * 1024 * 1024;

/** What both sides use for the whole run. */
export class Checksum {
  readonly #hash: HashFunction;
  readonly #isConverted: boolean;

  private constructor(hash: HashFunction, isConverted: boolean) {
    this.#hash = hash;
    this.#isConverted = isConverted;
  }

  /**
   * Finds a hash function that gives the same on both servers: by a trial, because their results depend on the
   * processor's byte order. Throws STATEMENT_FAILED when there is none.
   */
  static async agree(source: Connection, target: Connection): Promise<Checksum> {
    const [from, to] = await Promise.all([encodingOf(source), encodingOf(target)]);
    const isConverted = from !== to;
    const oldest = Math.min(source.version, target.version);
    const probes = ["", "a", '(1,,"x y",\\x00ff)', "0123456789abcdef".repeat(20)];
    if (from === "UTF8" && to === "UTF8") probes.push("Größe ☃ 𝄞");
    for (const hash of hashFunctions) {
      if (hash.since > oldest) continue;
      const checksum = new Checksum(hash, isConverted);
      const query = `select pg_catalog.string_agg((${checksum.hash("p.text")})::text, ' ' order by p.n) as sums
        from pg_catalog.unnest($1::text[]) with ordinality as p (text, n)`;
      const [onSource, onTarget] = await Promise.all(
        [source, target].map(async (side) => (await side.row<{ sums: string }>(query, [probes])).sums),
      );
      if (onSource === onTarget) return checksum;
    }
    throw new ReplicateError(
      "STATEMENT_FAILED",
      "source and target have no hash function in common that gives the same results on both",
      {
        hint: "This happens between processors of different byte order before version 11; compare dumps instead.",
      },
    );
  }

  /** A bigint of a text expression; null for null. */
  hash(text: string): string {
    return this.#hash.sql(
      this.#isConverted ? `pg_catalog.encode(pg_catalog.convert_to(${text}, 'UTF8'), 'escape')` : text,
    );
  }

  /** A bigint of a row with these fields, see value-form.ts. */
  hashRow(fields: readonly string[]): string {
    return this.hash(rowText(fields));
  }

  /** Which of `count` (a power of two) buckets a row with these key fields belongs to, as an integer. */
  bucket(keyFields: readonly string[], count: number): string {
    return `(${this.hashRow(keyFields)} operator(pg_catalog.&) ${count - 1})::integer`;
  }

  /**
   * A query for the number of rows and the sum of their hashes. The sum is numeric: it cannot overflow, and equal
   * rows do not cancel each other out.
   */
  totalSql(fields: readonly string[], from: string): string {
    if (!this.#hash.isTwofold) {
      return `select pg_catalog.count(*)::text as rows, pg_catalog.sum(${this.hashRow(fields)})::text as sum from ${from}`;
    }
    // OFFSET 0 keeps the planner from computing the text twice.
    return `select pg_catalog.count(*)::text as rows, pg_catalog.sum(${this.hash("r.line")})::text as sum
      from (select ${rowText(fields)} as line from ${from} offset 0) as r`;
  }

  /** The same by bucket. */
  bucketsSql(fields: readonly string[], bucket: string, from: string): string {
    // OFFSET 0 also hides from the planner what a bucket is made of: it would expect as many as there are rows, and sort.
    return `select r.bucket, pg_catalog.count(*)::text as rows, pg_catalog.sum(${this.hash("r.line")})::text as sum
      from (select ${bucket} as bucket, ${rowText(fields)} as line from ${from} offset 0) as r group by r.bucket`;
  }

  /** The form of a text value that may be very large: beyond 8 MB its hash stands for it. */
  largeText(expression: string): string {
    return `case when pg_catalog.octet_length(${expression}) > ${LARGE_VALUE_BYTES} then (${this.hash(expression)})::pg_catalog.text else ${expression} end`;
  }

  /** The same for a bytea, which is hashed slice by slice: as text it has twice its size. */
  largeBytes(expression: string): string {
    const slice = this.hash(
      `pg_catalog.encode(pg_catalog.substr(${expression}, s.start, ${SLICE_BYTES}), 'hex')`,
    );
    const slices =
      `array(select ${slice} from pg_catalog.generate_series(1, pg_catalog.octet_length(${expression}), ${SLICE_BYTES}) as s (start)` +
      ` order by s.start)`;
    return `case when pg_catalog.octet_length(${expression}) > ${LARGE_VALUE_BYTES} then (${slices}::pg_catalog.text)::pg_catalog.bytea else ${expression} end`;
  }
}

function rowText(fields: readonly string[]): string {
  return `row(${fields.join(", ")})::pg_catalog.text`;
}

async function encodingOf(connection: Connection): Promise<string> {
  const { encoding } = await connection.row<{ encoding: string }>(
    `select pg_catalog.current_setting('server_encoding') as encoding`,
  );
  return encoding;
}
