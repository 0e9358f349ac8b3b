/** The log of conflicts, which is kept on both sides: each conflict where it was met. */
import { parsePattern, parseTableName, patternMatches } from "../catalog/patterns.ts";
import type { Conflict, ConflictKind, ConflictSide } from "../config/conflict-policy.ts";
import { ReplicateError, type Problem } from "../errors.ts";
import type { Side } from "../events.ts";
import type { Connection } from "../postgres/connect.ts";
import { load } from "../postgres/sql.ts";
import { didYouMean } from "../config/spelling.ts";
import { configInvalid, parseDuration } from "../config/checks.ts";
import type { SyncContext } from "../state/context.ts";
import { checkPair } from "../state/source-identity.ts";
import { loadTables } from "../state/sync-table.ts";
import { parseExact } from "./exact-json.ts";

export interface LoggedConflict {
  /** Odd for those met on the source, even for those met on the target. */
  readonly id: number;
  /** The source's name of it. */
  readonly table: string;
  readonly key: Conflict["key"];
  readonly kind: ConflictKind;
  readonly source: ConflictSide;
  readonly target: ConflictSide;
  /** Of kind multiple_unique_conflicts, and where another row has a value of the merged one; else null. */
  readonly constraint: string | null;
  readonly otherKey: Conflict["key"] | null;
  readonly policy: string;
  /** skip: neither side has changed. */
  readonly winner: Side | "merged" | "skip";
  /** The row that a resolver has made: both sides got it if it is the winner. */
  readonly merged: ConflictSide["image"];
  /** When it was met: ISO 8601, UTC. */
  readonly at: string;
  /** False: it was skipped, and the key is left alone on both sides until it is resolved. */
  readonly resolved: boolean;
  readonly resolvedAt: string | null;
}

export interface ConflictFilter {
  /** Patterns of source tables. Default all. */
  readonly tables?: readonly string[];
  readonly kinds?: readonly ConflictKind[];
  /** Default "all". */
  readonly state?: "pending" | "resolved" | "all";
  /** A time, or how long ago: "2h". */
  readonly since?: Date | string;
}

export interface ConflictsOptions extends ConflictFilter {
  /** How many at most, the latest ones; Infinity for all. Default 100. */
  readonly limit?: number;
}

export const conflictKinds = [
  "insert_exists", "update_origin_differs", "update_missing", "delete_origin_differs", "delete_missing",
  "multiple_unique_conflicts",
] as const satisfies readonly ConflictKind[]; // prettier-ignore

const defaultLimit = 100;

/** The same filter in the form in which both sides are asked. Null: everything. */
interface Question {
  readonly patterns: readonly string[] | null;
  readonly kinds: readonly ConflictKind[] | null;
  readonly isResolved: boolean | null;
  readonly since: string | null;
  readonly limit: number | null;
}

interface LoggedRow {
  readonly id: number;
  readonly table: string;
  readonly key: string;
  readonly otherKey: string | null;
  readonly constraint: string | null;
  readonly kind: ConflictKind;
  readonly policy: string;
  readonly winner: LoggedConflict["winner"];
  readonly merged: string | null;
  readonly sourceNode: string;
  readonly sourceChange: ConflictSide["change"];
  readonly sourceImage: string | null;
  readonly sourceAt: string | null;
  readonly targetNode: string;
  readonly targetChange: ConflictSide["change"];
  readonly targetImage: string | null;
  readonly targetAt: string | null;
  readonly at: string;
  readonly resolvedAt: string | null;
}

/** Of both sides, the latest first. Throws SYNC_UNKNOWN, and CONFIG_INVALID for a filter that cannot be read. */
export async function listConflicts(
  context: SyncContext,
  options: ConflictsOptions = {},
): Promise<LoggedConflict[]> {
  const question = questionOf(options, options.limit ?? defaultLimit);
  await using target = await context.target("conflicts");
  await loadTables(target, context.config.name);
  await using source = await context.source("conflicts");
  await checkPair(source, target, context.config.name);
  const [ofSource, ofTarget] = await Promise.all(
    [source, target].map((connection) => ask(connection, context.config.name, question)),
  );
  return [...(ofSource ?? []), ...(ofTarget ?? [])]
    .toSorted((a, b) => (a.at === b.at ? b.id - a.id : a.at < b.at ? 1 : -1))
    .slice(0, question.limit ?? undefined);
}

/** The ids of those that are to be resolved, the oldest first. */
export async function pendingIds(
  connections: readonly Connection[],
  sync: string,
  filter: Omit<ConflictFilter, "state">,
): Promise<number[]> {
  const question = questionOf({ ...filter, state: "pending" }, undefined);
  const found = await Promise.all(connections.map((connection) => ask(connection, sync, question)));
  return found.flat().toSorted((a, b) => (a.at < b.at ? -1 : 1)).map(({ id }) => id); // prettier-ignore
}

/** How many conflicts that were met on this side are to be resolved; `relid`: of this table here. */
export async function countPending(connection: Connection, sync: string, relid?: number): Promise<number> {
  if (!(await hasLog(connection))) return 0;
  const { pending } = await connection.row<{ pending: number }>(
    `select count(*)::int as pending from replicate.conflict
     where sync = $1 and resolved_at is null and ($2::oid is null or relid = $2)`,
    [sync, relid ?? null],
  );
  return pending;
}

