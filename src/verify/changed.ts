/**
 * Compares what has changed since a retention point, in snapshots of both sides in which nothing changes any more: the source is
 * fenced and the target has applied everything.
 */
import { changedImagesSql, isKeyless, unions, windowCountSql, windowSql } from "../catalog/delta.ts";
import { relayCopy } from "../postgres/copy-relay.ts";
import { LockWatch } from "../postgres/lock-watch.ts";
import type { SyncContext } from "../state/context.ts";
import type { SyncTable } from "../state/sync-table.ts";
import { Checksum } from "./checksum.ts";
import type { Difference } from "./difference.ts";
import { findDifferences } from "./differences.ts";
import { keyColumnsSql, keyMatchesSql } from "./key-sql.ts";
import { isComparable, planTables, type TablePlan } from "./plan.ts";
import { readTotal } from "./part.ts";
import { SessionPair } from "./session-pair.ts";

export interface ChangedOptions {
  /** Tables of the sync. */
  readonly entries: readonly SyncTable[];
  /** A position of the sync; every delta since then is still there. */
  readonly retentionPoint: string;
}

export interface ChangedReport {
  readonly equal: boolean;
  /** Rows compared, counted on the source. */
  readonly rows: number;
  /** Tables with differences, at most 20 of each table. */
  readonly tables: readonly {
    readonly table: string;
    readonly total: number;
    /** Those of rows that the target has rejected. */
    readonly parked: number;
    readonly differences: readonly Difference[];
  }[];
}

const KEYS = "replicate_changed";
const mostListed = 20;
/** As in follow: below this share of a table, rows are looked up by key. */
const LOOKUP_SHARE = 0.05;

/**
 * Compares the rows of all keys that have changed since the retention point; a table that was truncated, or whose keys are not
 * known, as a whole. Throws TABLE_SHAPE_CHANGED, CAPTURE_BROKEN, and the driver's errors.
 */
export async function verifyChanged(context: SyncContext, options: ChangedOptions): Promise<ChangedReport> {
  await using source = new LockWatch(() => context.source("verify watch"));
  await using target = new LockWatch(() => context.target("verify watch"));
  const pair = await SessionPair.open(context, { source, target });
  try {
    const changes = await changedTables(pair, options);
    const entries = options.entries.filter(
      (entry) => changes.has(entry.captureId) && isComparable(context.config, entry),
    );
    if (entries.length === 0) return { equal: true, rows: 0, tables: [] };
    const checksum = await Checksum.agree(pair.source, pair.target);
    const plans = await planTables(pair.source, pair.target, checksum, entries);
    const tables: ChangedReport["tables"][number][] = [];
    let rows = 0;
    for (const plan of plans) {
      const change = changes.get(plan.capture.id) as Change;
      const found = await compare(pair, context, plan, checksum, change, options.retentionPoint);
      rows += found.rows;
      const { total, parked, listed } = found;
      if (total > 0) tables.push({ table: plan.label, total, parked, differences: listed });
    }
    return { equal: tables.length === 0, rows, tables };
  } finally {
    await pair.close();
  }
}

interface Change {
  readonly deltas: number;
  readonly isWhole: boolean;
}

async function changedTables(
  { source }: SessionPair,
  { entries, retentionPoint }: ChangedOptions,
): Promise<Map<number, Change>> {
  const sized = await source.rows<{ id: number }>(
    `select c.id from replicate.capture c
     where c.id = any ($1::int[])
       and pg_catalog.pg_relation_size(c.delta_a) + pg_catalog.pg_relation_size(c.delta_b) > 0`,
    [entries.map(({ captureId }) => captureId)],
  );
  const counts: { id: number; deltas: number; markers: number[] | null }[] = [];
  const queries = sized.map(
    ({ id }) => `select id, n::float8 as deltas, markers from (${windowCountSql(id, retentionPoint)}) as w`,
  );
  for (const some of unions(queries)) counts.push(...(await source.rows<(typeof counts)[number]>(some)));
  return new Map(
    counts
      .filter(({ deltas }) => deltas > 0)
      .map(({ id, deltas, markers }) => [id, { deltas, isWhole: (markers ?? []).length > 0 }]),
  );
}

async function compare(
  pair: SessionPair,
  context: SyncContext,
  plan: TablePlan,
  checksum: Checksum,
  change: Change,
  retentionPoint: string,
): Promise<{ rows: number; total: number; parked: number; listed: readonly Difference[] }> {
  const changed = changedImagesSql(plan.capture, windowSql(retentionPoint));
  try {
    await pair.both(
      pair.source.script("begin isolation level repeatable read"),
      pair.target.script("begin isolation level repeatable read"),
    );
    const conditions: { source: string[]; target: string[] } = { source: [], target: [] };
    if (!change.isWhole && !isKeyless(plan.capture)) {
      await pair.target.script(
        `create temporary table ${KEYS} (${keyColumnsSql(plan.target.key, "k")}) on commit drop`,
      );
      const { rows: keys } = await relayCopy(pair.source, pair.target, {
        read: `copy (${changed}) to stdout`,
        write: `copy pg_temp.${KEYS} from stdin`,
        signal: context.signal,
      });
      const { estimate } = await pair.target.row<{ estimate: number }>(
        `select coalesce(sum(greatest(reltuples, 0)), 0)::float8 as estimate from pg_catalog.pg_class
         where oid = $1 or oid in (select inhrelid from pg_catalog.pg_inherits where inhparent = $1)`,
        [plan.target.relid],
      );
      // Nobody has statistics of deltas: a plan that scans a large table for a handful of keys would take minutes.
      const setting = keys < LOOKUP_SHARE * estimate ? "off" : "on";
      const plans = `set local enable_hashjoin = ${setting}; set local enable_mergejoin = ${setting}`;
      await pair.both(pair.source.script(plans), pair.target.script(`analyze pg_temp.${KEYS}; ${plans}`));
      const among = (keysSql: string, key: TablePlan["source"]["key"]): string =>
        `exists (select from ${keysSql} as x where ${keyMatchesSql(key, (n) => `x.k${n}`)})`;
      conditions.source.push(among(`(${changed})`, plan.source.key));
      conditions.target.push(among(`pg_temp.${KEYS}`, plan.target.key));
    }
    const [onSource, onTarget] = await pair.both(
      readTotal(pair.source, plan.source, conditions.source, checksum),
      readTotal(pair.target, plan.target, conditions.target, checksum),
    );
    const rows = Number(onSource.rows);
    if (onSource.rows === onTarget.rows && onSource.sum === onTarget.sum)
      return { rows, total: 0, parked: 0, listed: [] };
    const found = await findDifferences(pair, {
      sync: context.config.name,
      plan,
      conditions,
      checksum,
      signal: context.signal,
      rows: Math.max(rows, Number(onTarget.rows)),
      maxListed: () => mostListed,
      repair: false,
      tracksTarget: false,
    });
    return { rows, ...found };
  } finally {
    await pair.rollback();
  }
}
