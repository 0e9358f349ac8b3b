/**
 * Compares the rows of some tables that have changed since their points, each side in one snapshot, in as many statements as
 * for one table. As in part.ts, the target's snapshot comes first and holds the position P, at which it equals the source:
 * what has changed after P is left out on both sides, and has to be compared later. So of every key that has a delta between
 * its table's point and P, the row was compared here, or the key has a delta after P as well.
 */
import { changedImagesSql, changedKeysSql, deltaTables, isKeyless, windowSql } from "../catalog/delta.ts";
import { applicationPathSql } from "../catalog/search-path.ts";
import { fromText, isSystemType, outputText } from "../catalog/text-form.ts";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { relayCopy } from "../postgres/copy-relay.ts";
import { fill, literal } from "../postgres/sql.ts";
import type { Checksum } from "./checksum.ts";
import { findDifferences } from "./differences.ts";
import type { Difference } from "./difference.ts";
import { keyColumnsSql, keyMatchesSql } from "./key-sql.ts";
import type { Total } from "./part.ts";
import { shapeSql, type SideSql, type TablePlan } from "./plan.ts";
import { rowsFrom } from "./ranges.ts";
import type { SessionPair } from "./session-pair.ts";

export interface ChangedTable {
  readonly plan: TablePlan;
  /** A position of the sync; every delta since then is still there. Null: it has none, and is compared as a whole. */
  readonly since: string | null;
}

export interface TogetherOptions {
  readonly sync: string;
  readonly checksum: Checksum;
  readonly signal: AbortSignal;
  /** Both sides are written to: what cannot be proven is left for later, and nothing is looked for where sums differ. */
  readonly isLive: boolean;
  /** Of the keys, by their hash: this slice of so many, a power of two. */
  readonly slice: { readonly number: number; readonly of: number };
}

export interface ComparedTable {
  readonly plan: TablePlan;
  /**
   * equal or different: of all rows that it was about. later: not compared. stale: the table is not the one of the plan any
   * more, and was not compared.
   */
  readonly outcome: "equal" | "different" | "later" | "stale";
  /** The position up to which it was compared. */
  readonly upTo: string;
  /** Rows compared, counted on the source. */
  readonly rows: number;
  readonly total: number;
  readonly parked: number;
  readonly listed: readonly Difference[];
}

/** Temporary table on the target; `n` is the number of the table in its group. */
const KEYS = "replicate_changed";
const mostListed = 20;
/** As in follow: below this share of a table, rows are looked up by key. */
const LOOKUP_SHARE = 0.05;
/** A table that was truncated is compared as a whole, in one snapshot, while applications write to it, up to this size. */
const MOST_WHOLE_BYTES = 256 * 1024 * 1024;

/**
 * Whether a table's keys can be compared in one statement with others'. Those that need a type of the user's own are read by
 * a subquery, which no planner turns into a join.
 */
export function goesTogether({ target }: TablePlan): boolean {
  return target.key.length > 0 && target.key.every(({ type }) => isSystemType(type));
}

interface OnTarget {
  readonly id: number;
  readonly position: string | null;
  readonly isSettled: boolean;
  readonly shape: string;
  readonly isNamed: boolean;
  readonly estimate: number;
}

interface OnSource {
  readonly id: number;
  readonly snapshot: string;
  readonly deltas: number;
  readonly later: number;
  readonly markers: number;
  readonly laterMarkers: number;
  readonly shape: string;
  readonly isNamed: boolean;
}

/** A table that is compared, and how. */
interface Part extends ChangedTable {
  readonly n: number;
  readonly isWhole: boolean;
  readonly hasLater: boolean;
  readonly conditions: { readonly source: readonly string[]; readonly target: readonly string[] };
}

/**
 * Compares the group and ends both transactions. All of its tables have the same search paths. Throws SOURCE_LOST and the driver's
 * errors; the caller rolls back then.
 */
