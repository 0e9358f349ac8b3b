/**
 * Applies one batch: one transaction on the target that compares and moves the position, stages the rows and makes the
 * tables equal. Small batches go out in one round trip; large ones stream into staging while they are read.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { isKeyless } from "../catalog/delta.ts";
import type { Connection } from "../postgres/connect.ts";
import { failpoint } from "../postgres/failpoint.ts";
import {
  CopyFrames,
  FeedingScript,
  runScript,
  setFlow,
  tagCount,
  type StatementResult,
} from "../postgres/script.ts";
import { ownRowsSql } from "../catalog/rows.ts";
import { tableSql } from "../catalog/table.ts";
import { literal } from "../postgres/sql.ts";
import {
  CONFLICTS_MET, DEADLOCK, LOCK_NOT_AVAILABLE, EXCLUSION_VIOLATION, UNIQUE_VIOLATION, sqlstateOf,
} from "../postgres/sqlstate.ts"; // prettier-ignore
import {
  completeRereadSql, isTwoSided, leavePendingSql, meetSql, noteDisputedSql, takeTurnsSql, noteEmptiedSql, travelOnSql,
  type KeyTexts, type Met,
} from "./conflict-sql.ts"; // prettier-ignore
import { blockingRows, DriftSignal, uniqueIndex } from "./blocking-rows.ts";
import type { DeadLetters } from "./dead-letters.ts";
import type { Opposite } from "./opposite.ts";
import { isAbout, refused } from "./refused.ts";
import { RowTransformer } from "../transform-rows.ts";
import type { TransformRow } from "../hooks.ts";
import { Settlement } from "./settle-conflicts.ts";
import {
  applySql, createStageSql, isDirect, isRead, layoutOf, stageName, type Shape, type TableMode,
} from "./shape.ts"; // prettier-ignore

export interface Position {
  /** Null before the first batch. */
  readonly snapshot: string | null;
  readonly token: string;
}

export interface BatchTable {
  readonly shape: Shape;
  readonly mode: TableMode;
  /** The fingerprint that was checked in the batch's snapshot. */
  readonly fingerprint: string;
  /** Its rows go through the hook. */
  readonly isTransformed?: boolean;
  /** Where the whole table is read: keys that stay as they are, see `leavePendingSql`. */
  readonly kept?: readonly KeyTexts[];
  /** Where it was emptied by a TRUNCATE: when, if that is known. */
  readonly emptiedAt?: string | null;
}

/** Staging tables that a session may have; beyond, all are dropped, because each commit visits each of them. */
const MOST_STAGES = 40;
const staged = new WeakMap<Connection, Map<number, string>>();

async function ensureStages(target: Connection, shapes: readonly Shape[]): Promise<void> {
  const known = staged.get(target) ?? new Map<number, string>();
  staged.set(target, known);
  const wanted = shapes.map((shape) => ({ shape, sql: createStageSql(shape) }));
  const missing = wanted.filter(({ shape, sql }) => known.get(shape.capture.id) !== sql);
  if (missing.length === 0) return;
  const stale =
    known.size + missing.length > MOST_STAGES
      ? [...known.keys()]
      : missing.map(({ shape }) => shape.capture.id);
  const drops = stale.filter((id) => known.has(id)).map((id) => `drop table if exists pg_temp.stage_${id}`);
  for (const id of stale) known.delete(id);
  const creates = wanted.filter(({ shape }) => !known.has(shape.capture.id));
  await target.script([...drops, ...creates.map(({ sql }) => sql)].join(";\n"));
  for (const { shape, sql } of creates) known.set(shape.capture.id, sql);
}

/** For a session whose temporary tables were dropped. */
export function forgetStages(target: Connection): void {
  staged.delete(target);
}

/** How often conflicts are settled anew, because applications here go on changing the batch's rows. */
const MOST_SETTLEMENTS = 20;
/** From this time on they have to wait until the batch is committed. */
const FIRST_ALONE = 3;
/**
 * Where applications write here too, a lock is waited for so long only, in milliseconds: well below the second after which
 * a server looks for deadlocks, so that it is us who give way. Then the batch is applied again, after a pause, so often.
 */
