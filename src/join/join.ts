/**
 * New tables join by themselves while `follow` runs: what the sync is meant to replicate and does not have is made on the target,
 * captured, copied, and then followed like the others. In sessions of its own, so that batches go on meanwhile. How far a table
 * has come is remembered on the target, and the copy's ledger is that of `replicate copy`, which may help.
 */
import { baseName } from "../catalog/delta.ts";
import { tableLabel } from "../catalog/table.ts";
import type { ResolvedConfig } from "../config/options.ts";
import { copySync } from "../copy/copy.ts";
import { smallBytes } from "../copy/plan.ts";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { failpoint } from "../postgres/failpoint.ts";
import { saidBy } from "../postgres/server-words.ts";
import { isConnectionFailure } from "../postgres/sqlstate.ts";
import type { SyncContext } from "../state/context.ts";
import { forgetJoining, loadJoining, noteReason } from "../state/joining.ts";
import type { Lease } from "../state/lease.ts";
import { lookForNewcomers, type Newcomer } from "../state/newcomers.ts";
import type { SyncTable } from "../state/sync-table.ts";
import { abandon } from "./abandon.ts";
import { NotTaken, takeIn, Vanished, type Sides, type Taken } from "./take-in.ts";

/** What is used of a session that follows. */
export interface Followed {
  readonly source: Connection;
  readonly target: Connection;
  readonly tables: readonly SyncTable[];
}

/** Between two looks at the source's catalogue. */
const LOOK_MS = 2000;
/** A look may take this share of the time. */
const LOOK_SHARE = 0.01;
/** Tables that are taken in at once; the others come with the next looks. */
const MOST_AT_ONCE = 25;
/** Copies that may go on at the same time: a large table does not keep small ones waiting. */
const MOST_COPIES = 2;
/** The first pause before a table that was not taken in is tried again; doubled each time. */
const PAUSE_MS = 4000;
const LONGEST_PAUSE_MS = 5 * 60_000;

interface Refused {
  readonly stamp: string;
  readonly until: number;
  readonly times: number;
}

/**
 * Whether new tables of this sync are taken in by themselves; where they are not, they are only told of. A table's own setting is
 * looked at when it is there.
 */
function joinsNewTables({
  direction,
  tracksTarget,
  name,
  schemaChanges,
  overrides,
}: ResolvedConfig): boolean {
  const isWanted = [{ schemaChanges }, ...Object.values(overrides)].some(
    (each) => each.schemaChanges === "apply",
  );
  return direction === "one-way" && !tracksTarget && name === baseName(name) && isWanted;
}

export class Joiner {
  readonly #context: SyncContext;
  readonly #lease: Lease;
  readonly #stop = new AbortController();
  #nextLook = 0;
  /** By oid, with the stamp of the last look: what is gone by the next one was not worth the work. */
  #seen = new Map<number, string>();
  readonly #refused = new Map<number, Refused>();
  /** By label, with the reason. */
  #told = new Map<string, string | null>();
  #taking: Promise<void> | undefined;
  readonly #copies = new Map<Promise<void>, readonly number[]>();
  /** Copied, and not told yet that they follow: label by capture id. */
  readonly #awaited = new Map<number, string>();
  /** Oids of tables of the source that the ledger of newcomers may have; undefined: it was not read yet. */
  #rows: Set<number> | undefined;
  #isStale = false;
  /** Oids that were entered into the ledger, which the session may not have read since. */
  readonly #entered = new Set<number>();

  constructor(context: SyncContext, lease: Lease) {
    this.#context = context;
    this.#lease = lease;
  }

  /** Whether tables have become ready to be followed since this was asked last. */
  hasJoined(): boolean {
    const isStale = this.#isStale;
    this.#isStale = false;
    return isStale;
  }

