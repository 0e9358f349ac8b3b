/**
 * Shares the numbers of sequences out between source and target, so that rows which applications insert on both sides
 * never get the same. Each sequence goes on with the numbers of its share beyond all that either side has given out.
 */
import { tableLabel, tableSql } from "../catalog/table.ts";
import { ReplicateError, type Problem } from "../errors.ts";
import type { Side } from "../events.ts";
import type { Connection } from "../postgres/connect.ts";
import { failpoint } from "../postgres/failpoint.ts";
import { withBriefLocks } from "../postgres/lock.ts";
import type { SyncContext } from "../state/context.ts";
import { migrateOlder } from "../state/migrate.ts";
import { lastGiven, readExtents, type Extent } from "./given.ts";
import { recordInterleaved, readInterleaved, type Interleaved } from "./interleaved.ts";
import { pairSequences, type Sequence, type SequencePair } from "./pairs.ts";
import { checkShares, firstBeyond, later, type Share } from "./shares.ts";
import { readValues, type Value } from "./values.ts";

export interface InterleaveOptions {
  /** How many databases share the numbers. Default 2. */
  readonly shares?: number;
  /** Which share the source has, from 1. Default 1. */
  readonly sourceShare?: number;
  /** Default 2. */
  readonly targetShare?: number;
  /** Only say what would be done. */
  readonly dryRun?: boolean;
}

export interface InterleaveReport {
  readonly sequences: readonly InterleavedSequence[];
  /** Sequences that the source has and the target has not. */
  readonly missing: readonly string[];
  readonly dryRun: boolean;
}

export interface InterleavedSequence {
  readonly source: SideOfSequence;
  readonly target: SideOfSequence;
  /** False: they had these shares already. */
  readonly changed: boolean;
}

export interface SideOfSequence {
  readonly name: string;
  readonly increment: string;
  /** The next number; null where nothing was changed. */
  readonly next: string | null;
  /** How many numbers are left to this side. */
  readonly left: string;
  /** What is run; null where nothing was changed. */
  readonly statement: string | null;
}

/** Fewer numbers than that, or than this part of all, are told. */
const FEW = 1000n;
const FEW_PART = 10n;

/** One side of a pair of sequences. */
interface Half {
  readonly side: Side;
  readonly connection: Connection;
  readonly sequence: Sequence;
  readonly share: Share;
  readonly extent: Extent;
  /** What this database remembers of the sequence, by whatever sync. */
  readonly known: readonly Interleaved[];
  /** The increment before anything was shared out. */
  readonly increment: bigint;
}

type Halves = readonly [Half, Half];

/**
 * Only sequences that tables of the sync draw from. The same call again changes nothing, or completes what was interrupted.
 * Throws CONFIG_INVALID, SYNC_UNKNOWN, and SEQUENCES_UNFIT with all that stands in the way, before anything is changed.
 */
export async function interleaveSequences(
  context: SyncContext,
  options: InterleaveOptions = {},
): Promise<InterleaveReport> {
  const shares = checkShares(options);
  await using source = await context.source("sequences");
  await using target = await context.target("sequences");
  const { pairs, missing } = await pairSequences(context, source, target);
  const isOneDatabase = await areSame(source, target);
  // Tables that draw from one and the same sequence need no shares.
  const drawn = pairs.filter(
    ({ from, to, isDrawn }) => isDrawn && !(isOneDatabase && from.relid === to.relid),
  );
  const halves = await bothHalves(source, target, drawn, shares);
  const values = await Promise.all([
    readValues(source, drawn.map(({ from }) => from)),
    readValues(target, drawn.map(({ to }) => to)),
  ]); // prettier-ignore
  const planned = halves.map((pair, index) =>
    plan(pair, [values[0][index], values[1][index]] as [Value, Value]),
  );
  const problems = [
    ...halves.flatMap((pair) => problemsOf(pair, context.config.name)),
    ...planned.flatMap((pair, index) => (hasShares(halves[index] as Halves) ? [] : exhausted(pair))),
  ];
  if (problems.length > 0) {
    throw new ReplicateError("SEQUENCES_UNFIT", "the numbers of sequences cannot be shared out", {
      problems,
    });
  }
  const dryRun = options.dryRun === true;
  if (!dryRun) {
    await migrateOlder(source);
    await migrateOlder(target);
  }
  const sequences: InterleavedSequence[] = [];
  for (const [index, pair] of halves.entries()) {
    const isDone = hasShares(pair);
    const isOwn = pair.every(({ known }) => known.some(({ sync }) => sync === context.config.name));
    const result = dryRun || isDone ? (planned[index] as Planned) : await apply(context, pair);
    // Another sync has given them the same shares.
    if (!dryRun && isDone && !isOwn) for (const half of pair) await note(context, half);
    for (const each of result) warnOfFew(context, each);
    sequences.push({ source: show(result[0], isDone), target: show(result[1], isDone), changed: !isDone });
  }
  return { sequences, missing, dryRun };
}

