/** Looks whether the source's tables are still what they were: with each batch, and from time to time at all of them. */
import { recordOldRows, recordReload, recordRereadNow } from "../../capture/record-changes.ts";
import { isKeyless } from "../../catalog/delta.ts";
import { parseFingerprint, readForms, type TableForm } from "../../catalog/fingerprint.ts";
import { fromSql, tableLabel } from "../../catalog/table.ts";
import { ReplicateError } from "../../errors.ts";
import type { Connection } from "../../postgres/connect.ts";
import { load } from "../../postgres/sql.ts";
import type { SyncContext } from "../../state/context.ts";
import { readTableDefinitions, type TableDefinition } from "../../catalog/table-definition.ts";
import { loadTables, type SyncTable } from "../../state/sync-table.ts";
import { appliesChanges, type TableChange } from "../schema/table-change.ts";
import {
  arePartitionsKnown,
  isSameShape,
  isSameToReaders,
  settleSchemaChange,
  settlePartitions,
} from "./schema-change.ts";
import type { FollowedTables } from "../followed-tables.ts";
import { compareOldRows, isSameForm } from "./old-rows.ts";
import { lackedBy } from "../apply/partition-rejections.ts";
import { readPartitions, type Examination, type Partition, type Reader } from "./read-batch.ts";
import { loadShapes, type Shape } from "../shape.ts";

/** A table that was changed a moment ago is changed again with a sweep, unless rows depend on it: others come first. */
const RESTLESS_MS = 2000;

