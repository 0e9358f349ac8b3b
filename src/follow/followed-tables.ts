/** The tables of a sync as a session knows them: what the target's ledger says of each, and the shape of those that follow. */
import type { ResolvedConfig } from "../config/options.ts";
import { problemsError, ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { findUserCasts } from "../catalog/user-casts.ts";
import { assertNoRemapping } from "../state/remapping.ts";
import { loadTables, type SyncTable } from "../state/sync-table.ts";
import { findTableChanges, type TableChange } from "./schema/table-change.ts";
import { loadShapes, type Shape } from "./shape.ts";

/** How often tables are described anew, because they change meanwhile. */
const MOST_ATTEMPTS = 5;

type Learned = Partial<Pick<SyncTable, "fingerprint" | "targetFingerprint" | "partitions" | "definition">>;

export class FollowedTables {
  readonly #source: Connection;
  readonly #target: Connection;
  readonly #config: ResolvedConfig;
  readonly #reverseSync: string | undefined;
  /** By capture id, as are the shapes. */
  #entries = new Map<number, SyncTable>();
  #shapes = new Map<number, Shape>();
  /** Changes that were settled on the source, by capture id: what its table is by then. */
  readonly #settled = new Map<number, string>();

  /** `reverse`: the sync that reads the target's changes, where conflicts are to be found. */
  constructor(
    source: Connection,
    target: Connection,
    config: ResolvedConfig,
    reverseSync: string | undefined,
  ) {
    this.#source = source;
    this.#target = target;
    this.#config = config;
    this.#reverseSync = reverseSync;
  }

  get #sync(): string {
    return this.#config.name;
  }

  /**
   * Reads the tables of the sync anew, to see those whose copy finished meanwhile. Throws COPY_UNFINISHED, and
   * CONFIG_INVALID where the settings map tables otherwise than they were copied, and PREFLIGHT_BLOCKED where a cast of a
   * user's would run.
   */
  async load(): Promise<void> {
    const entries = await loadTables(this.#target, this.#sync);
    assertNoRemapping(this.#config, entries);
    const ready = entries.filter((entry) => entry.state === "copied" || entry.state === "following");
    if (ready.length === 0)
      throw new ReplicateError("COPY_UNFINISHED", `no table of sync ${this.#sync} is copied yet`);
    const shapes = await this.#describe(ready);
    await this.#assertNoUserCasts(shapes);
    this.#entries = new Map(entries.map((entry) => [entry.captureId, entry]));
    this.#shapes = new Map(shapes.map((shape) => [shape.capture.id, shape]));
    for (const { capture, change } of shapes)
      if (change !== undefined && this.#settled.get(capture.id) === change.form.text)
        this.update(capture.id, { fingerprint: change.form.text });
  }

  async #describe(entries: readonly SyncTable[]): Promise<Shape[]> {
    for (let attempt = 1; ; attempt += 1) {
      const changes = await this.findChanges(entries);
      try {
        return await loadShapes(this.#source, this.#target, entries, this.#reverseSync, changes);
      } catch (error) {
        const isOutdated = error instanceof ReplicateError && error.code === "TABLE_SHAPE_CHANGED";
        // A table may have changed in between.
        if (!isOutdated || changes.size === 0 || attempt === MOST_ATTEMPTS) throw error;
      }
    }
  }

  /** What has to be changed of the target's tables, because those of the source were, by capture id. */
  async findChanges(entries: readonly SyncTable[]): Promise<Map<number, TableChange>> {
    if (this.#reverseSync !== undefined) return new Map();
    return await findTableChanges(this.#source, this.#target, this.#config, entries);
  }

  /** What concerns the source is done: the next batch may make the change on the target. */
  settle({ captureId, form }: TableChange): void {
    this.#settled.set(captureId, form.text);
  }

  /** The change was made, or is none any more. */
  forgetChange(captureId: number): void {
    this.#settled.delete(captureId);
    const shape = this.#shapes.get(captureId);
    if (shape?.change === undefined) return;
    const { change: _, ...rest } = shape;
    this.#shapes.set(captureId, rest);
  }

  async #assertNoUserCasts(shapes: readonly Shape[]): Promise<void> {
    const found = await Promise.all(
      ([this.#source, this.#target] as const).map(async (connection, n) => {
        const tables = shapes.map((shape) => (n === 0 ? shape.source : shape.target));
        return await findUserCasts(connection, tables, this.#reverseSync === undefined ? [] : tables);
      }),
    );
    const casts = found.flat();
    if (casts.length > 0) throw problemsError("PREFLIGHT_BLOCKED", "casts of users' own would run", casts);
  }

  get entries(): readonly SyncTable[] {
    return [...this.#entries.values()];
  }

  entry(captureId: number): SyncTable | undefined {
    return this.#entries.get(captureId);
  }

  /** Those whose copy is done. */
  get shapes(): readonly Shape[] {
    return [...this.#shapes.values()];
  }

  has(captureId: number): boolean {
    return this.#shapes.has(captureId);
  }

  shape(captureId: number): Shape | undefined {
    return this.#shapes.get(captureId);
  }

  /** The shapes of these captures, without those whose tables do not follow. */
  shapesOf(captureIds: Iterable<number>): Shape[] {
    return [...captureIds].flatMap((id) => this.#shapes.get(id) ?? []);
  }

  /** Captures whose tables are not copied yet: their deltas wait. */
  get excluded(): number[] {
    return [...this.#entries.keys()].filter((id) => !this.#shapes.has(id));
  }

  /** Captures whose tables stand where the sync does. */
  get following(): number[] {
    return this.entries.filter((entry) => entry.state === "following").map((entry) => entry.captureId);
  }

  get partitioned(): Shape[] {
    return this.shapes.filter((shape) => shape.source.kind === "p");
  }

  /** Oids of the partitioned roots on the source. */
  get roots(): number[] {
    return this.partitioned.map((shape) => shape.source.oid);
  }

  /** Remembers what is already so on the target. */
  update(captureId: number, change: Partial<SyncTable>): void {
    const entry = this.#entries.get(captureId);
    const shape = this.#shapes.get(captureId);
    if (entry === undefined) return;
    const updated = { ...entry, ...change };
    this.#entries.set(captureId, updated);
    if (shape !== undefined) this.#shapes.set(captureId, { ...shape, entry: updated });
  }

  /** Writes what was learned about a table of the source into the target's ledger. */
  async store(captureId: number, learned: Learned): Promise<void> {
    // What the source's table has become is remembered when the target's has become so.
    if (this.#shapes.get(captureId)?.change !== undefined) {
      if (learned.partitions === undefined) return;
      return await this.#store(captureId, { partitions: learned.partitions });
    }
    await this.#store(captureId, learned);
  }

  async #store(captureId: number, change: Learned): Promise<void> {
    await this.#target.rows(
      `update replicate.sync_table
       set fingerprint = coalesce($3, fingerprint), partitions = coalesce($4::jsonb, partitions),
         target_fingerprint = coalesce($5, target_fingerprint), definition = coalesce($6::jsonb, definition)
       where sync = $1 and capture_id = $2`,
      [
        this.#sync,
        captureId,
        change.fingerprint ?? null,
        change.partitions === undefined ? null : JSON.stringify(change.partitions),
        change.targetFingerprint ?? null,
        change.definition == null ? null : JSON.stringify(change.definition),
      ],
    );
    this.update(captureId, change);
  }

  /** Remembers that the capture of a table leaves out updates that change nothing. */
  recordSkipNoop(captureId: number): void {
    const shape = this.#shapes.get(captureId);
    if (shape === undefined) return;
    this.#shapes.set(captureId, { ...shape, capture: { ...shape.capture, skipNoop: true } });
  }
}
