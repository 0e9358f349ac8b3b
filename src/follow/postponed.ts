/** Upkeep that a server refuses is put off, and told: batches go on without it. */
import type { Connection } from "../postgres/connect.ts";
import {
  asReplicateError,
  isConnectionFailure,
  isRetryableConflict,
  sqlstateOf,
} from "../postgres/sqlstate.ts";
import { storeUpkeep } from "../state/runner-lock.ts";
import type { SyncContext } from "../state/context.ts";

/** Pauses before what was refused is tried again, in milliseconds. */
const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 60_000;

interface Refusal {
  readonly pauseMs: number;
  readonly until: number;
  readonly message: string;
  readonly since: string;
}

export class PutOff {
  readonly #context: SyncContext;
  readonly #target: Connection;
  readonly #refusals = new Map<string, Refusal>();
  #stored: string | null | undefined;

  /** `target`: where `status` looks. */
  constructor(context: SyncContext, target: Connection) {
    this.#context = context;
    this.#target = target;
  }

  /** Does a piece of upkeep, unless it was refused just now. Returns whether it is done. Throws what is not the server's refusal. */
  async try(what: string, work: () => Promise<void>): Promise<boolean> {
    const refusal = this.#refusals.get(what);
    if (refusal !== undefined && Date.now() < refusal.until) return false;
    try {
      await work();
      this.#refusals.delete(what);
    } catch (error) {
      if (sqlstateOf(error) === undefined || isConnectionFailure(error)) throw error;
      const pauseMs = Math.min((refusal?.pauseMs ?? FIRST_PAUSE_MS / 2) * 2, LONGEST_PAUSE_MS);
      const { message } = asReplicateError(error, what);
      const since = refusal?.since ?? new Date().toISOString();
      // Who holds a lock lets it go again.
      if (!isRetryableConflict(error) && refusal?.message !== message)
        this.#context.emit({
          type: "warning",
          message: `${message}; it is put off, and changes go on to be applied`,
        });
      this.#refusals.set(what, { pauseMs, until: Date.now() + pauseMs, message, since });
    }
    await this.#store();
    return !this.#refusals.has(what);
  }

  async #store(): Promise<void> {
    const [first] = [...this.#refusals.values()].sort((a, b) => a.since.localeCompare(b.since));
    const told = first === undefined ? null : first.message;
    if (told === this.#stored) return;
    this.#stored = told;
    await storeUpkeep(
      this.#target,
      this.#context.config.name,
      first === undefined ? null : { message: first.message, hint: HINT, since: first.since },
    );
  }
}

const HINT =
  "Nothing is lost: it is tried again by itself. Meanwhile the source keeps deltas that are applied already; let the role of replicate do it, for example by making an exception for it in the event trigger.";
