/** Trying again while a server is away: one way of pausing, and of giving up, for all that do it. */
import { sleep, throwIfAborted } from "./sleep.ts";

export interface RetryPolicy {
  /** Each pause is twice as long as the one before it. */
  readonly firstPauseMs: number;
  readonly longestPauseMs: number;
  /** Given up once failures have followed each other for so long. */
  readonly budgetMs: number;
}

/** A row of failures without a success in between: since when, and how long the next pause is. */
export class Failures {
  readonly #policy: RetryPolicy;
  #since: number | undefined;
  pauseMs: number;

  constructor(policy: RetryPolicy) {
    this.#policy = policy;
    this.pauseMs = policy.firstPauseMs;
  }

  get isGoingOn(): boolean {
    return this.#since !== undefined;
  }

  get isSpent(): boolean {
    return this.#since !== undefined && Date.now() - this.#since > this.#policy.budgetMs;
  }

  /** One more. */
  add(): void {
    this.#since ??= Date.now();
  }

  /** Throws ABORTED as soon as the signal fires. */
  async pause(signal: AbortSignal): Promise<void> {
    const pauseMs = this.pauseMs;
    this.pauseMs = Math.min(this.#policy.longestPauseMs, Math.max(pauseMs, this.#policy.firstPauseMs) * 2);
    await sleep(pauseMs, signal);
  }

  /** A success. */
  end(): void {
    this.#since = undefined;
    this.pauseMs = this.#policy.firstPauseMs;
  }
}

export interface RetryOptions extends RetryPolicy {
  /** Whether it may work later. */
  isPassing(error: unknown): boolean;
  /** Before each pause. */
  onPause?(error: unknown, retryInMs: number): void;
  /** What is thrown once the budget is spent. Default the last error. */
  givenUp?(error: unknown): unknown;
}

/**
 * Runs `work` again until it returns, or fails in a way that does not pass, or for too long. It calls `onSuccess` when it got
 * something done. Throws ABORTED as soon as the signal fires in a pause, or once `work` has failed because of it.
 */
export async function retry<T>(
  options: RetryOptions,
  signal: AbortSignal,
  work: (onSuccess: () => void) => Promise<T>,
): Promise<T> {
  const failures = new Failures(options);
  for (;;) {
    try {
      return await work(() => failures.end());
    } catch (error) {
      throwIfAborted(signal);
      if (!options.isPassing(error)) throw error;
      failures.add();
      if (failures.isSpent) throw options.givenUp?.(error) ?? error;
      options.onPause?.(error, failures.pauseMs);
    }
    await failures.pause(signal);
  }
}
