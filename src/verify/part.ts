/**
 * Compares one part of one table, exactly, while both sides are written to.
 *
 * The target's snapshot holds the sync's position A, at which it equals the source. The source's snapshot S is taken
 * later. What was changed between A and S has a delta that is not visible in A: those keys are left out on both sides,
 * and everything else has to be the same. Where changes go both ways, see two-way.ts for those of the target.
 */
import type { Side } from "../events.ts";
import { changedKeysSql, deltaTables, isKeyless, windowSql } from "../catalog/delta.ts";
import { applicationPathSql } from "../catalog/search-path.ts";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { relayCopy } from "../postgres/copy-relay.ts";
import { fill, literal } from "../postgres/sql.ts";
import type { Checksum } from "./checksum.ts";
import type { PartDifferences } from "./difference.ts";
import { findDifferences } from "./differences.ts";
import { keyColumnsSql, keyMatchesSql } from "./key-sql.ts";
import { shapeSql, type SideSql, type TablePlan } from "./plan.ts";
import { rangeConditions, rowsFrom, type KeyRange } from "./ranges.ts";
import type { SessionPair } from "./session-pair.ts";
import { BACK, pinReverse, stageBack, type BackCapture } from "./two-way.ts";

export interface PartRequest {
  readonly plan: TablePlan;
  /** Where changes also go from the target to the source. */
  readonly back: BackCapture | undefined;
  readonly range: KeyRange;
  readonly sync: string;
  /** See `keylessLimit` in the settings: what is larger is not reloaded soon. */
  readonly keylessLimitBytes: number;
  readonly checksum: Checksum;
  readonly signal: AbortSignal;
  /** Files of the table's delta tables, read before this call; updated here. */
  readonly files: { current: string };
  /** How many differences may still be listed. */
  readonly maxListed: () => number;
  readonly repair: boolean;
  readonly tracksTarget: boolean;
  /** Compare although the table is in flux, leaving out what is unproven: the caller has waited long enough. */
  readonly isFinal: boolean;
}

export interface PartResult extends PartDifferences {
  /** Rows compared, counted on the source. */
  readonly rows: number;
  /** Keys left out, because the target does not have their latest change yet. */
  readonly pending: number;
  /** The table is being emptied or read again as a whole: nothing was compared, `pending` counts all rows. */
  readonly isUnproven: boolean;
}

/** Thrown when a part cannot be compared now but may be later. */
export class PartNotReadySignal extends Error {
  override readonly name = "PartNotReadySignal";
  /** emptied: a delta table was truncated between the two snapshots. flux: `follow` has to do something first. */
  readonly reason: "emptied" | "flux";
  /** The position at which this was found, to see whether the sync moves on. */
  readonly position: string | null;

  constructor(reason: "emptied" | "flux", position: string | null) {
    super(`not ready: ${reason}`);
    this.reason = reason;
    this.position = position;
  }
}

/** Temporary table on the target with the keys to leave out. */
const PENDING = "replicate_pending";

/**
 * Compares one part and ends both transactions. Throws PartNotReadySignal, ReplicateError, and the driver's errors; the
 * caller rolls back then.
 */
export async function comparePart(pair: SessionPair, request: PartRequest): Promise<PartResult> {
  const { plan, range, signal, checksum } = request;
  const { position, window, hasPending, isUnsettled, reverseKeys, ...begun } = await begin(pair, request);
  const isTruncated =
    begun.isTruncated || position.isReloadDeferred || (hasPending && isKeyless(plan.capture));

  if (position.isPutOff) return await unproven(pair, request);
  if ((isTruncated || isUnsettled) && !request.isFinal)
    throw new PartNotReadySignal("flux", position.position);
  if (isTruncated) return await unproven(pair, request);

  const changed = changedKeysIn(plan, range, window);
  const pending = hasPending ? await sendPending(pair, plan, changed, signal) : 0;
  const exclusions = (side: SideSql, keys: string): string[] => [
    ...(pending > 0 ? [exclusion(side, keys)] : []),
    ...(reverseKeys > 0 ? [exclusion(side, `pg_temp.${BACK}`)] : []),
  ];
  const conditions = {
    source: [...inRange(plan.source, range), ...exclusions(plan.source, `(${changed})`)],
    target: [...inRange(plan.target, range), ...exclusions(plan.target, `pg_temp.${PENDING}`)],
  };
  const [onSource, onTarget] = await pair.both(
    readTotal(pair.source, plan.source, conditions.source, checksum),
    readTotal(pair.target, plan.target, conditions.target, checksum),
  );
  const result = { rows: Number(onSource.rows), pending: pending + reverseKeys, isUnproven: false };
  if (onSource.rows === onTarget.rows && onSource.sum === onTarget.sum) {
    await commit(pair);
    return { ...result, total: 0, parked: 0, listed: [], repaired: 0 };
  }
  const found = await findDifferences(pair, {
    sync: request.sync,
    plan,
    conditions,
    checksum,
    signal,
    rows: Math.max(Number(onSource.rows), Number(onTarget.rows)),
    maxListed: request.maxListed,
    repair: request.repair,
    tracksTarget: request.tracksTarget,
  });
  // Nothing to commit; and after a repair, a failure here must not have the part compared again.
  await pair.rollback();
  return { ...result, ...found };
}

