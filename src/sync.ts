/** A sync as a program sees it: one object, one method per stage. The only file that knows all stages. */
import { resolveConfig, type SyncOptions } from "./config/options.ts";
import { loadResolvers } from "./config/conflict-policy.ts";
import {
  listConflicts,
  type ConflictFilter,
  type ConflictsOptions,
  type LoggedConflict,
} from "./conflict/log.ts";
import { resolveConflicts, type ResolveReport } from "./conflict/resolve.ts";
import { copySync, type CopyOptions, type CopyReport } from "./copy/copy.ts";
import {
  interleaveSequences,
  type InterleaveOptions,
  type InterleaveReport,
} from "./sequences/interleave.ts";
import { carrySequences, type SequencesOptions, type SequencesReport } from "./sequences/carry.ts";
import { switchSides } from "./cutover/cutover.ts";
import type { SwitchOptions, SwitchReport } from "./cutover/switch-run.ts";
import {
  assertForward,
  assertNoSwitch,
  assertOneWay,
  directionOf,
  followEitherWay,
} from "./cutover/direction.ts";
import { finishSwitch } from "./cutover/finish.ts";
import { openWays, type OpenWay } from "./reverse/ways.ts";
import type { DropOptions, DropReport } from "./drop/drop.ts";
import { dropEitherWay } from "./drop/both-ways.ts";
import { ReplicateError } from "./errors.ts";
import type { Batch, OnEvent, Side } from "./events.ts";
import type { FollowOptions } from "./follow/follow.ts";
import { loadHooks } from "./config/hooks.ts";
import { initSync, type InitOptions, type InitReport } from "./init/init.ts";
import { listParked, type ParkedOptions, type ParkedReport } from "./parked/parked.ts";
import { examine, type Finding, type PreflightOptions, type TableSettings } from "./preflight/preflight.ts";
import { withoutValues } from "./postgres/server-words.ts";
import { asReplicateError } from "./postgres/sqlstate.ts";
import { compareSchemas, type SchemaComparison } from "./schema/compare.ts";
import { createSchema, type SchemaOptions, type SchemaReport } from "./schema/schema.ts";
import { ShownNames } from "./reverse/shown-names.ts";
import type { Logger, SyncContext } from "./state/context.ts";
import { makeContext, Sessions } from "./state/open-context.ts";
import type { Status } from "./status/report.ts";
import { readStatus } from "./status/status.ts";
import { explainTargetAway } from "./status/target-away.ts";
import { assertCopy, initBack } from "./reverse/two-way.ts";
import { verifySync, type VerifyOptions, type VerifyReport } from "./verify/verify.ts";

export interface OpenOptions {
  /** pino or alike. Silent by default. */
  readonly logger?: Logger;
  /** Hears the events of every call that names no other. */
  readonly onEvent?: OnEvent;
  /** Where libpq's variables are looked up. Default `process.env`. */
  readonly env?: NodeJS.ProcessEnv;
}

/** What every call accepts. */
export interface CallOptions {
  /**
   * Stops the call. Its sessions are cut and the servers roll back what was open; `follow` instead ends its batch and
   * returns.
   */
  readonly signal?: AbortSignal;
  readonly onEvent?: OnEvent;
}

export interface CutoverOptions extends SwitchOptions {
  /**
   * End the time in which the switch can be taken back. After a cutover the sync is gone then, from both sides; after a
   * rollback it goes on from source to target.
   */
  readonly finish?: boolean;
  /**
   * With `finish`, after a cutover: the old source goes on refusing writes, until `drop` with `sourceOnly`. Default false.
   */
  readonly keepClosed?: boolean;
}

export interface PreflightReport {
  readonly findings: readonly Finding[];
  /** No finding is blocking. */
  readonly ok: boolean;
  /** With `showSettings`: what the settings come to for each table. */
  readonly settings?: readonly TableSettings[];
}

