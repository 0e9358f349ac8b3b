/**
 * Verify: compares every row of the sync's tables, while both sides may be written to, and names what differs.
 * See part.ts for why this is exact.
 */
import { parseTableName, patternMatches, selectTables } from "../catalog/patterns.ts";
import { isKeyless } from "../catalog/delta.ts";
import { tableLabel } from "../catalog/table.ts";
import { ReplicateError } from "../errors.ts";
import { LockWatch } from "../postgres/lock-watch.ts";
import { sleep, throwIfAborted } from "../postgres/sleep.ts";
import { own } from "../postgres/sql.ts";
import { asReplicateError } from "../postgres/sqlstate.ts";
import type { SyncContext } from "../state/context.ts";
import { findNotReplicated, reasonsOf, type NotReplicated } from "../state/newcomers.ts";
import { assertNoRemapping } from "../state/remapping.ts";
import { checkPair } from "../state/source-identity.ts";
import { loadTables, type SyncTable } from "../state/sync-table.ts";
import { Checksum } from "./checksum.ts";
import type { Difference, Unpaired } from "./difference.ts";
import { isComparable, planTables, type TablePlan } from "./plan.ts";
import { keyRanges } from "./ranges.ts";
import { isAboutLocks, lockPauseMs, lockTries, runParts, type PartTask } from "./run-parts.ts";
import type { PartResult } from "./part.ts";
import { SessionPair, type Watches } from "./session-pair.ts";
import { backCapture, backCaptures } from "./two-way.ts";

export { ChangeComparison, ChangePlans, verifyChanged } from "./changed.ts";

export interface VerifyOptions {
  /** Patterns as in the settings; default all tables of the sync. */
  readonly tables?: readonly string[];
  /** Note differing keys as changed on the source, so that `follow` brings their rows. Default false. */
  readonly repair?: boolean;
  /** Parts compared at the same time, each with a session on either side. Default `copy.jobs` of the settings. */
  readonly jobs?: number;
  /** Differences listed per table; all are counted. Default 1000. */
  readonly maxDifferences?: number;
  /** Heap and TOAST bytes that one snapshot may take. Default 256 MB. */
  readonly partBytes?: number;
}

export interface TableVerifyReport {
  /** Names as people write them. */
  readonly table: string;
  readonly target: string;
  /** Rows compared. */
  readonly rows: number;
  /** Keys left out because the target does not have their latest change yet. */
  readonly pending: number;
  /** No difference among the rows compared. */
  readonly equal: boolean;
  readonly differences: readonly Difference[];
  readonly differencesTotal: number;
  /** Those of rows that the target has rejected, and that are parked. */
  readonly parked: number;
  /** Of a table without a key, whose differences are counted only; a changed row counts on either side. */
  readonly unpaired?: Unpaired;
  /** Keys noted for `follow`; only with `repair`. */
  readonly repaired?: number;
}

export interface VerifyReport {
  /** No table differs, and none is missing. */
  readonly equal: boolean;
  /** By name. */
  readonly tables: readonly TableVerifyReport[];
  /** Tables whose rows are transformed on their way, so that there is nothing to compare them with. */
  readonly notCompared: readonly string[];
  /** Tables that the sync is meant to replicate and does not: they were created after `init`. */
  readonly notReplicated: readonly string[];
  /** By table, why it is not taken in; without those that nobody has tried to. */
  readonly notReplicatedReasons: Readonly<Record<string, string>>;
  readonly seconds: number;
}

const defaultMaxDifferences = 1000;
/** Listed in a whole report: what is beyond is counted only. */
const mostListed = 50_000;

/**
 * Compares tables, or all of the sync.
 *
 * Throws SYNC_UNKNOWN, COPY_UNFINISHED with the tables that are not there yet, PATTERN_MATCHES_NOTHING,
 * TABLE_SHAPE_CHANGED, CAPTURE_BROKEN, SOURCE_LOST, LOCK_NOT_AVAILABLE when a table stays locked, ABORTED, and the
 * codes of connections that stay lost.
 *
 * @example const { equal, tables } = await verifySync(context, { tables: ["public.users"] });
 */
