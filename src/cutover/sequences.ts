/** Sequences: their values go to the target, forward only. */
import { selectTables } from "../catalog/patterns.ts";
import { tableLabel, tableSql } from "../catalog/table.ts";
import type { Connection } from "../postgres/connect.ts";
import { literal, load } from "../postgres/sql.ts";
import type { SyncContext } from "../state/context.ts";
import { loadTables, type SyncTable } from "../state/sync-table.ts";

export interface SequencesOptions {
  /** Values to leave free after the source's, in steps of the sequence. Default 0. */
  readonly margin?: number;
}

export interface SequencesReport {
  readonly sequences: readonly SequenceChange[];
  /** Sequences that the source has and the target has not. */
  readonly missing: readonly string[];
}

export interface SequenceChange {
  readonly name: string;
  /** The target's value before and after; null while it was never called. */
  readonly from: string | null;
  readonly to: string | null;
  readonly changed: boolean;
}

interface Sequence {
  readonly schema: string;
  readonly name: string;
  readonly increment: string;
  readonly min: string;
  readonly max: string;
  readonly cycle: boolean;
  readonly ownerRelid: number | null;
  readonly ownerColumn: string | null;
}

interface Value {
  readonly value: bigint;
  readonly isCalled: boolean;
}

/**
 * Carries the values of the sequences that the sync's tables own, and of those without an owner that the table patterns
 * select. The target's never goes back: it may have been taken over already. Throws SYNC_UNKNOWN.
 */
export async function carrySequences(
  context: SyncContext,
  options: SequencesOptions = {},
): Promise<SequencesReport> {
  await using source = await context.source("sequences");
  await using target = await context.target("sequences");
  const tables = await loadTables(target, context.config.name);
  const [sources, targets] = await Promise.all(
    [source, target].map((each) => each.rows<Sequence>(load("catalog/sequences"))),
  );
  const pairs: { from: Sequence; to: Sequence }[] = [];
  const missing: string[] = [];
  for (const from of selectSequences(context, sources ?? [], tables)) {
    const to = counterpart(from, targets ?? [], tables);
    if (to === undefined) missing.push(tableLabel(from));
    else pairs.push({ from, to });
  }
  const [given, present] = await Promise.all([
    readValues(source, pairs.map(({ from }) => from)),
    readValues(target, pairs.map(({ to }) => to)),
  ]); // prettier-ignore

  const sequences: SequenceChange[] = [];
  const statements: string[] = [];
  pairs.forEach(({ from, to }, index) => {
    const before = present[index] as Value;
    const after = advance(
      to,
      before,
      given[index] as Value,
      BigInt(from.increment),
      BigInt(options.margin ?? 0),
    );
    const changed = after.value !== before.value || after.isCalled !== before.isCalled;
    if (changed) {
      statements.push(
        `select pg_catalog.setval(${literal(tableSql(to))}, ${after.value}, ${after.isCalled})`,
      );
    }
    const show = (value: Value): string | null => (value.isCalled ? String(value.value) : null);
    sequences.push({ name: tableLabel(to), from: show(before), to: show(after), changed });
  });
  if (statements.length > 0) await target.script(statements.join(";\n"));
  return { sequences, missing };
}

function selectSequences(
  context: SyncContext,
  all: readonly Sequence[],
  tables: readonly SyncTable[],
): Sequence[] {
  const free = all.filter((sequence) => sequence.ownerRelid === null);
  const owned = all.filter((sequence) => tables.some((table) => table.sourceRelid === sequence.ownerRelid));
  return [...owned, ...selectTables(free, context.config.tables, context.config.exclude).selected];
}

/** An owned sequence by its column, so that its name may differ; another one by its name. */
function counterpart(
  from: Sequence,
  targets: readonly Sequence[],
  tables: readonly SyncTable[],
): Sequence | undefined {
  const table = tables.find((each) => each.sourceRelid === from.ownerRelid);
  const owned = targets.find(
    (each) =>
      table !== undefined && each.ownerRelid === table.targetRelid && each.ownerColumn === from.ownerColumn,
  );
  return owned ?? targets.find((each) => each.schema === from.schema && each.name === from.name);
}

async function readValues(connection: Connection, sequences: readonly Sequence[]): Promise<Value[]> {
  if (sequences.length === 0) return [];
  const selects = sequences.map(
    (sequence, index) =>
      `select ${index} as n, last_value::text as value, is_called as "isCalled" from ${tableSql(sequence)}`,
  );
  const rows = await connection.rows<{ value: string; isCalled: boolean }>(
    `${selects.join(" union all ")} order by n`,
  );
  return rows.map((row) => ({ value: BigInt(row.value), isCalled: row.isCalled }));
}

/** The later of both values, seen in the direction of the sequence, plus the margin, within its bounds. */
function advance(target: Sequence, present: Value, given: Value, increment: bigint, margin: bigint): Value {
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