async function areSame(source: Connection, target: Connection): Promise<boolean> {
  const [one, other] = await Promise.all(
    [source, target].map(
      async (side) =>
        await side.row<{ identity: string }>(
          `select pg_catalog.current_database() || '/' || pg_catalog.pg_postmaster_start_time()::text as identity`,
        ),
    ),
  );
  return one?.identity === other?.identity;
}

async function bothHalves(
  source: Connection,
  target: Connection,
  pairs: readonly SequencePair[],
  shares: { readonly source: Share; readonly target: Share },
): Promise<Halves[]> {
  const [froms, tos] = [pairs.map(({ from }) => from), pairs.map(({ to }) => to)];
  const [extents, others] = await Promise.all([readExtents(source, froms), readExtents(target, tos)]);
  const [known, knownThere] = await Promise.all([readInterleaved(source), readInterleaved(target)]);
  const half = (
    connection: Connection,
    sequence: Sequence,
    all: readonly Interleaved[],
    extent: Extent | undefined,
  ): Half => {
    const own = all.filter(({ relid }) => relid === sequence.relid);
    const { side } = connection;
    return {
      side, connection, sequence, share: shares[side], known: own,
      extent: extent ?? { last: null, end: BigInt(sequence.max) },
      increment: BigInt(own[0]?.increment ?? sequence.increment),
    }; // prettier-ignore
  };
  return pairs.map(({ from, to }): Halves => [
    half(source, from, known, extents.get(from.relid)),
    half(target, to, knownThere, others.get(to.relid)),
  ]);
}

/** Whether both sides have their shares already. */
function hasShares(pair: Halves): boolean {
  return pair.every(
    ({ known, share, sequence, increment }) =>
      known.length > 0 &&
      known.every((each) => each.shares === share.shares && each.share === share.share) &&
      BigInt(sequence.increment) === increment * BigInt(share.shares),
  );
}

function problemsOf(pair: Halves, sync: string): Problem[] {
  const [source, target] = pair;
  const problems: Problem[] = [];
  for (const { side, sequence, known, share } of pair) {
    const subject = tableLabel(sequence);
    if (sequence.cycle) {
      problems.push({
        subject,
        message: `starts over at its end on the ${side}, and so gives out numbers of others`,
        remedy: `alter sequence ${tableSql(sequence)} no cycle;  -- on the ${side}`,
      });
    }
    const other = known.find(
      (each) => each.sync !== sync && (each.shares !== share.shares || each.share !== share.share),
    );
    if (other === undefined) continue;
    problems.push({
      subject,
      message: `has share ${other.share} of ${other.shares} on the ${side} by sync ${other.sync} already`,
      remedy: `give the ${side} the same here: --shares ${other.shares} --${side}-share ${other.share}`,
    });
  }
  if (source.increment !== target.increment) {
    problems.push({
      subject: tableLabel(source.sequence),
      message: `counts by ${source.increment} on the source and by ${target.increment} on the target`,
      remedy: `alter sequence ${tableSql(target.sequence)} increment by ${source.increment};  -- on the target`,
    });
  }
  return problems;
}

interface PlannedHalf {
  readonly half: Half;
  readonly next: bigint;
  readonly step: bigint;
  readonly left: bigint;
}

type Planned = readonly [PlannedHalf, PlannedHalf];