export async function verifySync(context: SyncContext, options: VerifyOptions = {}): Promise<VerifyReport> {
  const started = Date.now();
  const maxDifferences = options.maxDifferences ?? defaultMaxDifferences;
  await using source = new LockWatch(() => context.source("verify watch"));
  await using target = new LockWatch(() => context.target("verify watch"));
  const watches: Watches = { source, target };
  try {
    const { plans, tasks, checksum, notCompared, notReplicated } = await prepareWhenUnlocked(
      context,
      watches,
      options,
    );
    const reports = new Map(plans.map((plan) => [plan, new ReportBuilder(plan, options.repair === true)]));
    let listed = 0;
    let rowsDone = 0;
    let tablesDone = 0;
    const left = new Map(plans.map((plan) => [plan, tasks.filter((task) => task.plan === plan).length]));
    await runParts(context, watches, tasks, {
      checksum,
      jobs: options.jobs ?? context.config.copy.jobs,
      repair: options.repair === true,
      maxListed: (plan) => Math.min(maxDifferences - (reports.get(plan)?.listed ?? 0), mostListed - listed),
      onResult: ({ plan, number }, result) => {
        listed += result.listed.length;
        rowsDone += result.rows;
        reports.get(plan)?.add(number, result);
        const parts = (left.get(plan) ?? 1) - 1;
        left.set(plan, parts);
        if (parts === 0) tablesDone += 1;
        if (result.isUnproven) {
          const message = isKeyless(plan.capture)
            ? `${plan.label} has no key and changes that the target does not have yet: its rows are not compared`
            : `${plan.label} was emptied on the source, and the target does not have that yet: its rows are not compared`;
          context.emit({ type: "warning", message });
        }
        context.emit({
          type: "verify-progress",
          table: plan.label,
          rowsDone,
          tablesDone,
          tablesTotal: plans.length,
        });
      },
    });
    // A part that was forgotten must not look equal.
    if (tablesDone !== plans.length) throw new ReplicateError("INTERNAL", "not every part was compared");
    const tables = plans.map((plan) => (reports.get(plan) as ReportBuilder).build(maxDifferences));
    const seconds = (Date.now() - started) / 1000;
    const equal = tables.every((table) => table.equal) && notReplicated.length === 0;
    return {
      equal,
      tables,
      notCompared,
      notReplicated: notReplicated.map(({ table }) => table),
      notReplicatedReasons: reasonsOf(notReplicated),
      seconds,
    };
  } catch (error) {
    throwIfAborted(context.signal);
    throw asReplicateError(error, "verify");
  }
}

interface Prepared {
  readonly plans: readonly TablePlan[];
  /** Largest first. */
  readonly tasks: readonly PartTask[];
  readonly checksum: Checksum;
  readonly notCompared: readonly string[];
  readonly notReplicated: readonly NotReplicated[];
}

/** Sizes and samples need locks too, though short ones. */
async function prepareWhenUnlocked(
  context: SyncContext,
  watches: Watches,
  options: VerifyOptions,
): Promise<Prepared> {
  for (let tries = 0; ; tries += 1) {
    try {
      return await prepare(context, watches, options);
    } catch (error) {
      throwIfAborted(context.signal);
      if (!isAboutLocks(error) || tries >= lockTries) throw error;
      await sleep(lockPauseMs(tries), context.signal);
    }
  }
}

async function prepare(context: SyncContext, watches: Watches, options: VerifyOptions): Promise<Prepared> {
  const pair = await SessionPair.open(context, watches);
  try {
    await checkPair(pair.source, pair.target, context.config.name);
    const chosen = chooseTables(await loadTables(pair.target, context.config.name), options.tables);
    const entries = chosen.filter((entry) => isComparable(context.config, entry));
    const notCompared = chosen
      .filter((entry) => !entries.includes(entry))
      .map((entry) => tableLabel({ schema: entry.sourceSchema, name: entry.sourceName }));
    assertNoRemapping(context.config, entries);
    const checksum = await Checksum.agree(pair.source, pair.target);
    // Before any position is read, see part.ts.
    const files = await deltaFiles(pair, entries);
    const plans = await planTables(pair.source, pair.target, checksum, entries);
    const tasks: PartTask[] = [];
    const reverseCaptures = await backCaptures(pair.target, context.config);
    for (const plan of plans) {
      const capture = reverseCaptures.get(plan.entry.targetRelid);
      const back = capture === undefined ? undefined : backCapture(context.config, plan, capture);
      const ranges = await keyRanges(pair.source, plan, options.partBytes);
      const shared = { current: files.get(plan.capture.id) ?? "" };
      const bytes = plan.bytes / ranges.length;
      tasks.push(
        ...ranges.map((range, number) => ({ plan, back, range, number, bytes, files: { ...shared } })),
      );
    }
    const newcomers = await findNotReplicated(context.config, pair.source, pair.target);
    const notReplicated = newcomers.filter(({ table }) => isAsked(table, options.tables));
    return { plans, tasks: tasks.sort((a, b) => b.bytes - a.bytes), checksum, notCompared, notReplicated };
  } finally {
    await pair.close();
  }
}

