/** The tables of a sync as a session knows them: what the target's ledger says of each, and the shape of those that follow. */
import type { ResolvedConfig } from "../config/options.ts";
import { problemsError, ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { findUserCasts } from "../catalog/user-casts.ts";
import { assertNoRemapping } from "../state/remapping.ts";
import { loadTables, type SyncTable } from "../state/sync-table.ts";
import { loadShapes, type Shape } from "./shape.ts";

export class FollowedTables {
  readonly #source: Connection;
  readonly #target: Connection;
  readonly #config: ResolvedConfig;
  readonly #reverseSync: string | undefined;
  /** By capture id, as are the shapes. */
  #entries = new Map<number, SyncTable>();
  #shapes = new Map<number, Shape>();

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
    const shapes = await loadShapes(this.#source, this.#target, ready, this.#reverseSync);
    await this.#assertNoUserCasts(shapes);
    this.#entries = new Map(entries.map((entry) => [entry.captureId, entry]));
    this.#shapes = new Map(shapes.map((shape) => [shape.capture.id, shape]));
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
  async store(
    captureId: number,
    change: Partial<Pick<SyncTable, "fingerprint" | "targetFingerprint" | "partitions">>,
  ): Promise<void> {
    await this.#target.rows(
      `update replicate.sync_table
       set fingerprint = coalesce($3, fingerprint), partitions = coalesce($4::jsonb, partitions),
         target_fingerprint = coalesce($5, target_fingerprint)
       where sync = $1 and capture_id = $2`,
      [
        this.#sync,
        captureId,
        change.fingerprint ?? null,
        change.partitions === undefined ? null : JSON.stringify(change.partitions),
        change.targetFingerprint ?? null,
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
