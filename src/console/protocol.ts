/** What the console's server and its page say to each other. Types alone, for both. */
import type { Finding, Rehearsal, Status, SyncEvent, VerifyReport } from "../index.ts";

/** What somebody may do: `viewer` looks, `operator` acts too. */
export type Role = "viewer" | "operator";

export interface Snapshot {
  readonly version: string;
  readonly role: Role;
  /** To be sent with each request that changes something. Null: nothing can be changed. */
  readonly csrf: string | null;
  readonly isPasswordSet: boolean;
  readonly syncs: readonly SyncView[];
}

export interface LogLine {
  /** Counts up, one by one, while the process lives. */
  readonly id: number;
  /** ISO 8601. */
  readonly at: string;
  readonly level: "info" | "warn" | "error";
  readonly text: string;
}

/** One moment of a sync. */
export interface Sample {
  /** Milliseconds since 1970. */
  readonly at: number;
  readonly lagSeconds: number | null;
  readonly lagChanges: number | null;
  readonly rowsPerSecond: number;
  /** Of the copy. */
  readonly bytesPerSecond: number;
}

export type CopyProgress = Extract<SyncEvent, { type: "copy-progress" }>;
export type VerifyProgress = Extract<SyncEvent, { type: "verify-progress" }>;
export type TableStatus = Status["tables"][number];

/** Something that was asked for in the console, or runs by itself. */
export interface Job {
  readonly action: string;
  readonly by: string;
  readonly startedAt: string;
  readonly endedAt: string | null;
  readonly result: string | null;
  readonly error: { readonly code: string; readonly message: string; readonly hint: string } | null;
}

export interface SyncView {
  readonly name: string;
  /** Null until the first answer. Its tables are in `tables`. */
  readonly status: Omit<Status, "tables"> | null;
  readonly phaseText: string | null;
  /** The command for a terminal that comes next. */
  readonly next: string | null;
  readonly statusAt: string | null;
  /** Why the sync cannot be asked at the time. */
  readonly statusError: { readonly code: string; readonly message: string; readonly hint: string } | null;
  readonly tables: readonly TableStatus[];
  readonly copy: CopyProgress | null;
  readonly verifying: VerifyProgress | null;
  readonly log: readonly LogLine[];
  readonly history: readonly Sample[];
  readonly job: Job | null;
  readonly actions: readonly string[];
  readonly findings: readonly Finding[] | null;
  readonly verified: { readonly at: string; readonly report: VerifyReport } | null;
  readonly rehearsed: { readonly at: string; readonly rehearsal: Rehearsal } | null;
}

/** What has changed of a sync: lists are added to, `tables` has those that differ. */
export type SyncPatch = Partial<SyncView> & {
  readonly name: string;
  /** Tables that are not among the sync's any more. */
  readonly tablesGone?: readonly string[];
};

/** The page adds `patch` to what it has. Pure, used on both sides. */
export function applyPatch(view: SyncView, patch: SyncPatch): SyncView {
  const { log, history, tables = [], tablesGone = [], ...rest } = patch;
  return {
    ...view,
    ...rest,
    log: log === undefined ? view.log : [...view.log, ...log].slice(-mostLogLines),
    history: history === undefined ? view.history : thinned([...view.history, ...history]),
    tables:
      tables.length + tablesGone.length === 0 ? view.tables : mergeTables(view.tables, tables, tablesGone),
  };
}

export const mostLogLines = 500;

/** Samples of the last hour as they are; older ones one a minute, for two days. Bounds memory over weeks. */
export function thinned(samples: readonly Sample[]): Sample[] {
  const now = samples.at(-1)?.at ?? 0;
  const kept: Sample[] = [];
  let minute = -1;
  for (const sample of samples) {
    const age = now - sample.at;
    if (age > 2 * 86_400_000) continue;
    const itsMinute = Math.floor(sample.at / 60_000);
    if (age > 3_600_000 && itsMinute === minute) continue;
    minute = itsMinute;
    kept.push(sample);
  }
  return kept;
}

function mergeTables(
  before: readonly TableStatus[],
  changed: readonly TableStatus[],
  gone: readonly string[],
): TableStatus[] {
  const byName = new Map(before.map((table) => [table.source, table]));
  for (const table of changed) byName.set(table.source, table);
  for (const name of gone) byName.delete(name);
  return [...byName.values()];
}
