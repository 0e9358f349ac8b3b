/** Sequences: their values go to the target, forward only. */
import { tableLabel } from "../catalog/table.ts";
import type { SyncContext } from "../state/context.ts";
import { migrateOlder } from "../state/migrate.ts";
import { checkPair } from "../state/source-identity.ts";
import { pairSequences, type Sequence } from "./pairs.ts";
import { advance, readValues, setValues, type Value } from "./values.ts";

export interface SequencesOptions {
  /** Values to leave free after the source's, in steps of the sequence. Default 0. */
  readonly margin?: number;
}

export interface SequencesReport {
  readonly sequences: readonly SequenceChange[];
  /** Sequences that the source has and the target has not. */
  readonly missing: readonly string[];
  /** Sequences whose numbers are shared out between both sides: they stay as they are. */
  readonly interleaved: readonly string[];
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
  await checkPair(source, target, context.config.name);
  await migrateOlder(target);
  const { pairs: all, missing } = await pairSequences(context, source, target);
  const pairs = all.filter(({ isInterleaved }) => !isInterleaved);
  const interleaved = all.filter((pair) => pair.isInterleaved).map(({ to }) => tableLabel(to));
  const [given, present] = await Promise.all([
    readValues(source, pairs.map(({ from }) => from)),
    readValues(target, pairs.map(({ to }) => to)),
  ]); // prettier-ignore
  const wanted: { sequence: Sequence; value: Value }[] = [];
  const sequences = pairs.map(({ from, to }, index) => {
    const before = present[index] as Value;
    const margin = BigInt(options.margin ?? 0);
    const after = advance(to, before, given[index] as Value, BigInt(from.increment), margin);
    const changed = after.value !== before.value || after.isCalled !== before.isCalled;
    if (changed) wanted.push({ sequence: to, value: after });
    const show = (value: Value): string | null => (value.isCalled ? String(value.value) : null);
    return { name: tableLabel(to), from: show(before), to: show(after), changed };
  });
  await setValues(target, wanted);
  return { sequences, missing, interleaved };
}
