/** Looks whether the source's tables are still what they were: with each batch, and from time to time at all of them. */
import { isKeyless } from "../catalog/delta.ts";
import { fromSql } from "../catalog/table.ts";
import type { Connection } from "../postgres/connect.ts";
import { load } from "../postgres/sql.ts";
import type { SyncContext } from "../state/context.ts";
import type { SyncTable } from "../state/sync-table.ts";
import { arePartitionsKnown, isSameShape, settleDrift, settlePartitions } from "./drift.ts";
import type { FollowedTables } from "./followed-tables.ts";
import { readPartitions, type Examination, type Partition, type Reader } from "./read-batch.ts";
import { loadShapes, type Shape } from "./shape.ts";

export class DriftWatch {
  readonly #context: SyncContext;
  readonly #reader: Reader;
  readonly #source: Connection;
  readonly #target: Connection;
  readonly #tables: FollowedTables;

  constructor(context: SyncContext, reader: Reader, target: Connection, tables: FollowedTables) {
    this.#context = context;
    this.#reader = reader;
    this.#source = reader.source;
    this.#target = target;
    this.#tables = tables;
  }

  /** Whether nothing changed that a batch with these tables has to know. */
  isAsKnown(found: Examination, shapes: readonly Shape[]): boolean {
    return (
      shapes.every((shape) => isUnchanged(shape, found)) &&
      this.#strangePartitions(found.partitions).length === 0
    );
  }

  /**
   * Ends the examined transaction and settles what changed; true when the batch has to be examined anew. Throws as
   * `settleDrift` and `settlePartitions` do.
   */
  async settle(found: Examination, shapes: readonly Shape[]): Promise<boolean> {
    const changed = shapes.filter((shape) => !isUnchanged(shape, found));
    const partitioned = this.#strangePartitions(found.partitions);
    if (changed.length === 0 && partitioned.length === 0) return false;
    await this.#source.script("rollback");
    for (const { shape, leaves } of partitioned) await this.#settlePartitions(shape, leaves);
    for (const shape of changed) {
      await this.#settleShape(shape, found.fingerprints.get(shape.source.oid)?.text);
    }
    await this.#tables.load();
    return true;
  }

  /**
   * Looks at every table, also those without changes: a disabled trigger and a dropped table make none. Throws as
   * `settle` does.
   */
  async sweep(): Promise<void> {
    await this.#noticeStates();
    const { shapes } = this.#tables;
    const rows = await this.#source.rows<{ relid: string; fingerprint: string }>(
      load("catalog/fingerprint"),
      [shapes.map((shape) => shape.source.oid)],
    );
    const found = new Map(rows.map((row) => [Number(row.relid), row.fingerprint]));
    const changed = shapes.filter((shape) => {
      const now = found.get(shape.source.oid);
      return (
        now === undefined || shape.entry.fingerprint === null || !isSameShape(shape.entry.fingerprint, now)
      );
    });
    for (const shape of changed) await this.#settleShape(shape, found.get(shape.source.oid));
    const isPartitioned = await this.#sweepPartitions();
    if (changed.length > 0 || isPartitioned) await this.#tables.load();
  }

  /** Tables join when their copy is done, and leave when it is begun anew; the copy may be another process. */
  async #noticeStates(): Promise<void> {
    const rows = await this.#target.rows<{ captureId: number; state: string }>(
      `select capture_id as "captureId", state from replicate.sync_table where sync = $1`,
      [this.#context.config.name],
    );
    const isAsKnown =
      rows.length === this.#tables.entries.length &&
      rows.every(({ captureId, state }) => this.#tables.entry(captureId)?.state === state);
    if (!isAsKnown || (await this.#haveGotKeys())) await this.#tables.load();
  }

  /** Whether a table without a key is captured by a key now: `init` has found one. */
  async #haveGotKeys(): Promise<boolean> {
    const ids = this.#tables.shapes
      .filter(({ capture }) => isKeyless(capture))
      .map(({ capture }) => capture.id);
    if (ids.length === 0) return false;
    const changed = await this.#source.rows(
      `select 1 from replicate.capture where id = any ($1::int[]) and key_columns <> '[]' limit 1`,
      [ids],
    );
    return changed.length > 0;
  }

  async #settleShape(shape: Shape, found: string | undefined): Promise<void> {
    // A table that is gone is reported when the tables are loaded, with all others that do not fit.
    if (found === undefined) return;
    const known = shape.entry.fingerprint;
    if (known !== null && !isSameShape(known, found)) {
      await settleDrift(this.#context, this.#source, shape, known, found);
      // Throws while the target does not fit, so that the old fingerprint stays until it does.
      await loadShapes(this.#source, this.#target, [shape.entry]);
    }
    await this.#tables.store(shape.entry.captureId, { fingerprint: found });
  }

  /** Roots whose partitions are not those known, or are not captured as they were. */
  #strangePartitions(found: readonly Partition[]): { shape: Shape; leaves: readonly Partition[] }[] {
    return this.#tables.partitioned
      .map((shape) => ({ shape, leaves: found.filter((leaf) => leaf.root === shape.source.oid) }))
      .filter(({ shape, leaves }) => !arePartitionsKnown(shape.entry, leaves));
  }

  /** A partition that is attached or detached moves rows without a delta. */
  async #sweepPartitions(): Promise<boolean> {
    const roots = this.#tables.roots.map(({ oid }) => oid);
    if (roots.length === 0) return false;
    const strange = this.#strangePartitions(await readPartitions(this.#reader, roots));
    for (const { shape, leaves } of strange) await this.#settlePartitions(shape, leaves);
    return strange.length > 0;
  }

  async #settlePartitions(shape: Shape, leaves: readonly Partition[]): Promise<void> {
    const remember = async (partitions: SyncTable["partitions"]): Promise<void> =>
      await this.#tables.store(shape.entry.captureId, { partitions });
    await settlePartitions(this.#context, this.#source, shape.entry, leaves, remember);
  }
}

function isUnchanged(shape: Shape, found: Examination): boolean {
  const now = found.fingerprints.get(shape.source.oid);
  return (
    now !== undefined &&
    shape.entry.fingerprint !== null &&
    isSameShape(shape.entry.fingerprint, now.text) &&
    now.name === `${fromSql(shape.source).replace(/^only /, "")}`
  );
}
