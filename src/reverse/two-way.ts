/** Setting up a sync whose target has changes of its own: the way back, names, and what has to be so before a copy. */
import type { ResolvedConfig } from "../config/options.ts";
import { countPending } from "../conflict/log.ts";
import { policyLabel } from "../config/conflict-policy.ts";
import { beginReverse, createReverse } from "./reverse.ts";
import { withBoth, type OpenWay } from "./ways.ts";
import { foreignSql, windowCountSql } from "../catalog/delta.ts";
import { tableLabel } from "../catalog/table.ts";
import type { CopyOptions } from "../copy/copy.ts";
import { ReplicateError } from "../errors.ts";
import type { Side } from "../events.ts";
import type { Connection } from "../postgres/connect.ts";
import type { SyncContext } from "../state/context.ts";
import { clockDifference, nameNodes, strangeNodes } from "../state/node.ts";
import { countParked } from "../state/parked.ts";
import { isRunnerAlive } from "../state/runner-lock.ts";
import { reverseName } from "../state/switch.ts";
import { loadTables } from "../state/sync-table.ts";
import { assertSetUp, readSetUp, writeSetUp } from "../state/two-way.ts";

/** Clocks that differ by less are taken to agree. */
const CLOCK_SECONDS = 0.5;

/** Captures what applications change on the target, so that conflicts are found, and changes can go both ways. */
export async function initBack(open: OpenWay): Promise<void> {
  const forward = open("forward");
  const { config } = forward;
  const entries = await withBoth(forward, "init", async (source, target) => {
    const { tracksTarget } = await readSetUp(target, config.name);
    // It would go on as before, and what it applies would be taken for changes of an application.
    if (!tracksTarget && (await isRunnerAlive(target, config.name))) {
      throw new ReplicateError("RUNNER_ACTIVE", `sync ${config.name} is being followed one way`, {
        hint: "Stop `replicate follow`, run this again, and start it with the new settings.",
      });
    }
    await assertNoneParked(target, config.name);
    const names = await nameNodes(source, target, config.nodes);
    await checkDeciding(forward, source, target, names);
    await writeSetUp(target, config);
    return await loadTables(target, config.name);
  });
  const reverse = open("reverse");
  await createReverse(reverse, entries, true);
  await beginReverse(reverse);
}

/** Rows that were parked while the sync went one way would be overwritten by the target's, unseen. */
async function assertNoneParked(target: Connection, sync: string): Promise<void> {
  const rows = [...(await countParked(target, sync)).values()].reduce((sum, count) => sum + count, 0);
  if (rows === 0) return;
  throw new ReplicateError(
    "CONFIG_INVALID",
    `sync ${sync} has ${rows} parked rows, and a sync that tracks the target's changes can have none`,
    {
      hint: "Settle them first: `replicate parked` lists them, and they are tried again while the sync is followed as before.",
    },
  );
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
 * that are read for the copy; TARGET_NOT_EMPTY where a new copy would overwrite changes that the source lacks.
 */
export async function assertCopy(
  context: SyncContext,
  { restart, remap, overwrite, tables }: CopyOptions,
): Promise<void> {
  const { config } = context;
  await using target = await context.target("copy");
  await assertSetUp(target, config);
  if (config.direction === "both" && (await isRunnerAlive(target, config.name))) {
    throw new ReplicateError("RUNNER_ACTIVE", `sync ${config.name} goes both ways and is being followed`, {
      hint: "Stop `replicate follow` for the time of the copy.",
    });
  }
  const isAnew = restart === true || remap === true;
  if (!config.tracksTarget || !isAnew || overwrite === true) return;
  await using source = await context.source("copy");
  await assertDelivered(config, source, target, tables);
}

/** What a new copy would overwrite without a word. */
async function assertDelivered(
  { name: sync, direction }: ResolvedConfig,
  source: Connection,
  target: Connection,
  only: readonly string[] | undefined,
): Promise<void> {
  const [way] = await source.rows<{ snapshot: string | null }>(
    `select position as snapshot from replicate.sync where name = $1`,
    [reverseName(sync)],
  );
  const captured = await target.rows<{ id: number; relid: number }>(
    `select c.id, c.relid::bigint::float8 as relid from replicate.subscription s join replicate.capture c on c.id = s.capture_id
     where s.sync = $1 and c.tracks_origin`,
    [reverseName(sync)],
  );
  for (const { state, sourceSchema, sourceName, ...table } of await loadTables(target, sync)) {
    if (state === "new" || only?.includes(tableLabel({ schema: sourceSchema, name: sourceName })) === false)
      continue;
    const capture = captured.find(({ relid }) => relid === table.targetRelid);
    if (capture === undefined) continue;
    const { n } = await target.row<{ n: number }>(
      `select n::float8 as n from (${windowCountSql(capture.id, way?.snapshot ?? null, foreignSql({ tracksOrigin: true }, sync))}) as w`,
    );
    const label = tableLabel({ schema: table.targetSchema, name: table.targetName });
    if (n > 0) {
      throw new ReplicateError(
        "TARGET_NOT_EMPTY",
        `the target's ${label} has changes that the source lacks`,
        {
          side: "target",
          hint: `${direction === "both" ? "Bring them over with `replicate follow --until-caught-up`, or add" : "Add"} --overwrite to lose them.`,
        },
      );
    }
    const pending =
      (await countPending(source, sync, table.sourceRelid)) +
      (await countPending(target, sync, table.targetRelid));
    if (pending === 0) continue;
    throw new ReplicateError("TARGET_NOT_EMPTY", `${label} has conflicts that are not resolved: ${pending}`, {
      hint: "Resolve them with `replicate conflicts resolve`, or add --overwrite, which resolves them with the source.",
    });
  }
}
