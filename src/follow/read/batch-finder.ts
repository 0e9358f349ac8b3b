/**
 * Finds the next batch and reads it: in one round trip to the source on a guess which tables it touches, or the careful way,
 * which looks and examines first.
 */
import { randomUUID } from "node:crypto";
import { isKeyless } from "../../catalog/delta.ts";
import { callHook } from "../../config/hooks.ts";
import type { Connection } from "../../postgres/connect.ts";
import { sleep } from "../../postgres/sleep.ts";
import { sqlstateOf } from "../../postgres/sqlstate.ts";
import { checkSource, sourceLost } from "../../state/source-identity.ts";
import { BatchWriter } from "../apply/apply-batch.ts";
import type { Position } from "../apply/batch-script.ts";
import type { BatchTable } from "../apply/batch-table.ts";
import { BatchTables } from "./batch-tables.ts";
import type { FollowedTables } from "../followed-tables.ts";
import {
  acknowledgeSql, examine, examineAndRead, movedSince, look, read,
  type BatchRequest, type Dirty, type Examination, type ReadRequest,
} from "./read-batch.ts"; // prettier-ignore
import { rejected } from "../apply/rejection.ts";
import type { SessionParts } from "../session-parts.ts";
import type { Shape } from "../shape.ts";
import { isDirect, isRead, isReread } from "./table-mode.ts";

/** How often a batch is begun anew without a pause because tables or partitions had changed, or another table had deltas. */
const MOST_ATTEMPTS = 20;
/** The first pause after so many attempts; each is twice as long as the one before. */
const REST_MS = 100;
const MOST_REST_MS = 5000;
/** A table that was changed while it was read is locked before the next snapshots for so long. */
const RESTLESS_MS = 60_000;
/** How often of them for a change that rows do not depend on, before it is left to the next batch. */
const MOST_CHASES = 4;
/** A batch is guessed to touch the tables of the last one only while batches are small. */
const SPECULATE_ROWS = 2000;
/** How often the position moves over changes that are put off, where there is nothing else to apply. */
const PASS_OVER_MS = 1000;

/** A batch that was read: `writer` has its rows, or has begun to stage them. */
export interface ReadBatch {
  readonly writer: BatchWriter;
  readonly tables: readonly BatchTable[];
  readonly found: Examination;
  readonly token: string;
}

export class BatchFinder {
  readonly #parts: SessionParts;
  readonly #source: Connection;
  readonly #tables: FollowedTables;
  readonly #batchTables: BatchTables;
  /** Captures whose delta tables hold something, applied or not. */
  dirty: readonly Dirty[] = [];
  /** The snapshot up to which nothing is open; later than the position when nothing happened since. */
  #examined: string | null = null;
  /** Tables of the last batch, if it was small. */
  #expected: readonly number[] = [];
  #passedOverAt = 0;
  /** When tables were last changed while they were read, by oid. */
  readonly #restlessSince = new Map<number, number>();
  #batch: { readonly changes: number; readonly writer: BatchWriter } | undefined;

  constructor(parts: SessionParts) {
    this.#parts = parts;
    this.#source = parts.source;
    this.#tables = parts.tables;
    this.#batchTables = new BatchTables(parts);
  }

