/** Indexes that call functions which find things by the search path. */
import type { Connection } from "../postgres/connect.ts";
import { load } from "../postgres/sql.ts";

export interface FreeIndex {
  readonly relid: number;
  readonly index: string;
  readonly columns: readonly string[];
  readonly expressions: readonly string[];
  readonly predicate: string | null;
  /** Signatures. */
  readonly functions: readonly string[];
}

/** Those of tables and partitions, by oid. */
export async function readFreeIndexes(
  connection: Connection,
  relids: readonly number[],
): Promise<FreeIndex[]> {
  return await connection.rows<FreeIndex>(load("catalog/free-functions"), [relids]);
}

/** Statements after which the functions find the same under any path. `searchPath`: of the application's sessions. */
export function pinPath({ functions }: FreeIndex, searchPath: string): string[] {
  const names = [...new Set(searchPath.match(/"(?:[^"]|"")*"|[^,\s]+/g))];
  const path = names.filter((each) => !['"$user"', "pg_temp"].includes(each)).join(", ");
  return [
    ...functions.map((each) => `alter function ${each} set search_path = ${path};`),
    "-- with further schemas that the application's sessions have, if it has any",
  ];
}