const LOCK_TIMEOUT_MS = 250;
const WAIT_MS = 200;
const MOST_WAITS = 500;
/** Rows of a small batch that are kept in memory until the source is done, so that the target needs one round trip. */
const SMALL_BATCH_BYTES = 1024 * 1024;

/** Collects the rows of a batch and writes it to the target. One use. */
export class BatchWriter {
  readonly #source: Connection;
  readonly #target: Connection;
  readonly #sync: string;
  readonly #expected: Position;
  readonly #tables: readonly BatchTable[];
  readonly #letters: DeadLetters;
  readonly #settlement: Settlement | undefined;
  /** Those that rows come for, in the order of their coming. */
  readonly #reads: readonly BatchTable[];
  readonly #transformers: readonly (RowTransformer | undefined)[];
  /** What a hook has thrown while rows came. */
  #hookFailure: unknown;
  #next: Position | undefined;
  /** Rows that came, one number per read; known once all are staged. */
  #copied: readonly number[] = [];
  /** Frames that are kept until the target's script starts. */
  #buffered: Buffer[] = [];
  #bytes = 0;
  readonly #frames: CopyFrames;
  #feeding: FeedingScript | undefined;
  #openCopy = 0;
  #pausing: Promise<void> | undefined;
  #failure: unknown;
  #isOverflown = false;
  #rows = 0;

