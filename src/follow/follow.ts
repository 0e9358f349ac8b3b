/** Follow: batch after batch until stopped, over restarts of both servers and breaks of the network. */
import { tableLabel } from "../catalog/table.ts";
import { ReplicateError } from "../errors.ts";
import type { Batch, Side } from "../events.ts";
import type { Connection } from "../postgres/connect.ts";
import { LockWatch } from "../postgres/lock-watch.ts";
import { sleep } from "../postgres/sleep.ts";
import {
  asReplicateError, hidesRows, isConnectionFailure, isLasting, isRetryableConflict, QUERY_CANCELED, sideOf, sqlstateOf,
} from "../postgres/sqlstate.ts"; // prettier-ignore
import type { SyncContext } from "../state/context.ts";
import { Joiner } from "../join/join.ts";
import { SequenceKeeper } from "../sequences/keeper.ts";
import { isStateMissing } from "../state/lease.ts";
import { migrateOlder } from "../state/migrate.ts";
import { takeSource } from "../state/runner-lock.ts";
import { checkPair } from "../state/source-identity.ts";
import { Beside } from "./beside.ts";
import { RetainedWatch } from "./retained-watch.ts";
import { RunnerLease } from "./runner.ts";
import { LagTrend } from "./lag-trend.ts";
import { Outage } from "./outage.ts";
import type { OtherWay } from "./other-way.ts";
import { RefusedChange } from "./schema/refused-change.ts";
import { FollowSession } from "./session.ts";

export interface FollowOptions {
  /** End when a look at the source, begun after the call, found nothing left to apply. */
  readonly untilCaughtUp?: boolean;
  /** End after one batch, or at once when there is nothing to apply. */
  readonly once?: boolean;
  /** Where another runner has the sync, wait for its end and take over, instead of throwing RUNNER_ACTIVE. */
  readonly standby?: boolean;
  /** Milliseconds without a connection after which to give up. Default 30 minutes. */
  readonly retryBudgetMs?: number;
  /** Leave tables alone that are new on the source. Default false. */
  readonly leavesNewTables?: boolean;
  /** Asked every few seconds, with sessions on both sides: whether the sync goes the other way from now on. Ends then. */
  readonly isOver?: (source: Connection, target: Connection) => Promise<boolean>;
}

/** Pauses between looks at the source: short while batches come, growing to a second while nothing happens. */
const BUSY_PAUSE_MS = 5;
const IDLE_PAUSE_MS = 1000;
const PAUSE_GROWTH = 1.5;
/** A look may take this share of the time, so that many tables are looked at less often, once nothing happens any more. */
const LOOK_SHARE = 0.01;
/** Until then it may take more: a pause of a hundred times one slow look would be the lag of the next change. */
const BUSY_LOOK_SHARE = 0.2;
/** A batch that takes longer is watched for others who wait behind its locks. */
const LONG_BATCH_MS = 150;
const BEAT_MS = 2000;
/** Between two looks at whether the other way is there. */
const WAIT_MS = 50;
/** Between two tries of a schema change that the target does not take: at first, and at most. */
const CHANGE_PAUSE_MS = 250;
const MOST_CHANGE_PAUSE_MS = 4000;
/** Between two looks at whether the sync was switched. */
const TURN_MS = 2000;
const SWEEP_MS = 5000;
/** A sweep may take this share of the time. */
const SWEEP_SHARE = 0.005;
const ROTATE_MS = 250;
/** Nothing to apply for so long: rotate what is left, so that looks become cheap. */
const SETTLED_MS = 3000;
/** A stop waits so long for the batch at hand, then cuts it off; the target rolls it back. */
const STOP_GRACE_MS = 10_000;

/**
 * Yields each batch after its commit on the target. Ends when the context's signal fires, or as `options` say.
 * `otherWay`: where the target has changes of its own. Throws RUNNER_ACTIVE, SOURCE_LOST, COPY_UNFINISHED, TABLE_SHAPE_CHANGED,
 * CAPTURE_BROKEN, ROW_REFUSED, CONFLICT, CONFLICT_RESOLVER_FAILED, and the connection errors once the retry budget is spent.
 */
export async function* followSync(
  context: SyncContext,
  options: FollowOptions = {},
  otherWay?: OtherWay,
): AsyncGenerator<Batch> {
  const run = new FollowRun(context, options, otherWay);
  try {
    yield* run.batches();
  } finally {
    await run.end();
  }
}

