/**
 * Compares what has changed since a point of each table: while both sides are written to, so that the points can be moved on,
 * and at last in snapshots in which nothing changes any more, where the source is fenced and the target has applied everything.
 */
import { isKeyless, unions, windowCountSql } from "../catalog/delta.ts";
import { LockWatch } from "../postgres/lock-watch.ts";
import { RelayError } from "../postgres/copy-relay.ts";
import { sleep, throwIfAborted } from "../postgres/sleep.ts";
import { ReplicateError } from "../errors.ts";
import { isOverBudget } from "../state/connection-budget.ts";
import type { SyncContext } from "../state/context.ts";
import type { SyncTable } from "../state/sync-table.ts";
import {
  compareGroup,
  groupsOf,
  halves,
  RELATIONS_TOGETHER,
  type Change,
  type Group,
} from "./changed-groups.ts";
import type { ComparedTable } from "./changed-together.ts";
import { Checksum } from "./checksum.ts";
import type { Difference } from "./difference.ts";
import { isComparable, planTables, type TablePlan } from "./plan.ts";
import { isAboutLocks, lockTries } from "./run-parts.ts";
import { SessionPair, type Watches } from "./session-pair.ts";

/** How tables are compared, learned once: what has changed meanwhile is noticed and learned again. */
export class ChangePlans {
  readonly #plans = new Map<number, TablePlan>();
  #checksum: Checksum | undefined;

