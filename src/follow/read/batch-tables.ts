/** How a batch reads the tables: each in which shape and mode, and which of its changes. */
import { foreignSql, isKeyless, windowSql } from "../../catalog/delta.ts";
import { asText, isTransformed } from "../../transform/transform-rows.ts";
import type { BatchTable } from "../apply/batch-table.ts";
import { emptiedAtSql } from "./complete-reread.ts";
import { modeOf } from "../apply/emptied-leaves.ts";
import { exceptPendingSql, pendingKeysSql } from "../conflicts/pending-keys.ts";
import type { Examination, ReadRequest, Window } from "./read-batch.ts";
import { isSameShape } from "./schema-change.ts";
import type { SessionParts } from "../session-parts.ts";
import type { Shape } from "../shape.ts";
import { isReread, type TableMode } from "./table-mode.ts";
import { tracksTarget } from "../conflicts/sides.ts";
import { isChanging } from "../schema/table-change.ts";

export class BatchTables {
  readonly #parts: SessionParts;

  constructor(parts: SessionParts) {
    this.#parts = parts;
  }

  /** Which changes are read where the target stands at `position`. */
  changesSince(position: string | null): Pick<ReadRequest, "positionOf" | "conditionOf" | "exceptOf"> {
    return {
      positionOf: (captureId) =>
        this.#parts.tables.entry(captureId)?.state === "following" ? position : null,
      // What this sync has brought to the source itself is no news, unless the table joins: a copy leaves out all that has a
      // delta.
      conditionOf: (captureId) => {
        const shape = this.#parts.tables.shape(captureId);
        if (shape === undefined || (shape.entry.state === "copied" && shape.entry.sourceFile !== null))
          return "";
        return foreignSql(shape.capture, this.#parts.context.config.name);
      },
      exceptOf: (shape) =>
        this.#parts.otherSide !== undefined && tracksTarget(shape)
          ? exceptPendingSql(shape, this.#parts.otherSide.base)
          : "",
    };
  }

  /** The tables where nothing but keys has changed, as far as is known before the batch is examined. */
  guessed(shapes: readonly Shape[]): BatchTable[] {
    return shapes.map((shape) => ({
      shape: this.#readingShape(shape),
      mode: { kind: "keys" },
      fingerprint: shape.entry.fingerprint ?? "",
      isTransformed: this.#isTransformed(shape),
    }));
  }

  /** The tables as they were found. In the batch's snapshot on the source, whose changes since `position` are read. */
  async examined(
    shapes: readonly Shape[],
    found: Examination,
    position: string | null,
  ): Promise<BatchTable[]> {
    const tables: BatchTable[] = [];
    for (const each of shapes) {
      const shape = this.#readingShape(each);
      const isTransformed = this.#isTransformed(shape);
      const mode = await this.#modeOf({ shape, isTransformed }, found);
      // One that is put off was not looked at. What is not quite the same, the next sweep takes over.
      const known = shape.entry.fingerprint ?? "";
      const now = found.fingerprints.get(shape.source.oid)?.text ?? known;
      const fingerprint = known === "" || isSameShape(known, now) ? now : known;
      const rereading = await this.#rereading(shape, mode, position);
      tables.push({ shape, mode, fingerprint, isTransformed, ...rereading });
    }
    return tables;
  }

  #isTransformed({ source }: Shape): boolean {
    return isTransformed(this.#parts.context.config, source.schema, source.name);
  }

  /** As text where the rows have to be read here, or could not be staged otherwise. */
  #readingShape(shape: Shape): Shape {
    const reading = this.#parts.parked.texts.readingShape(shape);
    return this.#isTransformed(shape) ? { ...reading, plan: asText(reading.plan) } : reading;
  }

  async #modeOf(table: Pick<BatchTable, "shape" | "isTransformed">, found: Examination): Promise<TableMode> {
    const { shape } = table;
    const window = found.windows.get(shape.capture.id);
    if (isKeyless(shape.capture)) return this.#parts.reloads.modeOf(shape, window);
    // It had no key when its reload was put off.
    if (shape.entry.reloadSince !== null) return { kind: "reread" };
    return await modeOf(this.#parts.source, this.#parts.target, table, window?.markers ?? []);
  }

  /** What else is to be known where the whole table is read and conflicts may be met. */
  async #rereading(
    shape: Shape,
    mode: TableMode,
    position: string | null,
  ): Promise<Pick<BatchTable, "kept" | "emptiedAt">> {
    if (this.#parts.otherSide === undefined || !tracksTarget(shape) || !isReread(shape, mode)) return {};
    const rows = await this.#parts.source.rows<{ key: string[] }>(
      pendingKeysSql(shape, this.#parts.otherSide.base),
    );
    const { id } = shape.capture;
    const { positionOf, conditionOf } = this.changesSince(position);
    const window = `${windowSql(positionOf(id))}${conditionOf(id)}`;
    const { at } = await this.#parts.source.row<{ at: string | null }>(emptiedAtSql(shape, window));
    return { kept: rows.map(({ key }) => key), emptiedAt: at };
  }

  /** Tables that a batch takes in whether they have changed or not. Measures those that has a deferred reload. */
  async joining(): Promise<Shape[]> {
    const owing = this.#parts.tables.shapes.filter((shape) => shape.entry.reloadSince !== null);
    await this.#parts.reloads.measure(this.#parts.source, owing);
    return this.#parts.tables.shapes.filter(
      (shape) => shape.entry.state === "copied" || isChanging(shape) || this.#parts.reloads.isDue(shape),
    );
  }

  /** A keyless table whose changes are put off: its reload is deferred, or will be with this batch. */
  isDeferred(window: Window): boolean {
    const shape = this.#parts.tables.shape(window.id);
    return shape !== undefined && this.#parts.reloads.isDeferred(shape, window);
  }

  /** The same where the target knows already that a reload is deferred. */
  isPassedOver(window: Window): boolean {
    return this.#parts.tables.entry(window.id)?.reloadSince != null && this.isDeferred(window);
  }
}