/** Takes both snapshots, and finds what is on its way back. */
async function begin(
  pair: SessionPair,
  request: PartRequest,
): Promise<Window & { readonly position: Position; readonly reverseKeys: number }> {
  const { plan, back, signal } = request;
  const brake = back === undefined ? undefined : await pair.brake();
  try {
    const delivered = brake === undefined || back === undefined ? null : await pinReverse(brake, back);
    const position = await beginOnTarget(pair, request);
    const window = await beginOnSource(pair, request, position);
    if (back === undefined) return { ...window, position, reverseKeys: 0 };
    const { keys, isTruncated } = await stageBack(pair, plan, back, delivered, signal);
    return { ...window, isTruncated: window.isTruncated || isTruncated, position, reverseKeys: keys };
  } finally {
    await brake?.script("rollback").catch(() => brake.destroy());
  }
}

async function unproven(pair: SessionPair, { plan, range }: PartRequest): Promise<PartResult> {
  const results = await pair.source.script(
    `${applicationPathSql(plan.source)};
     select pg_catalog.count(*)::text as rows from ${rowsFrom(plan.source, inRange(plan.source, range))}`,
  );
  const rows = (results.at(-1)?.rows[0] as { rows: string } | undefined)?.rows;
  await commit(pair);
  // A table without a key may have become empty since, which has to show.
  const pending = Math.max(isKeyless(plan.capture) ? 1 : 0, Number(rows));
  return { rows: 0, pending, isUnproven: true, total: 0, parked: 0, listed: [], repaired: 0 };
}

export interface Total {
  readonly rows: string;
  readonly sum: string | null;
}

/** Sums up one side. From here on the transaction is under the application's search path. */
async function readTotal(
  connection: Connection,
  side: SideSql,
  conditions: readonly string[],
  checksum: Checksum,
): Promise<Total> {
  const total = checksum.totalSql(side.fields, rowsFrom(side, conditions));
  const results = await connection.script(`${applicationPathSql(side)};\n${total}`);
  const [row] = (results.at(-1)?.rows ?? []) as Total[];
  return row as Total;
}

interface Position {
  readonly position: string | null;
  readonly partitions: Readonly<Record<string, string>>;
  /** The columns that the data on the target correspond to; null where that is not known. */
  readonly columns: string | null;
  /** The position covers changes that the target does not have. */
  readonly isReloadDeferred: boolean;
  /** And will not have soon. */
  readonly isPutOff: boolean;
}

async function beginOnTarget(pair: SessionPair, request: PartRequest): Promise<Position> {
  const { plan, sync } = request;
  const results = await pair.target.script(
    fill("verify/position", {
      table: plan.target.table,
      shape: shapeSql(plan.target.relid),
      sync: literal(sync),
      capture: literal(plan.entry.captureId),
    }),
  );
  const [row] = (results.at(-1)?.rows ?? []) as {
    position: string | null;
    state: string;
    fingerprint: string | null;
    isReloadDeferred: boolean;
    reloadBytes: string | null;
    shape: string;
    partitions: Record<string, string>;
  }[];
  if (row === undefined || !["copied", "following"].includes(row.state)) {
    throw new ReplicateError("COPY_UNFINISHED", `${plan.label} is being copied`);
  }
  if (row.shape !== plan.targetShape) throw shapeChanged(plan, "target");
  const isFollowing = row.state === "following";
  const columns =
    row.fingerprint === null ? null : (JSON.parse(row.fingerprint) as { columns?: unknown }).columns;
  return {
    // A copied table has no position until the next batch takes it in: none of its deltas are applied.
    position: isFollowing ? row.position : null,
    partitions: row.partitions,
    isReloadDeferred: row.isReloadDeferred,
    isPutOff: row.isReloadDeferred && Number(row.reloadBytes) > request.keylessLimitBytes,
    columns: isFollowing && columns !== undefined ? JSON.stringify(columns) : null,
  };
}

