/** Tells of other syncs that take nothing and so make the source keep deltas; and that this one is alive. */
import { baseName } from "../catalog/delta.ts";
import type { SyncContext } from "../state/context.ts";
import { readHeldDeltas } from "../state/held-deltas.ts";
import type { FollowSession } from "./session.ts";

/** Milliseconds between two looks; well below the silence for which a sync is taken to be away. */
const LOOK_MS = 20_000;
/** It is told again when this many times as much is held. */
const GROWTH = 2;

export class HeldWatch {
  readonly #context: SyncContext;
  #nextLook = 0;
  /** Bytes by sync when it was told last. */
  #told = new Map<string, number>();

  constructor(context: SyncContext) {
    this.#context = context;
  }

  /** Throws SYNC_EXPELLED, SOURCE_LOST. */
  async look(session: FollowSession): Promise<void> {
    const now = Date.now();
    if (now < this.#nextLook) return;
    this.#nextLook = now + LOOK_MS;
    await session.acknowledge();
    const { name, deltaLimitBytes } = this.#context.config;
    const over = (await readHeldDeltas(session.source)).filter(
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