export interface Sync extends AsyncDisposable {
  readonly name: string;
  /** Runs every check and changes nothing. */
  preflight(options?: PreflightOptions & CallOptions): Promise<PreflightReport>;
  /** Creates on the target what the tables need, by pg_dump and pg_restore. Again: adds what is missing. */
  schema(options?: SchemaOptions & CallOptions): Promise<SchemaReport>;
  /** Compares the catalogues of both sides and changes nothing; needs no client programs. */
  compareSchemas(options?: CallOptions): Promise<SchemaComparison>;
  /** Installs state and capture. Again: adds what is new. */
  init(options?: InitOptions & CallOptions): Promise<InitReport>;
  /** Loads the data. Again: resumes. */
  copy(options?: CopyOptions & CallOptions): Promise<CopyReport>;
  /** Applies batches until stopped; each is yielded after its commit on the target. */
  follow(options?: FollowOptions & CallOptions): AsyncIterable<Batch>;
  /** Compares both sides while they are written to. */
  verify(options?: VerifyOptions & CallOptions): Promise<VerifyReport>;
  status(options?: CallOptions): Promise<Status>;
  /** Logged conflicts of both sides, the latest first. */
  conflicts(options?: ConflictsOptions & CallOptions): Promise<LoggedConflict[]>;
  /**
   * Resolves conflicts that were skipped: the row that the winner has now is taken to the other side. By id, or all
   * pending ones that a filter selects.
   */
  resolveConflict(
    which: number | readonly number[] | Omit<ConflictFilter, "state">,
    winner: Side,
    options?: CallOptions,
  ): Promise<ResolveReport>;
  /** Lists the rows that the target has rejected, or has them tried again. */
  parked(options?: ParkedOptions & CallOptions): Promise<ParkedReport>;
  /** Carries the values of sequences, forward only. */
  sequences(options?: SequencesOptions & CallOptions): Promise<SequencesReport>;
  /**
   * Shares the numbers of sequences out, so that both sides can insert rows without giving out a number twice. Taken back
   * by `drop`.
   */
  interleave(options?: InterleaveOptions & CallOptions): Promise<InterleaveReport>;
  /**
   * Switches the applications to the target: fences the source, brings over what is left to the last row, and opens the
   * target. The source is kept current by `follow` from then on.
   */
  cutover(options?: CutoverOptions & CallOptions): Promise<SwitchReport>;
  /** The same the other way round, with everything that was written since the cutover. */
  rollback(options?: SwitchOptions & CallOptions): Promise<SwitchReport>;
  /** Removes the sync from both sides, and restores the deferred definitions of the target. */
  drop(options?: DropOptions & CallOptions): Promise<DropReport>;
}

/**
 * Opens a sync; nothing is connected until a method is called. Throws CONFIG_INVALID with every mistake.
 *
 * ```ts
 * await using sync = await openSync({ name: "shop", source, target, tables: ["public.*"] });
 * await sync.init();
 * await sync.copy({ jobs: 4 });
 * for await (const batch of sync.follow({ signal })) console.log(batch.rows, batch.lagSeconds);
 * ```
 */
