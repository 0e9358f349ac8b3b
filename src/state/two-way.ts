/** Whether a sync captures both sides, and which ways it goes: as it was set up, and as the settings at hand say. */
import type { Direction, ResolvedConfig } from "../config/options.ts";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";

interface SetUp {
  readonly isKnown: boolean;
  readonly direction: Direction;
  readonly tracksTarget: boolean;
}

/** How the sync was set up; one that is not known goes one way. `target`: of the sync. */
export async function readSetUp(target: Connection, sync: string): Promise<SetUp> {
  const { exists } = await target.row<{ exists: boolean }>(
    `select pg_catalog.to_regclass('replicate.sync') is not null as exists`,
  );
  if (!exists) return { isKnown: false, direction: "one-way", tracksTarget: false };
  const [found] = await target.rows<{ direction: Direction | null; tracksTarget: boolean | null }>(
    `select settings ->> 'direction' as direction, (settings ->> 'tracksTarget')::boolean as "tracksTarget"
     from replicate.sync where name = $1`,
    [sync],
  );
  return {
    isKnown: found !== undefined,
    direction: found?.direction ?? "one-way",
    tracksTarget: found?.tracksTarget ?? false,
  };
}

/** Remembers how the sync is set up, once both sides are captured as that needs. */
export async function writeSetUp(
  target: Connection,
  { name, direction, tracksTarget }: ResolvedConfig,
): Promise<void> {
  await target.rows(`update replicate.sync set settings = settings || $2::jsonb where name = $1`, [
    name,
    JSON.stringify({ direction, tracksTarget }),
  ]);
}

/**
 * Throws CONFIG_INVALID where the settings at hand are not those that the sync was set up with: changes of the target would
 * be overwritten unseen. `isExtending`: it is about to be set up with more than before.
 */
export async function assertSetUp(
  target: Connection,
  config: ResolvedConfig,
  isExtending = false,
): Promise<void> {
  const known = await readSetUp(target, config.name);
  if (!known.isKnown) return;
  const isMore = config.tracksTarget && (config.direction === "both" || known.direction === "one-way");
  if (isExtending && isMore) return;
  const fail = (subject: string, message: string): never => {
    throw new ReplicateError(
      "CONFIG_INVALID",
      `sync ${config.name} was set up with other settings: ${subject} ${message}`,
      {
        problems: [{ subject, message }],
        hint: "Use the settings that `replicate init` was run with, or run it again with those that shall hold from now on.",
      },
    );
  };
  if (known.direction !== config.direction)
    fail(
      "direction",
      `is ${config.direction}, and the sync goes ${known.direction === "both" ? "both ways" : "one way"}`,
    );
  if (known.tracksTarget !== config.tracksTarget) {
    fail(
      "conflict",
      known.tracksTarget
        ? "is source-wins, and the sync was set up to find conflicts by another policy"
        : "needs the target's changes to be captured, and they are not",
    );
  }
}
