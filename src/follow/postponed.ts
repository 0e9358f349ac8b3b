/** Maintenance that a server rejects is put off, and told: batches go on without it. */
import type { Connection } from "../postgres/connect.ts";
import {
  asReplicateError,
  isConnectionFailure,
  isRetryableConflict,
  sqlstateOf,
} from "../postgres/sqlstate.ts";
import { storeMaintenance } from "../state/runner-lock.ts";
import type { SyncContext } from "../state/context.ts";

/** Pauses before what was rejected is tried again, in milliseconds. */
const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 60_000;

interface Rejection {
  readonly pauseMs: number;
  readonly until: number;
  readonly message: string;
  readonly since: string;
}

export class PutOff {
  readonly #context: SyncContext;
  readonly #target: Connection;
  readonly #rejections = new Map<string, Rejection>();
  #stored: string | null | undefined;

  /** `target`: where `status` looks. */
  constructor(context: SyncContext, target: Connection) {
    this.#context = context;
    this.#target = target;
  }

  /** Does a piece of maintenance, unless it was rejected just now. Returns whether it is done. Throws what is not the server's rejection. */
  async try(what: string, work: () => Promise<void>): Promise<boolean> {
    const rejection = this.#rejections.get(what);
    if (rejection !== undefined && Date.now() < rejection.until) return false;
    try {
      await work();
      this.#rejections.delete(what);
    } catch (error) {
      if (sqlstateOf(error) === undefined || isConnectionFailure(error)) throw error;
      const pauseMs = Math.min((rejection?.pauseMs ?? FIRST_PAUSE_MS / 2) * 2, LONGEST_PAUSE_MS);
      const { message } = asReplicateError(error, what);
      const since = rejection?.since ?? new Date().toISOString();
      // Who holds a lock lets it go again.
      if (!isRetryableConflict(error) && rejection?.message !== message)
        this.#context.emit({
          type: "warning",
          message: `${message}; it is put off, and changes go on to be applied`,
        });
      this.#rejections.set(what, { pauseMs, until: Date.now() + pauseMs, message, since });
    }
    await this.#store();
    return !this.#rejections.has(what);
  }

  async #store(): Promise<void> {
    const [first] = [...this.#rejections.values()].sort((a, b) => a.since.localeCompare(b.since));
    const told = first === undefined ? null : first.message;
    if (told === this.#stored) return;
    this.#stored = told;
    await storeMaintenance(
      this.#target,
      this.#context.config.name,
      first === undefined ? null : { message: first.message, hint: HINT, since: first.since },
    );
  }
}

const HINT =
  "Nothing is lost: it is tried again by itself. Meanwhile the source keeps deltas that are applied already; let the role of replicate do it, for example by making an exception for it in the event trigger.";
