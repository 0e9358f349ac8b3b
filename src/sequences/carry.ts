/** Sequences: their values go to the target, forward only. */
import { tableLabel } from "../catalog/table.ts";
import type { SyncContext } from "../state/context.ts";
import { pairSequences } from "./pairs.ts";
import { advance, readValues, setSql, type Value } from "./values.ts";

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

/** Carries the values of the sync's sequences. The target's never goes back: it may have been taken over already. Throws SYNC_UNKNOWN. */
export async function carrySequences(
  context: SyncContext,
  options: SequencesOptions = {},
): Promise<SequencesReport> {
  await using source = await context.source("sequences");
  await using target = await context.target("sequences");
  const { pairs, missing } = await pairSequences(context, source, target);
  const [given, present] = await Promise.all([
    readValues(source, pairs.map(({ from }) => from)),
    readValues(target, pairs.map(({ to }) => to)),
  ]); // prettier-ignore
  const statements: string[] = [];
  const sequences = pairs.map(({ from, to }, index) => {
    const before = present[index] as Value;
    const margin = BigInt(options.margin ?? 0);
    const after = advance(to, before, given[index] as Value, BigInt(from.increment), margin);
    const changed = after.value !== before.value || after.isCalled !== before.isCalled;
    if (changed) statements.push(setSql(to, after));
    const show = (value: Value): string | null => (value.isCalled ? String(value.value) : null);
    return { name: tableLabel(to), from: show(before), to: show(after), changed };
  });
  if (statements.length > 0) await target.script(statements.join(";\n"));
  return { sequences, missing };
}
