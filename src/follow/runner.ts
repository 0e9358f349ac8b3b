/**
 * The runner's hold on the sync: the session on the target that has its lease, applies the batches, and tells `status` how
 * it goes. One session for all of it, so that a narrow connection limit suffices; while a batch takes long, another one for
 * a moment now and then. Kept while only the source is away, so that the sync stays ours and the reason can be told.
 */
import { randomUUID } from "node:crypto";
import type { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import type { SyncContext } from "../state/context.ts";
import { describeHolder, type Holder, type Lease } from "../state/lease.ts";
import { migrateOlder } from "../state/migrate.ts";
import {
  beat, beatAtBatch, endRunner, runnerActive, runnerLease, storeError, touch, tryRunner,
  type BatchAtHand, type Heartbeat, type Sign,
} from "../state/runner-lock.ts"; // prettier-ignore
import { awaitRunner } from "../state/standby.ts";
import { forgetStages } from "./apply/staging.ts";

/** A sign of life is given when there was none for so long, and how often that is looked at. */
const TOUCH_MS = 1500;
const TICK_MS = 250;

/** Failures that say nothing about the sync itself, or about somebody else's runner. */
const notOurs: readonly string[] = ["COPY_UNFINISHED", "RUNNER_ACTIVE", "SYNC_UNKNOWN", "ABORTED"];

export class RunnerLease {
  readonly #context: SyncContext;
  readonly #isStandby: boolean;
  readonly #onWait: () => void;
  /** Ours over all sessions: one that broke may not have been noticed yet, and still have the sync. */
  readonly lease: Lease;
  #target: Connection | undefined;
  #sign: Sign = { isLost: false, asked: null };
  #touchedAt = 0;
  #atHand: () => BatchAtHand | null = () => null;
  #telling: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  /** What went wrong while the target could not be told. */
  #untold: ReplicateError | undefined;

  /** `isStandby`: wait for another runner's end instead of refusing to start; `onWait` is called when that begins. */
  constructor(context: SyncContext, isStandby: boolean, onWait: () => void) {
    this.#context = context;
    this.#isStandby = isStandby;
    this.#onWait = onWait;
    this.lease = runnerLease(context.config.name, randomUUID());
  }

  /** The session, opened if need be. Throws RUNNER_ACTIVE, SYNC_UNKNOWN, ABORTED, and what connecting throws. */
  async take(): Promise<Connection> {
    if (this.#target !== undefined && !this.#target.isBroken) return this.#target;
    this.#target = undefined;
    const { name } = this.#context.config;
    const target = await this.#context.target("follow");
    try {
      await target.noticeDeath();
      // Whoever is gone must not keep the sync; this session is never asked for more than it can send at once.
      if (target.version >= 120_000) await target.script("set tcp_user_timeout = '25s'");
      await migrateOlder(target);
      if (this.#isStandby) await this.#await(target);
      else {
        const { isTaken, before } = await tryRunner(target, name, this.lease.token, this.#context.signal);
        if (!isTaken) throw runnerActive(name, before);
        if (before !== undefined) this.#warnOfEnd(before);
      }
    } catch (error) {
      await target.close();
      throw error;
    }
    this.#target = target;
    this.#sign = { isLost: false, asked: null };
    this.#timer ??= setInterval(() => this.#tick(), TICK_MS).unref();
    if (this.#untold !== undefined) await storeError(target, name, this.#untold, true);
    this.#untold = undefined;
    return target;
  }

  async #await(target: Connection): Promise<void> {
    const { config, signal, emit } = this.#context;
    let isWaiting = false;
    await awaitRunner(target, config.name, {
      token: this.lease.token,
      signal,
      onWait: (holder) => {
        isWaiting = true;
        this.#onWait();
        emit({ type: "standing-by", runner: describeHolder(holder) });
      },
      onEnd: (holder) => this.#warnOfEnd(holder),
    });
    if (isWaiting) emit({ type: "taken-over" });
  }

  #warnOfEnd(holder: Holder): void {
    const message = `${describeHolder(holder)}, does not answer any more: its session is ended`;
    this.#context.emit({ type: "warning", message });
  }

  /** Runs a batch. While it takes long, `atHand` (null: a small one) is told every few seconds. */
  async during<T>(atHand: () => BatchAtHand | null, work: () => Promise<T>): Promise<T> {
    this.#atHand = atHand;
    // Short batches are told of when they are done.
    this.#touchedAt = Date.now();
    try {
      return await work();
    } finally {
      this.#atHand = () => null;
      await this.#telling;
    }
  }

  #tick(): void {
    if (this.#target === undefined || Date.now() - this.#touchedAt < TOUCH_MS) return;
    this.#touchedAt = Date.now();
    this.#telling ??= this.#tell(this.#target, this.#atHand())
      .catch(() => undefined)
      .finally(() => (this.#telling = undefined));
  }

  /**
   * In the middle of a batch by a second session, as what the first one writes is seen when the batch is done. It does not
   * stay: it may have the last connection, which is for whoever wants to know. While there is none, the batch is not told.
   */
  async #tell(target: Connection, batch: BatchAtHand | null): Promise<void> {
    const { name } = this.#context.config;
    const control =
      batch === null
        ? undefined
        : await this.#context.target("follow heartbeat", { isSpare: true }).catch(() => undefined);
    try {
      if (batch !== null && control !== undefined)
        this.#sign = await beatAtBatch(control, this.lease, name, batch);
      else if (target.isFree) this.#sign = await touch(target, this.lease, name);
    } finally {
      await control?.close();
    }
  }

  /** Tells the figures, and that all is well. */
  async beat(heartbeat: Heartbeat): Promise<void> {
    if (this.#target === undefined) return;
    this.#touchedAt = Date.now();
    this.#sign = await beat(this.#target, this.lease, this.#context.config.name, heartbeat);
  }

  /** Why somebody who waits for it asks us to end. Throws RUNNER_ACTIVE where the sync is not ours any more. */
  get asked(): string | null {
    if (this.#sign.isLost) throw runnerActive(this.#context.config.name, undefined);
    return this.#sign.asked;
  }

  get isBroken(): boolean {
    return this.#target?.isBroken === true;
  }

  get isTaken(): boolean {
    return this.#target !== undefined && !this.#target.isBroken;
  }

  /** Cuts the session: the server rolls back what it was at. */
  cut(): void {
    this.#target?.destroy();
  }

  /** After a failure: what was begun is rolled back, and `status` is told. The session stays ours if it can be used. */
  async settle(failure: ReplicateError | undefined, isRetrying: boolean): Promise<void> {
    const target = this.#target;
    if (target === undefined) return;
    const told = failure === undefined || notOurs.includes(failure.code) ? undefined : failure;
    if (await cleanUp(target)) {
      if (told !== undefined) await storeError(target, this.#context.config.name, told, isRetrying);
    } else {
      this.#target = undefined;
      this.#untold = told;
    }
  }

  /** Gives the sync back. `clearSeconds`: as in a heartbeat. Never throws. */
  async end(clearSeconds: number | null = null): Promise<void> {
    clearInterval(this.#timer);
    this.#timer = undefined;
    await this.#telling;
    const target = this.#target;
    this.#target = undefined;
    if (target === undefined) return;
    if (target.isFree) await endRunner(target, this.lease, this.#context.config.name, clearSeconds);
    await target.close();
  }
}

/** Makes a session as it was at its start; false where it cannot be used any more and is closed. */
async function cleanUp(target: Connection): Promise<boolean> {
  if (target.isFree) {
    try {
      await target.script("rollback; discard temp");
      forgetStages(target);
      return true;
    } catch {
      // Broken, or it soon will be.
    }
  }
  // In the middle of a statement whose data have stopped to come.
  target.destroy();
  await target.close();
  return false;
}
