/** Tells of other syncs that take nothing and so make the source keep deltas; and that this one is alive. */
import { indexDeltas } from "../capture/delta-index.ts";
import { baseName } from "../catalog/delta.ts";
import { saidBy } from "../postgres/server-words.ts";
import type { Connection } from "../postgres/connect.ts";
import type { SyncContext } from "../state/context.ts";
import { readRetainedDeltas } from "../state/retained-deltas.ts";
import type { FollowSession } from "./session.ts";

/** Milliseconds between two looks; well below the silence for which a sync is taken to be away. */
const LOOK_MS = 20_000;
/** Delta tables that have grown so large are not cleared for some reason. */
const LARGE_BYTES = 16 * 1024 * 1024;
/** It is told again when this many times as much is held. */
const GROWTH = 2;

export class RetainedWatch {
  readonly #context: SyncContext;
  #nextLook = 0;
  /** Bytes by sync when it was told last. */
  #told = new Map<string, number>();

  #indexing: Promise<void> | undefined;
  #indexSession: Connection | undefined;
  #isEnded = false;

  constructor(context: SyncContext) {
    this.#context = context;
  }

  /** In a session of its own: it waits for transactions that are open, and batches go on. */
  #index(captureIds: readonly number[]): void {
    if (captureIds.length === 0 || this.#indexing !== undefined) return;
    const { log } = this.#context;
    this.#indexing = this.#context
      .source("follow index", { lockTimeoutMs: 0, isSpare: true })
      .then(async (connection) => {
        this.#indexSession = connection;
        await connection.noticeDeath();
        if (!this.#isEnded) await indexDeltas(connection, captureIds);
      })
      // It is only to be faster, and is tried again.
      .catch((error: unknown) => log.debug({ error: saidBy(error) }, "delta tables could not be indexed"))
      .then(async () => {
        await this.#indexSession?.close();
        this.#indexing = undefined;
      });
  }

  async end(): Promise<void> {
    this.#isEnded = true;
    this.#indexSession?.destroy();
    await this.#indexing;
  }

  /** Throws SYNC_EXPELLED, SOURCE_LOST. */
  async look(session: FollowSession): Promise<void> {
    const now = Date.now();
    if (now < this.#nextLook) return;
    this.#nextLook = now + LOOK_MS;
    await session.acknowledge();
    this.#index(session.dirty.filter(({ a, b }) => Math.max(a, b) > LARGE_BYTES).map(({ id }) => id));
    const { name, deltaLimitBytes } = this.#context.config;
    const over = (await readRetainedDeltas(session.source)).filter(
      ({ sync, bytes }) => sync !== baseName(name) && bytes > deltaLimitBytes,
    );
    const told = new Map<string, number>();
    for (const { sync, since, bytes } of over) {
      const before = this.#told.get(sync);
      const isNews = before === undefined || bytes >= before * GROWTH;
      told.set(sync, isNews ? bytes : before);
      if (!isNews) continue;
      this.#context.emit({
        type: "deltas-held",
        sync,
        since: since.toISOString(),
        bytes,
        limitBytes: deltaLimitBytes,
      });
    }
    this.#told = told;
  }
}