  constructor(
    source: Connection,
    target: Connection,
    sync: string,
    expected: Position,
    tables: readonly BatchTable[],
    opposite: Opposite | undefined,
    letters: DeadLetters,
    transformRow: TransformRow | undefined,
  ) {
    this.#source = source;
    this.#letters = letters;
    this.#settlement = opposite === undefined ? undefined : new Settlement(source, target, opposite);
    this.#target = target;
    this.#sync = sync;
    this.#expected = expected;
    this.#tables = tables;
    this.#reads = tables.filter(({ mode }) => isRead(mode));
    this.#transformers = this.#reads.map(({ shape, mode, isTransformed }) =>
      transformRow !== undefined && isTransformed === true
        ? new RowTransformer(layoutOf(shape, mode), transformRow)
        : undefined,
    );
    this.#frames = new CopyFrames((frame) => {
      if (this.#feeding !== undefined) return this.#feeding.send(frame);
      this.#buffered.push(frame);
      return true;
    });
  }

  /** Creates what the session lacks, so that nothing has to be asked while rows arrive. */
  async prepare(): Promise<void> {
    const staging = this.#tables.filter(({ mode }) => isRead(mode) && !isDirect(mode));
    await ensureStages(this.#target, staging.map(({ shape }) => shape)); // prettier-ignore
  }

  /** Rows taken so far. */
  get rows(): number {
    return this.#rows;
  }

  /**
   * Takes a row. Starts streaming once the batch is not small. Where the next position is not known yet it cannot:
   * such a batch is given up, see `isOverflown`.
   */
  add(read: number, payload: Buffer, next: Position | undefined): void {
    if (this.#failure !== undefined || this.#hookFailure !== undefined || this.#isOverflown) return;
    this.#rows += 1;
    for (; this.#openCopy < read; this.#openCopy += 1) this.#frames.end();
    const data = this.#transformed(read, payload);
    if (data.length === 0) return;
    const isFlowing = this.#frames.add(data);
    if (this.#feeding !== undefined) {
      if (!isFlowing) this.#pause(this.#feeding);
      return;
    }
    this.#bytes += data.length;
    if (this.#bytes <= SMALL_BATCH_BYTES) return;
    if (next === undefined) {
      this.#isOverflown = true;
      this.#buffered = [];
    } else {
      this.#next = next;
      this.#startFeeding([]);
    }
  }

  /** The rows that go on: none where the hook has failed, which is told when they are to be applied. */
  #transformed(read: number, payload: Buffer): Buffer {
    try {
      return this.#transformers[read]?.add(payload).data ?? payload;
    } catch (error) {
      this.#hookFailure = error;
      return Buffer.alloc(0);
    }
  }

  /** What the target has refused while rows were still coming in, which ends the reading. */
  get failure(): unknown {
    return this.#failure;
  }

  /** The batch was too large to be held in memory and has to be read again, streaming. */
  get isOverflown(): boolean {
    return this.#isOverflown;
  }

  /** `rest`: what follows the rows in the same script; empty while rows are still being read. */
  #startFeeding(rest: readonly string[]): FeedingScript {
    const script = [
      "begin",
      ...(this.#settlement === undefined ? [] : [`set local lock_timeout = ${LOCK_TIMEOUT_MS}`]),
      this.#advanceSql(),
      ...this.#reads.map(({ shape, mode }) => this.#letters.copyInSql(shape, mode)),
      "savepoint apply",
      ...rest,
    ];
    const feeding = new FeedingScript(this.#target, script.join(";\n"));
    this.#feeding = feeding;
    feeding.done.catch((error: unknown) => {
      this.#failure ??= error;
      // Nobody reads the rest of the rows; unless all will be read again at once, which needs the session.
      if (rest.length === 0 && !this.#letters.restages(error, this.#tables)) this.#source.destroy();
    });
    for (const frame of this.#buffered.splice(0)) feeding.send(frame);
    return feeding;
  }

  #pause(feeding: FeedingScript): void {
    if (this.#pausing !== undefined) return;
    setFlow(this.#source, false);
    this.#pausing = feeding.drained().then(() => {
      this.#pausing = undefined;
      setFlow(this.#source, true);
    });
  }

  #advanceSql(): string {
    const next = this.#next as Position;
    const { snapshot, token } = this.#expected;
    const values = [this.#sync, snapshot, token, next.snapshot, next.token].map(literal);
    const captures = this.#tables.map(({ shape }) => shape.capture.id);
    return `select replicate.advance(${values.join(", ")}, '{${captures.join(",")}}')`;
  }

  /**
   * Applies the rows and commits. Returns rows applied per table. Throws DriftSignal, ROW_REFUSED, and the driver's
   * errors; the transaction is rolled back then.
   */
  async apply(next: Position): Promise<Map<number, number>> {
    this.#next = next;
    const replaced = new Set<number>();
    try {
      if (this.#hookFailure !== undefined) {
        // The target waits for rows.
        this.#endCopies();
        await this.#feeding?.done;
        throw this.#hookFailure;
      }
      return await this.#tryApply(replaced);
    } catch (error) {
      this.#letters.rolledBack();
      if (!this.#target.isBroken) await this.#target.script("rollback").catch(() => this.#target.destroy());
      throw error;
    }
  }

  async #tryApply(replaced: Set<number>): Promise<Map<number, number>> {
    let results: StatementResult[];
    try {
      if (this.#feeding === undefined && !this.#letters.hasTexts(this.#tables)) {
        this.#endCopies();
        results = await this.#startFeeding(this.#applyScript(replaced, false)).done;
        this.#noteCopied(results);
      } else {
        this.#endCopies();
        this.#noteCopied(await (this.#feeding ?? this.#startFeeding([])).done);
        await failpoint("batch.staged");
        if (this.#letters.hasTexts(this.#tables)) await this.#letters.stageTexts(this.#tables);
        results = await runScript(this.#target, this.#applyScript(replaced, true).join(";\n"));
      }
    } catch (error) {
      results = await this.#retry(error, replaced);
    }
    await failpoint("batch.committed");
    await this.#letters.committed(results, this.#tables);
    const counts = countRows(this.#tables, results, replaced);
    for (const [index, { shape, mode }] of this.#reads.entries())
      if (isDirect(mode)) counts.set(shape.capture.id, this.#copied[index] ?? 0);
    return counts;
  }

  #noteCopied(results: readonly StatementResult[]): void {
    this.#copied = results.filter(({ tag }) => tag.startsWith("COPY ")).map((result) => tagCount(result));
  }

  #endCopies(): void {
    for (; this.#openCopy < this.#reads.length; this.#openCopy += 1) this.#frames.end();
  }

  /** `isSettled`: staging is as it has to be, and what it met was decided. */
  #applyScript(replaced: ReadonlySet<number>, analyze: boolean, isSettled = false): string[] {
    const perTable = this.#tables.flatMap((table): string[] => {
      const { shape, mode, fingerprint } = table;
      if (isKeyless(shape.capture)) return [this.#keylessSql(table)];
      return [
        ...(analyze ? [`analyze ${stageName(shape)}`] : []),
        ...applySql(shape, mode, replaced.has(shape.capture.id)),
        `update replicate.sync_table set state = 'following', last_change_at = pg_catalog.clock_timestamp(),
         rows_applied = rows_applied + (select count(*) from ${stageName(shape)}), fingerprint = ${literal(fingerprint)}${shape.entry.reloadSince === null ? "" : ", reload_since = null"}
       where sync = ${literal(this.#sync)} and capture_id = ${shape.capture.id}`,
      ];
    });
    const letters = this.#tables.flatMap(({ shape, mode }) =>
      isKeyless(shape.capture) ? [] : this.#letters.settleSql(shape, mode),
    );
    const meetings = this.#twoSided.map(({ shape, sides }) => meetSql(shape, sides));
    return [
      ...(meetings.length === 0 || isSettled ? [] : [...this.#completeStages(), ...meetings]),
      ...(meetings.length === 0 ? [] : ["savepoint rows"]),
      ...perTable,
      // What an application has committed here meanwhile; from now on our locks keep it out.
      ...meetings,
      ...this.#twoSided.flatMap((met) => travelOnSql(met)),
      ...letters,
      // What a deferred constraint objects to, it has to say while the batch can still be applied in another way.
      "set constraints all immediate",
      "commit",
    ];
  }

  /** The tables whose changes here may be in conflict with the batch. */
  get #twoSided(): readonly (Met & Required<Pick<BatchTable, "mode" | "kept" | "emptiedAt">>)[] {
    const settlement = this.#settlement;
    if (settlement === undefined) return [];
    const { sides, after } = settlement;
    return this.#tables.flatMap(({ shape, mode, kept = [], emptiedAt = null }) =>
      isTwoSided(shape) ? [{ shape, sides, after, seen: "", mode, kept, emptiedAt }] : [],
    );
  }

  #completeStages(): string[] {
    const met = this.#twoSided;
    const stages = met.flatMap(({ shape, sides, mode, kept, emptiedAt }) => [
      ...completeRereadSql(shape, sides, mode, emptiedAt),
      ...leavePendingSql(shape, sides, kept),
      ...noteEmptiedSql(shape, sides),
      ...noteDisputedSql(shape),
    ]);
    const [first] = met;
    return first === undefined ? [] : [takeTurnsSql(met.map(({ shape }) => shape), first.sides), ...stages]; // prettier-ignore
  }

  /** What becomes of a keyless table, whose rows are in it by now if they were read. */
  #keylessSql({ shape, mode, fingerprint }: BatchTable): string {
    const sets = [`state = 'following'`, `fingerprint = ${literal(fingerprint)}`];
    if (mode.kind === "held" || (isDirect(mode) && mode.isChanged))
      sets.push(`last_change_at = pg_catalog.clock_timestamp()`);
    if (mode.kind === "held")
      sets.push(
        `reload_since = coalesce(reload_since, pg_catalog.clock_timestamp())`,
        `reload_bytes = ${mode.bytes}`,
      );
    if (isDirect(mode)) {
      // Few rows came in this very script; many have been counted by their COPY.
      const copied = this.#copied[this.#reads.findIndex((each) => each.shape === shape)];
      sets.push(
        `reload_since = null`,
        `reload_bytes = ${mode.bytes}`,
        `reload_seconds = extract(epoch from pg_catalog.clock_timestamp() - pg_catalog.now())`,
        `rows_applied = rows_applied + ${copied ?? `(select count(*) from ${ownRowsSql(shape.target)})`}`,
      );
    }
    return `update replicate.sync_table set ${sets.join(", ")}
      where sync = ${literal(this.#sync)} and capture_id = ${shape.capture.id}`;
  }

  /**
   * Tries again in another way. Rows that swapped a unique value collide in an upsert; deleting all of them first cannot.
   * Where keys were changed on both sides, that is settled first.
   */
  async #retry(error: unknown, replaced: Set<number>): Promise<StatementResult[]> {
    let failure = error;
    let waits = 0;
    for (let settlements = 0; ;) {
      const state = sqlstateOf(failure);
      if (this.#settlement !== undefined && (state === LOCK_NOT_AVAILABLE || state === DEADLOCK)) {
        waits += 1;
        if (waits > MOST_WAITS) throw failure;
        // Our locks go first, so that nobody waits for us meanwhile.
        await this.#target.script("rollback to savepoint apply").catch(() => {
          throw failure;
        });
        await sleep(WAIT_MS * Math.random());
      } else {
        const isMet = state === CONFLICTS_MET || (await this.#adapt(failure, replaced)) === "collided";
        if (isMet) settlements += 1;
        if (settlements > MOST_SETTLEMENTS) throw refused(failure);
      }
      try {
        await this.#target.script("rollback to savepoint apply");
        if (settlements > 0) await this.#settle(settlements >= FIRST_ALONE);
        if (settlements > 0) await failpoint("conflict.settled");
        const script = this.#applyScript(replaced, false, settlements > 0);
        return await runScript(this.#target, script.join(";\n"));
      } catch (again) {
        failure = again;
      }
    }
  }

  /** Notes how the next try has to differ, or puts aside what keeps all tries from success. */
  async #adapt(failure: unknown, replaced: Set<number>): Promise<"replaced" | "collided" | "parked"> {
    try {
      return await this.#replace(failure, replaced);
    } catch (error) {
      const isDrift = error instanceof DriftSignal && !this.#letters.areParked(error.drift);
      if (isDrift || !(await this.#letters.park(failure, this.#tables, replaced))) throw error;
      return "parked";
    }
  }

  /**
   * Notes how the next try has to differ after a unique violation: rows are replaced, or have collided with rows of the
   * other side. Throws where nothing is left to try.
   */
  async #replace(failure: unknown, replaced: Set<number>): Promise<"replaced" | "collided"> {
    const about = this.#tables.filter(({ shape }) => isAbout(failure, shape));
    // Several may write to one table of the target.
    const table = about.find(({ shape }) => !replaced.has(shape.capture.id)) ?? about[0];
    const state = sqlstateOf(failure);
    // A keyless table was emptied before its rows came.
    if (
      table === undefined ||
      isKeyless(table.shape.capture) ||
      (state !== UNIQUE_VIOLATION && state !== EXCLUSION_VIOLATION)
    )
      throw refused(failure);
    const { shape } = table;
    if (!replaced.has(shape.capture.id)) {
      replaced.add(shape.capture.id);
      return "replaced";
    }
    await this.#target.script("rollback to savepoint apply");
    const index = await uniqueIndex(this.#target, shape, (failure as { constraint?: string }).constraint);
    if (index === undefined) throw refused(failure);
    if (this.#settlement !== undefined && isTwoSided(shape)) {
      // Known or not: an application may have made another such row since it was settled, until the table is locked.
      this.#settlement.addCollision(shape, index);
      return "collided";
    }
    throw (await blockingRows(this.#target, shape, index)) ?? refused(failure);
  }

  async #settle(isAlone: boolean): Promise<void> {
    const settlement = this.#settlement as Settlement;
    const locks = this.#twoSided.map(
      ({ shape }) => `lock table ${tableSql(shape.target)} in share row exclusive mode`,
    );
    if (isAlone) await this.#target.script(locks.join(";\n"));
    await settlement.begin();
    await this.#target.script(this.#completeStages().join(";\n"));
    for (const { shape } of this.#twoSided) await settlement.settle(shape);
  }
}

/** Keys applied per capture: the counts of its delete and its insert. */
function countRows(
  tables: readonly BatchTable[],
  results: readonly StatementResult[],
  replaced: ReadonlySet<number>,
): Map<number, number> {
  const tags = results.map((result) => result.tag);
  const counts = new Map<number, number>();
  let at = tags.findLastIndex((tag) => /^(SAVEPOINT|ROLLBACK)$/.test(tag)) + 1;
  for (const { shape } of tables) {
    let rows = 0;
    let deleted = 0;
    for (; at < results.length; at += 1) {
      const tag = tags[at] as string;
      if (tag.startsWith("UPDATE")) break;
      if (tag.startsWith("DELETE")) deleted = tagCount(results[at]);
      if (tag.startsWith("INSERT")) rows = tagCount(results[at]);
    }
    at += 1;
    // Where all keys were deleted first, those that came back are counted twice.
    const isReplaced = !shape.canUpsert || replaced.has(shape.capture.id);
    counts.set(shape.capture.id, isReplaced ? Math.max(rows, deleted) : rows + deleted);
  }
  return counts;
}
