/** One life of the runner between two reconnects: its sessions, its tables, and the next batch. */
import { randomUUID } from "node:crypto";
import { noteKeys } from "../capture/capture.ts";
import { foreignSql, isKeyless, windowSql } from "../catalog/delta.ts";
import { ReplicateError } from "../errors.ts";
import type { Batch } from "../events.ts";
import { callHook, loadHooks, type Hooks } from "../hooks.ts";
import type { Connection } from "../postgres/connect.ts";
import { POSITION_MOVED, TABLE_BEING_COPIED, UNDEFINED_TABLE, sqlstateOf } from "../postgres/sqlstate.ts";
import type { SyncContext } from "../state/context.ts";
import { migrateOlder } from "../state/migrate.ts";
import { checkSource, sourceLost } from "../state/source-identity.ts";
import type { SyncTable } from "../state/sync-table.ts";
import { BatchWriter } from "./apply-batch.ts";
import type { BatchTable, Position } from "./batch-script.ts";
import { DriftSignal } from "./blocking-rows.ts";
import { emptiedAtSql } from "./complete-reread.ts";
import { DeadLetters, RestageSignal } from "./dead-letters.ts";
import { modeOf } from "./drift.ts";
import { DriftWatch } from "./drift-watch.ts";
import { FollowedTables } from "./followed-tables.ts";
import {
  acknowledgeSql, examine, examineAndRead, look, prepareReader, read,
  type BatchRequest, type Dirty, type Examination, type Reader, type Window,
} from "./read-batch.ts"; // prettier-ignore
import type { Opposite } from "./opposite.ts";
import { exceptPendingSql, pendingKeysSql } from "./pending-keys.ts";
import { refused } from "./refused.ts";
import { Reloads } from "./reload.ts";
import { Rotation } from "./rotation.ts";
import { isRead, isReread, type Shape, type TableMode } from "./shape.ts";
import { isTwoSided } from "./two-sided.ts";
import { asText, isTransformed } from "../transform-rows.ts";
import { skipNoops, tendConflicts, vacuumReloaded } from "./upkeep.ts";

/** How often a batch is begun anew because tables or partitions had changed, or another table had deltas. */
const MOST_ATTEMPTS = 20;
/** A batch is guessed to touch the tables of the last one only while batches are small. */
const SPECULATE_ROWS = 2000;
/** How often the position moves over changes that are put off, where there is nothing else to apply. */
const PASS_OVER_MS = 1000;

export interface SessionPosition extends Position {
  readonly batches: number;
}

export class FollowSession {
  readonly context: SyncContext;
  readonly source: Connection;
  readonly target: Connection;
  position: SessionPosition;
  /** The snapshot up to which nothing is open; later than the position when nothing happened since. */
  examined: string | null = null;
  /** Set from outside when the tables have to be described anew before the next batch. */
  isStale = false;
  /** The side whose answer was an error, where that was the target's. */
  failedSide: "target" | undefined;
  /** Captures whose delta tables hold something, applied or not. */
  dirty: readonly Dirty[] = [];
  readonly #reader: Reader;
  readonly #hooks: Hooks;
  readonly #letters: DeadLetters;
  readonly #opposite: Opposite | undefined;
  readonly #tables: FollowedTables;
  readonly #drift: DriftWatch;
  /** Tables of the last batch, if it was small. */
  #batch: { readonly changes: number; readonly writer: BatchWriter } | undefined;
  #expected: readonly number[] = [];
  #driftRetries = 0;
  readonly #reloads: Reloads;
  readonly #rotation = new Rotation();
  #passedOverAt = 0;

  private constructor(
    context: SyncContext,
    source: Connection,
    target: Connection,
    reader: Reader,
    position: SessionPosition,
    isDraining: boolean,
    opposite: Opposite | undefined,
    hooks: Hooks,
    letters: DeadLetters,
  ) {
    this.#hooks = hooks;
    this.#opposite = opposite;
    this.#letters = letters;
    this.context = context;
    this.source = source;
    this.target = target;
    this.#reader = reader;
    this.position = position;
    this.#tables = new FollowedTables(source, target, context.config, opposite?.sync);
    this.#drift = new DriftWatch(context, reader, target, this.#tables);
    this.#reloads = new Reloads(context.config.keylessLimitBytes, isDraining);
  }

