/** Setting up a sync whose target has changes of its own: the way back, names, and what has to be so before a copy. */
import { policyLabel } from "./conflict-policy.ts";
import { beginOpposite, plantOpposite } from "./cutover/opposite.ts";
import { withBoth, type OpenWay } from "./cutover/ways.ts";
import { ReplicateError } from "./errors.ts";
import type { Side } from "./events.ts";
import type { Connection } from "./postgres/connect.ts";
import type { SyncContext } from "./state/context.ts";
import { clockDifference, nameNodes, strangeNodes } from "./state/node.ts";
import { countParked } from "./state/parked.ts";
import { isRunnerAlive } from "./state/runner-lock.ts";
import { loadTables } from "./state/sync-table.ts";
import { assertSetUp, readSetUp, writeSetUp } from "./state/two-sided.ts";

/** Clocks that differ by less are taken to agree. */
const CLOCK_SECONDS = 0.5;

/** Captures what applications change on the target, so that conflicts are found, and changes can go both ways. */
export async function initBack(open: OpenWay): Promise<void> {
  const forward = open("forward");
  const { config } = forward;
  const entries = await withBoth(forward, "init", async (source, target) => {
    const { isTwoSided } = await readSetUp(target, config.name);
    // It would go on as before, and what it applies would be taken for changes of an application.
    if (!isTwoSided && (await isRunnerAlive(target, config.name))) {
      throw new ReplicateError("RUNNER_ACTIVE", `sync ${config.name} is being followed one way`, {
        hint: "Stop `replicate follow`, run this again, and start it with the new settings.",
      });
    }
    await refuseParked(target, config.name);
    const names = await nameNodes(source, target, config.nodes);
    await checkDeciding(forward, source, target, names);
    await writeSetUp(target, config);
    return await loadTables(target, config.name);
  });
  const reverse = open("reverse");
  await plantOpposite(reverse, entries, true);
  await beginOpposite(reverse);
}

/** Rows that were put aside while the sync went one way would be overwritten by the target's, unseen. */
async function refuseParked(target: Connection, sync: string): Promise<void> {
  const rows = [...(await countParked(target, sync)).values()].reduce((sum, count) => sum + count, 0);
  if (rows === 0) return;
  throw new ReplicateError("CONFIG_INVALID", `sync ${sync} has ${rows} parked rows`, {
    hint: "Settle them first: `replicate parked` lists them, and they are tried again while the sync is followed as before.",
  });
}

/** What decides conflicts has to be the same everywhere: names that somebody has, and clocks that agree. */
async function checkDeciding(
  { config, emit }: SyncContext,
  source: Connection,
  target: Connection,
  names: Readonly<Record<Side, string>>,
): Promise<void> {
  const policies = [
    config.conflict,
    ...Object.values(config.overrides).flatMap(({ conflict }) => conflict ?? []),
  ];
  for (const policy of policies) {
    if (policy.kind !== "order") continue;
    const missing = Object.values(names).filter((name) => !policy.nodes.includes(name));
    if (missing.length > 0) {
      throw new ReplicateError(
        "CONFIG_INVALID",
        `${policyLabel(policy)} does not name ${missing.join(", ")}`,
        {
          hint: "Name both databases in the order, as they are called (nodes).",
        },
      );
    }
    const strange = await strangeNodes(target, policy.nodes);
    if (strange.length > 0)
      emit({
        type: "warning",
        message: `${policyLabel(policy)}: no database is called ${strange.join(", ")} so far`,
      });
  }
  if (!policies.some(({ kind }) => kind === "latest" || kind === "latest-column")) return;
  const { seconds, uncertainty } = await clockDifference(source, target);
  if (Math.abs(seconds) <= uncertainty + CLOCK_SECONDS) return;
  const side = seconds > 0 ? "target" : "source";
  emit({
    type: "warning",
    message: `the ${side}'s clock is ${Math.abs(seconds).toFixed(1)} s ahead: among changes closer together than that, latest prefers those of the ${side}`,
  });
}

/**
 * Throws CONFIG_INVALID as `assertSetUp` does, and RUNNER_ACTIVE where a runner of a two-way sync could write to tables
 * that are read for the copy.
 */
export async function assertCopy(context: SyncContext): Promise<void> {
  const { config } = context;
  await using target = await context.target("copy");
  await assertSetUp(target, config);
  if (config.direction === "both" && (await isRunnerAlive(target, config.name))) {
    throw new ReplicateError("RUNNER_ACTIVE", `sync ${config.name} goes both ways and is being followed`, {
      hint: "Stop `replicate follow` for the time of the copy.",
    });
  }
}
