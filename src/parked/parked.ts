/** Parked rows for people: which they are and why, and another try. */
import { recordKeys } from "../capture/record-changes.ts";
import { loadCaptures } from "../catalog/delta.ts";
import { selectTables } from "../catalog/patterns.ts";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import type { SyncContext } from "../state/context.ts";
import { loadParked, type ParkedKey, type ParkedRow } from "../state/parked.ts";
import { checkPair } from "../state/source-identity.ts";
import { loadTables, type SyncTable } from "../state/sync-table.ts";

export interface ParkedOptions {
  /** Patterns as in the settings; default all tables of the sync. */
  readonly tables?: readonly string[];
  /** Only rows with these ids. */
  readonly ids?: readonly number[];
  /** Has them read again, so that the next batches of `follow` try them. Default false. */
  readonly retry?: boolean;
}

export interface ParkedReport {
  /** The oldest first. */
  readonly rows: readonly ParkedRow[];
  /** Rows that are tried again with the next batches. */
  readonly retried: number;
}

const KEYS_PER_NOTE = 2000;

/** Lists the rows that the target has rejected. Throws SYNC_UNKNOWN, PATTERN_MATCHES_NOTHING, USAGE_INVALID for an id that is none. */
export async function listParked(context: SyncContext, options: ParkedOptions = {}): Promise<ParkedReport> {
  const { name } = context.config;
  await using target = await context.target("parked");
  const entries = await loadTables(target, name);
  const captureIds = options.tables === undefined ? undefined : chosen(entries, options.tables);
  const found = await loadParked(target, name, {
    ...(captureIds === undefined ? {} : { captureIds }),
    ...(options.ids === undefined ? {} : { ids: options.ids }),
  });
  const unknown = options.ids?.filter((id) => !found.some((row) => row.id === id)) ?? [];
  if (unknown.length > 0)
    throw new ReplicateError("USAGE_INVALID", `no row is parked with the id ${unknown.join(", ")}`, {
      hint: "See the ids with `replicate parked`.",
    });
  if (options.retry === true) await retry(context, target, found);
  return {
    rows: found.map(({ id, table, key, error, sqlstate, constraint, parkedAt, triedAt, tries }) => ({
      id,
      table,
      key,
      error,
      sqlstate,
      constraint,
      parkedAt,
      triedAt,
      tries,
    })),
    retried: options.retry === true ? found.length : 0,
  };
}

function chosen(entries: readonly SyncTable[], patterns: readonly string[]): number[] {
  const tables = entries.map((entry) => ({ ...entry, schema: entry.sourceSchema, name: entry.sourceName }));
  const { selected, unmatchedPatterns } = selectTables(tables, patterns, []);
  if (unmatchedPatterns.length > 0)
    throw new ReplicateError(
      "PATTERN_MATCHES_NOTHING",
      `no table of the sync fits ${unmatchedPatterns.join(", ")}`,
    );
  return selected.map(({ captureId }) => captureId);
}

/** Notes the keys as changed on the source: the next batch brings their rows like any other. */
async function retry(context: SyncContext, target: Connection, rows: readonly ParkedKey[]): Promise<void> {
  if (rows.length === 0) return;
  await using source = await context.source("parked");
  await checkPair(source, target, context.config.name);
  const ids = [...new Set(rows.map(({ captureId }) => captureId))];
  for (const capture of await loadCaptures(source, ids)) {
    const keys = rows.filter(({ captureId }) => captureId === capture.id).map(({ keyTexts }) => keyTexts);
    for (let from = 0; from < keys.length; from += KEYS_PER_NOTE)
      await recordKeys(source, capture, keys.slice(from, from + KEYS_PER_NOTE));
  }
}
