/** What a table is at a moment, as far as its rows depend on it: sql/catalog/fingerprint, and what else rows may hold. */
import type { Connection } from "../postgres/connect.ts";
import { load } from "../postgres/sql.ts";

/** [attnum, name, type oid, typmod, collation, generated] */
export type FingerprintColumn = readonly [number, string, number, number, number, string];

export interface Fingerprint {
  readonly columns: readonly FingerprintColumn[];
  /** Column numbers of each unique index, separated by spaces. */
  readonly keys: readonly string[];
  /** [name, enabled, xmin] of the triggers that capture it. */
  readonly triggers: readonly (readonly [string, string, string])[];
  /**
   * Of a table that is captured per statement, by column number: who wrote its row in the catalogue. Null for others, absent
   * from what earlier versions have stored.
   */
  readonly touched?: Readonly<Record<string, string>> | null;
  /** Another one after each change of defaults, constraints, indexes or comments. Absent from what earlier versions have stored. */
  readonly definition?: string;
  /** Absent from what earlier versions have stored. */
  readonly rows?: {
    /** Of the columns' rows in the catalogue: new ones after every command that may give rows other values. */
    readonly versions: string;
    /** Physical file of each relation that holds rows, by oid. */
    readonly files: Readonly<Record<string, string>>;
    /** Before 13: version of each partition's link to its table, by oid. */
    readonly links: Readonly<Record<string, string>>;
    /** Labels of enums by oid, or [attnum, type oid, name] of composites, by the type's oid. */
    readonly types: Readonly<Record<string, Readonly<Record<string, string>> | readonly unknown[]>>;
  };
  /** What earlier versions have stored instead: the file of a table that is not partitioned, or 0. */
  readonly file?: number;
}

export const parseFingerprint = (text: string): Fingerprint => JSON.parse(text) as Fingerprint;

/** A fingerprint, and the values of columns that were added without a rewrite. Both of one moment. */
export interface TableForm {
  readonly text: string;
  /** For each relation that holds rows, by oid: the values by column, as text. A column that is missing: null. */
  readonly missing: ReadonlyMap<number, ReadonlyMap<string, string>>;
}

/** Before this version a table is rewritten when it gets a column with a default. */
const MISSING_SINCE = 110_000;

/** The forms of these tables, by oid. Of those that are gone there is none. */
export async function readForms(
  connection: Connection,
  oids: readonly number[],
): Promise<Map<number, TableForm>> {
  return await connection.transaction(
    async () => await readFormsHere(connection, oids),
    "begin isolation level repeatable read read only",
  );
}

/** The same in the transaction that the session is in, which sees no other changes of these tables. */
export async function readFormsHere(
  connection: Connection,
  oids: readonly number[],
): Promise<Map<number, TableForm>> {
  const texts = await connection.rows<{ relid: string; fingerprint: string }>(load("catalog/fingerprint"), [
    oids,
  ]);
  const values =
    connection.version < MISSING_SINCE
      ? []
      : await connection.rows<{ root: string; relid: string; column: string; value: string }>(
          load("catalog/missing-values"),
          [oids],
        );
  return new Map(
    texts.map(({ relid: root, fingerprint }) => {
      const missing = new Map<number, Map<string, string>>();
      for (const { relid, column, value } of values.filter((each) => each.root === root)) {
        const oid = Number(relid);
        missing.set(oid, (missing.get(oid) ?? new Map<string, string>()).set(column, value));
      }
      return [Number(root), { text: fingerprint, missing }];
    }),
  );
}