  /**
   * Checks that source and target belong together and loads the tables. `isDraining`: no table is put off. `opposite`: where
   * conflicts are to be found. Throws SOURCE_LOST, COPY_UNFINISHED.
   */
  static async open(
    context: SyncContext,
    source: Connection,
    target: Connection,
    isDraining: boolean,
    opposite?: Opposite,
  ): Promise<FollowSession> {
    const { name } = context.config;
    const [position] = await target.rows<{ snapshot: string | null; token: string; batches: number }>(
      `select position as snapshot, token, batches::float8 as batches from replicate.sync where name = $1`,
      [name],
    );
    if (position === undefined)
      throw new ReplicateError("SYNC_UNKNOWN", `the target knows no sync named ${name}`);
    await checkSource(source, name, position);
    await migrateOlder(source);
    await migrateOlder(target);
    const hooks = await loadHooks(context.config);
    const session = new FollowSession(
      context, source, target, await prepareReader(source, name), position, isDraining, opposite,
      hooks, await DeadLetters.open(context, target, hooks),
    ); // prettier-ignore
    await session.#tables.load();
    return session;
  }

  get tables(): readonly SyncTable[] {
    return this.#tables.entries;
  }

  #positionOf = (captureId: number): string | null =>
    this.#tables.entry(captureId)?.state === "following" ? this.position.snapshot : null;

