/**
 * Both ways of a sync at once: changes go from source to target and back, batch by batch, never two at the same time. So
 * each way knows exactly how far the other has come, and what both sides changed meanwhile is a conflict.
 */
import { policyOf } from "../config/conflict-policy.ts";
import { ReplicateError } from "../errors.ts";
import type { Batch } from "../events.ts";
import type { Connection } from "../postgres/connect.ts";
import type { SyncContext } from "../state/context.ts";
import { ownNode } from "../state/node.ts";
import { reverseName, type Way } from "../state/switch.ts";
import { followSync, type FollowOptions } from "./follow.ts";
import type { OtherSide } from "./conflicts/other-side.ts";
import type { OtherWay } from "./other-way.ts";
import type { FollowSession } from "./session.ts";

class Turns {
  readonly #forward: SyncContext;
  #last: Promise<unknown> = Promise.resolve();
  readonly #sessions: Partial<Record<Way, FollowSession>> = {};
  /** How far the other way had come when the turn of this one began. */
  readonly #delivered: Record<Way, string | null> = { forward: null, reverse: null };
  readonly #isOnce: boolean;
  readonly #hasLooked = { forward: false, reverse: false };
  #isForwardLeased = false;
  /** Stays so: the way that sees it first closes its session. */
  #isOver = false;

  constructor(forward: SyncContext, isOnce: boolean) {
    this.#forward = forward;
    this.#isOnce = isOnce;
  }

  otherWay(way: Way): OtherWay {
    // oxlint-disable-next-line typescript/no-this-alias -- of the object below, `this` is another
    const turns = this;
    const other = way === "forward" ? "reverse" : "forward";
    return {
      way,
      alone: async (work) => {
        const turn = this.#last.then(work, work);
        this.#last = turn.catch(() => undefined);
        return await turn;
      },
      isReady: () => {
        const { forward, reverse } = this.#sessions;
        // A table joins forward first: with it comes all that is recorded, also what the way back had just brought, which
        // would be old news to the target.
        const isThere = forward?.tables.every(
          ({ state }) => state === "following" || (state === "copied" && way === "forward"),
        );
        const otherSide = this.#sessions[other];
        if (isThere !== true || reverse === undefined || otherSide === undefined) return false;
        // For the whole turn: a session that breaks meanwhile has come no further, and does not mean that it began anew.
        this.#delivered[way] = otherSide.position.snapshot;
        return true;
      },
      get session() {
        return turns.#sessions[way];
      },
      set session(session) {
        if (session === undefined) delete turns.#sessions[way];
        else turns.#sessions[way] = session;
      },
      get isLeased() {
        return way === "forward" && turns.#isForwardLeased;
      },
      set isLeased(isLeased) {
        if (way === "forward") turns.#isForwardLeased = isLeased;
      },
      get isLed() {
        return way === "forward" || turns.#isForwardLeased;
      },
      recordLook: (hasApplied) => {
        const looked = this.#hasLooked;
        if (hasApplied && !this.#isOnce) looked[other] = false;
        looked[way] = this.#isOnce || !hasApplied;
        this.#isOver ||= looked.forward && looked.reverse;
      },
      isOver: () => this.#isOver,
      isResting: () => this.#isOnce && this.#hasLooked[way],
      otherSide: async (source, target) =>
        await otherSideOf(this.#forward, way, source, target, () => this.#delivered[way]),
    };
  }
}

/** For a sync that goes one way to a target with changes of its own: nothing ever brings them back. */
export function noOtherWay(context: SyncContext, isOnce: boolean): OtherWay {
  let isOver = false;
  return {
    way: "forward",
    alone: async (work) => await work(),
    isReady: () => true,
    session: undefined,
    isLeased: false,
    isLed: true,
    recordLook: (hasApplied) => (isOver = isOnce || !hasApplied),
    isOver: () => isOver,
    isResting: () => false,
    otherSide: async (source, target) =>
      await otherSideOf(context, "forward", source, target, () => null, { isLone: true }),
  };
}

/** What the sessions of a way have to know where its target has changes of its own. */
async function otherSideOf(
  { config }: SyncContext,
  way: Way,
  source: Connection,
  target: Connection,
  delivered: () => string | null,
  { isLone = false } = {},
): Promise<OtherSide> {
  const base = config.name;
  return {
    base,
    way,
    isLone,
    node: await ownNode(source),
    reverseNode: await ownNode(target),
    sync: way === "forward" ? reverseName(base) : base,
    delivered,
    policyOf: (shape) => {
      const { schema, name } = way === "forward" ? shape.source : shape.target;
      return policyOf(config, schema, name);
    },
  };
}

/**
 * Follows both ways until stopped, as `followSync` does each; what one of them throws ends both. `open` makes the contexts;
 * the signal that it is given ends a way.
 */
export async function* followBothWays(
  open: (way: Way, signal: AbortSignal) => SyncContext,
  options: FollowOptions,
): AsyncGenerator<Batch> {
  const stop = new AbortController();
  const turns = new Turns(open("forward", stop.signal), options.once === true);
  const running = (["forward", "reverse"] as const).map((way) =>
    followSync(open(way, stop.signal), options, turns.otherWay(way)),
  );
  type Next = { readonly generator: AsyncGenerator<Batch>; readonly result: IteratorResult<Batch> };
  const next = async (generator: AsyncGenerator<Batch>): Promise<Next> => ({
    generator,
    result: await generator.next().catch((error: unknown) => {
      throw generator === running[1] ? wayBackError(error) : error;
    }),
  });
  const pending = new Map(running.map((generator) => [generator, next(generator)]));
  try {
    while (pending.size > 0) {
      const { generator, result } = await Promise.race(pending.values());
      if (result.done === true) {
        pending.delete(generator);
        continue;
      }
      pending.set(generator, next(generator));
      yield result.value;
    }
  } finally {
    stop.abort();
    await Promise.allSettled(pending.values());
    await Promise.allSettled(running.map(async (generator) => await generator.return(undefined)));
  }
}

/** What has to be done on a side: to the way back the user's source is the target. */
function wayBackError(error: unknown): unknown {
  const isAboutSides = error instanceof ReplicateError && /^(TABLE_SHAPE_CHANGED|CAPTURE_BROKEN)$/.test(error.code); // prettier-ignore
  if (!isAboutSides) return error;
  const { code, message, problems, hint } = error;
  const told = `${hint ?? ""} This is about changes that go from the target to the source: where it says target, your source is meant, and the other way round.`;
  return new ReplicateError(code, `${message} (from the target to the source)`, {
    problems,
    hint: told.trim(),
    cause: error,
  });
}