export async function compareTogether(
  pair: SessionPair,
  group: readonly ChangedTable[],
  options: TogetherOptions,
): Promise<ComparedTable[]> {
  const target = await beginOnTarget(pair.target, group, options.sync);
  const position = target.values().next().value?.position ?? null;
  // Only a sync without any batch has none, which cannot be switched.
  if (position === null || target.size < group.length)
    throw new ReplicateError("CAPTURE_BROKEN", "the sync's state on the target is not there any more");
  const source = await beginOnSource(pair.source, group, position);
  const results: ComparedTable[] = [];
  const parts: Part[] = [];
  const end = (plan: TablePlan, outcome: ComparedTable["outcome"], rows = 0): void => {
    results.push({ plan, outcome, upTo: position, rows, total: 0, parked: 0, listed: [] });
  };
  const isAlone = group.length === 1;
  const keys: KeyOptions = { position, slice: options.slice, isAlone };
  for (const { plan, since } of group) {
    const [there, here] = [target.get(plan.capture.id), source.get(plan.capture.id)];
    if (there === undefined || here === undefined || isStale(plan, there, here)) {
      end(plan, "stale");
      continue;
    }
    const isWhole = since === null || here.markers > 0 || isKeyless(plan.capture);
    const isSmall = since !== null && plan.bytes <= MOST_WHOLE_BYTES && !isKeyless(plan.capture);
    if (options.isLive && (!there.isSettled || here.laterMarkers > 0 || (isWhole && !isSmall))) {
      end(plan, "later");
    } else if (since !== null && here.deltas === 0) {
      end(plan, "equal");
    } else {
      const part = { plan, since, n: parts.length, isWhole, hasLater: here.later > here.laterMarkers };
      parts.push({ ...part, conditions: conditionsOf(part, keys) });
    }
  }
  if (parts.length > 0) {
    // Where there is but one, it may have many.
    const [first] = group.map(({ plan }) => plan.capture.id);
    const [changed, estimate] = [source.get(first ?? 0)?.deltas ?? 0, target.get(first ?? 0)?.estimate ?? 0];
    const isLookup =
      parts.every(({ isWhole }) => !isWhole) && (!isAlone || changed < LOOKUP_SHARE * estimate);
    await sendKeys(pair, parts, { ...keys, isLookup }, options.signal);
    const [ours, theirs] = await pair.both(
      readTotals(pair.source, parts, "source", options.checksum),
      readTotals(pair.target, parts, "target", options.checksum),
    );
    for (const part of parts) {
      const [our, their] = [ours.get(part.n), theirs.get(part.n)];
      if (our === undefined || their === undefined)
        throw new ReplicateError("INTERNAL", `the changes of ${part.plan.label} were not summed up`);
      const rows = Number(our.rows);
      if (our.rows === their.rows && our.sum === their.sum) end(part.plan, "equal", rows);
      else if (options.isLive) end(part.plan, "different", rows);
      else {
        const found = await drill(pair, part, Math.max(rows, Number(their.rows)), options);
        results.push({ plan: part.plan, outcome: "different", upTo: position, rows, ...found });
      }
    }
  }
  await pair.rollback();
  return results;
}

async function beginOnTarget(
  connection: Connection,
  group: readonly ChangedTable[],
  sync: string,
): Promise<Map<number, OnTarget>> {
  const results = await connection.script(
    fill("verify/positions", {
      tables: group.map(({ plan }) => plan.target.table).join(", "),
      wanted: wantedSql(group, "target"),
      shape: shapeSql("w.relid"),
      sync: literal(sync),
    }),
  );
  return byId((results.at(-1)?.rows ?? []) as OnTarget[]);
}

