/** When applied deltas are thrown away, and how often it is tried where somebody else still needs them. */
import { clearDelta, switchDelta } from "../capture/rotate.ts";
import { deltaTables } from "../catalog/delta.ts";
import type { Connection } from "../postgres/connect.ts";
import type { FollowedTables } from "./followed-tables.ts";
import type { PutOff } from "./postponed.ts";
import type { Dirty } from "./read/read-batch.ts";

/** Applied deltas of a capture that are kept at most, in bytes, while there is more to do. */
const KEEP_BYTES = 2 * 1024 * 1024;
/**
 * A switch replaces a function, which whoever audits DDL is told of: so often at most, in milliseconds, unless the deltas
 * have become too many to be read with every batch.
 */
const SWITCH_PAUSE_MS = 10_000;
const SWITCH_AT_ONCE_BYTES = 32 * 1024 * 1024;
/** Up to here the table that the trigger writes to is emptied itself: it takes a moment to see that all of it is applied. */
const IN_PLACE_BYTES = 4 * 1024 * 1024;
const IDLE_IN_PLACE_BYTES = 64 * 1024 * 1024;
/** Pauses after a try that was in vain, in milliseconds: another sync may be away for days, with hundreds of tables. */
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 15_000;

const SET_ASIDE = "applied changes cannot be set aside on the source";
const THROW_AWAY = "applied changes cannot be thrown away on the source";

export class Rotation {
  readonly #putOff: PutOff;
  /** By delta table, where it could not be cleared. */
  readonly #held = new Map<string, { readonly pauseMs: number; readonly until: number }>();
  /** By capture, when its delta tables were switched. */
  readonly #switched = new Map<number, number>();

  constructor(putOff: PutOff) {
    this.#putOff = putOff;
  }

  /** Throws applied deltas away where there are enough of them, or all when nothing else is to be done. */
  async turn(
    source: Connection,
    tables: FollowedTables,
    dirty: readonly Dirty[],
    isIdle: boolean,
  ): Promise<void> {
    for (const each of dirty) {
      if (tables.has(each.id)) await this.#rotate(source, each, isIdle);
    }
  }

  async #rotate(source: Connection, { id, a, b, active }: Dirty, isIdle: boolean): Promise<void> {
    const isA = active === "a";
    if ((isA ? b : a) > 0) return await this.#clear(source, id, isA ? 1 : 0);
    const bytes = isA ? a : b;
    if (bytes <= (isIdle ? 0 : KEEP_BYTES)) return;
    const isDue = Date.now() - (this.#switched.get(id) ?? -Infinity) > SWITCH_PAUSE_MS;
    if (bytes > (isIdle ? IDLE_IN_PLACE_BYTES : SWITCH_AT_ONCE_BYTES) || (isDue && !isIdle)) {
      const isSwitched = await this.#putOff.try(SET_ASIDE, async () => await switchDelta(source, id));
      if (isSwitched) this.#switched.set(id, Date.now());
      if (isSwitched) return;
    }
    if (bytes <= (isIdle ? IDLE_IN_PLACE_BYTES : IN_PLACE_BYTES)) await this.#clear(source, id, isA ? 0 : 1);
  }

  /** `index`: 0 for a, 1 for b. */
  async #clear(source: Connection, captureId: number, index: number): Promise<void> {
    const delta = deltaTables(captureId)[index] as string;
    const held = this.#held.get(delta);
    if (held !== undefined && Date.now() < held.until) return;
    await this.#putOff.try(THROW_AWAY, async () => {
      if (await clearDelta(source, captureId, index)) this.#held.delete(delta);
      else {
        const pauseMs = Math.min((held?.pauseMs ?? FIRST_PAUSE_MS / 2) * 2, LONGEST_PAUSE_MS);
        this.#held.set(delta, { pauseMs, until: Date.now() + pauseMs });
      }
    });
  }
}
