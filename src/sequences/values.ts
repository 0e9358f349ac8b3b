/** The values of sequences, and which of two is the later one. */
import { tableSql } from "../catalog/table.ts";
import type { Connection } from "../postgres/connect.ts";
import { literal } from "../postgres/sql.ts";
import type { Sequence } from "./pairs.ts";

export interface Value {
  readonly value: bigint;
  readonly isCalled: boolean;
}

/** Sequences that one transaction locks. */
const AT_ONCE = 200;

/** In the order of `sequences`. */
export async function readValues(connection: Connection, sequences: readonly Sequence[]): Promise<Value[]> {
  const values: Value[] = [];
  for (let at = 0; at < sequences.length; at += AT_ONCE) {
    const selects = sequences
      .slice(at, at + AT_ONCE)
      .map(
        (sequence, index) =>
          `select ${index} as n, last_value::text as value, is_called as "isCalled" from ${tableSql(sequence)}`,
      );
    const rows = await connection.rows<{ value: string; isCalled: boolean }>(
      `${selects.join(" union all ")} order by n`,
    );
    values.push(...rows.map((row) => ({ value: BigInt(row.value), isCalled: row.isCalled })));
  }
  return values;
}

/** The later of both values, seen in the direction of the sequence, plus the margin, within its bounds. */
export function advance(
  target: Sequence,
  present: Value,
  given: Value,
  increment: bigint,
  margin: bigint,
): Value {
  const isDescending = increment < 0n;
  const [min, max] = [BigInt(target.min), BigInt(target.max)];
  // A small sequence must not be used up by its margin: a tenth of what is left is given for it at most.
  const size = isDescending ? -increment : increment;
  const room = (isDescending ? given.value - min : max - given.value) / size / 10n;
  const steps = margin < room ? margin : room > 0n ? room : 0n;
  let value = given.isCalled ? given.value + steps * increment : given.value;
  if (value > max) value = max;
  if (value < min) value = min;
  const wanted: Value = { value, isCalled: given.isCalled };
  // Where a sequence starts over, "later" has no meaning: the source's value holds.
  if (target.cycle) return wanted;
  // What nextval would give tells which is later: a value that was not called yet is given out itself.
  const next = ({ value: last, isCalled }: Value): bigint => (isCalled ? last + increment : last);
  const isAhead = isDescending ? next(present) <= next(wanted) : next(present) >= next(wanted);
  return isAhead ? present : wanted;
}

/**
 * Sets sequences to values; nobody who called one meanwhile is set back, and none whose numbers have been shared out
 * meanwhile is touched: that waits for us, or we for it.
 */
export async function setValues(
  connection: Connection,
  wanted: readonly { readonly sequence: Sequence; readonly value: Value }[],
): Promise<void> {
  for (let at = 0; at < wanted.length; at += AT_ONCE) {
    const statements = wanted.slice(at, at + AT_ONCE).map(({ sequence, value }) => setSql(sequence, value));
    await connection.transaction(async () => {
      await connection.script("lock table replicate.interleaved in share mode");
      await connection.script(statements.join(";\n"));
    });
  }
}

function setSql(sequence: Sequence, { value, isCalled }: Value): string {
  const name = tableSql(sequence);
  const later = BigInt(sequence.increment) < 0n ? ">" : "<";
  const isForward = `last_value ${later} ${value} or last_value = ${value} and ${isCalled} and not is_called`;
  return `select pg_catalog.setval(${literal(name)}, ${value}, ${isCalled}) from ${name}
    where (${sequence.cycle ? "true" : isForward})
      and not exists (select 1 from replicate.interleaved where relid = ${literal(name)}::pg_catalog.regclass)`;
}