/** How many chunks are deleted at once, so that a runner is not kept from its batches. */
const mostChunks = 10;

/** Forgets conflicts that were resolved longer than `keepSeconds` ago. Returns how many; there may be more. */
export async function pruneConflicts(
  connection: Connection,
  sync: string,
  keepSeconds: number,
): Promise<number> {
  let deleted = 0;
  for (let chunk = 0; chunk < mostChunks; chunk++) {
    const { rowCount } = await connection.client.query(load("conflict/prune"), [sync, keepSeconds]);
    deleted += rowCount ?? 0;
    if (rowCount === 0) break;
  }
  return deleted;
}

/** Forgets the log of a sync that is dropped. */
export async function forgetConflicts(connection: Connection, sync: string): Promise<void> {
  if (await hasLog(connection))
    await connection.rows(`delete from replicate.conflict where sync = $1`, [sync]);
}

/** Ids that users see tell the side: the two logs count by themselves. */
export function publicId(side: Side, id: number): number {
  return 2 * id + (side === "source" ? 1 : 0);
}

/** The side and the id there of an id that users see. */
export function ownId(id: number): { readonly side: Side; readonly id: number } {
  return { side: id % 2 === 1 ? "source" : "target", id: Math.floor(id / 2) };
}

/** False where there is no state. */
export async function hasLog(connection: Connection): Promise<boolean> {
  const { exists } = await connection.row<{ exists: boolean }>(
    `select pg_catalog.to_regclass('replicate.conflict') is not null as exists`,
  );
  return exists;
}

async function ask(connection: Connection, sync: string, question: Question): Promise<LoggedConflict[]> {
  if (!(await hasLog(connection))) return [];
  const tables = await matchingTables(connection, sync, question.patterns);
  const rows = await connection.rows<LoggedRow>(load("conflict/list"), [
    sync,
    tables,
    question.kinds,
    question.isResolved,
    question.since,
    question.limit,
  ]);
  return rows.map((row) => logged(connection.side, row));
}

/** Names of tables in the log that a pattern matches, also of those that have left the sync. */
async function matchingTables(
  connection: Connection,
  sync: string,
  patterns: readonly string[] | null,
): Promise<string[] | null> {
  if (patterns === null) return null;
  const found = await connection.rows<{ label: string }>(
    `select distinct table_name as label from replicate.conflict where sync = $1`,
    [sync],
  );
  return found.flatMap(({ label }) => {
    const { schema, name } = parseTableName(label);
    return patterns.some((pattern) => patternMatches(pattern, schema, name)) ? [label] : [];
  });
}

function logged(side: Side, row: LoggedRow): LoggedConflict {
  const image = (text: string | null): ConflictSide["image"] =>
    text === null ? null : (parseExact(text) as NonNullable<ConflictSide["image"]>);
  return {
    id: publicId(side, row.id),
    table: row.table,
    key: image(row.key) ?? {},
    kind: row.kind,
    source: {
      node: row.sourceNode,
      change: row.sourceChange,
      at: row.sourceAt,
      image: image(row.sourceImage),
    },
    target: {
      node: row.targetNode,
      change: row.targetChange,
      at: row.targetAt,
      image: image(row.targetImage),
    },
    constraint: row.constraint,
    otherKey: image(row.otherKey),
    policy: row.policy,
    winner: row.winner,
    merged: image(row.merged),
    at: row.at,
    resolved: row.resolvedAt !== null,
    resolvedAt: row.resolvedAt,
  };
}

function questionOf(filter: ConflictFilter, limit: number | undefined): Question {
  const problems: Problem[] = [];
  const patterns = filter.tables ?? null;
  for (const pattern of patterns ?? []) {
    try {
      parsePattern(pattern);
    } catch (error) {
      if (!(error instanceof ReplicateError)) throw error;
      problems.push(...error.problems);
    }
  }
  for (const kind of filter.kinds ?? []) {
    if (conflictKinds.includes(kind)) continue;
    const guess = didYouMean(kind, conflictKinds);
    problems.push({ subject: "kinds", message: `${kind} is none of ${conflictKinds.join(", ")}${guess}` });
  }
  const since = filter.since === undefined ? null : timeOf(filter.since);
  if (since === undefined)
    problems.push({
      subject: "since",
      message: "has to be a time such as 2026-05-01T12:00Z, or how long ago: 2h",
    });
  if (problems.length > 0) throw configInvalid(problems);
  const isResolved = { pending: false, resolved: true, all: null }[filter.state ?? "all"];
  return {
    patterns,
    kinds: filter.kinds ?? null,
    isResolved,
    since: since ?? null,
    limit: Number.isFinite(limit) ? (limit ?? null) : null,
  };
}

/** ISO 8601; undefined where it is no time. */
function timeOf(since: Date | string): string | undefined {
  const seconds = typeof since === "string" ? parseDuration(since) : undefined;
  const time = seconds === undefined ? new Date(since) : new Date(Date.now() - seconds * 1000);
  return Number.isNaN(time.getTime()) ? undefined : time.toISOString();
}