interface Window {
  /** Condition on txid. */
  readonly window: string;
  readonly hasPending: boolean;
  readonly isTruncated: boolean;
  /** Columns or partitions are not those that `follow` has taken note of. */
  readonly isUnsettled: boolean;
}

async function beginOnSource(pair: SessionPair, request: PartRequest, position: Position): Promise<Window> {
  const { plan } = request;
  const [a, b] = deltaTables(plan.capture.id);
  const window = windowSql(position.position);
  const results = await pair.source.script(
    fill("verify/window", {
      table: plan.source.table,
      delta_a: a,
      delta_b: b,
      window,
      shape: shapeSql(plan.source.relid),
      partitioned: plan.isPartitioned ? String(plan.source.relid) : "null",
    }),
  );
  const [row] = (results.at(-1)?.rows ?? []) as {
    snapshot: string;
    files: string;
    shape: string;
    partitions: Record<string, string>;
    hasPending: boolean;
    isTruncated: boolean;
  }[];
  if (row === undefined) throw new ReplicateError("INTERNAL", "the source's snapshot query returned nothing");
  const known = request.files.current;
  request.files.current = row.files;
  // A delta table that was emptied since its file was recorded had deltas which a later position than A has applied.
  if (row.files !== known) throw new PartNotReadySignal("emptied", position.position);
  if (row.shape !== plan.sourceShape) throw shapeChanged(plan, "source");
  if (position.position !== null && xmax(row.snapshot) < xmax(position.position)) {
    throw new ReplicateError(
      "SOURCE_LOST",
      "the source has fewer transactions than the target has applied: it was restored from an older copy, or is another server",
    );
  }
  return {
    window,
    hasPending: row.hasPending,
    isTruncated: row.isTruncated,
    isUnsettled:
      (position.columns !== null && position.columns !== JSON.stringify(JSON.parse(row.shape))) ||
      (plan.isPartitioned && !haveSameEntries(position.partitions, row.partitions)),
  };
}

function xmax(snapshot: string): bigint {
  return BigInt(snapshot.split(":")[1] ?? "0");
}

function haveSameEntries(a: Readonly<Record<string, string>>, b: Readonly<Record<string, string>>): boolean {
  const entries = Object.entries(a);
  return entries.length === Object.keys(b).length && entries.every(([key, value]) => b[key] === value);
}

function shapeChanged(plan: TablePlan, side: Side): ReplicateError {
  const label = side === "source" ? plan.label : plan.targetLabel;
  return new ReplicateError(
    "TABLE_SHAPE_CHANGED",
    `the columns of ${label} changed on the ${side} while it was compared`,
    { side, hint: "Run `replicate verify` again." },
  );
}

function inRange(side: SideSql, range: KeyRange): string[] {
  const [first] = side.key;
  return first === undefined ? [] : rangeConditions(range, first.value, first.type);
}

/** The changed keys of a part, as k1 … kn. */
function changedKeysIn(plan: TablePlan, range: KeyRange, window: string): string {
  const type = plan.source.key[0]?.type ?? "";
  const conditions = rangeConditions(range, "d.k1", type);
  const changed = changedKeysSql(plan.capture, window);
  return conditions.length === 0
    ? changed
    : `select d.* from (${changed}) as d where ${conditions.join(" and ")}`;
}

/** Streams the changed keys into a temporary table of the target's transaction. Returns how many there are. */
async function sendPending(
  pair: SessionPair,
  plan: TablePlan,
  changed: string,
  signal: AbortSignal,
): Promise<number> {
  await pair.target.script(
    `create temporary table ${PENDING} (${keyColumnsSql(plan.target.key, "k")}) on commit drop`,
  );
  const { rows } = await relayCopy(pair.source, pair.target, {
    read: `copy (select distinct * from (${changed}) as d) to stdout`,
    write: `copy pg_temp.${PENDING} from stdin`,
    signal,
  });
  return rows;
}

/** Leaves out the rows whose keys are in `keys`, a table or a subquery with k1 … kn. */
function exclusion(side: SideSql, keys: string): string {
  return `not exists (select from ${keys} as x where ${keyMatchesSql(side.key, (n) => `x.k${n}`)})`;
}

async function commit(pair: SessionPair): Promise<void> {
  await pair.both(pair.source.script("commit"), pair.target.script("commit"));
}