async function beginOnSource(
  connection: Connection,
  group: readonly ChangedTable[],
  position: string,
): Promise<Map<number, OnSource>> {
  const counts = group.map(({ plan, since }) => {
    const rows = deltaTables(plan.capture.id).map(
      (delta) =>
        `select truncated is not null as m, (${windowSql(position)}) as l from ${delta} where ${windowSql(since)}`,
    );
    return `select ${plan.capture.id} as id, count(*)::float8 as deltas, (count(*) filter (where l))::float8 as later,
        (count(*) filter (where m))::float8 as markers, (count(*) filter (where m and l))::float8 as "laterMarkers"
      from (${rows.join(" union all ")}) as d`;
  });
  const results = await connection.script(
    fill("verify/windows", {
      tables: group.flatMap(({ plan }) => [plan.source.table, ...deltaTables(plan.capture.id)]).join(", "),
      wanted: wantedSql(group, "source"),
      shape: shapeSql("w.relid"),
      counts: counts.join(" union all "),
    }),
  );
  const rows = (results.at(-1)?.rows ?? []) as OnSource[];
  const [first] = rows;
  if (first !== undefined && isBehind(first.snapshot, position)) {
    throw new ReplicateError(
      "SOURCE_LOST",
      "the source's transactions are behind the position of the target",
    );
  }
  return byId(rows);
}

function byId<Row extends { readonly id: number }>(rows: readonly Row[]): Map<number, Row> {
  return new Map(rows.map((row) => [row.id, row]));
}

const wantedSql = (group: readonly ChangedTable[], side: "source" | "target"): string =>
  group
    .map(({ plan }) => {
      const { relid, table } = plan[side];
      return `(${plan.capture.id}, ${relid}::oid, ${literal(table.replace(/^only /, ""))})`;
    })
    .join(", ");

/** Whether a snapshot lacks what a position of the same server has. */
function isBehind(snapshot: string, position: string): boolean {
  const [ours, theirs] = [snapshot, position].map((each) => each.split(":").slice(0, 2).map(BigInt));
  return [0, 1].some((n) => (ours?.[n] ?? 0n) < (theirs?.[n] ?? 0n));
}

const isStale = (plan: TablePlan, there: OnTarget, here: OnSource): boolean =>
  !there.isNamed || !here.isNamed || there.shape !== plan.targetShape || here.shape !== plan.sourceShape;

/**
 * The keys that a table is compared by: those changed since its point and not after P. Of a whole table, those changed after P,
 * which are left out. A key that is equal to one changed after P counts as changed.
 */
function keysSql({ plan, since, isWhole, hasLater }: Omit<Part, "conditions">, keys: KeyOptions): string {
  const { capture } = plan;
  if (isWhole) return changedImagesSql(capture, windowSql(keys.position));
  if (!hasLater) return sliced(capture, changedImagesSql(capture, windowSql(since)), keys.slice);
  const changed = changedKeysSql(capture, windowSql(since), [`(${windowSql(keys.position)}) as l`]);
  const columns = capture.keyColumns.map((_, n) => `c.k${n + 1}`);
  const settled = `select distinct on (${imagesOf(capture, "c").join(", ")}) ${columns.join(", ")}
    from (select k.*, pg_catalog.bool_or(k.l) over (partition by ${columns.join(", ").replaceAll("c.", "k.")}) as later from (${changed}) as k) as c
    where not c.later`;
  return sliced(capture, settled, keys.slice);
}

interface KeyOptions {
  readonly position: string;
  readonly slice: TogetherOptions["slice"];
  readonly isAlone: boolean;
}

function conditionsOf(part: Omit<Part, "conditions">, keys: KeyOptions): Part["conditions"] {
  const { plan, n, isWhole, hasLater } = part;
  if (isWhole && !hasLater) return { source: [], target: [] };
  const sent = (i: number): string => {
    if (keys.isAlone) return `x.k${i}`;
    const { type, collation } = plan.target.key[i - 1] as SideSql["key"][number];
    const value = fromText(`x.k${i}`, type);
    return collation === null ? value : `(${value}) collate ${collation}`;
  };
  const not = isWhole ? "not " : "";
  return {
    source: [
      `${not}exists (select from (${keysSql(part, keys)}) as x where ${keyMatchesSql(plan.source.key, (i) => `x.k${i}`)})`,
    ],
    target: [
      `${not}exists (select from pg_temp.${KEYS} as x where x.n = ${n} and ${keyMatchesSql(plan.target.key, sent)})`,
    ],
  };
}

