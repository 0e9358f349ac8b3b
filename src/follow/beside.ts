/** What goes on beside the batches, in sessions of its own: constraints come back, and indexes are built. */
import type { SyncContext } from "../state/context.ts";
import { Constraints } from "./constraints.ts";
import { DeferredChanges } from "./schema/deferred-changes.ts";
import type { FollowSession } from "./session.ts";

export class Beside {
  readonly #constraints: Constraints;
  readonly #changes: DeferredChanges;

  constructor(context: SyncContext) {
    this.#constraints = new Constraints(context);
    this.#changes = new DeferredChanges(context);
  }

  /** Begins what it is time for. */
  begin(session: FollowSession): void {
    this.#constraints.restore(session);
    // A batch has changed tables.
    if (session.isStale) this.#changes.note();
    this.#changes.make();
  }

  /** Tables have joined, whose constraints are to come back too. */
  again(): void {
    this.#constraints.again();
  }

  /** Resolves when what was begun is done. Never rejects. */
  get done(): Promise<void> {
    return Promise.all([this.#constraints.done, this.#changes.done]).then(() => undefined);
  }

  /** Both may take hours; the target remembers what is still to be done. */
  cut(): void {
    this.#constraints.cut();
    this.#changes.cut();
  }
}