export async function openSync(options: SyncOptions & OpenOptions): Promise<Sync> {
  const { logger, onEvent, env, ...given } = options;
  const config = resolveConfig(given, env ?? process.env);
  await loadResolvers(config);
  await loadHooks(config);
  const sessions = new Sessions();
  const shown = new ShownNames(config.name);
  const listener = (call: CallOptions): OnEvent | undefined => {
    const heard = call.onEvent ?? onEvent;
    return heard === undefined ? undefined : (event) => heard(shown.event(event));
  };
  let isDisposed = false;
  const assertOpen = (doing: string): void => {
    if (isDisposed)
      throw new ReplicateError("USAGE_INVALID", `${doing}: sync ${config.name} is disposed`, {
        hint: "Open it again with openSync.",
      });
  };

  const context = (call: CallOptions, isCutBySignal = true): SyncContext =>
    makeContext(config, sessions, {
      logger,
      onEvent: listener(call),
      signal: call.signal,
      isCutBySignal,
    });

  const run = async <T>(
    doing: string,
    call: CallOptions,
    work: (context: SyncContext) => Promise<T>,
  ): Promise<T> => {
    assertOpen(doing);
    try {
      return await work(context(call));
    } catch (error) {
      const known = shown.error(asReplicateError(error, doing));
      // A stop cuts the sessions, so what they say then is no failure of the servers.
      const isCut =
        call.signal?.aborted === true && (!(error instanceof ReplicateError) || known.retry === "now");
      throw isCut
        ? new ReplicateError("ABORTED", `${doing} was stopped`, { cause: withoutValues(error) })
        : known;
    }
  };

  const ways = (call: CallOptions): OpenWay =>
    openWays(config, (settings, { signal, isStoppable = true, isCut = true }) => {
      const signals = [isStoppable ? call.signal : undefined, signal].filter((each) => each !== undefined);
      return makeContext(settings, sessions, {
        logger,
        onEvent: listener(call),
        signal: AbortSignal.any(signals),
        isCutBySignal: isCut,
      });
    });

  /** Runs `work` with the context of the way that the sync goes now. */
  const runDirected = async <T>(
    doing: string,
    call: CallOptions,
    work: (context: SyncContext) => Promise<T>,
  ): Promise<T> =>
    await run(doing, call, async () => {
      const open = ways(call);
      const { way } = await directionOf(open);
      return await work(open(way));
    });

  return {
    name: config.name,
    preflight: async (call = {}) =>
      await run("preflight", call, async (each) => {
        const { findings, ...more } = await examine(each, call);
        return { findings, ok: findings.every((finding) => finding.severity !== "blocking"), ...more };
      }),
    compareSchemas: async (call = {}) => await run("verify", call, compareSchemas),
    schema: async (call = {}) =>
      await run("schema", call, async (each) => {
        await assertNoSwitch(ways(call), "schema");
        return await createSchema(each, call, env ?? process.env);
      }),
    init: async (call = {}) =>
      await run("init", call, async (each) => {
        const open = ways(call);
        await assertNoSwitch(open, "init");
        await assertForward(open, "init");
        const report = await initSync(each, call);
        if (each.config.tracksTarget && !report.dryRun) await initBack(open);
        return report;
      }),
    copy: async (call = {}) =>
      await run("copy", call, async (each) => {
        await assertNoSwitch(ways(call), "copy");
        await assertCopy(each, call);
        try {
          return await copySync(each, call);
        } catch (error) {
          // After a cutover the source is not captured any more, which is said better by its reason.
          if (error instanceof ReplicateError && error.code === "TABLE_SHAPE_CHANGED")
            await assertForward(ways(call), "copy");
          throw error;
        }
      }),
    follow: async function* (call = {}) {
      assertOpen("follow");
      try {
        await reach(context(call), "follow");
      } catch (error) {
        if (call.signal?.aborted) return;
        throw error;
      }
      try {
        yield* followEitherWay(ways(call), call);
      } catch (error) {
        throw error instanceof ReplicateError ? shown.error(error) : error;
      }
    },
    verify: async (call = {}) =>
      await runDirected("verify", call, async (each) => await verifySync(each, call)),
    status: async (call = {}) =>
      await run("status", call, async (each) => {
        const status = await readStatusEitherWay(each, ways(call));
        return { ...status, lastError: shown.stored(status.lastError) };
      }),
    conflicts: async (call = {}) =>
      await run("conflicts", call, async (each) => await listConflicts(each, call)),
    resolveConflict: async (which, winner, call = {}) =>
      await run("conflicts", call, async (each) => {
        const ids = typeof which === "number" ? [which] : which;
        return await resolveConflicts(each, ids, winner);
      }),
    interleave: async (call = {}) =>
      await run("sequences", call, async (each) => {
        await assertNoSwitch(ways(call), "sequences --interleave");
        await assertForward(ways(call), "sequences --interleave");
        return await interleaveSequences(each, call);
      }),
    parked: async (call = {}) =>
      await runDirected("parked", call, async (each) => await listParked(each, call)),
    sequences: async (call = {}) =>
      await runDirected("sequences", call, async (each) => await carrySequences(each, call)),
    cutover: async (call = {}) =>
      await run("cutover", call, async (each) => {
        // To undo one, its state need not be there.
        if (call.undo !== true) await assertOneWay(each);
        if (call.finish !== true) return await switchSides(ways(call), "cutover", call);
        const { keepClosed = false } = call;
        const isCutOver = await finishSwitch(
          ways(call),
          async (ours) => await dropEitherWay(each, ways(call), { keepsFence: keepClosed }, ours),
          { keepClosed },
        );
        return finished(isCutOver ? "target" : "source");
      }),
    rollback: async (call = {}) =>
      await run("rollback", call, async (each) => {
        await assertOneWay(each);
        return await switchSides(ways(call), "rollback", call);
      }),
    drop: async (call = {}) =>
      await run("drop", call, async (each) => await dropEitherWay(each, ways(call), call)),
    [Symbol.asyncDispose]: async () => {
      isDisposed = true;
      await sessions.closeAll();
    },
  };
}