/** Where each side goes on, beyond all that either has given out. */
function plan(pair: Halves, values: readonly [Value, Value]): Planned {
  const [{ increment }] = pair;
  const isDone = hasShares(pair);
  const given = pair.flatMap(({ extent, sequence }, index) => {
    const value = lastGiven(values[index] as Value, BigInt(sequence.increment));
    return extent.last === null ? [value] : [value, extent.last];
  });
  const last = given.reduce((a, b) => later(a, b, increment));
  return pair.map((half, index) => {
    const step = increment * BigInt(half.share.shares);
    const { value, isCalled } = values[index] as Value;
    const present = isCalled ? value + step : value;
    const next = isDone ? present : firstBeyond(last, increment, half.share);
    const room = (half.extent.end - next) / step;
    const isOver = later(next, half.extent.end, increment) === next && next !== half.extent.end;
    return { half, next, step, left: isOver ? 0n : room + 1n };
  }) as unknown as Planned;
}

function exhausted(pair: Planned): Problem[] {
  return pair
    .filter(({ left }) => left === 0n)
    .map(({ half: { side, sequence, extent }, next }) => ({
      subject: tableLabel(sequence),
      message: `has no number left for its share on the ${side}: ${next} would be the next, ${extent.end} is the last that fits`,
    }));
}

function warnOfFew(context: SyncContext, { half, step, left }: PlannedHalf): void {
  const { side, sequence, extent } = half;
  const start = BigInt(step < 0n ? sequence.max : sequence.min);
  const all = (extent.end - start) / step;
  if (left >= FEW && left >= all / FEW_PART) return;
  context.emit({
    type: "warning",
    message: `${tableLabel(sequence)} has ${left} numbers left on the ${side}: numbers that are shared out are used up ${half.share.shares} times as fast`,
  });
}

const alterSql = (sequence: Sequence, step: bigint): string =>
  `alter sequence ${tableSql(sequence)} increment by ${step}`;

const restartSql = (sequence: Sequence, step: bigint, next: bigint): string =>
  `${alterSql(sequence, step)} restart with ${next}`;

/**
 * Both sequences are locked at the same time, so that neither gives out a number beyond which the other begins. Interrupted
 * between the two commits, one side is done, and the next call does both again.
 */
async function apply(context: SyncContext, pair: Halves): Promise<Planned> {
  const [source, target] = pair;
  const what = tableLabel(source.sequence);
  return await withBriefLocks(source.connection, { what, signal: context.signal }, async () => {
    const planned = await target.connection.transaction(async () => {
      // First, so that nobody who carries values of sequences does so from here on.
      for (const half of pair) await note(context, half);
      const values = await Promise.all(pair.map(lockAndRead));
      const now = plan(pair, values as [Value, Value]);
      const problems = exhausted(now);
      if (problems.length > 0)
        throw new ReplicateError("SEQUENCES_UNFIT", `the numbers of ${what} were used up just now`, {
          problems,
        });
      for (const { half, next, step } of now) {
        await half.connection.script(restartSql(half.sequence, step, next));
      }
      return now;
    }, LOCKING);
    await failpoint("interleave.target-committed");
    return planned;
  });
}

async function note(context: SyncContext, { connection, sequence, increment, share }: Half): Promise<void> {
  const { name } = context.config;
  await recordInterleaved(connection, {
    sync: name,
    relid: sequence.relid,
    increment: String(increment),
    ...share,
  });
}

/** The source is locked meanwhile: no longer than a try of its own. */
const LOCKING = "begin; set local lock_timeout = 150";

/** No number is given out from here on until the transaction ends. */
async function lockAndRead({ connection, sequence }: Half): Promise<Value> {
  await connection.script(alterSql(sequence, BigInt(sequence.increment)));
  const [value] = await readValues(connection, [sequence]);
  return value as Value;
}

function show({ half, next, step, left }: PlannedHalf, isDone: boolean): SideOfSequence {
  return {
    name: tableLabel(half.sequence),
    increment: String(step),
    next: isDone ? null : String(next),
    left: String(left),
    statement: isDone ? null : restartSql(half.sequence, step, next),
  };
}