  /** What this sync has brought to the source itself is no news, unless the table joins and all of it is. */
  #conditionOf = (captureId: number): string => {
    const shape = this.#tables.shape(captureId);
    return shape?.entry.state === "following" ? foreignSql(shape.capture, this.context.config.name) : "";
  };

  #exceptOf = (shape: Shape): string =>
    this.#opposite !== undefined && isTwoSided(shape) ? exceptPendingSql(shape, this.#opposite.base) : "";

  #request(shapes: readonly Shape[]): BatchRequest {
    return {
      excluded: this.#tables.excluded,
      shapes,
      known: this.dirty.map((each) => each.id).filter((id) => this.#tables.has(id)),
      positionOf: this.#positionOf,
      conditionOf: this.#conditionOf,
      roots: this.#tables.roots,
    };
  }

  /** The batch that is being read or written; null: none, or a small one. */
  get batch(): { readonly changes: number; readonly rows: number } | null {
    if (this.#batch === undefined) return null;
    const { changes, writer } = this.#batch;
    // Heads and ends of COPY data count there as well.
    return { changes, rows: Math.min(writer.rows, changes) };
  }

  /** Applies the next batch. Returns null when there is nothing to apply. */
  async next(): Promise<Batch | null> {
    const startedAt = Date.now();
    if (this.isStale) {
      this.isStale = false;
      await this.#tables.load();
    }
    try {
      const owing = this.#tables.shapes.filter((shape) => shape.entry.reloadSince !== null);
      await this.#reloads.measure(this.source, owing);
      // Tables that a batch takes in whether they have changed or not.
      const joining = this.#tables.shapes.filter(
        (shape) => shape.entry.state === "copied" || this.#reloads.isDue(shape),
      );
      if (joining.length === 0 && this.#expected.length > 0) {
        const batch = await this.#speculate(startedAt);
        if (batch !== undefined) return batch;
      }
      return await this.#careful(joining, startedAt);
    } catch (error) {
      this.#batch = undefined;
      if (error instanceof DriftSignal) return await this.#pull(error);
      if (error instanceof RestageSignal) {
        const shape = this.#tables.shape(error.captureId);
        if (shape !== undefined) await this.#letters.restage(error, shape);
        return await this.next();
      }
      if ([UNDEFINED_TABLE, TABLE_BEING_COPIED].includes(sqlstateOf(error) ?? "") && !this.source.isBroken) {
        // A table was renamed or dropped since we learned its name, which loading tells, or it left for a new copy.
        await this.source.script("rollback");
        await this.#tables.load();
        // Not null, which would say that there is nothing to apply.
        return await this.next();
      }
      if (sqlstateOf(error) === POSITION_MOVED) {
        throw new ReplicateError("RUNNER_ACTIVE", "another runner moved the position of this sync", {
          cause: error,
        });
      }
      throw error;
    }
  }

  /** One round trip to the source, guessing that the batch touches the tables of the last one. */
  async #speculate(startedAt: number): Promise<Batch | null | undefined> {
    const shapes = this.#tables.shapesOf(this.#expected).map((shape) => this.#readingShape(shape));
    const tables = shapes.map((shape) => ({
      shape,
      mode: { kind: "keys" as const },
      fingerprint: shape.entry.fingerprint ?? "",
      isTransformed: this.#isTransformed(shape),
    }));
    const writer = new BatchWriter(
      this.source,
      this.target,
      this.context.config.name,
      this.position,
      tables,
      this.#opposite,
      this.#letters,
      this.#hooks.transformRow,
    );
    await writer.prepare();
    const token = randomUUID();
    let found: Examination;
    try {
      found = await examineAndRead(this.#reader, this.#request(shapes), {
        reads: tables.map((table) => ({ ...table, rows: SPECULATE_ROWS })),
        positionOf: this.#positionOf,
        conditionOf: this.#conditionOf,
        exceptOf: this.#exceptOf,
        acknowledge: this.#acknowledge(token),
        onData: (index, payload) => writer.add(index, payload, undefined),
      });
    } catch (error) {
      // The rows are read before the shape is known: a column or table may have gone. The careful way says which.
      if (this.source.isBroken || !/^(22|42)/.test(sqlstateOf(error) ?? "")) throw error;
      await this.source.script("rollback");
      this.#expected = [];
      return undefined;
    }
    if (!found.isKept) await this.#refuse();
    this.dirty = found.dirty;
    const windows = [...found.windows.values()].filter((window) => !this.#isPassedOver(window));
    const rows = windows.reduce((sum, window) => sum + window.rows, 0);
    const isRight =
      !writer.isOverflown &&
      this.#missing(found, shapes).length === 0 &&
      this.#drift.isAsKnown(found, shapes) &&
      windows.every(
        (window) => window.markers.length === 0 && (window.rows === 0 || this.#expected.includes(window.id)),
      );
    if (!isRight) {
      this.#expected = [];
      return undefined;
    }
    if (rows === 0) {
      this.#expected = [];
      this.examined = found.snapshot;
      return null;
    }
    await this.#announce(tables);
    return await this.#commit(writer, tables, found, token, startedAt);
  }

  #isTransformed({ source }: Shape): boolean {
    return isTransformed(this.context.config, source.schema, source.name);
  }

  /** As text where the rows have to be read here, or could not be staged otherwise. */
  #readingShape(shape: Shape): Shape {
    const reading = this.#letters.readingShape(shape);
    return this.#isTransformed(shape) ? { ...reading, plan: asText(reading.plan) } : reading;
  }

  async #announce(tables: readonly BatchTable[]): Promise<void> {
    const { beforeBatch } = this.#hooks;
    if (beforeBatch === undefined) return;
    const batch = { sync: this.context.config.name, tables: tables.map(({ shape }) => shape.label) };
    await callHook("beforeBatch", () => beforeBatch(batch));
  }

  /** Looks, locks, examines, and only then reads. */
  async #careful(joining: readonly Shape[], startedAt: number): Promise<Batch | null> {
    const looked = await look(this.#reader, this.#tables.excluded, joining.length > 0 ? null : this.examined);
    if (!looked.isKept) await this.#refuse();
    // An empty answer for the snapshot that was examined last says only that nothing ended since.
    if (looked.snapshot !== this.examined) this.dirty = looked.dirty;
    if (joining.length === 0 && looked.dirty.length === 0) {
      this.examined = looked.snapshot;
      return null;
    }
    const wanted = new Set(joining.map((shape) => shape.capture.id));
    for (let attempt = 0; attempt < MOST_ATTEMPTS; attempt += 1) {
      // Where ever more tables turn up, all of them are locked, so that none can be missing.
      if (attempt === MOST_ATTEMPTS / 2)
        for (const { capture } of this.#tables.shapes) wanted.add(capture.id);
      const shapes = this.#tables.shapesOf(wanted);
      const found = await examine(this.#reader, this.#request(shapes));
      if (!found.isKept) await this.#refuse();
      this.dirty = found.dirty;
      const missing = this.#missing(found, shapes);
      const changed = [...found.windows.values()].filter((window) => window.rows > 0);
      await this.#reloads.measure(this.source, this.#tables.shapesOf(changed.map(({ id }) => id)));
      const others = changed.filter(({ id }) => !wanted.has(id));
      const held = others.filter((window) => this.#isHeld(window));
      const open = others.filter((window) => !held.includes(window));
      if (missing.length > 0 || open.length > 0) {
        await this.source.script("rollback");
        for (const { id } of open) wanted.add(id);
        // Those that were not counted in this snapshot are counted in the next.
        continue;
      }
      if (await this.#drift.settle(found, shapes)) continue;
      const isNews = held.some((window) => !this.#isPassedOver(window));
      if (
        shapes.length === 0 &&
        !isNews &&
        (held.length === 0 || Date.now() - this.#passedOverAt < PASS_OVER_MS)
      ) {
        await this.source.script("rollback");
        this.examined = found.snapshot;
        return null;
      }
      if (held.length > 0) this.#passedOverAt = Date.now();
      const all = [...shapes, ...this.#tables.shapesOf(held.map(({ id }) => id))];
      return await this.#readAndApply(all, found, startedAt);
    }
    throw new ReplicateError(
      "LOCK_NOT_AVAILABLE",
      "the tables of the source change faster than they can be read",
    );
  }

  async #readAndApply(shapes: readonly Shape[], found: Examination, startedAt: number): Promise<Batch> {
    const tables: BatchTable[] = [];
    for (const each of shapes) {
      const shape = this.#readingShape(each);
      const mode = this.#modeOf(shape, found);
      // One that is put off was not looked at.
      const fingerprint = found.fingerprints.get(shape.source.oid)?.text ?? shape.entry.fingerprint ?? "";
      const isTransformed = this.#isTransformed(shape);
      tables.push({ shape, mode, fingerprint, isTransformed, ...(await this.#rereading(shape, mode)) });
    }
    await this.#announce(tables);
    const writer = new BatchWriter(
      this.source,
      this.target,
      this.context.config.name,
      this.position,
      tables,
      this.#opposite,
      this.#letters,
      this.#hooks.transformRow,
    );
    this.#batch = { changes: this.#openRows(found), writer };
    await writer.prepare();
    const token = randomUUID();
    try {
      await read(this.#reader, {
        reads: tables
          .filter(({ mode }) => isRead(mode))
          .map((table) => ({
            ...table,
            rows: found.windows.get(table.shape.capture.id)?.rows ?? 0,
          })),
        positionOf: this.#positionOf,
        conditionOf: this.#conditionOf,
        exceptOf: this.#exceptOf,
        acknowledge: this.#acknowledge(token),
        onData: (index, payload) => writer.add(index, payload, { snapshot: found.snapshot, token }),
      });
    } catch (error) {
      if (writer.failure === undefined) throw error;
      this.failedSide = "target";
      throw refused(writer.failure);
    }
    return await this.#commit(writer, tables, found, token, startedAt);
  }

  /** What else is to be known where the whole table is read and conflicts may be met. In the batch's snapshot. */
  async #rereading(shape: Shape, mode: TableMode): Promise<Pick<BatchTable, "kept" | "emptiedAt">> {
    if (this.#opposite === undefined || !isTwoSided(shape) || !isReread(shape, mode)) return {};
    const rows = await this.source.rows<{ key: string[] }>(pendingKeysSql(shape, this.#opposite.base));
    const { id } = shape.capture;
    const window = `${windowSql(this.#positionOf(id))}${this.#conditionOf(id)}`;
    const { at } = await this.source.row<{ at: string | null }>(emptiedAtSql(shape, window));
    return { kept: rows.map(({ key }) => key), emptiedAt: at };
  }

  async #commit(
    writer: BatchWriter,
    tables: readonly BatchTable[],
    found: Examination,
    token: string,
    startedAt: number,
  ): Promise<Batch> {
    const counts = await writer.apply({ snapshot: found.snapshot, token }).catch((error: unknown) => {
      this.failedSide = "target";
      throw error;
    });
    this.#batch = undefined;
    this.position = { snapshot: found.snapshot, token, batches: this.position.batches + 1 };
    this.examined = found.snapshot;
    this.#driftRetries = 0;
    const isJoin = tables.some(({ shape }) => shape.entry.state === "copied");
    await vacuumReloaded(this.context, this.target, tables);
    for (const { shape, mode, fingerprint } of tables) {
      this.#tables.update(shape.entry.captureId, {
        state: "following",
        fingerprint,
        ...this.#reloads.settle(this.context, shape, mode, startedAt),
      });
    }
    const rows = [...counts.values()].reduce((sum, count) => sum + count, 0);
    this.#expected =
      rows <= SPECULATE_ROWS && !isJoin
        ? tables
            .map(({ shape }) => shape)
            .filter(({ capture }) => !isKeyless(capture))
            .map(({ capture }) => capture.id)
        : [];
    const now = Date.now();
    const batch: Batch = {
      number: this.position.batches,
      position: found.snapshot,
      rows,
      tables: [...counts.values()].filter((count) => count > 0).length,
      seconds: (now - startedAt) / 1000,
      lagSeconds: (now - found.takenAt) / 1000,
    };
    const { afterBatch } = this.#hooks;
    if (afterBatch !== undefined) await callHook("afterBatch", () => afterBatch(batch));
    return batch;
  }

  #acknowledge(token: string): string {
    return acknowledgeSql(
      this.#reader,
      this.position.token,
      token,
      this.position.snapshot,
      this.#tables.following,
    );
  }

  /** Captures that hold deltas now and were neither locked nor counted in the snapshot. */
  #missing(found: Examination, shapes: readonly Shape[]): number[] {
    return found.dirty
      .map((each) => each.id)
      .filter(
        (id) =>
          this.#tables.has(id) && !found.windows.has(id) && !shapes.some((shape) => shape.capture.id === id),
      );
  }

  #openRows(found: Examination): number {
    return [...found.windows.values()].reduce((sum, window) => sum + window.rows, 0);
  }

  #modeOf(shape: Shape, found: Examination): TableMode {
    const window = found.windows.get(shape.capture.id);
    if (isKeyless(shape.capture)) return this.#reloads.modeOf(shape, window);
    // It had no key when its reload was put off.
    return shape.entry.reloadSince === null ? modeOf(shape, window?.markers ?? []) : { kind: "reread" };
  }

  /** A keyless table whose changes are put off: its reload is owed, or will be with this batch. */
  #isHeld(window: Window): boolean {
    const shape = this.#tables.shape(window.id);
    return shape !== undefined && this.#reloads.isHeld(shape, window);
  }

  /** The same where the target knows already that a reload is owed. */
  #isPassedOver(window: Window): boolean {
    return this.#tables.entry(window.id)?.reloadSince != null && this.#isHeld(window);
  }

  /** Has the target's blocking rows read again with the next batch. */
  async #pull(signal: DriftSignal): Promise<Batch | null> {
    const { shape, keys } = signal.drift;
    if (!this.source.isBroken) await this.source.script("rollback");
    this.#driftRetries += 1;
    if (this.#driftRetries > 20) {
      throw new ReplicateError("ROW_REFUSED", `rows of the target's ${shape.label} keep blocking the batch`, {
        hint: "Run `replicate verify` to see where the target was changed.",
      });
    }
    this.context.log.warn(
      { table: shape.label, rows: keys.length },
      "rows on the target that the source does not have block a batch: they are read again",
    );
    await noteKeys(this.source, shape.capture, keys);
    this.#expected = [];
    return await this.next();
  }

  /** Looks at every table, also those without changes. Throws as `DriftWatch.sweep` does. */
  async sweep(): Promise<void> {
    await this.#drift.sweep();
    // One of both ways does it for both sides.
    if (this.#opposite?.way === "forward") await tendConflicts(this.context, this.source, this.target);
    await this.#letters.retryDue(this.source, this.#tables);
  }

  /** Throws applied deltas away where there are enough of them, or all when nothing else is to be done. */
  async rotate(isIdle: boolean): Promise<void> {
    await this.#rotation.turn(this.source, this.#tables, this.dirty, isIdle);
  }

  /** Turns no-op suppression on for the tables whose settings ask for it, once they follow. */
  async skipNoops(): Promise<void> {
    await skipNoops(this.context, this.source, this.#tables);
  }

  /** Tells the source how far the target is, outside of a batch. Throws SYNC_EXPELLED, SOURCE_LOST. */
  async acknowledge(): Promise<void> {
    const results = await this.source.script(this.#acknowledge(this.position.token));
    if (results.at(-1)?.rowCount === 0) await this.#refuse();
  }

  /** The source has thrown deltas away, or may do so from now on. Throws SYNC_EXPELLED, SOURCE_LOST. */
  async #refuse(): Promise<never> {
    const { name } = this.context.config;
    await this.source.script("rollback");
    await checkSource(this.source, name, this.position);
    throw sourceLost(name, "it has no state of this sync any more");
  }
}
