/** Works through parts with several pairs of sessions; what cannot be compared now is tried again later. */
import pLimit, { type LimitFunction } from "p-limit";
import { recordRereadNow } from "../capture/record-changes.ts";
import { mendKeys, UNREADABLE } from "../capture/unreadable-keys.ts";
import { isKeyless } from "../catalog/delta.ts";
import { ReplicateError } from "../errors.ts";
import { retry } from "../postgres/retry.ts";
import { sleep, throwIfAborted } from "../postgres/sleep.ts";
import {
  asReplicateError,
  isConnectionFailure,
  isRejection,
  sideOf,
  isRetryableConflict,
  QUERY_CANCELED,
  sqlstateOf,
} from "../postgres/sqlstate.ts";
import { RelayError } from "../postgres/copy-relay.ts";
import type { SyncContext } from "../state/context.ts";
import { assertConnectionBudget, isOverBudget } from "../state/connection-budget.ts";
import type { Checksum } from "./checksum.ts";
import { comparePart, PartNotReadySignal, type PartResult } from "./part.ts";
import type { TablePlan } from "./plan.ts";
import type { KeyRange } from "./ranges.ts";
import { RepairError } from "./repair.ts";
import type { BackCapture } from "./two-way.ts";
import { SessionPair, type Watches } from "./session-pair.ts";

export interface PartTask {
  readonly plan: TablePlan;
  readonly back: BackCapture | undefined;
  readonly range: KeyRange;
  /** Within the table, from 0. */
  readonly number: number;
  /** Estimate. */
  readonly bytes: number;
  readonly files: { current: string };
}

export interface RunOptions {
  readonly checksum: Checksum;
  readonly jobs: number;
  readonly repair: boolean;
  /** How many differences of a table may still be listed. */
  readonly maxListed: (plan: TablePlan) => number;
  readonly onResult: (task: PartTask, result: PartResult) => void;
}

/** Tries of what others' locks keep us from, or what we give up because others want a lock: some minutes. */
export const lockTries = 40;

/** Whether the same may work when others are done with their locks. */
export function isAboutLocks(error: unknown): boolean {
  return sqlstateOf(error) === QUERY_CANCELED || isRetryableConflict(error);
}

/** The pause after as many tries. */
export function lockPauseMs(tries: number): number {
  return Math.min(500 * (tries + 1), 10_000);
}

/** Tries of a part that waits for `follow`: as many without any progress of it, and altogether. */
const idleTries = 4;
const fluxTries = 40;
/** Those of a table without a key, which may be written to all the time. */
const keylessTries = 8;
/** Tries of a part whose sessions break, however often connecting again succeeds. */
const lostTries = 20;
/** A server that is away. */
const connectPolicy = { firstPauseMs: 500, longestPauseMs: 15_000, budgetMs: 5 * 60_000 };

/** A pair, and those who watch for waiters. */
const LEAST_CONNECTIONS = { source: 2, target: 2 };

interface Attempt {
  readonly task: PartTask;
  readonly notBefore: number;
  readonly lockTries: number;
  readonly fluxTries: number;
  readonly idleTries: number;
  readonly lostTries: number;
  readonly position: string | null | undefined;
}

/**
 * Compares all parts, in the order given. Throws the first error that trying again does not help against; the other
 * pairs are cancelled then.
 */
export async function runParts(
  context: SyncContext,
  watches: Watches,
  tasks: readonly PartTask[],
  options: RunOptions,
): Promise<void> {
  const run = new PartRun(context, watches, tasks, options);
  await run.all(Math.min(Math.max(1, options.jobs), tasks.length));
}

class PartRun {
  readonly #context: SyncContext;
  readonly #watches: Watches;
  readonly #tasks: readonly PartTask[];
  readonly #options: RunOptions;
  readonly #pairs = new Set<SessionPair>();
  /** Pairs that compare nothing at the moment. */
  readonly #free: SessionPair[] = [];
  #isCrowdSaid = false;
  /** The first one; what comes after is its consequence. */
  #failure: { readonly error: unknown } | undefined;
  /** Ends the pauses before parts that are tried again. */
  readonly #stop = new AbortController();

