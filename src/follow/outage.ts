/** The time in which a side cannot be used: since when, and the pauses between tries. */
import type { ReplicateError } from "../errors.ts";
import type { Side } from "../events.ts";
import { sleep } from "../postgres/sleep.ts";
import type { SyncContext } from "../state/context.ts";

const RETRY_BUDGET_MS = 30 * 60_000;
const FIRST_PAUSE_MS = 200;
const LONGEST_PAUSE_MS = 10_000;

export class Outage {
  readonly #context: SyncContext;
  readonly #budgetMs: number;
  #since: number | undefined;
  #side: Side = "source";
  #pauseMs = FIRST_PAUSE_MS;

  /** `budgetMs`: after so long it is to be given up. Default 30 minutes. */
  constructor(context: SyncContext, budgetMs: number = RETRY_BUDGET_MS) {
    this.#context = context;
    this.#budgetMs = budgetMs;
  }

  /** Whether it has gone on for too long. */
  get isSpent(): boolean {
    return this.#since !== undefined && Date.now() - this.#since > this.#budgetMs;
  }

  /** A try has failed: waits before the next one, each time for longer. What others suffer from as well is not hurried. */
  async pause(side: Side, { code, message }: Pick<ReplicateError, "code" | "message">): Promise<void> {
    const { emit, signal } = this.#context;
    if (code === "OUT_OF_LOCKS") this.#pauseMs = LONGEST_PAUSE_MS;
    this.#since ??= Date.now();
    this.#side = side;
    emit({ type: "connection-lost", side, message, retryInMs: this.#pauseMs });
    await sleep(this.#pauseMs, signal).catch(() => undefined);
    this.#pauseMs = Math.min(this.#pauseMs * 2, LONGEST_PAUSE_MS);
  }

  /** All is well. */
  end(): void {
    if (this.#since === undefined) return;
    this.#since = undefined;
    this.#pauseMs = FIRST_PAUSE_MS;
    this.#context.emit({ type: "connection-restored", side: this.#side });
  }
}