export class SchemaWatch {
  readonly #context: SyncContext;
  readonly #reader: Reader;
  readonly #source: Connection;
  readonly #target: Connection;
  readonly #tables: FollowedTables;
  /** Oids of partitions that the target lacks, and that were told of. */
  readonly #told = new Set<number>();
  /** When a change of a table was settled last, by capture id. */
  readonly #changedAt = new Map<number, number>();

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
      shapes.every((shape) => this.#isUnchanged(shape, found, true)) &&
      this.#strangePartitions(found.partitions).length === 0
    );
  }

  /**
   * Ends the examined transaction and settles what changed; true when the batch has to be examined anew. Throws as
   * `settleSchemaChange` and `settlePartitions` do. `isStrict`: also what rows do not depend on, where it is made on the target.
   */
  async settle(found: Examination, shapes: readonly Shape[], isStrict: boolean): Promise<boolean> {
    const changed = shapes.filter((shape) => !this.#isUnchanged(shape, found, isStrict));
    const partitioned = this.#strangePartitions(found.partitions);
    if (changed.length === 0 && partitioned.length === 0) return false;
    await this.#source.script("rollback");
    for (const { shape, leaves } of partitioned) await this.#settlePartitions(shape, leaves);
    await this.#settleShapes(changed);
    await this.#tables.load();
    this.#tellMissing(partitioned.map(({ shape }) => shape.capture.id));
    return true;
  }

  /** Looks at every table, and lets none of them wait: a row was rejected, perhaps by what the source has no more. */
  async sweepAll(): Promise<void> {
    this.#changedAt.clear();
    await this.sweep();
  }

  /**
   * Looks at every table, also those without changes: a disabled trigger and a dropped table make none. Throws as
   * `settle` does.
   */
  async sweep(): Promise<void> {
    await this.#noticeStates();
    const { shapes } = this.#tables;
    const found = await readFingerprints(this.#source, shapes.map(({ source }) => source.oid)); // prettier-ignore
    const there = await readFingerprints(this.#target, shapes.map(({ target }) => target.oid)); // prettier-ignore
    const changed: Shape[] = [];
    for (const shape of shapes) {
      const { captureId, fingerprint: before, targetFingerprint: wasThere } = shape.entry;
      const [now, isThere] = [found.get(shape.source.oid), there.get(shape.target.oid)];
      if (
        now === undefined ||
        isThere === undefined ||
        before === null ||
        wasThere === null ||
        !isSameShape(before, now) ||
        !isSameForm(parseFingerprint(wasThere), parseFingerprint(isThere))
      )
        changed.push(shape); // prettier-ignore
      // Another file alone says nothing, as long as it is not taken for the trace of what comes later.
      else if (before !== now || wasThere !== isThere)
        await this.#tables.store(captureId, { fingerprint: now, targetFingerprint: isThere });
    }
    await this.#settleShapes(changed);
    const partitioned = await this.#sweepPartitions();
    if (changed.length > 0 || partitioned.length > 0) await this.#tables.load();
    this.#tellMissing(partitioned);
  }

  #isUnchanged({ entry, source }: Shape, found: Examination, isStrict: boolean): boolean {
    const now = found.fingerprints.get(source.oid);
    const isRestless = Date.now() - (this.#changedAt.get(entry.captureId) ?? 0) < RESTLESS_MS;
    const isSame =
      isStrict && !isRestless && appliesChanges(entry, this.#context.config) ? isSameShape : isSameToReaders;
    return (
      now !== undefined &&
      entry.fingerprint !== null &&
      isSame(entry.fingerprint, now.text) &&
      now.name === `${fromSql(source).replace(/^only /, "")}`
    );
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

  /**
   * Takes over what tables are by now, on either side, and has those read again whose rows, as far as nobody has written to
   * them, are not the same for sure. Throws with all problems while one does not fit, so that what is remembered stays
   * until it does.
   */
  async #settleShapes(changed: readonly Shape[]): Promise<void> {
    if (changed.length === 0) return;
    const now = await readForms(this.#source, changed.map(({ source }) => source.oid)); // prettier-ignore
    const there = await readForms(this.#target, changed.map(({ target }) => target.oid)); // prettier-ignore
    const failures: ReplicateError[] = [];
    const reasons = new Map<number, string | undefined>();
    for (const shape of changed) {
      const form = now.get(shape.source.oid);
      const known = shape.entry.fingerprint;
      if (form === undefined || known === null || isSameShape(known, form.text)) continue;
      await settleSchemaChange(this.#context, this.#source, shape, known, form.text).then(
        (reason) => reasons.set(shape.capture.id, reason),
        (error: unknown) => failures.push(withProblems(error)),
      );
    }
    // Tables that are gone are reported when the tables are loaded, with all others that do not fit.
    const present = changed.filter((shape) => now.has(shape.source.oid) && there.has(shape.target.oid));
    // What is remembered of them, not what they have become since.
    const entries = await this.#remembered(present);
    const changes = await this.#tables.findChanges(entries);
    await loadShapes(this.#source, this.#target, entries, undefined, changes).catch((error: unknown) => failures.push(withProblems(error))); // prettier-ignore
    throwAll(failures);
    const definitions = await readTableDefinitions(this.#source, present.map(({ source }) => source.oid)); // prettier-ignore
    for (const shape of present) {
      const change = changes.get(shape.capture.id);
      if (change !== undefined) {
        await this.#settleChange(shape, change, reasons.get(shape.capture.id));
        continue;
      }
      const [form, formThere] = [now.get(shape.source.oid), there.get(shape.target.oid)];
      if (form !== undefined && formThere !== undefined)
        await this.#takeOver(
          { ...shape, entry: entries.find(({ captureId }) => captureId === shape.capture.id) ?? shape.entry },
          form,
          formThere,
          definitions.get(shape.source.oid),
          reasons.get(shape.capture.id),
        );
    }
  }

  /** The entries as the target has them: what was settled and not made yet is forgotten. */
  async #remembered(shapes: readonly Shape[]): Promise<SyncTable[]> {
    const ids = new Set(shapes.map(({ capture }) => capture.id));
    const all = await loadTables(this.#target, this.#context.config.name);
    return all.filter(({ captureId }) => ids.has(captureId));
  }

  /** A change that the next batch makes on the target: what concerns the source is done first. */
  async #settleChange(shape: Shape, change: TableChange, missed: string | undefined): Promise<void> {
    const { capture, label } = shape;
    const reason = missed ?? change.reread;
    if (reason !== undefined) {
      if (isKeyless(capture)) await recordReload(this.#source, capture.id);
      else await (missed === undefined ? recordOldRows : recordRereadNow)(this.#source, capture);
      this.#context.emit({ type: "table-reread", table: label, reason });
    }
    for (const what of change.left)
      this.#context.emit({ type: "warning", message: `${label}: a schema change is not made: ${what}` });
    this.#tables.settle(change);
    this.#changedAt.set(capture.id, Date.now());
  }

  /** `missed`: why changes of the table may have been missed. */
  async #takeOver(
    { entry, capture, label }: Shape,
    now: TableForm,
    there: TableForm,
    definition: TableDefinition | undefined,
    missed: string | undefined,
  ): Promise<void> {
    const rows = compareOldRows(
      { before: parseFingerprint(entry.fingerprint ?? now.text), now },
      { before: parseFingerprint(entry.targetFingerprint ?? there.text), now: there },
      entry.mapping,
    );
    const reason = missed ?? (rows.kind === "unproven" ? rows.reason : undefined);
    if (reason !== undefined) {
      await (missed === undefined ? recordOldRows : recordRereadNow)(this.#source, capture);
      this.#context.emit({ type: "table-reread", table: label, reason });
    } else if (rows.kind === "unknown") {
      const message = `${label} was followed by an earlier version, which did not notice when all rows of a partitioned table were given other values: run \`replicate verify\` once`;
      this.#context.emit({ type: "warning", message });
    }
    this.#tables.forgetChange(entry.captureId);
    await this.#tables.store(entry.captureId, {
      fingerprint: now.text,
      targetFingerprint: there.text,
      ...(definition === undefined ? {} : { definition }),
    });
  }

  /** Roots whose partitions are not those known, or are not captured as they were. */
  #strangePartitions(found: readonly Partition[]): { shape: Shape; leaves: readonly Partition[] }[] {
    return this.#tables.partitioned
      .map((shape) => ({ shape, leaves: found.filter((leaf) => leaf.root === shape.source.oid) }))
      .filter(({ shape, leaves }) => !arePartitionsKnown(shape.entry, leaves));
  }

  /** A partition that is attached or detached moves rows without a delta. */
  async #sweepPartitions(): Promise<number[]> {
    const roots = this.#tables.roots;
    if (roots.length === 0) return [];
    const strange = this.#strangePartitions(await readPartitions(this.#reader, roots));
    for (const { shape, leaves } of strange) await this.#settlePartitions(shape, leaves);
    return strange.map(({ shape }) => shape.capture.id);
  }

  /** Says once which new partitions the target lacks, before a row is rejected for it. */
  #tellMissing(captureIds: readonly number[]): void {
    for (const { leaf, remedy } of this.#tables.shapesOf(captureIds).flatMap(lackedBy)) {
      if (this.#told.has(leaf.oid)) continue;
      this.#told.add(leaf.oid);
      const message = `the target has no partition for the rows of ${tableLabel(leaf)}, and will reject them; there: ${remedy}`;
      this.#context.emit({ type: "warning", message });
    }
  }

  async #settlePartitions(shape: Shape, leaves: readonly Partition[]): Promise<void> {
    const remember = async (partitions: SyncTable["partitions"]): Promise<void> =>
      await this.#tables.store(shape.entry.captureId, { partitions });
    await settlePartitions(this.#context, this.#source, shape.entry, leaves, remember);
  }
}

async function readFingerprints(
  connection: Connection,
  oids: readonly number[],
): Promise<Map<number, string>> {
  const rows = await connection.rows<{ relid: string; fingerprint: string }>(load("catalog/fingerprint"), [
    oids,
  ]);
  return new Map(rows.map((row) => [Number(row.relid), row.fingerprint]));
}

function withProblems(error: unknown): ReplicateError {
  if (error instanceof ReplicateError && error.problems.length > 0) return error;
  throw error;
}

/** All problems of all tables at once. */
function throwAll(failures: readonly ReplicateError[]): void {
  const [first, ...others] = failures;
  if (first === undefined) return;
  if (others.length === 0) throw first;
  throw new ReplicateError(first.code, failures.map(({ message }) => message).join("; "), {
    problems: failures.flatMap(({ problems }) => problems),
    hint: [...new Set(failures.map(({ hint }) => hint))].join(" "),
  });
}