  async checksum({ source, target }: SessionPair): Promise<Checksum> {
    return (this.#checksum ??= await Checksum.agree(source, target));
  }

  /** Throws as `planTables` does. */
  async of(pair: SessionPair, entries: readonly SyncTable[]): Promise<TablePlan[]> {
    const unknown = entries.filter(({ captureId }) => !this.#plans.has(captureId));
    if (unknown.length > 0) {
      const checksum = await this.checksum(pair);
      for (const plan of await planTables(pair.source, pair.target, checksum, unknown))
        this.#plans.set(plan.capture.id, plan);
    }
    return entries.map(({ captureId }) => this.#plans.get(captureId) as TablePlan);
  }

  forget(captureIds: readonly number[]): void {
    for (const id of captureIds) this.#plans.delete(id);
  }
}

export interface ChangedOptions {
  /** Tables of the sync. */
  readonly entries: readonly SyncTable[];
  /** By capture: a position of the sync; every delta since then is still there. A table without one is compared as a whole. */
  readonly since: ReadonlyMap<number, string>;
  readonly plans?: ChangePlans;
  /** Both sides are written to. Default false. */
  readonly isLive?: boolean;
  /** Keys that one statement compares, about; default 100,000. */
  readonly keysAtOnce?: number;
}

export interface ChangedReport {
  readonly equal: boolean;
  /** Rows compared, counted on the source. */
  readonly rows: number;
  /** Tables that had changed. */
  readonly changed: number;
  /** Heap and TOAST of tables with a key that have to be compared as a whole, and were left for later. */
  readonly wholeBytes: number;
  /** Tables with differences, at most 20 of each table. */
  readonly tables: readonly {
    readonly table: string;
    readonly total: number;
    /** Those of rows that the target has rejected. */
    readonly parked: number;
    readonly differences: readonly Difference[];
  }[];
  /**
   * By capture: the position up to which a table was found equal. Whatever has changed since its point and is not compared, has
   * changed after it as well.
   */
  readonly upTo: ReadonlyMap<number, string>;
}

/** Pairs of sessions at the same time. */
const MOST_PAIRS = 3;
/** Before a group that gave way is tried again, while nobody can write. */
const AGAIN_MS = 50;

/**
 * Compares the rows of all keys that have changed since their tables' points; a table that was truncated, or whose keys are not
 * known, as a whole. While both sides are written to, what cannot be compared, or differs, is left for later. Throws
 * TABLE_SHAPE_CHANGED, CAPTURE_BROKEN, SOURCE_LOST, and the driver's errors.
 */
export async function verifyChanged(context: SyncContext, options: ChangedOptions): Promise<ChangedReport> {
  await using comparison = new ChangeComparison(context);
  return await comparison.run(options);
}

/** Sessions for a comparison, which can be opened before it is time for it. */
export class ChangeComparison implements AsyncDisposable {
  readonly #context: SyncContext;
  readonly #watches: Watches;
  #pairs: SessionPair[] = [];
  #opened: Promise<SessionPair> | undefined;

  constructor(context: SyncContext) {
    this.#context = context;
    this.#watches = {
      source: new LockWatch(() => context.source("verify watch")),
      target: new LockWatch(() => context.target("verify watch")),
    };
  }

  /** Opens the sessions that a comparison of so many tables takes. Throws as `connect` does. */
  async open(tables: number): Promise<SessionPair> {
    return await (this.#opened ??= this.#openFor(tables));
  }

  async #openFor(tables: number): Promise<SessionPair> {
    const first = await SessionPair.open(this.#context, this.#watches);
    this.#pairs.push(first);
    await this.#openUpTo(Math.ceil(tables / RELATIONS_TOGETHER));
    return first;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#opened?.catch(() => undefined);
    const pairs = this.#pairs;
    this.#pairs = [];
    await Promise.all(pairs.map((pair) => pair.close()));
    await Promise.all([this.#watches.source.close(), this.#watches.target.close()]);
  }

  /** Throws as `verifyChanged` does. */
  async run(options: ChangedOptions): Promise<ChangedReport> {
    const { plans = new ChangePlans(), isLive = false } = options;
    const pair = await this.open(1);
    const changes = await changedTables(pair, options);
    const entries = options.entries.filter(
      (entry) => changes.has(entry.captureId) && isComparable(this.#context.config, entry),
    );
    const report = new Report(entries.length);
    if (entries.length === 0) return report.end();
    let left = entries;
    // What was planned before is looked at in the comparison's snapshots; what is planned now may change once more.
    for (let tries = 0; left.length > 0; tries += 1) {
      const found = await plans.of(pair, left);
      const stale = await this.#compareAll(
        groupsOf(found, changes, options.since, options.keysAtOnce),
        report,
        plans,
        isLive,
      );
      plans.forget(stale);
      left = left.filter(({ captureId }) => stale.includes(captureId));
      if (left.length === 0 || isLive) break;
      if (tries === MOST_PLANS) {
        throw new ReplicateError("TABLE_SHAPE_CHANGED", "tables change their shape while they are compared", {
          problems: found
            .filter(({ capture }) => stale.includes(capture.id))
            .map(({ label }) => ({ subject: label, message: "was altered again and again" })),
        });
      }
    }
    // A table that was forgotten must not look equal.
    if (!isLive && report.compared !== entries.length)
      throw new ReplicateError("INTERNAL", "not every table that has changed was compared");
    return report.end();
  }

  /** Returns the captures whose plans do not fit any more. */
  async #compareAll(
    groups: readonly Group[],
    report: Report,
    plans: ChangePlans,
    isLive: boolean,
  ): Promise<number[]> {
    const [first] = this.#pairs as [SessionPair];
    const { signal, config } = this.#context;
    const checksum = await plans.checksum(first);
    const queue = groups.toSorted((a, b) => b.keys - a.keys);
    const stale: number[] = [];
    await this.#openUpTo(groups.length);
    const work = async (pair: SessionPair): Promise<void> => {
      for (let group = queue.shift(), tries = 0; group !== undefined;) {
        throwIfAborted(signal);
        try {
          const options = { sync: config.name, checksum, signal, isLive };
          for (const done of await compareGroup(pair, group, options))
            if (done.outcome === "stale") stale.push(done.plan.capture.id);
            else report.add(done);
        } catch (error) {
          throwIfAborted(signal);
          const cause = error instanceof RelayError ? error.cause : error;
          const isHopeless = pair.isBroken || cause instanceof ReplicateError;
          await pair.rollback();
          if (!isLive && (isHopeless || !isAboutLocks(cause) || tries >= lockTries)) throw error;
          if (isLive && isHopeless) {
            if (cause instanceof ReplicateError && cause.retry !== "now") throw error;
            // What could not be compared now is compared later.
            return;
          }
          if (isLive) {
            // One table, or who wants it, does not keep the others.
            queue.unshift(...halves(group));
          } else {
            tries += 1;
            await sleep(AGAIN_MS, signal);
            continue;
          }
        }
        group = queue.shift();
        tries = 0;
      }
    };
    await Promise.all(this.#pairs.map(work));
    return stale;
  }

  /** Where the servers allow no more connections, the pairs that there are do the work. */
  async #openUpTo(wanted: number): Promise<void> {
    const most = Math.min(MOST_PAIRS, Math.max(1, this.#context.config.copy.jobs), wanted);
    try {
      while (this.#pairs.length < most)
        this.#pairs.push(await SessionPair.open(this.#context, this.#watches));
    } catch (error) {
      if (!isOverBudget(error)) throw error;
    }
  }
}

/** How often tables are planned again because they were altered. */
const MOST_PLANS = 5;

async function changedTables(
  { source }: SessionPair,
  { entries, since }: ChangedOptions,
): Promise<Map<number, Change>> {
  // Sizes are physical: whatever is committed shows in them.
  const sized = await source.rows<{ id: number }>(
    `select c.id from replicate.capture c
     where c.id = any ($1::int[])
       and pg_catalog.pg_relation_size(c.delta_a) + pg_catalog.pg_relation_size(c.delta_b) > 0`,
    [entries.map(({ captureId }) => captureId)],
  );
  const counts: { id: number; deltas: number; markers: number[] | null }[] = [];
  const queries = sized.map(
    ({ id }) =>
      `select id, n::float8 as deltas, markers from (${windowCountSql(id, since.get(id) ?? null)}) as w`,
  );
  for (const some of unions(queries)) counts.push(...(await source.rows<(typeof counts)[number]>(some)));
  const changes = new Map<number, Change>(
    counts
      .filter(({ deltas }) => deltas > 0)
      .map(({ id, deltas, markers }) => [id, { deltas, isWhole: (markers ?? []).length > 0 }]),
  );
  for (const { captureId } of entries)
    if (!since.has(captureId)) changes.set(captureId, { deltas: 0, isWhole: true });
  return changes;
}

class Report {
  readonly #changed: number;
  readonly #tables: ChangedReport["tables"][number][] = [];
  readonly #upTo = new Map<number, string>();
  #rows = 0;
  #wholeBytes = 0;

  constructor(changed: number) {
    this.#changed = changed;
  }

  add({ plan, outcome, upTo, rows, total, parked, listed }: ComparedTable): void {
    this.#rows += rows;
    if (outcome === "later" && !isKeyless(plan.capture)) this.#wholeBytes += plan.bytes;
    if (outcome === "equal") this.#upTo.set(plan.capture.id, upTo);
    if (outcome === "different") this.#tables.push({ table: plan.label, total, parked, differences: listed });
  }

  get compared(): number {
    return this.#upTo.size + this.#tables.length;
  }

  end(): ChangedReport {
    const tables = this.#tables.toSorted((a, b) => (a.table < b.table ? -1 : 1));
    return {
      equal: tables.length === 0,
      rows: this.#rows,
      changed: this.#changed,
      wholeBytes: this.#wholeBytes,
      tables,
      upTo: this.#upTo,
    };
  }
}
