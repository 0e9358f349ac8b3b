/** How far the numbers of sequences have been given out: by the sequence, or by rows that came with numbers of their own. */
import type { Connection } from "../postgres/connect.ts";
import { ident, load, qualified } from "../postgres/sql.ts";
import type { Sequence } from "./pairs.ts";
import { later } from "./shares.ts";
import type { Value } from "./values.ts";

/** Greatest and smallest values of the types of columns that draw from sequences. */
const typeBits: Readonly<Record<string, bigint>> = { smallint: 15n, integer: 31n, bigint: 63n };

interface DrawingColumn {
  readonly sequence: number;
  readonly schema: string;
  readonly table: string;
  readonly column: string;
  readonly type: string;
  readonly isIndexed: boolean;
}

export interface Extent {
  /** The last number in the columns that draw from the sequence, as far as an index tells it; null: none. */
  readonly last: bigint | null;
  /** The last number that fits into the sequence and those columns, in its direction. */
  readonly end: bigint;
}

/** By oid of the sequence. Columns without an index are not read: there may be hundreds of gigabytes of them. */
export async function readExtents(
  connection: Connection,
  sequences: readonly Sequence[],
): Promise<Map<number, Extent>> {
  const columns = await connection.rows<DrawingColumn>(load("catalog/sequence-columns"), [
    sequences.map(({ relid }) => relid),
  ]);
  const extents = new Map<number, Extent>();
  for (const sequence of sequences) {
    const increment = BigInt(sequence.increment);
    const isDescending = increment < 0n;
    let end = BigInt(isDescending ? sequence.min : sequence.max);
    let last: bigint | null = null;
    for (const each of columns.filter((column) => column.sequence === sequence.relid)) {
      const bits = typeBits[each.type];
      if (bits === undefined) continue;
      const bound = isDescending ? -(1n << bits) : (1n << bits) - 1n;
      // The nearer end counts.
      end = later(end, bound, increment) === end ? bound : end;
      if (!each.isIndexed) continue;
      const name = ident(each.column);
      const { value } = await connection.row<{ value: string | null }>(
        `select pg_catalog.${isDescending ? "min" : "max"}(${name})::text as value from ${qualified(each.schema, each.table)}`,
      );
      if (value !== null) last = last === null ? BigInt(value) : later(last, BigInt(value), increment);
    }
    extents.set(sequence.relid, { last, end });
  }
  return extents;
}

/** The last number that a sequence can have given out: less than the next one, where that was set. */
export function lastGiven({ value, isCalled }: Value, increment: bigint): bigint {
  return isCalled ? value : value - (increment < 0n ? -1n : 1n);
}
