/** Which way a sync goes now, for the calls that are not about switching it. */
import { ReplicateError } from "../errors.ts";
import type { Batch } from "../events.ts";
import { followSync, type FollowOptions } from "../follow/follow.ts";
import { followBothWays, noOtherWay } from "../follow/two-ways.ts";
import type { Connection } from "../postgres/connect.ts";
import { sleep } from "../postgres/sleep.ts";
import type { SyncContext } from "../state/context.ts";
import { assertSetUp, readSetUp } from "../state/two-way.ts";
import { isClosed, isCutOver, isSwitching, readSwitch, type Switch } from "../state/switch.ts";
import { suspendTriggers } from "../reverse/reverse.ts";
import type { OpenWay } from "../reverse/ways.ts";
import type { Way } from "../state/switch.ts";

export interface Direction {
  readonly way: Way;
  readonly known: Switch | undefined;
}

/** Throws CONFIG_INVALID where the settings are not those of the sync, see `assertSetUp`. */
export async function directionOf(open: OpenWay, isExtending = false): Promise<Direction> {
  const forward = open("forward");
  await using state = await forward.target("direction");
  await assertSetUp(state, forward.config, isExtending);
  const known = await readSwitch(state, forward.config.name);
  return { way: isCutOver(known) ? "reverse" : "forward", known };
}

/** Throws CUTOVER_STATE where a sync goes both ways: there is nothing to switch. */
export async function assertOneWay(forward: SyncContext): Promise<void> {
  const { config } = forward;
  await using state = await forward.target("direction");
  const { direction } = await readSetUp(state, config.name);
  if (direction === "one-way" && config.direction === "one-way") return;
  throw new ReplicateError(
    "CUTOVER_STATE",
    `sync ${config.name} goes both ways: there is no side to switch to`,
    {
      hint: "Applications may write to either side. End the sync with `replicate drop` when one side is to stay alone.",
    },
  );
}

/** Throws CUTOVER_STATE where the sync is cut over, because what is asked for goes from source to target only. */
export async function assertForward(open: OpenWay, doing: string): Promise<void> {
  const { way } = await directionOf(open, doing === "init");
  if (way === "forward") return;
  throw new ReplicateError(
    "CUTOVER_STATE",
    `${doing} is not possible: sync ${open("forward").config.name} is cut over`,
    {
      hint: "Go back first (`replicate rollback`), or end it (`replicate cutover --finish`) and make a new sync.",
    },
  );
}

/**
 * Throws RUNNER_ACTIVE while a process switches the sync, and CUTOVER_STATE where one has begun and did not end: what is
 * asked for would change what was prepared.
 */
export async function assertNoSwitch(open: OpenWay, doing: string): Promise<void> {
  const forward = open("forward");
  const { name } = forward.config;
  await using state = await forward.target("direction");
  const known = await readSwitch(state, name);
  if (known === undefined || known.step === "open") return;
  if (await isSwitching(state, name)) {
    throw new ReplicateError(
      "RUNNER_ACTIVE",
      `${doing} is not possible now: sync ${name} is being switched`,
      {
        hint: "Look at `replicate status`, and wait for it to end.",
      },
    );
  }
  throw interrupted(name, known);
}

const WAIT_MS = 500;

/**
 * Follows the way that the sync goes, and turns round when it is switched meanwhile. Throws as `followSync` does, and
 * CUTOVER_STATE where there is nothing to follow.
 */
