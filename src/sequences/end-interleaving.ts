/**
 * Gives sequences back the increments that they had before their numbers were shared out. Each goes on beyond what the
 * other side has given out, because nothing keeps their numbers apart from now on.
 */
import { tableLabel, tableSql } from "../catalog/table.ts";
import type { Connection } from "../postgres/connect.ts";
import { withBriefLocks } from "../postgres/lock.ts";
import { load } from "../postgres/sql.ts";
import type { SyncContext } from "../state/context.ts";
import { lastGiven, readExtents } from "./given.ts";
import { forgetAllInterleaved, forgetInterleaved, readInterleaved, type Interleaved } from "./interleaved.ts";
import { pairSequences, type Sequence } from "./pairs.ts";
import { later } from "./shares.ts";
import { readValues } from "./values.ts";

interface SharedOut {
  readonly connection: Connection;
  readonly sequence: Sequence;
  readonly entry: Interleaved;
  /** Another sync needs the share. */
  readonly isShared: boolean;
  /** The last number that was given out in this database, as far as can be told. */
  readonly last: bigint;
}

/**
 * For the sides that can be reached. Returns the sequences by side, also where `dryRun` changes nothing. Can be
 * interrupted anywhere and repeated.
 */
export async function endInterleaving(
  context: SyncContext,
  sides: readonly Connection[],
  dryRun: boolean,
): Promise<{ readonly side: Connection["side"]; readonly sequence: string }[]> {
  const { name } = context.config;
  const found = (await Promise.all(sides.map(async (each) => await sharedOut(each, name)))).flat();
  const own = found.filter(({ isShared }) => !isShared);
  if (!dryRun && found.length > 0) {
    const counterparts = await counterpartsOf(context, sides);
    for (const each of found) {
      const twin = found.find(
        ({ connection, sequence }) =>
          connection !== each.connection &&
          sequence.relid === counterparts.get(keyOf(each.connection, each.sequence)),
      );
      await giveBack(context, each, twin?.last);
    }
    for (const side of sides) await forgetAllInterleaved(side, name);
  }
  return own.map(({ connection, sequence }) => ({ side: connection.side, sequence: tableLabel(sequence) }));
}

async function sharedOut(connection: Connection, sync: string): Promise<SharedOut[]> {
  const all = await readInterleaved(connection);
  const entries = all.filter((entry) => entry.sync === sync);
  if (entries.length === 0) return [];
  // One that was dropped leaves its entry.
  const sequences = await connection.rows<Sequence>(load("catalog/sequences"));
  const there = entries.flatMap((entry) => {
    const sequence = sequences.find(({ relid }) => relid === entry.relid);
    return sequence === undefined ? [] : [{ entry, sequence }];
  });
  const [values, extents] = [
    await readValues(connection, there.map(({ sequence }) => sequence)),
    await readExtents(connection, there.map(({ sequence }) => sequence)),
  ]; // prettier-ignore
  return there.flatMap(({ entry, sequence }, index) => {
    const value = values[index];
    if (value === undefined) return [];
    const increment = BigInt(entry.increment);
    const given = lastGiven(value, increment);
    const { last = null } = extents.get(sequence.relid) ?? {};
    return [
      {
        connection,
        sequence,
        entry,
        isShared: all.some((each) => each.relid === entry.relid && each.sync !== sync),
        last: last === null ? given : later(given, last, increment),
      },
    ];
  });
}

const keyOf = ({ side }: Connection, { relid }: Sequence): string => `${side} ${relid}`;

/** By side and oid of a sequence: the oid of the one on the other side. Empty where only one side is there. */
async function counterpartsOf(
  context: SyncContext,
  sides: readonly Connection[],
): Promise<ReadonlyMap<string, number>> {
  const [source, target] = (["source", "target"] as const).map((side) =>
    sides.find((each) => each.side === side),
  );
  if (source === undefined || target === undefined) return new Map();
  const { pairs } = await pairSequences(context, source, target);
  return new Map(
    pairs.flatMap(({ from, to }) => [
      [keyOf(source, from), to.relid],
      [keyOf(target, to), from.relid],
    ]),
  );
}

async function giveBack(
  context: SyncContext,
  { connection, sequence, entry, isShared, last }: SharedOut,
  other: bigint | undefined,
): Promise<void> {
  const options = { what: tableLabel(sequence), signal: context.signal };
  await withBriefLocks(connection, options, async () => {
    if (!isShared) {
      const increment = BigInt(entry.increment);
      const alter = `alter sequence ${tableSql(sequence)} increment by ${increment}`;
      await connection.script(alter);
      // Read anew, now that nobody can take a number.
      const [value] = await readValues(connection, [sequence]);
      const own = value === undefined ? last : lastGiven(value, increment);
      const most = [last, ...(other === undefined ? [] : [other])].reduce(
        (a, b) => later(a, b, increment),
        own,
      );
      const end = BigInt(increment < 0n ? sequence.min : sequence.max);
      // At its very end a sequence stays: the next call says so.
      const next = most + increment;
      if (most !== own && later(next, end, increment) === end)
        await connection.script(`${alter} restart with ${next}`);
    }
    await forgetInterleaved(connection, entry.sync, entry.relid);
  });
}