  constructor(context: SyncContext, watches: Watches, tasks: readonly PartTask[], options: RunOptions) {
    this.#context = context;
    this.#watches = watches;
    this.#tasks = tasks;
    this.#options = options;
  }

  async all(jobs: number): Promise<void> {
    if (this.#tasks.length === 0) return;
    this.#free.push(await this.#openFirst());
    const limit = pLimit(jobs);
    try {
      await Promise.all(
        this.#tasks.map(async (task) => {
          try {
            await this.#work(limit, task);
          } catch (error) {
            if (this.#failure !== undefined) return;
            this.#failure = { error };
            this.#stop.abort();
            await Promise.all([...this.#pairs].map((each) => each.cancel()));
          }
        }),
      );
    } finally {
      await Promise.all([...this.#pairs].map((each) => each.close()));
    }
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** Nobody else may take the connections that the first pair and those who watch for waiters need. */
  async #openFirst(): Promise<SessionPair> {
    const [pair, ...watches] = await Promise.allSettled([
      this.#open(),
      this.#watches.source.open(),
      this.#watches.target.open(),
    ]);
    const failed = [pair, ...watches].find((each) => each.status === "rejected");
    if (failed === undefined && pair.status === "fulfilled") return pair.value;
    if (pair.status === "fulfilled") await pair.value.close();
    await Promise.all([this.#watches.source.close(), this.#watches.target.close()]);
    if (isOverBudget(failed?.reason))
      await assertConnectionBudget(this.#context, "verify", LEAST_CONNECTIONS);
    throw failed?.reason;
  }

  /** Undefined where the servers allow no more connections: the pairs that there are do its work. */
  async #openAnother(): Promise<SessionPair | undefined> {
    try {
      return await this.#open();
    } catch (error) {
      if (!isOverBudget(error)) throw error;
      if (!this.#isCrowdSaid) {
        const message = `goes on with fewer connections than asked for: ${error.message}`;
        this.#context.emit({ type: "warning", message });
      }
      this.#isCrowdSaid = true;
      return undefined;
    }
  }

  /** One part until it is compared. Whoever waits for its next try leaves the pairs to the others. */
  async #work(limit: LimitFunction, task: PartTask): Promise<void> {
    let attempt: Attempt | undefined = {
      task,
      notBefore: 0,
      lockTries: 0,
      fluxTries: 0,
      idleTries: 0,
      lostTries: 0,
      position: undefined,
    };
    while (attempt !== undefined && this.#failure === undefined) {
      const due: Attempt = attempt;
      const waitMs = due.notBefore - Date.now();
      if (waitMs > 0) await sleep(waitMs, AbortSignal.any([this.#context.signal, this.#stop.signal]));
      attempt = await limit(async () => await this.#try(limit, due));
    }
  }

  /** Undefined when the part is compared, or nothing is any more; else the next attempt at it. */
  async #try(limit: LimitFunction, attempt: Attempt): Promise<Attempt | undefined> {
    if (this.#failure !== undefined) return undefined;
    let pair = this.#free.pop() ?? (await this.#openAnother());
    if (pair === undefined) {
      limit.concurrency = Math.max(1, limit.concurrency - 1);
      return attempt;
    }
    try {
      await this.#compare(pair, attempt);
      return undefined;
    } catch (error) {
      throwIfAborted(this.#context.signal);
      if (this.#failure !== undefined) return undefined;
      const again = (await this.#mends(pair, attempt, error)) ? attempt : this.#afterFailure(attempt, error);
      await pair.rollback();
      if (pair.isBroken) pair = await this.#replace(pair, error);
      return again;
    } finally {
      this.#free.push(pair);
    }
  }

  async #compare(pair: SessionPair, attempt: Attempt): Promise<void> {
    const { task } = attempt;
    const { checksum, repair, maxListed, onResult } = this.#options;
    const result = await comparePart(pair, {
      plan: task.plan,
      back: task.back,
      range: task.range,
      files: task.files,
      sync: this.#context.config.name,
      keylessLimitBytes: this.#context.config.keylessLimitBytes,
      checksum,
      repair,
      tracksTarget: this.#context.config.tracksTarget,
      signal: this.#context.signal,
      maxListed: () => maxListed(task.plan),
      isFinal:
        attempt.idleTries >= idleTries ||
        attempt.fluxTries >= (isKeyless(task.plan.capture) ? keylessTries : fluxTries),
    });
    onResult(task, result);
  }

  /** Has `follow` read a table again where keys that were recorded cannot be read. Until then the part is not proven. */
  async #mends(pair: SessionPair, { task }: Attempt, error: unknown): Promise<boolean> {
    const cause = error instanceof RelayError ? error.cause : error;
    const { capture } = task.plan;
    if (!isRejection(cause) || isKeyless(capture)) return false;
    await pair.rollback();
    // A COPY that broke off has taken its session with it.
    await using source = await this.#context.source("verify");
    await using target = await this.#context.target("verify");
    const back = task.back === undefined ? 0 : await mendKeys(target, task.back.capture);
    if (back + (await mendKeys(source, capture)) > 0) {
      this.#context.emit({ type: "table-reread", table: task.plan.label, reason: UNREADABLE });
      return true;
    }
    // Pending keys that the target cannot read.
    if (!/\breplicate_pending\b/.test((cause as { where?: string }).where ?? "")) return false;
    await recordRereadNow(source, capture);
    return true;
  }

  /** When to try again. Throws where that would not help, or was tried often enough. */
  #afterFailure(attempt: Attempt, error: unknown): Attempt {
    const { label } = attempt.task.plan;
    if (error instanceof RepairError)
      throw asReplicateError(error.cause, `noting the differences of ${label}`);
    const cause = error instanceof RelayError ? error.cause : error;
    if (cause instanceof PartNotReadySignal) {
      if (cause.reason === "emptied") return attempt;
      const hasMoved = cause.position !== attempt.position;
      return {
        ...attempt,
        position: cause.position,
        fluxTries: attempt.fluxTries + 1,
        idleTries: hasMoved ? 1 : attempt.idleTries + 1,
        notBefore: Date.now() + Math.min(250 * (attempt.fluxTries + 1), 2000),
      };
    }
    if (isAboutLocks(cause)) {
      if (attempt.lockTries >= lockTries) {
        throw new ReplicateError(
          "LOCK_NOT_AVAILABLE",
          `others hold or want locks on ${label}, again and again`,
          {
            cause,
          },
        );
      }
      this.#context.log.info({ table: label }, "gave way to others who lock the table");
      const notBefore = Date.now() + lockPauseMs(attempt.lockTries);
      return { ...attempt, lockTries: attempt.lockTries + 1, notBefore };
    }
    if (isConnectionFailure(cause) && attempt.lostTries < lostTries) {
      return { ...attempt, lostTries: attempt.lostTries + 1 };
    }
    throw asReplicateError(cause, `comparing ${label}`);
  }

  async #open(): Promise<SessionPair> {
    const pair = await SessionPair.open(this.#context, this.#watches);
    this.#pairs.add(pair);
    return pair;
  }

  /** Closes a broken pair and connects again, with pauses. */
  async #replace(broken: SessionPair, error: unknown): Promise<SessionPair> {
    const context = this.#context;
    const side = sideOf(error) ?? broken.brokenSide;
    this.#pairs.delete(broken);
    await broken.close();
    let isLost = false;
    const tellLost = (failure: unknown, retryInMs: number): void => {
      const message = failure instanceof Error ? failure.message : String(failure);
      context.emit({ type: "connection-lost", side, message, retryInMs });
      isLost = true;
    };
    if (isConnectionFailure(error)) tellLost(error, 0);
    throwIfAborted(context.signal);
    const pair = await retry(
      {
        ...connectPolicy,
        isPassing: isConnectionFailure,
        onPause: tellLost,
        givenUp: (failure) => asReplicateError(failure, "verify"),
      },
      context.signal,
      async () => await this.#open(),
    );
    if (isLost) context.emit({ type: "connection-restored", side });
    return pair;
  }
}