  /** The batch that is being read or written; null: none, or a small one. */
  get atHand(): { readonly changes: number; readonly rows: number } | null {
    if (this.#batch === undefined) return null;
    const { changes, writer } = this.#batch;
    // Heads and ends of COPY data count there as well.
    return { changes, rows: Math.min(writer.rows, changes) };
  }

  /** Whether the target has rejected rows of it while others were still being read. */
  get isRejected(): boolean {
    return this.#batch?.writer.failure !== undefined;
  }

  /** Reads the next batch, from where the target stands. Returns null when there is nothing to apply. */
  async next(position: Position): Promise<ReadBatch | null> {
    const joining = await this.#batchTables.joining();
    if (joining.length === 0 && this.#expected.length > 0) {
      const batch = await this.#speculate(position);
      if (batch !== undefined) return batch;
    }
    return await this.#careful(position, joining);
  }

  /** The batch is committed on the target, where it has changed so many rows. */
  applied({ tables, found }: ReadBatch, rows: number): void {
    this.#batch = undefined;
    this.#examined = found.snapshot;
    const isJoin = tables.some(({ shape }) => shape.entry.state === "copied");
    const captures = tables.map(({ shape }) => shape.capture).filter((capture) => !isKeyless(capture));
    this.#expected = rows <= SPECULATE_ROWS && !isJoin ? captures.map(({ id }) => id) : [];
  }

  /** The batch at hand has failed. */
  gaveUp(): void {
    this.#batch = undefined;
  }

  /** The next batch is read the careful way. */
  doubt(): void {
    this.#expected = [];
  }

  /** One round trip to the source, guessing that the batch touches the tables of the last one. */
  async #speculate(position: Position): Promise<ReadBatch | null | undefined> {
    const tables = this.#batchTables.guessed(this.#tables.shapesOf(this.#expected));
    const shapes = tables.map(({ shape }) => shape);
    const writer = new BatchWriter(this.#parts, position, tables);
    await writer.prepare();
    const token = randomUUID();
    let found: Awaited<ReturnType<typeof examineAndRead>>;
    try {
      found = await examineAndRead(this.#parts.reader, this.#request(position, shapes), {
        reads: tables.map((table) => ({ ...table, rows: SPECULATE_ROWS })),
        ...this.#reading(position, token),
        onData: (index, payload) => writer.add(index, payload, undefined),
      });
    } catch (error) {
      // The rows are read before the shape is known: a column or table may have gone. The careful way says which.
      if (this.#source.isBroken || !/^(22|42)/.test(sqlstateOf(error) ?? "")) throw error;
      await this.#source.script("rollback");
      this.#expected = [];
      return undefined;
    }
    if (!found.isKept) await this.#fail(position);
    this.dirty = found.dirty;
    const windows = [...found.windows.values()].filter((window) => !this.#batchTables.isPassedOver(window));
    const rows = windows.reduce((sum, window) => sum + window.rows, 0);
    const isRight =
      found.moved.length === 0 &&
      !writer.isOverflown &&
      this.#missing(found, shapes).length === 0 &&
      this.#parts.schemaWatch.isAsKnown(found, shapes) &&
      windows.every(
        (window) => window.markers.length === 0 && (window.rows === 0 || this.#expected.includes(window.id)),
      );
    if (!isRight) {
      this.#expected = [];
      return undefined;
    }
    if (rows === 0) {
      this.#expected = [];
      this.#examined = found.snapshot;
      return null;
    }
    await this.#announce(tables);
    return { writer, tables, found, token };
  }

  /** Looks, examines, and only then reads. */
  async #careful(position: Position, joining: readonly Shape[]): Promise<ReadBatch | null> {
    const { reader, reloads, schemaWatch } = this.#parts;
    const looked = await look(reader, this.#tables.excluded, joining.length > 0 ? null : this.#examined);
    if (!looked.isKept) await this.#fail(position);
    // An empty answer for the snapshot that was examined last says only that nothing ended since.
    if (looked.snapshot !== this.#examined) this.dirty = looked.dirty;
    if (joining.length === 0 && looked.dirty.length === 0) {
      this.#examined = looked.snapshot;
      return null;
    }
    const wanted = new Set(joining.map((shape) => shape.capture.id));
    for (const [oid, since] of this.#restlessSince)
      if (Date.now() - since > RESTLESS_MS) this.#restlessSince.delete(oid);
    const restless = new Set<number>(this.#restlessSince.keys());
    for (let attempt = 0; ; attempt += 1) {
      if (attempt > 0 && attempt % MOST_ATTEMPTS === 0) await this.#rest(attempt / MOST_ATTEMPTS);
      // Where ever more tables turn up, all of them are taken in, so that none can be missing.
      if (attempt === MOST_ATTEMPTS / 2)
        for (const { capture } of this.#tables.shapes) wanted.add(capture.id);
      const shapes = this.#tables.shapesOf(wanted);
      const found = await examine(reader, this.#request(position, shapes, restless));
      if (!found.isKept) await this.#fail(position);
      this.dirty = found.dirty;
      const missing = this.#missing(found, shapes);
      const changed = [...found.windows.values()].filter((window) => window.rows > 0);
      await reloads.measure(this.#source, this.#tables.shapesOf(changed.map(({ id }) => id)));
      const others = changed.filter(({ id }) => !wanted.has(id));
      const deferred = others.filter((window) => this.#batchTables.isDeferred(window));
      const open = others.filter((window) => !deferred.includes(window));
      if (missing.length > 0 || open.length > 0) {
        await this.#source.script("rollback");
        for (const { id } of open) wanted.add(id);
        // Those that were not counted in this snapshot are counted in the next.
        continue;
      }
      if (await schemaWatch.settle(found, shapes, attempt < MOST_CHASES)) continue;
      const isNews = deferred.some((window) => !this.#batchTables.isPassedOver(window));
      if (
        shapes.length === 0 &&
        !isNews &&
        (deferred.length === 0 || Date.now() - this.#passedOverAt < PASS_OVER_MS)
      ) {
        await this.#source.script("rollback");
        this.#examined = found.snapshot;
        return null;
      }
      if (deferred.length > 0) this.#passedOverAt = Date.now();
      const all = [...shapes, ...this.#tables.shapesOf(deferred.map(({ id }) => id))];
      const batch = await this.#read(position, all, found);
      if (!Array.isArray(batch)) return batch as ReadBatch;
      for (const oid of batch) {
        restless.add(oid);
        this.#restlessSince.set(oid, Date.now());
      }
    }
  }

  /** The tables change faster than they can be read, which is the application's right: once in a while it may pause. */
  async #rest(times: number): Promise<void> {
    const { context } = this.#parts;
    const message = `the tables of the source are altered faster than they can be read; trying again until they can`;
    if (times === 1) context.emit({ type: "warning", message });
    await sleep(Math.min(REST_MS * 2 ** (times - 1), MOST_REST_MS), context.signal);
  }

  /** Reads the rows of a batch that was examined. Or returns the oids of tables that were changed meanwhile: it is of no use. */
  async #read(
    position: Position,
    shapes: readonly Shape[],
    found: Examination,
  ): Promise<ReadBatch | readonly number[]> {
    const examined = await this.#batchTables.examined(shapes, found, position.snapshot);
    // What is locked comes first, and what takes long last: the other tables are done with before anybody comes to empty or change them.
    const rank = ({ shape, mode }: BatchTable): number =>
      found.locked.has(shape.source.oid) ? 0 : isReread(shape, mode) || isDirect(mode) ? 2 : 1;
    const rowsOf = ({ shape }: BatchTable): number => found.windows.get(shape.capture.id)?.rows ?? 0;
    const tables = examined.toSorted((a, b) => rank(a) - rank(b) || rowsOf(a) - rowsOf(b));
    await this.#announce(tables);
    const writer = new BatchWriter(this.#parts, position, tables);
    const changes = [...found.windows.values()].reduce((sum, window) => sum + window.rows, 0);
    this.#batch = { changes, writer };
    const token = randomUUID();
    await writer.prepare({ snapshot: found.snapshot, token });
    const reads = tables
      .filter(({ mode }) => isRead(mode))
      .map((table) => ({ ...table, rows: found.windows.get(table.shape.capture.id)?.rows ?? 0 }));
    let moved: readonly number[];
    try {
      moved = await read(this.#parts.reader, found, {
        reads,
        ...this.#reading(position, token),
        onData: (index, payload) => writer.add(index, payload, { snapshot: found.snapshot, token }),
      });
    } catch (error) {
      if (writer.failure !== undefined) throw rejected(writer.failure);
      // What a column, a table or its name was a moment ago, it may not be any more.
      if (this.#source.isBroken || !/^(22|42)/.test(sqlstateOf(error) ?? "")) throw error;
      await this.#source.script("rollback");
      moved = await movedSince(this.#parts.reader, found, reads.map(({ shape }) => shape)); // prettier-ignore
      if (moved.length === 0) {
        // What was staged of other tables must not stand in the way of what is done about this one.
        await writer.abandon();
        throw error;
      }
    }
    if (moved.length === 0) return { writer, tables, found, token };
    this.#batch = undefined;
    await writer.abandon();
    return moved;
  }

  #request(
    position: Position,
    shapes: readonly Shape[],
    restless: ReadonlySet<number> = new Set(),
  ): BatchRequest {
    return {
      excluded: this.#tables.excluded,
      shapes,
      restless,
      known: this.dirty.map((each) => each.id).filter((id) => this.#tables.has(id)),
      ...this.#batchTables.changesSince(position.snapshot),
      roots: this.#tables.roots,
    };
  }

  #reading(position: Position, token: string): Omit<ReadRequest, "reads" | "onData"> {
    return {
      ...this.#batchTables.changesSince(position.snapshot),
      acknowledge: this.#acknowledgeSql(position, token),
    };
  }

  async #announce(tables: readonly BatchTable[]): Promise<void> {
    const { context, hooks } = this.#parts;
    const { beforeBatch } = hooks;
    if (beforeBatch === undefined) return;
    const batch = { sync: context.config.name, tables: tables.map(({ shape }) => shape.label) };
    await callHook("beforeBatch", () => beforeBatch(batch));
  }

  /** Captures that hold deltas now and were neither taken in nor counted in the snapshot. */
  #missing(found: Examination, shapes: readonly Shape[]): number[] {
    return found.dirty
      .map((each) => each.id)
      .filter(
        (id) =>
          this.#tables.has(id) && !found.windows.has(id) && !shapes.some((shape) => shape.capture.id === id),
      );
  }

  #acknowledgeSql({ snapshot, token }: Position, nextToken: string): string {
    return acknowledgeSql(this.#parts.reader, token, nextToken, snapshot, this.#tables.following);
  }

  /** Tells the source how far the target is, outside of a batch. Throws SYNC_EXPELLED, SOURCE_LOST. */
  async acknowledge(position: Position): Promise<void> {
    const results = await this.#source.script(this.#acknowledgeSql(position, position.token));
    if (results.at(-1)?.rowCount === 0) await this.#fail(position);
  }

  /** The source has thrown deltas away, or may do so from now on. Throws SYNC_EXPELLED, SOURCE_LOST. */
  async #fail(position: Position): Promise<never> {
    const { name } = this.#parts.context.config;
    await this.#source.script("rollback");
    await checkSource(this.#source, name, position);
    throw sourceLost(this.#source, name, "it has no state of this sync any more");
  }
}
