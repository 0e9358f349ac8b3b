/** Which tables of a sync do not fit any more, as `follow` would find, and what there is to do. Changes nothing. */
import { parseFingerprint, type FingerprintColumn } from "../catalog/fingerprint.ts";
import { mapEntries } from "../catalog/mapping.ts";
import { isFitting, refit, type Fitting } from "../catalog/refit.ts";
import { describeTables, tableLabel, type Table } from "../catalog/table.ts";
import type { Problem } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import type { SyncTable } from "./sync-table.ts";

/** Of tables that are there on both sides, and whose copy is done. */
export async function unfitProblems(
  source: Connection,
  target: Connection,
  entries: readonly SyncTable[],
): Promise<Problem[]> {
  const followed = entries.filter(({ state }) => state === "copied" || state === "following");
  const describe = async (side: Connection, oids: readonly number[]): Promise<Map<number, Table>> =>
    new Map((await describeTables(side, oids)).map((table) => [table.oid, table]));
  const mapped = await mapEntries(
    source,
    followed,
    await describe(source, followed.map(({ sourceRelid }) => sourceRelid)),
    await describe(target, followed.map(({ targetRelid }) => targetRelid)),
  ); // prettier-ignore
  const tables = followed.flatMap((entry): Fitting[] => {
    const found = mapped.get(entry.captureId);
    if (found === undefined) return [];
    const label = tableLabel({ schema: entry.sourceSchema, name: entry.sourceName });
    return [{ ...found, label, mapping: entry.mapping, before: columnsBefore(entry) }];
  });
  return await refit(
    source,
    target,
    tables.filter((table) => !isFitting(table)),
  );
}

/** What the source's columns were when the rows here were its rows. */
export function columnsBefore({ fingerprint }: Pick<SyncTable, "fingerprint">): readonly FingerprintColumn[] {
  return fingerprint === null ? [] : parseFingerprint(fingerprint).columns;
}