class FollowRun {
  readonly #context: SyncContext;
  readonly #options: FollowOptions;
  readonly #otherWay: OtherWay | undefined;
  readonly #lockWatch: LockWatch;
  readonly #sequences: SequenceKeeper;
  readonly #runner: RunnerLease;
  readonly #retained: RetainedWatch;
  readonly #joiner: Joiner;
  #session: FollowSession | undefined;
  #lastBeat = 0;
  #nextSweep = 0;
  #nextTurn = 0;
  #lastRotate = 0;
  #lastBatch = Date.now();
  /** When a look at the source, by our clock, left nothing to apply. */
  #clearAt: number | undefined;
  #isAcknowledged = false;
  #isWaitingForCopy = false;
  #rowsSinceBeat = 0;
  #changePauseMs = CHANGE_PAUSE_MS;
  readonly #trend = new LagTrend();
  readonly #beside: Beside;
  readonly #outage: Outage;

  constructor(context: SyncContext, options: FollowOptions, otherWay: OtherWay | undefined) {
    this.#otherWay = otherWay;
    this.#context = context;
    this.#options = options;
    this.#sequences = new SequenceKeeper(context);
    this.#retained = new RetainedWatch(context);
    this.#beside = new Beside(context);
    this.#outage = new Outage(context, options.retryBudgetMs);
    this.#runner = new RunnerLease(context, options.standby === true, () => {
      if (otherWay !== undefined) otherWay.isLeased = false;
      this.#outage.end();
    });
    this.#joiner = new Joiner(context, this.#runner.lease);
    this.#lockWatch = new LockWatch(async () => await context.source("follow lock watch"));
  }

  async *batches(): AsyncGenerator<Batch> {
    const { signal } = this.#context;
    // Cuts a batch that does not end by itself soon after a stop was asked for.
    const onAbort = (): void => {
      setTimeout(() => this.#cut(), STOP_GRACE_MS).unref();
      this.#beside.cut();
    };
    signal.addEventListener("abort", onAbort, { once: true });
    let pauseMs = BUSY_PAUSE_MS;
    try {
      while (!signal.aborted) {
        try {
          if (this.#otherWay?.isLed === false) {
            await this.#giveWay();
            await sleep(WAIT_MS, signal).catch(() => undefined);
            continue;
          }
          const session = (this.#session ??= await this.#open());
          const startedAt = Date.now();
          if (this.#runner.asked !== null) return await this.#giveUp(this.#runner.asked);
          if (startedAt >= this.#nextTurn) {
            if (await this.#options.isOver?.(session.source, session.target)) return await this.#beside.done;
            this.#nextTurn = startedAt + TURN_MS;
          }
          if (this.#joiner.hasJoined()) this.#takeUp(session);
          const batch = await this.#turn(async () => await this.#step(session));
          if (batch) {
            yield batch;
            pauseMs = BUSY_PAUSE_MS;
          }
          const isOver = this.#otherWay?.isOver() ?? (this.#options.once === true || batch === null);
          if (this.#options.once && isOver) return await this.#beside.done;
          if (this.#options.untilCaughtUp && isOver) {
            if (this.#options.leavesNewTables !== true && (await this.#joiner.finish(session))) continue;
            this.#context.emit({ type: "caught-up", position: session.position.snapshot ?? "" });
            return await this.#beside.done;
          }
          if (batch === undefined) {
            pauseMs = WAIT_MS;
          } else if (batch === null) {
            const now = Date.now();
            const share = now - this.#lastBatch > SETTLED_MS ? LOOK_SHARE : BUSY_LOOK_SHARE;
            pauseMs = Math.min(Math.max(pauseMs * PAUSE_GROWTH, (now - startedAt) / share), IDLE_PAUSE_MS);
          }
        } catch (error) {
          await this.#failed(error);
          pauseMs = BUSY_PAUSE_MS;
          continue;
        }
        await sleep(pauseMs, signal).catch(() => undefined);
      }
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  /** New tables have been copied. */
  #takeUp(session: FollowSession): void {
    session.isStale = true;
    this.#beside.again();
  }

  /** Ends for somebody who waits for it. */
  async #giveUp(asked: string): Promise<void> {
    this.#context.emit({ type: "asked-to-end", by: asked });
    await this.#joiner.end();
    await this.#beside.done;
  }

  /** Does what cannot be done while the other way is at a batch, where there is one. */
  async #turn<T>(work: () => Promise<T>): Promise<T> {
    const otherWay = this.#otherWay;
    if (otherWay === undefined) return await work();
    return await otherWay.alone(async () => {
      try {
        return await work();
      } catch (error) {
        // Before the other way's turn: how far this one has come is not known any more, it may have been committed.
        otherWay.session = undefined;
        throw error;
      }
    });
  }

  /** Leaves this way to the runner that has the other one. */
  async #giveWay(): Promise<void> {
    if (this.#otherWay !== undefined) this.#otherWay.session = undefined;
    await this.#session?.source.close();
    this.#session = undefined;
    await this.#runner.end();
  }

  /** The other way is not there yet, or a table is not copied, without which neither way goes on. */
  #awaitReady(session: FollowSession): undefined {
    const rest = session.tables.filter(({ state }) => state !== "copied" && state !== "following");
    if (this.#otherWay?.way !== "forward" || rest.length === 0) return;
    const labels = rest.map(({ sourceSchema: schema, sourceName: name }) => tableLabel({ schema, name }));
    const message = `${labels.join(", ")}: not copied yet, and until then nothing is followed, because the sync goes both ways`;
    const hint = "Stop `replicate follow` for the time of `replicate copy`.";
    if (this.#options.once === true || this.#options.untilCaughtUp === true)
      throw new ReplicateError("COPY_UNFINISHED", message, { hint: "Run `replicate copy` first." });
    if (!this.#isWaitingForCopy) this.#context.emit({ type: "warning", message: `${message}. ${hint}` });
    this.#isWaitingForCopy = true;
  }

  /** A batch, and what belongs to it. Null: there was nothing to apply; undefined: the other way has to be there first. */
  async #step(session: FollowSession): Promise<Batch | null | undefined> {
    if (Date.now() >= this.#nextSweep) await this.#sweep(session);
    if (this.#otherWay?.isResting() === true) return undefined;
    if (this.#otherWay?.isReady() === false) return this.#awaitReady(session);
    this.#isWaitingForCopy = false;
    const lookedAt = Date.now();
    const batch = await this.#next(session);
    if (batch === undefined) return undefined;
    this.#changePauseMs = CHANGE_PAUSE_MS;
    this.#clearAt = batch === null ? lookedAt : Date.now() - batch.lagSeconds * 1000;
    this.#outage.end();
    this.#otherWay?.recordLook(batch !== null);
    await this.#maintain(session, batch);
    return batch;
  }

  /** The next batch; a long one gives way to whoever waits for a lock that it holds on the source. */
  async #next(session: FollowSession): Promise<Batch | null | undefined> {
    const since = new Date().toISOString();
    const timer = setTimeout(() => this.#lockWatch.watch(session.source), LONG_BATCH_MS);
    try {
      return await this.#runner.during(
        () => (session.batch === null ? null : { since, ...session.batch }),
        async () => await session.next(),
      );
    } catch (error) {
      if (!(error instanceof RefusedChange)) throw error;
      return await this.#awaitChange(session, error);
    } finally {
      clearTimeout(timer);
      this.#lockWatch.unwatch(session.source);
      await this.#lockWatch.rest();
    }
  }

  /** The target does not take a change of the schema: nothing is applied until it does. */
  async #awaitChange(session: FollowSession, rejected: RefusedChange): Promise<undefined> {
    const reason = await session.noteRefused(rejected);
    if (this.#options.once === true || this.#options.untilCaughtUp === true) throw rejected.asError(reason);
    this.#outage.end();
    await this.#beat(Date.now());
    await sleep(this.#changePauseMs, this.#context.signal).catch(() => undefined);
    this.#changePauseMs = Math.min(this.#changePauseMs * 2, MOST_CHANGE_PAUSE_MS);
  }

  async #open(): Promise<FollowSession> {
    const { name } = this.#context.config;
    const target = await this.#runner.take();
    if (this.#otherWay !== undefined) this.#otherWay.isLeased = true;
    const source = await this.#context.source("follow", { isSerial: true });
    try {
      // It may have no place for leases yet.
      await migrateOlder(source);
      await takeSource(source, target, name, this.#runner.lease.token, this.#context.signal).catch(
        async (error: unknown) => {
          if (isStateMissing(error)) await checkPair(source, target, name);
          throw error;
        },
      );
      const session = await FollowSession.open(
        this.#context,
        source,
        target,
        this.#runner.lease,
        this.#options.untilCaughtUp === true,
        await this.#otherWay?.otherSide(source, target),
      );
      if (this.#otherWay !== undefined) this.#otherWay.session = session;
      this.#nextSweep = 0;
      this.#nextTurn = 0;
      this.#isAcknowledged = false;
      return session;
    } catch (error) {
      await source.close();
      throw error;
    }
  }

  async #sweep(session: FollowSession): Promise<void> {
    const startedAt = Date.now();
    await session.sweep();
    // Those of a two-way sync are used on both sides.
    if (this.#context.config.direction === "one-way")
      await this.#sequences.refresh(session.source, session.target);
    await this.#retained.look(session);
    const now = Date.now();
    this.#nextSweep = now + Math.max(SWEEP_MS, (now - startedAt) / SWEEP_SHARE);
  }

  /** What is done between batches: heartbeat, rotation, constraints. */
  async #maintain(session: FollowSession, batch: Batch | null): Promise<void> {
    const now = Date.now();
    if (batch !== null) {
      this.#lastBatch = now;
      this.#rowsSinceBeat += batch.rows;
      this.#trend.add(now, batch.lagSeconds);
      this.#isAcknowledged = false;
      this.#context.emit({ type: "batch-applied", batch });
    }
    const isSettled = now - this.#lastBatch > SETTLED_MS || this.#options.untilCaughtUp === true;
    if (batch === null && isSettled && !this.#isAcknowledged) {
      await session.acknowledge();
      await session.skipNoops();
      this.#isAcknowledged = true;
      this.#lastRotate = 0;
    }
    if (now - this.#lastRotate > ROTATE_MS) {
      await session.rotate(batch === null && isSettled);
      this.#lastRotate = Date.now();
    }
    if (now - this.#lastBeat > BEAT_MS) await this.#beat(now);
    this.#beside.begin(session);
    if (this.#options.leavesNewTables !== true) await this.#joiner.look(session);
  }

  async #beat(now: number): Promise<void> {
    const seconds = (now - this.#lastBeat) / 1000;
    const rate = this.#lastBeat === 0 ? 0 : this.#rowsSinceBeat / seconds;
    this.#lastBeat = now;
    this.#rowsSinceBeat = 0;
    await this.#runner.beat({
      rowsPerSecond: rate,
      clearSeconds: this.#clearSeconds,
      lagTrend: this.#trend.perSecond,
    });
  }

  /** Seconds since a look at the source that left nothing to apply; null: there was none. */
  get #clearSeconds(): number | null {
    return this.#clearAt === undefined ? null : (Date.now() - this.#clearAt) / 1000;
  }

  async #failed(error: unknown): Promise<void> {
    const { signal } = this.#context;
    const isPassing =
      isConnectionFailure(error) ||
      isRetryableConflict(error) ||
      sqlstateOf(error) === QUERY_CANCELED ||
      // A rejection by the target cuts the source, which is still reading.
      (this.#isCut() && !isLasting(error));
    const side = this.#brokenSide(error);
    // The server names the table, without its schema.
    const tables = this.#session?.tables ?? [];
    const sources = tables.map((each) => ({ schema: each.sourceSchema, name: each.sourceName }));
    const targets = tables.map((each) => ({ schema: each.targetSchema, name: each.targetName }));
    const failure = asReplicateError(
      error,
      hidesRows(error) ? `follow, on the ${side}` : "follow",
      side === "source" ? [...sources, ...targets] : [...targets, ...sources],
    );
    // A row that is rejected may have cut the session that was still reading others.
    const isRetrying =
      isPassing &&
      !this.#outage.isSpent &&
      !signal.aborted &&
      !["ROW_REFUSED", "HOOK_FAILED"].includes(failure.code);
    await this.#session?.source.close();
    this.#session = undefined;
    if (this.#otherWay !== undefined) this.#otherWay.session = undefined;
    // What our own stop has cut is nobody's fault.
    await this.#runner.settle(signal.aborted ? undefined : failure, isRetrying);
    // Another runner may take this way, and then has to get the other one.
    if (this.#otherWay !== undefined) this.#otherWay.isLeased = this.#runner.isTaken;
    if (signal.aborted) return;
    if (!isRetrying) throw failure;
    await this.#outage.pause(side, failure);
  }

  #brokenSide(error: unknown): Side {
    if (this.#runner.isBroken || this.#session?.failedSide === "target") return "target";
    if (this.#session?.source.isBroken) return "source";
    return sideOf(error) ?? "source";
  }

  #isCut(): boolean {
    return this.#session?.source.isBroken === true || this.#runner.isBroken;
  }

  #cut(): void {
    this.#session?.source.destroy();
    this.#runner.cut();
  }

  async end(): Promise<void> {
    if (this.#otherWay !== undefined) this.#otherWay.session = undefined;
    await this.#session?.source.close();
    await this.#joiner.end();
    await this.#retained.end();
    await this.#lockWatch.close();
    await this.#beside.done;
    await this.#runner.end(this.#clearSeconds);
  }
}