  /** Looks, if it is time, and begins with what has stayed since the last look; or `atOnce` with all there is. */
  async look(session: Followed, atOnce = false): Promise<void> {
    const startedAt = Date.now();
    if ((startedAt < this.#nextLook && !atOnce) || this.#stop.signal.aborted) return;
    const { config } = this.#context;
    const found = await lookForNewcomers(config, session.source, session.target, session.tables);
    if (joinsNewTables(config)) await this.#begin(session, found, atOnce);
    else for (const table of found) this.#tell(table, null);
    this.#forgetTold(found);
    this.#seen = new Map(found.map(({ oid, stamp }) => [oid, stamp]));
    const now = Date.now();
    this.#nextLook = now + Math.max(LOOK_MS, (now - startedAt) / LOOK_SHARE);
  }

  /** Takes in all that can be taken in, and waits for it. Returns whether there is more to follow than before. */
  async finish(session: Followed): Promise<boolean> {
    await this.look(session, true);
    while (this.#taking !== undefined || this.#copies.size > 0)
      await Promise.all([this.#taking, ...this.#copies.keys()]);
    return this.#isStale;
  }

  /** Ends what was begun; the ledger says what is left to do. */
  async end(): Promise<void> {
    this.#stop.abort();
    await Promise.all([this.#taking, ...this.#copies.keys()]);
  }

  async #begin(session: Followed, found: readonly Newcomer[], atOnce: boolean): Promise<void> {
    const { name } = this.#context.config;
    const isUnfinished = session.tables.some(({ state }) => state !== "following");
    if (this.#rows === undefined || isUnfinished || this.#rows.size > 0) await this.#resume(session, found);
    const followed = session.tables.filter(
      ({ captureId, state }) => state === "following" && this.#awaited.has(captureId),
    );
    if (followed.length > 0) {
      await forgetJoining(session.target, name, followed.map(({ sourceRelid }) => sourceRelid)); // prettier-ignore
      for (const { captureId, sourceRelid } of followed) {
        this.#context.emit({ type: "table-joined", table: this.#awaited.get(captureId) ?? "" });
        this.#awaited.delete(captureId);
        this.#rows?.delete(sourceRelid);
      }
    }
    const now = Date.now();
    const candidates = found.filter(({ oid, stamp }) => {
      if (this.#entered.has(oid)) return false;
      const refused = this.#refused.get(oid);
      const isDue = refused === undefined || (refused.stamp !== stamp ? refused.times < 5 : false) || refused.until <= now || atOnce; // prettier-ignore
      return isDue && (atOnce || this.#seen.get(oid) === stamp);
    });
    if (candidates.length === 0 || this.#taking !== undefined || this.#copies.size >= MOST_COPIES) return;
    this.#taking = this.#take(candidates.slice(0, MOST_AT_ONCE)).finally(() => (this.#taking = undefined));
  }

  /** Goes on with what an earlier run has left, and clears away what is left of tables that are gone. */
  async #resume(session: Followed, found: readonly Newcomer[]): Promise<void> {
    const { name } = this.#context.config;
    const rows = await loadJoining(session.target, name);
    this.#rows = new Set(rows.map(({ sourceRelid }) => sourceRelid));
    const copying = new Set([...this.#copies.values()].flat());
    const left: Taken[] = [];
    const gone: number[] = [];
    for (const { sourceRelid } of rows) {
      const entry = session.tables.find((table) => table.sourceRelid === sourceRelid);
      if (entry === undefined) {
        if (!found.some(({ oid }) => oid === sourceRelid) && !this.#entered.has(sourceRelid))
          gone.push(sourceRelid);
        continue;
      }
      const label = tableLabel({ schema: entry.sourceSchema, name: entry.sourceName });
      if (entry.state === "copied" || entry.state === "following") this.#awaited.set(entry.captureId, label);
      else if (!copying.has(entry.captureId) && (this.#refused.get(sourceRelid)?.until ?? 0) <= Date.now())
        left.push({ captureId: entry.captureId, label, bytes: smallBytes });
    }
    if (this.#taking !== undefined) return;
    if (left.length > 0 && this.#copies.size < MOST_COPIES) this.#copy(left);
    if (gone.length > 0) this.#taking = this.#clear(gone).finally(() => (this.#taking = undefined));
  }

  /** Takes tables in one after the other, then has them copied. Never rejects. */
  async #take(newcomers: readonly Newcomer[]): Promise<void> {
    const taken: Taken[] = [];
    await this.#withSides(async (sides) => {
      for (const newcomer of newcomers) {
        if (this.#stop.signal.aborted) return;
        try {
          this.#rows?.add(newcomer.oid);
          taken.push(await takeIn(sides, newcomer));
          this.#entered.add(newcomer.oid);
          this.#refused.delete(newcomer.oid);
        } catch (error) {
          if (this.#stop.signal.aborted || isConnectionFailure(error) || sides.source.isBroken || sides.target.isBroken) throw error; // prettier-ignore
          if (error instanceof Vanished) continue;
          await this.#fail(sides.target, newcomer, reasonOf(error));
        }
      }
    });
    // Small ones do not wait for large ones.
    const [small, large] = [taken.filter(({ bytes }) => bytes < smallBytes), taken.filter(({ bytes }) => bytes >= smallBytes)]; // prettier-ignore
    for (const group of [small, large]) if (group.length > 0) this.#copy(group);
  }

  #copy(tables: readonly Taken[]): void {
    const copy: Promise<void> = this.#copied(tables).finally(() => this.#copies.delete(copy));
    this.#copies.set(
      copy,
      tables.map(({ captureId }) => captureId),
    );
  }

  async #copied(tables: readonly Taken[]): Promise<void> {
    const isSmall = tables.every(({ bytes }) => bytes < smallBytes);
    const context = this.#quiet();
    try {
      const jobs = isSmall ? { jobs: 1, indexJobs: 1 } : {};
      await copySync(context, { tables: tables.map(({ label }) => label), ...jobs }, { isBeside: true });
      await failpoint("join.copied");
      for (const { captureId, label } of tables) this.#awaited.set(captureId, label);
      this.#isStale = true;
    } catch (error) {
      if (this.#stop.signal.aborted) return;
      await this.#withSides(async (sides) => await this.#settleFailure(sides, tables, error));
    }
  }

  /** A table whose copy failed is told of, and begun with anew where it is another table by now. */
  async #settleFailure(sides: Sides, tables: readonly Taken[], error: unknown): Promise<void> {
    const { name } = this.#context.config;
    const isOther =
      error instanceof ReplicateError &&
      ["TABLE_SHAPE_CHANGED", "PATTERN_MATCHES_NOTHING", "SYNC_UNKNOWN"].includes(error.code);
    for (const { captureId, label } of tables) {
      const [entry] = await sides.target.rows<{ relid: number }>(
        `select source_relid::bigint::float8 as relid from replicate.sync_table where sync = $1 and capture_id = $2`,
        [name, captureId],
      );
      if (entry === undefined) continue;
      if (isOther) {
        await abandon(sides, entry.relid, true);
        this.#entered.delete(entry.relid);
      } else {
        this.#context.emit({ type: "table-not-replicated", side: "source", table: label, reason: reasonOf(error) }); // prettier-ignore
        await noteReason(sides.target, name, entry.relid, reasonOf(error));
      }
      this.#putOff(entry.relid, "");
    }
  }

  async #clear(sourceOids: readonly number[]): Promise<void> {
    await this.#withSides(async (sides) => {
      for (const oid of sourceOids) {
        await abandon(sides, oid, false);
        this.#rows?.delete(oid);
        this.#refused.delete(oid);
      }
    });
  }

  /** Never rejects: what went wrong with the sessions, the next look finds out about, or `follow` itself. */
  async #withSides(work: (sides: Sides) => Promise<void>): Promise<void> {
    const context = this.#quiet();
    try {
      await using source = await context.source("join", { isSerial: true });
      await using target = await context.target("join");
      const cut = (): void => {
        source.destroy();
        target.destroy();
      };
      this.#stop.signal.addEventListener("abort", cut, { once: true });
      try {
        await work({ context, lease: this.#lease, source, target });
      } finally {
        this.#stop.signal.removeEventListener("abort", cut);
      }
    } catch (error) {
      if (!this.#stop.signal.aborted)
        this.#context.log.warn(
          { error: saidBy(error) },
          "new tables could not be taken in; tried again soon",
        );
      this.#nextLook = Date.now() + PAUSE_MS;
    }
  }

  /** Without what is told of a copy that somebody has asked for. */
  #quiet(): SyncContext {
    const context = this.#context;
    return {
      ...context,
      get isReplicaRole() {
        return context.isReplicaRole;
      },
      signal: AbortSignal.any([context.signal, this.#stop.signal]),
      emit: (event) => {
        if (event.type !== "copy-planned" && event.type !== "copy-finished") context.emit(event);
      },
    };
  }

  async #fail(target: Connection, newcomer: Newcomer, reason: string): Promise<void> {
    const { name } = this.#context.config;
    await noteReason(target, name, newcomer.oid, reason);
    this.#putOff(newcomer.oid, newcomer.stamp);
    this.#tell(newcomer, reason);
  }

  #putOff(oid: number, stamp: string): void {
    const times = (this.#refused.get(oid)?.times ?? 0) + 1;
    const pause = Math.min(LONGEST_PAUSE_MS, PAUSE_MS * 2 ** (times - 1));
    this.#refused.set(oid, { stamp, until: Date.now() + pause, times });
  }

  /** Each once, and again with another reason. */
  #tell(newcomer: Newcomer, reason: string | null): void {
    const { name } = this.#context.config;
    const table = tableLabel(newcomer);
    if (this.#told.get(table) === reason) return;
    this.#told.set(table, reason);
    const side = name === baseName(name) ? "source" : "target";
    this.#context.emit({ type: "table-not-replicated", side, table, ...(reason === null ? {} : { reason }) });
  }

  #forgetTold(found: readonly Newcomer[]): void {
    const labels = new Set(found.map((each) => tableLabel(each)));
    for (const table of this.#told.keys()) if (!labels.has(table)) this.#told.delete(table);
    for (const oid of this.#refused.keys())
      if (!found.some((each) => each.oid === oid) && this.#rows?.has(oid) !== true) this.#refused.delete(oid);
  }
}

/** For people: what keeps a table out. */
function reasonOf(error: unknown): string {
  if (error instanceof NotTaken) return error.message;
  if (!(error instanceof ReplicateError)) return saidBy(error);
  const problems = error.problems.map(({ subject, message }) => `${subject}: ${message}`);
  return problems.length === 0 ? error.message : `${error.message} (${problems.join("; ")})`;
}