type Keyed = TablePlan["capture"];

function sliced(capture: Keyed, keys: string, { number, of }: TogetherOptions["slice"]): string {
  if (of === 1) return keys;
  const image = `pg_catalog.concat_ws(' ', ${imagesOf(capture, "i").join(", ")}) collate pg_catalog."C"`;
  return `select i.* from (${keys}) as i where pg_catalog.hashtext(${image}) & ${of - 1} = ${number}`;
}

const imagesOf = (capture: Keyed, alias: string): string[] =>
  capture.keyColumns.map((_, n) => `${outputText(`${alias}.k${n + 1}`)} collate pg_catalog."C"`);

/** Brings the keys to the target, as their output functions write them, into a temporary table. */
async function sendKeys(
  pair: SessionPair,
  parts: readonly Part[],
  keys: KeyOptions & { readonly isLookup: boolean },
  signal: AbortSignal,
): Promise<void> {
  const most = Math.max(...parts.map(({ plan }) => plan.capture.keyColumns.length));
  const columns = Array.from({ length: most }, (_, n) => `k${n + 1}`);
  const queries = parts
    .filter(({ isWhole, hasLater }) => !isWhole || hasLater)
    .map((part) => {
      const images = imagesOf(part.plan.capture, "s");
      const padded = columns.map((_, i) => images[i] ?? "null");
      return `select ${part.n}, ${padded.join(", ")} from (${keysSql(part, keys)}) as s`;
    });
  if (queries.length === 0) return;
  const [only] = parts;
  const types =
    keys.isAlone && only !== undefined
      ? keyColumnsSql(only.plan.target.key, "k")
      : columns.map((column) => `${column} text`).join(", ");
  const setting = keys.isLookup ? "off" : "on";
  // Nobody has statistics of deltas: a plan that scans a large table for a handful of keys would take minutes.
  const plans = `set local enable_hashjoin = ${setting}; set local enable_mergejoin = ${setting}`;
  await relayCopy(pair.source, pair.target, {
    read: `copy (${queries.join(" union all ")}) to stdout; ${plans}`,
    write: `create temporary table ${KEYS} (n integer, ${types}) on commit drop;
      copy pg_temp.${KEYS} from stdin; analyze pg_temp.${KEYS}; ${plans}`,
    signal,
  });
}

/** Sums up one side of all tables. From here on the transaction is under the application's search path. */
async function readTotals(
  connection: Connection,
  parts: readonly Part[],
  side: "source" | "target",
  checksum: Checksum,
): Promise<Map<number, Total>> {
  const totals = parts.map(
    ({ n, plan, conditions }) =>
      `select ${n} as n, s.* from (${checksum.totalSql(plan[side].fields, rowsFrom(plan[side], conditions[side]))}) as s`,
  );
  const path = applicationPathSql(...parts.map(({ plan }) => plan[side]));
  const results = await connection.script(`${path};\n${totals.join(" union all ")}`);
  return new Map(((results.at(-1)?.rows ?? []) as (Total & { n: number })[]).map((row) => [row.n, row]));
}

/** What differs in a table of the group, in the same snapshots. */
async function drill(
  pair: SessionPair,
  { plan, conditions }: Part,
  rows: number,
  { sync, checksum, signal }: TogetherOptions,
): Promise<Pick<ComparedTable, "total" | "parked" | "listed">> {
  // Its temporary tables are in the way of the next one's.
  await pair.target.script("savepoint drill");
  const { total, parked, listed } = await findDifferences(pair, {
    sync,
    plan,
    conditions,
    checksum,
    signal,
    rows,
    maxListed: () => mostListed,
    repair: false,
    tracksTarget: false,
  });
  await pair.target.script("rollback to savepoint drill");
  return { total, parked, listed };
}

/** One search path for all rows that are read by one statement, see catalog/search-path. */
export const pathsOf = ({ source, target }: TablePlan): string => `${source.searchPath}|${target.searchPath}`;