export async function* followEitherWay(open: OpenWay, options: FollowOptions): AsyncGenerator<Batch> {
  const { name, direction, tracksTarget } = open("forward").config;
  if (direction === "both") {
    if ((await unlessStopped(open, async () => await directionOf(open))) === undefined) return;
    yield* followBothWays((way, signal) => open(way, { isCut: false, signal }), options);
    return;
  }
  for (;;) {
    const current = await unlessStopped(open, async () => await settled(open));
    if (current === undefined) return;
    const { way, known } = current;
    if (way === "reverse" && known?.isReversible === false) {
      throw new ReplicateError(
        "CUTOVER_STATE",
        `sync ${name} was cut over with --no-reverse: there is nothing to follow`,
        {
          hint: "End it with `replicate cutover --finish`.",
        },
      );
    }
    const context = open(way, { isCut: false });
    // What the switch has given back to the side that is written to by us alone from now on.
    if (known !== undefined && (known.step === "open" || known.step === "opening" || !known.isRestored))
      await unlessStopped(open, async () => await suspendTriggers(context));
    if (context.signal.aborted) return;
    let isOver = false;
    try {
      const isEnding = async (source: Connection, target: Connection): Promise<boolean> => {
        const now = await readSwitch(way === "forward" ? target : source, name);
        isOver = isCutOver(now) !== (way === "reverse");
        return isOver;
      };
      const otherWay =
        tracksTarget && way === "forward" ? noOtherWay(context, options.once === true) : undefined;
      yield* followSync(context, { ...options, isOver: isEnding }, otherWay);
    } catch (error) {
      const isTaken = error instanceof ReplicateError && error.code === "RUNNER_ACTIVE";
      const now = await directionOf(open).catch(() => undefined);
      isOver = now !== undefined && now.way !== way;
      const isClosedNow = now !== undefined && (await isWayClosed(context).catch(() => false));
      if (!isOver && !isTaken && !isClosedNow) throw error;
      // Whoever switches the sync follows it meanwhile where nobody else does, and closes its way before it opens the new
      // side.
      if (!isOver && !(await isBeingSwitched(open)))
        throw isTaken && !isClosedNow ? error : interrupted(name, now?.known);
      if (!isOver) {
        await sleep(WAIT_MS, context.signal).catch(() => undefined);
        if (context.signal.aborted) return;
        continue;
      }
    }
    if (!isOver || context.signal.aborted) return;
    const turned = way === "forward" ? "from the target to the source" : "from the source to the target";
    context.emit({ type: "switch-step", step: `the sync was switched: following ${turned} from now on` });
  }
}

/** A stop is no failure: returns undefined then, and the caller ends. */
async function unlessStopped<T>(open: OpenWay, work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (open("forward").signal.aborted) return undefined;
    throw error;
  }
}

async function isWayClosed(context: SyncContext): Promise<boolean> {
  await using target = await context.target("direction");
  return await isClosed(target, context.config.name);
}

function interrupted(sync: string, known: Switch | undefined): ReplicateError {
  const way = known?.way ?? "cutover";
  return new ReplicateError("CUTOVER_STATE", `the ${way} of sync ${sync} was interrupted`, {
    hint:
      known?.step === "opening"
        ? `Complete it: run \`replicate ${way}\` again.`
        : `Undo it with \`replicate ${way} --undo\`, or run \`replicate ${way}\` again.`,
  });
}

async function isBeingSwitched(open: OpenWay): Promise<boolean> {
  const forward = open("forward");
  await using state = await forward.target("direction");
  return await isSwitching(state, forward.config.name);
}

/** Waits for a switch that is just being completed, unless whoever was at it is gone. */
async function settled(open: OpenWay): Promise<Direction> {
  for (;;) {
    const found = await directionOf(open);
    const { known } = found;
    if (known?.step !== "opening") return found;
    const forward = open("forward");
    if (!(await isBeingSwitched(open))) {
      // Between the two looks it may have been completed.
      const now = await directionOf(open);
      if (now.known?.step !== "opening") return now;
      // The new side is open: what is written there is brought back, whatever is still to be done.
      forward.emit({
        type: "warning",
        message: `the ${known.way} was interrupted after the opening: run \`replicate ${known.way}\` again to complete it`,
      });
      return now;
    }
    await sleep(WAIT_MS, forward.signal);
  }
}
