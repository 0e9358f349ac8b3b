/** One life of the runner between two reconnects: its sessions, its tables, and the next batch. */
import { randomUUID } from "node:crypto";
import { enableSkipNoop, noteKeys } from "../capture/capture.ts";
import { clearInactive, switchDelta } from "../capture/rotate.ts";
import { patternMatches } from "../catalog/patterns.ts";
import { isKeyless } from "../catalog/delta.ts";
import { fromSql, tableSql } from "../catalog/table.ts";
import { ReplicateError } from "../errors.ts";
import type { Batch } from "../events.ts";
import type { Connection } from "../postgres/connect.ts";
import { load } from "../postgres/sql.ts";
import { POSITION_MOVED, TABLE_BEING_COPIED, UNDEFINED_TABLE, sqlstateOf } from "../postgres/sqlstate.ts";
import type { SyncContext } from "../state/context.ts";
import { loadTables, type SyncTable } from "../state/sync-table.ts";
import { BatchWriter, DriftSignal, type BatchTable, type Position } from "./apply-batch.ts";
import { arePartitionsKnown, isSameShape, modeOf, settleDrift, settlePartitions } from "./drift.ts";
import {
  acknowledgeSql, examine, examineAndRead, look, prepareReader, read, readPartitions,
  type BatchRequest, type Dirty, type Examination, type Partition, type Reader, type Window,
} from "./read-batch.ts"; // prettier-ignore
import { Reloads } from "./reload.ts";
import { isRead, loadShapes, type Shape, type TableMode } from "./shape.ts";

