/**
 * Tables without a key: any change has them read again as a whole. A batch replaces one unless it is too large, or was
 * replaced a moment ago; then the target remembers, in the transaction that moves the position over the change, that a
 * reload is deferred.
 */
import { isKeyless, RELOAD_NOW } from "../../catalog/delta.ts";
import type { Connection } from "../../postgres/connect.ts";
import type { SyncContext } from "../../state/context.ts";
import type { SyncTable } from "../../state/sync-table.ts";
import type { Window } from "./read-batch.ts";
import type { Shape } from "../shape.ts";
import type { TableMode } from "./table-mode.ts";

/** Reloads of one table take at most this share of the time. */
const RELOAD_SHARE = 0.1;
/** Sizes are read again after this time. */
const SIZE_MS = 10_000;

export class Reloads {
  readonly #limitBytes: number;
  readonly #isDraining: boolean;
  /** By capture id: when (epoch milliseconds) the table may be reloaded again. */
  readonly #restingUntil = new Map<number, number>();
  readonly #sizes = new Map<number, { readonly bytes: number; readonly at: number }>();

  /** `isDraining`: nothing is put off, whatever it takes. */
  constructor(limitBytes: number, isDraining: boolean) {
    this.#limitBytes = limitBytes;
    this.#isDraining = isDraining;
  }

  /** Reads the sizes of the keyless ones among these tables, where they are not known well enough. */
  async measure(source: Connection, shapes: readonly Shape[]): Promise<void> {
    const now = Date.now();
    const stale = shapes.filter(
      (shape) => isKeyless(shape.capture) && now - (this.#sizes.get(shape.capture.id)?.at ?? 0) > SIZE_MS,
    );
    if (stale.length === 0) return;
    const relations = stale.flatMap(({ capture, source: table }) =>
      [table, ...table.leaves].map(({ oid }) => ({ id: capture.id, oid })),
    );
    const found = await source.rows<{ id: number; bytes: number }>(
      `select r.id, coalesce(pg_catalog.sum(pg_catalog.pg_table_size(r.oid)), 0)::float8 as bytes
       from pg_catalog.jsonb_to_recordset($1::jsonb) as r (id int, oid oid)
       join pg_catalog.pg_class c on c.oid = r.oid and c.relkind <> 'p' group by r.id`,
      [JSON.stringify(relations)],
    );
    for (const { capture } of stale) {
      const bytes = found.find(({ id }) => id === capture.id)?.bytes ?? 0;
      this.#sizes.set(capture.id, { bytes, at: now });
    }
  }

  bytesOf(shape: Shape): number {
    return this.#sizes.get(shape.capture.id)?.bytes ?? 0;
  }

  isLarge(shape: Shape): boolean {
    return this.bytesOf(shape) > this.#limitBytes;
  }

  /** Whether a change of the table has to wait, unless somebody asks for the reload. */
  #hasToWait(shape: Shape): boolean {
    if (this.#isDraining) return false;
    return this.isLarge(shape) || Date.now() < (this.#restingUntil.get(shape.capture.id) ?? 0);
  }

  /** Whether the table has a deferred reload that can be done now. */
  isDue(shape: Shape): boolean {
    const { entry } = shape;
    if (entry.state !== "following" || entry.reloadSince === null) return false;
    return !isKeyless(shape.capture) || !this.#hasToWait(shape);
  }

  /** What a batch does with a keyless table. */
  modeOf(shape: Shape, window: Window | undefined): TableMode {
    const isChanged = (window?.rows ?? 0) > 0;
    if (!isChanged && shape.entry.reloadSince === null) return { kind: "unchanged" };
    const bytes = this.bytesOf(shape);
    const isAsked = window?.markers.includes(RELOAD_NOW) === true;
    if (!isAsked && this.#hasToWait(shape)) return { kind: "deferred", bytes };
    return { kind: "reload", bytes, isChanged, isLarge: this.isLarge(shape) };
  }

  /** Whether a batch may pass over what this window holds, without locking the table. */
  isDeferred(shape: Shape, window: Window): boolean {
    return isKeyless(shape.capture) && this.modeOf(shape, window).kind === "deferred";
  }

  /**
   * What a batch, begun at `startedAt` (epoch milliseconds), has changed of a table's reload. Says so where a reload waits
   * for longer than a moment.
   */
  settle(
    context: SyncContext,
    shape: Shape,
    mode: TableMode,
    startedAt: number,
  ): Pick<SyncTable, "reloadSince"> {
    const { capture, label, entry } = shape;
    if (mode.kind === "deferred") {
      if (entry.reloadSince === null && this.isLarge(shape))
        context.emit({ type: "reload-held", table: label, bytes: mode.bytes, limitBytes: this.#limitBytes });
      return { reloadSince: entry.reloadSince ?? new Date() };
    }
    if (mode.kind !== "reload") return { reloadSince: null };
    const now = Date.now();
    const seconds = (now - startedAt) / 1000;
    this.#restingUntil.set(capture.id, now + seconds * 1000 * (1 / RELOAD_SHARE - 1));
    context.log.debug({ table: label, bytes: mode.bytes, seconds }, "reloaded");
    return { reloadSince: null };
  }
}