/** Whether the patterns, if there are any, fit a table that is written as people do. */
function isAsked(label: string, patterns: readonly string[] | undefined): boolean {
  if (patterns === undefined || patterns.length === 0) return true;
  const { schema, name } = parseTableName(label);
  return patterns.some((pattern) => patternMatches(pattern, schema, name));
}

function chooseTables(all: readonly SyncTable[], patterns: readonly string[] | undefined): SyncTable[] {
  const named = all.map((entry) => ({ entry, schema: entry.sourceSchema, name: entry.sourceName }));
  const { selected, unmatchedPatterns } = selectTables(named, patterns ?? [], []);
  if (unmatchedPatterns.length > 0) {
    throw new ReplicateError(
      "PATTERN_MATCHES_NOTHING",
      `no table of the sync fits ${unmatchedPatterns.join(", ")}`,
    );
  }
  const unfinished = selected.filter(({ entry }) => !["copied", "following"].includes(entry.state));
  if (unfinished.length > 0) {
    throw new ReplicateError(
      "COPY_UNFINISHED",
      "some tables are not copied yet, so there is nothing to compare",
      {
        problems: unfinished.map((table) => ({
          subject: tableLabel(table),
          message: `is in state ${table.entry.state}`,
        })),
      },
    );
  }
  return selected.map(({ entry }) => entry);
}

/** The physical files of each capture's delta tables. */
async function deltaFiles(pair: SessionPair, entries: readonly SyncTable[]): Promise<Map<number, string>> {
  const rows = await pair.source.rows<{ id: number; files: string | null }>(
    `select c.id, pg_catalog.concat_ws(' ',
              pg_catalog.pg_relation_filenode(pg_catalog.to_regclass('${own("delta_")}' || c.id || '_a')),
              pg_catalog.pg_relation_filenode(pg_catalog.to_regclass('${own("delta_")}' || c.id || '_b'))) as files
     from replicate.capture c where c.id = any ($1::int[])`,
    [entries.map((entry) => entry.captureId)],
  );
  return new Map(rows.map((row) => [row.id, row.files ?? ""]));
}

class ReportBuilder {
  readonly #plan: TablePlan;
  readonly #isRepair: boolean;
  readonly #listed: { readonly part: number; readonly differences: readonly Difference[] }[] = [];
  #rows = 0;
  #pending = 0;
  #total = 0;
  #parked = 0;
  #repaired = 0;
  #unpaired: Unpaired | undefined;
  listed = 0;

  constructor(plan: TablePlan, isRepair: boolean) {
    this.#plan = plan;
    this.#isRepair = isRepair;
  }

  add(part: number, result: PartResult): void {
    this.#rows += result.rows;
    this.#pending += result.pending;
    this.#total += result.total;
    this.#parked += result.parked;
    this.#repaired += result.repaired;
    // A table without a key is compared in one part.
    this.#unpaired = result.unpaired;
    this.listed += result.listed.length;
    if (result.listed.length > 0) this.#listed.push({ part, differences: result.listed });
  }

  build(maxDifferences: number): TableVerifyReport {
    const listed = this.#listed.sort((a, b) => a.part - b.part).flatMap(({ differences }) => differences);
    return {
      table: this.#plan.label,
      target: this.#plan.targetLabel,
      rows: this.#rows,
      pending: this.#pending,
      equal: this.#total === 0,
      // Parts that ended at the same moment may have listed a few too many.
      differences: listed.slice(0, maxDifferences),
      differencesTotal: this.#total,
      parked: this.#parked,
      ...(this.#unpaired === undefined ? {} : { unpaired: this.#unpaired }),
      ...(this.#isRepair ? { repaired: this.#repaired } : {}),
    };
  }
}
