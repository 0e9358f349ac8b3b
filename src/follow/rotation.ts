/** When applied deltas are thrown away, and how often it is tried where somebody else still needs them. */
import { clearInactive, switchDelta } from "../capture/rotate.ts";
import type { Connection } from "../postgres/connect.ts";
import type { FollowedTables } from "./followed-tables.ts";
import type { Dirty } from "./read-batch.ts";

/** Applied deltas of a capture that are kept at most, in bytes, before its delta table is switched. */
const SWITCH_BYTES = 2 * 1024 * 1024;
/** Pauses after a try that was in vain, in milliseconds: another sync may be away for days, with hundreds of tables. */
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 15_000;

export class Rotation {
  /** By capture id, where a delta table could not be cleared. */
  readonly #held = new Map<number, { readonly pauseMs: number; readonly until: number }>();

  /** Throws applied deltas away where there are enough of them, or all when nothing else is to be done. */
  async turn(
    source: Connection,
    tables: FollowedTables,
    dirty: readonly Dirty[],
    isIdle: boolean,
  ): Promise<void> {
    for (const each of dirty) {
      if (!tables.has(each.id)) continue;
      const active = each.active === "a" ? each.a : each.b;
      const inactive = each.active === "a" ? each.b : each.a;
      if (inactive > 0) await this.#clear(source, each.id);
      else if (active > (isIdle ? 0 : SWITCH_BYTES)) await switchDelta(source, each.id);
    }
  }

  async #clear(source: Connection, captureId: number): Promise<void> {
    const held = this.#held.get(captureId);
    if (held !== undefined && Date.now() < held.until) return;
    if (await clearInactive(source, captureId)) {
      this.#held.delete(captureId);
      return;
    }
    const pauseMs = Math.min((held?.pauseMs ?? FIRST_PAUSE_MS / 2) * 2, LONGEST_PAUSE_MS);
    this.#held.set(captureId, { pauseMs, until: Date.now() + pauseMs });
  }
}
