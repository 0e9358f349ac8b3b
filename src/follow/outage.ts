/** The time in which a side cannot be used: since when, and the pauses between tries. */
import type { ReplicateError } from "../errors.ts";
import type { Side } from "../events.ts";
import { Failures } from "../postgres/retry.ts";
import type { SyncContext } from "../state/context.ts";

const RETRY_BUDGET_MS = 30 * 60_000;
const FIRST_PAUSE_MS = 200;
const LONGEST_PAUSE_MS = 10_000;

export class Outage {
  readonly #context: SyncContext;
  readonly #failures: Failures;
  #side: Side = "source";

  /** `budgetMs`: after so long it is to be given up. Default 30 minutes. */
  constructor(context: SyncContext, budgetMs: number = RETRY_BUDGET_MS) {
    this.#context = context;
    this.#failures = new Failures({
      firstPauseMs: FIRST_PAUSE_MS,
      longestPauseMs: LONGEST_PAUSE_MS,
      budgetMs,
    });
  }

  /** Whether it has gone on for too long. */
  get isSpent(): boolean {
    return this.#failures.isSpent;
  }

  /** A try has failed: waits before the next one, each time for longer. What others suffer from as well is not hurried. */
  async pause(side: Side, { code, message }: Pick<ReplicateError, "code" | "message">): Promise<void> {
    const { emit, signal } = this.#context;
    if (code === "OUT_OF_LOCKS") this.#failures.pauseMs = LONGEST_PAUSE_MS;
    this.#failures.add();
    this.#side = side;
    emit({ type: "connection-lost", side, message, retryInMs: this.#failures.pauseMs });
    // Who asks next sees the signal by himself.
    await this.#failures.pause(signal).catch(() => undefined);
  }

  /** All is well. */
  end(): void {
    if (!this.#failures.isGoingOn) return;
    this.#failures.end();
    this.#context.emit({ type: "connection-restored", side: this.#side });
  }
}