function finished(primary: SwitchReport["primary"]): SwitchReport {
  const nothing = {
    rehearsal: null,
    fenceSeconds: null,
    rowsCompared: null,
    sequences: null,
    leftInvalid: [],
  };
  return { result: "finished", primary, ...nothing };
}

/** The status of the way back under the sync's own name, where the sync goes that way; or of both. */
async function readStatusEitherWay(context: SyncContext, open: OpenWay): Promise<Status> {
  const status = await readStatus(context).catch(async (error: unknown) => {
    throw await explainTargetAway(context, error);
  });
  const { switch: known } = status;
  const isBack =
    known !== null &&
    (known.way === "cutover"
      ? (known.step === "open" || known.step === "opening") && known.isReversible
      : known.step === "preparing" || known.step === "fencing");
  if (!isBack && status.direction === "one-way") return status;
  try {
    const back = await readStatus(open("reverse"));
    const { sync, phase, fence, source, target } = status;
    if (isBack) return { ...turned(back), sync, source, target, phase, switch: known, fence };
    const { lag, follow, lastError } = back;
    return {
      ...status,
      phase: back.phase === "failed" ? back.phase : phase,
      // Whichever way it was: what is not over yet, else what was last.
      lastError:
        [status.lastError, lastError].filter((each) => each !== null).toSorted(moreUrgent)[0] ?? null,
      back: { lag, follow, lastError },
      notReplicated: [...new Set([...status.notReplicated, ...back.notReplicated])],
      notReplicatedReasons: { ...status.notReplicatedReasons, ...back.notReplicatedReasons },
    };
  } catch (error) {
    // The old side may be away.
    if (!(error instanceof ReplicateError) || error.retry !== "now") throw error;
    return { ...status, sourceError: error.message };
  }
}

/** What the way back says of its own source and target, in the words of the sync. */
function turned(back: Status): Status {
  const other = (side: Side): Side => (side === "source" ? "target" : "source");
  return {
    ...back,
    owed: { ...back.owed, side: other(back.owed.side) },
    waits: back.waits.map((wait) => ({ ...wait, side: other(wait.side) })),
  };
}

type LastError = NonNullable<Status["lastError"]>;

function moreUrgent(one: LastError, other: LastError): number {
  if (one.cleared !== other.cleared) return one.cleared ? 1 : -1;
  return one.at < other.at ? 1 : -1;
}

/** Fails at once where a server cannot be reached; work that has begun waits for servers to come back. */
async function reach(context: SyncContext, purpose: string): Promise<void> {
  await using _source = await context.source(purpose);
  await using _target = await context.target(purpose);
}