/** Applied deltas of a capture that are kept at most, in bytes, before its delta table is switched. */
const SWITCH_BYTES = 2 * 1024 * 1024;
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
  #entries = new Map<number, SyncTable>();
  #shapes = new Map<number, Shape>();
  /** Tables of the last batch, if it was small. */
  #batch: { readonly changes: number; readonly writer: BatchWriter } | undefined;
  #expected: readonly number[] = [];
  #driftRetries = 0;
  readonly #reloads: Reloads;
  #passedOverAt = 0;

  private constructor(
    context: SyncContext,
    source: Connection,
    target: Connection,
    reader: Reader,
    position: SessionPosition,
    isDraining: boolean,
  ) {
    this.context = context;
    this.source = source;
    this.target = target;
    this.#reader = reader;
    this.position = position;
    this.#reloads = new Reloads(context.config.keylessLimitBytes, isDraining);
  }

  /**
   * Checks that source and target belong together and loads the tables. `isDraining`: no table is put off. Throws SOURCE_LOST,
   * COPY_UNFINISHED.
   */
  static async open(
    context: SyncContext,
    source: Connection,
    target: Connection,
    isDraining: boolean,
  ): Promise<FollowSession> {
    const { name } = context.config;
    const [position] = await target.rows<{ snapshot: string | null; token: string; batches: number }>(
      `select position as snapshot, token, batches::float8 as batches from replicate.sync where name = $1`,
      [name],
    );
    if (position === undefined)
      throw new ReplicateError("SYNC_UNKNOWN", `the target knows no sync named ${name}`);
    await checkSource(source, name, position);
    const session = new FollowSession(
      context, source, target, await prepareReader(source, name), position, isDraining,
    ); // prettier-ignore
    await session.loadEntries();
    return session;
  }

  /** Reads the tables of the sync anew, to see those whose copy finished meanwhile. */
  async loadEntries(): Promise<void> {
    const entries = await loadTables(this.target, this.context.config.name);
    const ready = entries.filter((entry) => entry.state === "copied" || entry.state === "following");
    if (ready.length === 0) {
      throw new ReplicateError(
        "COPY_UNFINISHED",
        `no table of sync ${this.context.config.name} is copied yet`,
      );
    }
    this.#entries = new Map(entries.map((entry) => [entry.captureId, entry]));
    this.#shapes = new Map(
      (await loadShapes(this.source, this.target, ready)).map((shape) => [shape.capture.id, shape]),
    );
  }

  get tables(): readonly SyncTable[] {
    return [...this.#entries.values()];
  }

  /** Captures whose tables are not copied yet: their deltas wait. */
  get #excluded(): number[] {
    return [...this.#entries.keys()].filter((id) => !this.#shapes.has(id));
  }

  #positionOf = (captureId: number): string | null =>
    this.#entries.get(captureId)?.state === "following" ? this.position.snapshot : null;

  #request(shapes: readonly Shape[]): BatchRequest {
    const roots = [...this.#shapes.values()]
      .filter((shape) => shape.source.kind === "p")
      .map((shape) => ({ oid: shape.source.oid, sql: fromSql(shape.source) }));
    return {
      excluded: this.#excluded,
      shapes,
      known: this.dirty.map((each) => each.id).filter((id) => this.#shapes.has(id)),
      positionOf: this.#positionOf,
      roots,
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
      await this.loadEntries();
    }
    try {
      const owing = [...this.#shapes.values()].filter((shape) => shape.entry.reloadSince !== null);
      await this.#reloads.measure(this.source, owing);
      // Tables that a batch takes in whether they have changed or not.
      const joining = [...this.#shapes.values()].filter(
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
      if ([UNDEFINED_TABLE, TABLE_BEING_COPIED].includes(sqlstateOf(error) ?? "") && !this.source.isBroken) {
        // A table was renamed or dropped since we learned its name, which loading tells, or it left for a new copy.
        await this.source.script("rollback");
        await this.loadEntries();
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
    const shapes = this.#expected.flatMap((id) => this.#shapes.get(id) ?? []);
    const tables = shapes.map((shape) => ({
      shape,
      mode: { kind: "keys" as const },
      fingerprint: shape.entry.fingerprint ?? "",
    }));
    const writer = new BatchWriter(this.source, this.target, this.context.config.name, this.position, tables);
    await writer.prepare();
    const token = randomUUID();
    let found: Examination;
    try {
      found = await examineAndRead(this.#reader, this.#request(shapes), {
        reads: tables.map((table) => ({ ...table, rows: SPECULATE_ROWS })),
        positionOf: this.#positionOf,
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
    this.dirty = found.dirty;
    const windows = [...found.windows.values()].filter((window) => !this.#isPassedOver(window));
    const rows = windows.reduce((sum, window) => sum + window.rows, 0);
    const isRight =
      !writer.isOverflown &&
      this.#missing(found, shapes).length === 0 &&
      shapes.every((shape) => this.#isUnchanged(shape, found)) &&
      this.#strangePartitions(found.partitions).length === 0 &&
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
    return await this.#commit(writer, tables, found, token, startedAt);
  }

  /** Looks, locks, examines, and only then reads. */
  async #careful(joining: readonly Shape[], startedAt: number): Promise<Batch | null> {
    const looked = await look(this.#reader, this.#excluded, joining.length > 0 ? null : this.examined);
    // An empty answer for the snapshot that was examined last says only that nothing ended since.
    if (looked.snapshot !== this.examined) this.dirty = looked.dirty;
    if (joining.length === 0 && looked.dirty.length === 0) {
      this.examined = looked.snapshot;
      return null;
    }
    const wanted = new Set(joining.map((shape) => shape.capture.id));
    for (let attempt = 0; attempt < MOST_ATTEMPTS; attempt += 1) {
      // Where ever more tables turn up, all of them are locked, so that none can be missing.
      if (attempt === MOST_ATTEMPTS / 2) for (const id of this.#shapes.keys()) wanted.add(id);
      const shapes = [...wanted].flatMap((id) => this.#shapes.get(id) ?? []);
      const found = await examine(this.#reader, this.#request(shapes));
      this.dirty = found.dirty;
      const missing = this.#missing(found, shapes);
      const changed = [...found.windows.values()].filter((window) => window.rows > 0);
      await this.#reloads.measure(this.source, changed.flatMap(({ id }) => this.#shapes.get(id) ?? [])); // prettier-ignore
      const others = changed.filter(({ id }) => !wanted.has(id));
      const held = others.filter((window) => this.#isHeld(window));
      const open = others.filter((window) => !held.includes(window));
      if (missing.length > 0 || open.length > 0) {
        await this.source.script("rollback");
        for (const { id } of open) wanted.add(id);
        // Those that were not counted in this snapshot are counted in the next.
        continue;
      }
      if (await this.#settle(found, shapes)) continue;
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
      const all = [...shapes, ...held.flatMap(({ id }) => this.#shapes.get(id) ?? [])];
      return await this.#readAndApply(all, found, startedAt);
    }
    throw new ReplicateError(
      "LOCK_NOT_AVAILABLE",
      "the tables of the source change faster than they can be read",
    );
  }

  async #readAndApply(shapes: readonly Shape[], found: Examination, startedAt: number): Promise<Batch> {
    const tables: BatchTable[] = shapes.map((shape) => ({
      shape,
      mode: this.#modeOf(shape, found),
      // One that is put off was not looked at.
      fingerprint: found.fingerprints.get(shape.source.oid)?.text ?? shape.entry.fingerprint ?? "",
    }));
    const writer = new BatchWriter(this.source, this.target, this.context.config.name, this.position, tables);
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
        acknowledge: this.#acknowledge(token),
        onData: (index, payload) => writer.add(index, payload, { snapshot: found.snapshot, token }),
      });
    } catch (error) {
      if (writer.failure === undefined) throw error;
      this.failedSide = "target";
      throw writer.failure;
    }
    return await this.#commit(writer, tables, found, token, startedAt);
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
    await this.#tidy(tables);
    for (const { shape, mode, fingerprint } of tables) {
      this.#update(shape.entry.captureId, {
        state: "following",
        fingerprint,
        ...this.#settleReload(shape, mode, startedAt),
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
    return {
      number: this.position.batches,
      position: found.snapshot,
      rows,
      tables: [...counts.values()].filter((count) => count > 0).length,
      seconds: (now - startedAt) / 1000,
      lagSeconds: (now - found.takenAt) / 1000,
    };
  }

  #update(captureId: number, change: Partial<SyncTable>): void {
    const entry = this.#entries.get(captureId);
    const shape = this.#shapes.get(captureId);
    if (entry === undefined) return;
    const updated = { ...entry, ...change };
    this.#entries.set(captureId, updated);
    if (shape !== undefined) this.#shapes.set(captureId, { ...shape, entry: updated });
  }

  #acknowledge(token: string): string {
    const joined = [...this.#entries.values()]
      .filter((entry) => entry.state === "following")
      .map((entry) => entry.captureId);
    return acknowledgeSql(this.#reader, this.position.token, token, this.position.snapshot, joined);
  }

  /** Captures that hold deltas now and were neither locked nor counted in the snapshot. */
  #missing(found: Examination, shapes: readonly Shape[]): number[] {
    return found.dirty
      .map((each) => each.id)
      .filter(
        (id) =>
          this.#shapes.has(id) && !found.windows.has(id) && !shapes.some((shape) => shape.capture.id === id),
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
    const shape = this.#shapes.get(window.id);
    return shape !== undefined && this.#reloads.isHeld(shape, window);
  }

  /** The same where the target knows already that a reload is owed. */
  #isPassedOver(window: Window): boolean {
    return this.#entries.get(window.id)?.reloadSince != null && this.#isHeld(window);
  }

  /** Rows that a reload has deleted make room for those of the next one, sooner than autovacuum would see to it. */
  async #tidy(tables: readonly BatchTable[]): Promise<void> {
    for (const { shape, mode } of tables) {
      if (mode.kind !== "reload" || mode.isLarge) continue;
      await this.target.script(`vacuum ${tableSql(shape.target)}`).catch((error: unknown) => {
        if (this.target.isBroken) throw error;
        this.context.log.debug({ table: shape.label, error: String(error) }, "could not be vacuumed");
      });
    }
  }

  /** What a batch has changed of a table's reload. Says so where a reload waits for longer than a moment. */
  #settleReload(shape: Shape, mode: TableMode, startedAt: number): Partial<SyncTable> {
    const { capture, label, entry } = shape;
    if (mode.kind === "held") {
      if (entry.reloadSince === null && this.#reloads.isLarge(shape))
        this.context.emit({
          type: "reload-held",
          table: label,
          bytes: mode.bytes,
          limitBytes: this.context.config.keylessLimitBytes,
        });
      return { reloadSince: entry.reloadSince ?? new Date() };
    }
    if (mode.kind !== "reload") return { reloadSince: null };
    const seconds = (Date.now() - startedAt) / 1000;
    this.#reloads.done(capture.id, seconds);
    this.context.log.debug({ table: label, bytes: mode.bytes, seconds }, "reloaded");
    return { reloadSince: null };
  }

  #isUnchanged(shape: Shape, found: Examination): boolean {
    const now = found.fingerprints.get(shape.source.oid);
    return (
      now !== undefined &&
      shape.entry.fingerprint !== null &&
      isSameShape(shape.entry.fingerprint, now.text) &&
      now.name === `${fromSql(shape.source).replace(/^only /, "")}`
    );
  }

  /** Roots whose partitions are not those known, or are not captured as they were. */
  #strangePartitions(found: readonly Partition[]): { shape: Shape; leaves: readonly Partition[] }[] {
    return [...this.#shapes.values()]
      .filter((shape) => shape.source.kind === "p")
      .map((shape) => ({ shape, leaves: found.filter((leaf) => leaf.root === shape.source.oid) }))
      .filter(({ shape, leaves }) => !arePartitionsKnown(shape.entry, leaves));
  }

  /** Ends the examined transaction and settles what changed; true when the batch has to be examined anew. */
  async #settle(found: Examination, shapes: readonly Shape[]): Promise<boolean> {
    const changed = shapes.filter((shape) => !this.#isUnchanged(shape, found));
    const partitioned = this.#strangePartitions(found.partitions);
    if (changed.length === 0 && partitioned.length === 0) return false;
    await this.source.script("rollback");
    for (const { shape, leaves } of partitioned) await this.#settlePartitions(shape, leaves);
    for (const shape of changed) {
      await this.#settleShape(shape, found.fingerprints.get(shape.source.oid)?.text);
    }
    await this.loadEntries();
    return true;
  }

  async #settleShape(shape: Shape, found: string | undefined): Promise<void> {
    // A table that is gone is reported by loadEntries, with all others that do not fit.
    if (found === undefined) return;
    const known = shape.entry.fingerprint;
    if (known !== null && !isSameShape(known, found)) {
      await settleDrift(this.context, this.source, shape, known, found);
      // Throws while the target does not fit, so that the old fingerprint stays until it does.
      await loadShapes(this.source, this.target, [shape.entry]);
    }
    await this.#store(shape.entry.captureId, { fingerprint: found });
  }

  async #store(
    captureId: number,
    change: { fingerprint?: string; partitions?: SyncTable["partitions"] },
  ): Promise<void> {
    await this.target.rows(
      `update replicate.sync_table
       set fingerprint = coalesce($3, fingerprint), partitions = coalesce($4::jsonb, partitions)
       where sync = $1 and capture_id = $2`,
      [
        this.context.config.name,
        captureId,
        change.fingerprint ?? null,
        change.partitions === undefined ? null : JSON.stringify(change.partitions),
      ],
    );
    this.#update(captureId, change);
  }

  /**
   * Looks at every table, also those without changes: a disabled trigger and a dropped table make none. Throws as
   * `settleDrift` does.
   */
  async sweep(): Promise<void> {
    await this.#noticeStates();
    const shapes = [...this.#shapes.values()];
    const rows = await this.source.rows<{ relid: string; fingerprint: string }>(load("catalog/fingerprint"), [
      shapes.map((shape) => shape.source.oid),
    ]);
    const found = new Map(rows.map((row) => [Number(row.relid), row.fingerprint]));
    const changed = shapes.filter((shape) => {
      const now = found.get(shape.source.oid);
      return (
        now === undefined || shape.entry.fingerprint === null || !isSameShape(shape.entry.fingerprint, now)
      );
    });
    for (const shape of changed) await this.#settleShape(shape, found.get(shape.source.oid));
    const isPartitioned = await this.#sweepPartitions();
    if (changed.length > 0 || isPartitioned) await this.loadEntries();
  }

  /** A partition that is attached or detached moves rows without a delta. */
  async #sweepPartitions(): Promise<boolean> {
    const roots = [...this.#shapes.values()].filter((shape) => shape.source.kind === "p");
    if (roots.length === 0) return false;
    const strange = this.#strangePartitions(
      await readPartitions(
        this.#reader,
        roots.map((shape) => shape.source.oid),
      ),
    );
    for (const { shape, leaves } of strange) await this.#settlePartitions(shape, leaves);
    return strange.length > 0;
  }

  async #settlePartitions(shape: Shape, leaves: readonly Partition[]): Promise<void> {
    const remember = async (partitions: SyncTable["partitions"]): Promise<void> =>
      await this.#store(shape.entry.captureId, { partitions });
    await settlePartitions(this.context, this.source, shape.entry, leaves, remember);
  }

  /** Tables join when their copy is done, and leave when it is begun anew; the copy may be another process. */
  async #noticeStates(): Promise<void> {
    const rows = await this.target.rows<{ captureId: number; state: string }>(
      `select capture_id as "captureId", state from replicate.sync_table where sync = $1`,
      [this.context.config.name],
    );
    const isAsKnown =
      rows.length === this.#entries.size &&
      rows.every(({ captureId, state }) => this.#entries.get(captureId)?.state === state);
    if (!isAsKnown || (await this.#haveGotKeys())) await this.loadEntries();
  }

  /** Whether a table without a key is captured by a key now: `init` has found one. */
  async #haveGotKeys(): Promise<boolean> {
    const ids = [...this.#shapes.values()].filter(({ capture }) => isKeyless(capture)).map(({ capture }) => capture.id); // prettier-ignore
    if (ids.length === 0) return false;
    const changed = await this.source.rows(
      `select 1 from replicate.capture where id = any ($1::int[]) and key_columns <> '[]' limit 1`,
      [ids],
    );
    return changed.length > 0;
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

  /** Throws applied deltas away where there are enough of them, or all when nothing else is to be done. */
  async rotate(isIdle: boolean): Promise<void> {
    for (const each of this.dirty) {
      if (!this.#shapes.has(each.id)) continue;
      const active = each.active === "a" ? each.a : each.b;
      const inactive = each.active === "a" ? each.b : each.a;
      if (inactive > 0) {
        await clearInactive(this.source, each.id);
      } else if (active > (isIdle ? 0 : SWITCH_BYTES)) {
        await switchDelta(this.source, each.id);
      }
    }
  }

  /** Turns no-op suppression on for the tables whose settings ask for it, once they follow. */
  async skipNoops(): Promise<void> {
    const { overrides } = this.context.config;
    const wished = Object.entries(overrides).filter(([, override]) => override.skipNoop === true);
    for (const shape of this.#shapes.values()) {
      const { schema, name } = shape.source;
      if (shape.capture.skipNoop || !wished.some(([pattern]) => patternMatches(pattern, schema, name)))
        continue;
      if (!(await enableSkipNoop(this.source, shape.capture.id))) continue;
      this.#shapes.set(shape.capture.id, { ...shape, capture: { ...shape.capture, skipNoop: true } });
    }
  }

  /** Tells the source how far the target is, outside of a batch. */
  async acknowledge(): Promise<void> {
    await this.source.script(this.#acknowledgeOnly());
  }

  #acknowledgeOnly(): string {
    return acknowledgeSql(this.#reader, this.position.token, this.position.token, this.position.snapshot, [...this.#entries.values()].filter((entry) => entry.state === "following").map((entry) => entry.captureId)); // prettier-ignore
  }
}

/** Source and target must know each other's token, and the source's transaction ids must not have gone back. */
async function checkSource(source: Connection, sync: string, position: Position): Promise<void> {
  let known: { token: string; previous: string; xmax: string } | undefined;
  try {
    [known] = await source.rows<{ token: string; previous: string; xmax: string }>(
      `select token, previous_token as previous,
              pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot())::text as xmax
       from replicate.source_sync where name = $1`,
      [sync],
    );
  } catch (error) {
    if (!["42P01", "3F000"].includes(sqlstateOf(error) ?? "")) throw error;
  }
  const lost = (why: string): ReplicateError =>
    new ReplicateError("SOURCE_LOST", `this is not the source that sync ${sync} knows: ${why}`);
  if (known === undefined) throw lost("it has no state of this sync");
  if (known.token !== position.token && known.previous !== position.token) {
    throw lost(
      "it lacks what was already applied, so it was restored from an older copy or failed over with loss",
    );
  }
  const xmax = position.snapshot?.split(":")[1];
  if (xmax !== undefined && BigInt(xmax) > BigInt(known.xmax)) throw lost("its transaction ids went back");
}
