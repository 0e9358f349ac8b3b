/**
 * Restores foreign keys once the target is consistent, in a session of its own while batches go on. Only where they do not
 * act on replicated rows; elsewhere they wait for the end of the sync.
 */
import type { DeferredKind } from "../catalog/definitions.ts";
import type { Connection } from "../postgres/connect.ts";
import { asReplicateError } from "../postgres/sqlstate.ts";
import type { SyncContext } from "../state/context.ts";
import { restoreDeferred } from "../state/restore-deferred.ts";
import type { FollowSession } from "./session.ts";

/** Between two tries, where one could not be begun. */
const PAUSE_MS = 10_000;

export class Constraints {
  readonly #context: SyncContext;
  /** What goes on; undefined: nothing was begun yet. */
  #restoring: Promise<void> | undefined;
  #session: Connection | undefined;
  #isBegun = false;
  #isDue = true;
  #pausedUntil = 0;

  constructor(context: SyncContext) {
    this.#context = context;
  }

  /** Tables have joined, which bring foreign keys of their own. */
  again(): void {
    this.#isDue = true;
  }

  /** Begins, if it is time. */
  restore(session: FollowSession): void {
    if (!this.#context.isReplicaRole || Date.now() < this.#pausedUntil) return;
    if (this.#isBegun || !this.#isDue) return;
    // Rows of a table that has a deferred reload may lack their partners for now.
    if (session.tables.some((table) => table.state !== "following" || table.reloadSince !== null)) return;
    this.#isDue = false;
    this.#isBegun = true;
    const context = this.#context;
    const own: SyncContext = {
      ...context,
      target: async (...given) => {
        this.#session = await context.target(...given);
        if (context.signal.aborted) this.#session.destroy();
        return this.#session;
      },
    };
    // Elsewhere only we write here, and rows that old checks would reject may come again.
    const kinds: DeferredKind[] = context.config.tracksTarget ? ["foreign-key", "check"] : ["foreign-key"];
    this.#restoring = restoreDeferred(own, { kinds })
      .then(({ restored, failed }) => {
        for (const problem of failed) {
          context.emit({ type: "warning", message: `${problem.subject}: ${problem.message}` });
        }
        // TRUNCATE is refused on a table that a foreign key references, so the statements change.
        if (restored > 0) session.isStale = true;
        this.#isBegun = false;
      })
      .catch((error: unknown) => {
        this.#isBegun = false;
        this.#isDue = true;
        this.#pausedUntil = Date.now() + PAUSE_MS;
        if (context.signal.aborted) return;
        const { message } = asReplicateError(error, "restoring foreign keys");
        context.emit({ type: "warning", message });
      });
  }

  /** Resolves when what was begun is done. Never rejects. */
  get done(): Promise<void> {
    return this.#restoring ?? Promise.resolve();
  }

  /** Validating a foreign key may take hours; the ledger still says what is deferred. */
  cut(): void {
    this.#session?.destroy();
  }
}
