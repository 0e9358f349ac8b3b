/** Finds the rows that the target rejects, by halving on the server. In the transaction that writes the others. */
import type { Capture } from "../catalog/delta.ts";
import { fromText, toText } from "../catalog/text-form.ts";
import { saidBy } from "../postgres/server-words.ts";
import type { Connection } from "../postgres/connect.ts";
import { literal, load } from "../postgres/sql.ts";
import { REJECTIONS } from "../postgres/sqlstate.ts";
import type { RejectedRow } from "../state/parked.ts";

export interface FoundRow extends Omit<RejectedRow, "captureId" | "relid" | "table" | "isNew"> {
  /** It was parked before. */
  readonly isParked: boolean;
  /** Its place in staging. */
  readonly at: string;
}

/** What has to be there to find rows: run it once, before `findRows`, in the same transaction. */
export function finderSql(): string {
  return load("parked/find-rejected");
}

/**
 * The rows of `from`, numbered from 1 in column `n` and with the key in k1 …, that the statements `attempt` fail for:
 * those work on the rows from $1 to $2. Throws the server's error where that is not about a row.
 */
export async function findRows(
  target: Connection,
  sync: string,
  { id, keyColumns }: Capture,
  how: {
    readonly from: string;
    /** Types of the target to read the key as, where it is text as yet. */
    readonly keyTypes?: readonly string[];
    /** Statements that are run before. */
    readonly prepare?: readonly string[];
    readonly attempt: readonly string[];
    /** Rows that are tried at once; default all. Of a try that fails the target's table keeps dead rows. */
    readonly step?: number;
    /** Rows to be found at most. */
    readonly most: number;
    /** Whether what is done for the others stays done. */
    readonly keeps: boolean;
    /** SQLSTATEs that are about a row, as a pattern; default REJECTIONS. */
    readonly rejections?: string;
    /** Those of them that do not count. */
    readonly passed?: readonly string[];
    /** An expression for the row's place. */
    readonly at?: string;
  },
): Promise<FoundRow[]> {
  // In the form in which keys are looked for elsewhere: it is another one than that of format() for char(n) and boolean.
  const keyOf = (values: readonly string[], types: readonly string[]): string =>
    `pg_catalog.jsonb_build_object(
       'texts', array[${values.map((value, n) => toText(value, types[n] ?? "text")).join(", ")}]::text[],
       'key', pg_catalog.jsonb_build_object(${keyColumns.map(({ name }, n) => `${literal(name)}::text, ${values[n]}`).join(", ")}))`;
  const plain = keyColumns.map((_, n) => `r.k${n + 1}`);
  const plainKey = keyOf(plain, how.keyTypes === undefined ? keyColumns.map(({ readType }) => readType) : []);
  const typed = how.keyTypes?.map((type, n) => fromText(`r.k${n + 1}`, type));
  const readKey =
    typed === undefined
      ? plainKey
      : `pg_temp.read_key(${literal(`select ${keyOf(typed, how.keyTypes ?? [])} from ${how.from} as r where r.n = $1`)}, f.n)`;
  const rows = await target.rows<
    Omit<FoundRow, "key" | "keyTexts"> & {
      readonly detail: string;
      readonly read: { readonly key: Readonly<Record<string, unknown>>; readonly texts: (string | null)[] };
    }
  >(
    `select q.*, array(select pg_catalog.jsonb_array_elements_text(q.read -> 'texts')) in (
              select p.key_texts from replicate.parked as p where p.sync = $6 and p.capture_id = ${id}) as "isParked"
     from (
       select f.n, coalesce(k.typed, ${plainKey}) as read, k.typed is not null as "isKeyTyped", ${how.at ?? "''"} as at,
              f.code as sqlstate, f.broken as constraint,
              f.message, f.detail
       from pg_temp.find_refused($1::text[], $2::text[], (select count(*) from ${how.from}), $3, $4, $5, $7, $8) as f
       join ${how.from} as r on r.n = f.n
       cross join lateral (select ${readKey} as typed) as k
     ) as q
     order by q.n`,
    [
      how.prepare ?? [],
      how.attempt,
      how.step ?? Number.MAX_SAFE_INTEGER,
      how.most,
      how.keeps,
      sync,
      how.rejections ?? REJECTIONS,
      how.passed ?? [],
    ],
  );
  return rows.map(({ read, message, detail, ...row }) => ({
    ...row,
    // Values are not kept.
    message: saidBy({ code: row.sqlstate, message, detail }),
    key: read.key,
    keyTexts: read.texts,
  }));
}
