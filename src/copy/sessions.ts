/** A worker's two sessions, and what happens when a server goes away. */
import type { Side } from "../events.ts";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { retry } from "../postgres/retry.ts";
import { asReplicateError, isConnectionFailure, sideOf } from "../postgres/sqlstate.ts";
import { clearError, storeError } from "../state/runner-lock.ts";
import { isOverBudget } from "../state/connection-budget.ts";
import { throwIfAborted } from "../postgres/sleep.ts";
import type { CopyRun } from "./run.ts";

/** Opens sessions when they are asked for, and opens them again after they were cut. */
export class Sessions {
  readonly #run: Pick<CopyRun, "context">;
  readonly #purpose: string;
  readonly #isSpare: boolean;
  readonly #open: { source?: Connection; target?: Connection } = {};

  /** `isSpare`: sessions that can be done without. */
  constructor(run: Pick<CopyRun, "context">, purpose: string, isSpare = false) {
    this.#run = run;
    this.#purpose = purpose;
    this.#isSpare = isSpare;
  }

  async source(): Promise<Connection> {
    return await this.#get("source");
  }

  async target(): Promise<Connection> {
    return await this.#get("target");
  }

  /** Source and target, opened at the same time. */
  async both(): Promise<[Connection, Connection]> {
    const opened = await Promise.allSettled([this.source(), this.target()]);
    const failed = opened.find((each) => each.status === "rejected");
    if (failed !== undefined) throw failed.reason;
    return [await this.source(), await this.target()];
  }

  async #get(side: Side): Promise<Connection> {
    const known = this.#open[side];
    if (known !== undefined && !known.isBroken) return known;
    const { context } = this.#run;
    // On the source, parallel plans would only take processors away from the application.
    const opened = await (side === "source"
      ? context.source(this.#purpose, { isSerial: true, isSpare: this.#isSpare })
      : context.target(this.#purpose, { isSpare: this.#isSpare }));
    this.#open[side] = opened;
    return opened;
  }

  /** Which side broke, or is the only one that was used, when that can be told. */
  get brokenSide(): Side | undefined {
    const used = (["source", "target"] as const).filter((side) => this.#open[side] !== undefined);
    return used.find((side) => this.#open[side]?.isBroken) ?? (used.length === 1 ? used[0] : undefined);
  }

  /** Cuts both sessions: what they were at is rolled back by the servers. */
  cut(): void {
    this.#open.source?.destroy();
    this.#open.target?.destroy();
  }

  /** For `status`, while only the source is away. */
  async tellFailure(error: unknown): Promise<void> {
    const { target } = this.#open;
    if (target?.isFree !== true) return;
    await storeError(target, this.#run.context.config.name, asReplicateError(error, "copy"), true);
  }

  async tellRecovery(): Promise<void> {
    const { target } = this.#open;
    if (target?.isBroken === false) await clearError(target, this.#run.context.config.name);
  }

  async close(): Promise<void> {
    await Promise.all([this.#open.source?.close(), this.#open.target?.close()]);
  }
}

const firstPauseMs = 250;
const longestPauseMs = 15_000;

/**
 * Runs `work` with sessions of its own; when a connection fails, opens new ones and runs it again, until the budget
 * since the last success is spent. `work` calls `onSuccess` whenever it got something done. Whatever ends it,
 * the sessions are closed. Unless `isNeeded`, throws TOO_MANY_CONNECTIONS at once instead of waiting for one.
 */
export async function withSessions<T>(
  run: CopyRun,
  purpose: string,
  { isNeeded }: { readonly isNeeded: boolean },
  work: (sessions: Sessions, onSuccess: () => void) => Promise<T>,
): Promise<T> {
  const { context } = run;
  let lostSide: Side | undefined;
  let brokenSide: Side | undefined;
  return await retry(
    {
      firstPauseMs,
      longestPauseMs,
      budgetMs: run.reconnectMs,
      isPassing: (error) => isConnectionFailure(error) && (isNeeded || !isOverBudget(error)),
      onPause: (error, retryInMs) => {
        const message = error instanceof Error ? error.message : String(error);
        lostSide = sideOf(error) ?? brokenSide ?? lostSide ?? "source";
        context.emit({ type: "connection-lost", side: lostSide, message, retryInMs });
      },
      givenUp: (error) => stayedAway(sideOf(error) ?? brokenSide ?? lostSide ?? "source", error),
    },
    run.signal,
    async (onSuccess) => {
      throwIfAborted(run.signal);
      const sessions = new Sessions(run, purpose, !isNeeded);
      const onStop = (): void => sessions.cut();
      run.signal.addEventListener("abort", onStop, { once: true });
      try {
        return await work(sessions, () => {
          if (lostSide !== undefined) {
            context.emit({ type: "connection-restored", side: lostSide });
            void sessions.tellRecovery();
          }
          lostSide = undefined;
          onSuccess();
        });
      } catch (error) {
        ({ brokenSide } = sessions);
        // A session may also be broken because it was cut after an error of another kind, which is what counts then.
        if (!run.signal.aborted && isConnectionFailure(error) && (isNeeded || !isOverBudget(error)))
          await sessions.tellFailure(error);
        throw error;
      } finally {
        run.signal.removeEventListener("abort", onStop);
        await sessions.close();
      }
    },
  );
}

function stayedAway(side: Side, error: unknown): ReplicateError {
  const { code, message } = asReplicateError(error, "copy");
  const isTold = ["OUT_OF_RESOURCES", "OUT_OF_LOCKS", "TOO_MANY_CONNECTIONS"].includes(code);
  return new ReplicateError(isTold ? code : "CONNECTION_LOST", `the ${side} stayed away: ${message}`, {
    cause: error,
    side,
  });
}
