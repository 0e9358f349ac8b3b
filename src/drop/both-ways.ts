/** Drop, as a whole: the sync and its way back. */
import type { OpenWay } from "../reverse/ways.ts";
import { assertNotOthers } from "./others.ts";
import { dropSync, type DropOptions, type DropReport, type SourceOptions } from "./drop.ts";
import { ReplicateError } from "../errors.ts";
import { isConnectionFailure } from "../postgres/sqlstate.ts";
import type { SyncContext } from "../state/context.ts";
import type { Lease } from "../state/lease.ts";
import { stateVersion } from "../state/migrate.ts";
import { isRunnerAlive } from "../state/runner-lock.ts";
import { isSwitching, reverseName } from "../state/switch.ts";

/** Drops the way back too, where there is one. `ours`: the lease by which nobody else follows that. What refuses it is looked for before anything is removed. */
export async function dropEitherWay(
  context: SyncContext,
  open: OpenWay,
  options: SourceOptions,
  ours?: Lease,
): Promise<DropReport> {
  await assertInactive(open, options, ours);
  const reverse = open("reverse");
  const { sourceOnly = false, targetOnly = false, dryRun = false } = options;
  const back = await dropSync(
    reverse,
    { sourceOnly: targetOnly, targetOnly: sourceOnly, dryRun },
    ours,
  ).catch((error: unknown) => {
    if (error instanceof ReplicateError && error.code === "SYNC_UNKNOWN") return undefined;
    throw error;
  });
  const own = await dropSync(context, options).catch((error: unknown) => {
    if (back !== undefined && error instanceof ReplicateError && error.code === "SYNC_UNKNOWN")
      return undefined;
    throw error;
  });
  if (back === undefined && own !== undefined) return own;
  const turned = (back?.removed ?? []).map(({ side, object }) => ({
    side: side === "source" ? ("target" as const) : ("source" as const),
    object,
  }));
  return {
    removed: [...turned, ...(own?.removed ?? [])],
    restored: (back?.restored ?? 0) + (own?.restored ?? 0),
    leftInvalid: [...(back?.leftInvalid ?? []), ...(own?.leftInvalid ?? [])],
    dryRun,
  };
}

/** Throws RUNNER_ACTIVE while somebody follows the sync, whichever way, or switches it. */
async function assertInactive(
  open: OpenWay,
  { sourceOnly = false, targetOnly = false }: DropOptions,
  ours: Lease | undefined,
): Promise<void> {
  const forward = open("forward");
  const { name } = forward.config;
  try {
    await using target = await forward.target("drop");
    if ((await stateVersion(target)) > 0) {
      if (await isSwitching(target, name)) {
        throw new ReplicateError("RUNNER_ACTIVE", `sync ${name} is being switched by another process`, {
          hint: "Wait for it, or stop it: what it has begun goes with the sync.",
        });
      }
      if (!sourceOnly && (await isRunnerAlive(target, name))) throw followed(name);
    }
  } catch (error) {
    if (!sourceOnly || !isConnectionFailure(error)) throw error;
  }
  if (targetOnly) return;
  // One side alone is dropped as it is.
  if (!sourceOnly) for (const way of ["forward", "reverse"] as const) await assertNotOthers(open(way));
  await using source = await forward.source("drop");
  if ((await stateVersion(source)) > 0 && (await isRunnerAlive(source, reverseName(name), ours)))
    throw followed(name);
}

function followed(sync: string): ReplicateError {
  return new ReplicateError("RUNNER_ACTIVE", `sync ${sync} is being followed`, {
    hint: "Stop that runner first.",
  });
}
