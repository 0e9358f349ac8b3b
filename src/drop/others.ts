/** What a drop must not take for its own: another sync of the same name, which one of the two sides has with somebody else. */
import { ReplicateError } from "../errors.ts";
import { placeOf, placeText } from "../postgres/place.ts";
import type { SyncContext } from "../state/context.ts";
import { describeHolder, leaseHolder, leaseName } from "../state/lease.ts";
import { stateVersion } from "../state/migrate.ts";
import { isClosedSource, assertNotExpelled } from "../state/source-identity.ts";
import { baseName } from "../catalog/delta.ts";

/**
 * Throws RUNNER_ACTIVE while somebody reads the source for this way of the sync, whatever target he has; SYNC_EXPELLED where the
 * source has given this target up and may have another; and SYNC_MISMATCH where each side has its sync with somebody else. A
 * source or target that was restored is no other: to drop it is the way out.
 */
export async function assertNotOthers(context: SyncContext): Promise<void> {
  const { name, source: given } = context.config;
  await using source = await context.source("drop");
  if ((await stateVersion(source)) === 0) return;
  const reader = await leaseHolder(source, leaseName("reader", name));
  if (reader !== undefined) {
    throw new ReplicateError(
      "RUNNER_ACTIVE",
      `sync ${baseName(name)} is being followed from ${source.place}: ${describeHolder(reader)}`,
      { hint: "Stop that runner first. Is its target another one, this sync is not to be dropped here." },
    );
  }
  const [kept] = await source.rows<{ token: string; previous: string }>(
    `select token, previous_token as previous from replicate.source_sync where name = $1`,
    [name],
  );
  await using target = await context.target("drop");
  if (kept === undefined || (await stateVersion(target)) === 0) return;
  const [sync] = await target.rows<{ token: string; label: string }>(
    `select token, source_label as label from replicate.sync where name = $1`,
    [name],
  );
  const token = sync?.token ?? "";
  if (sync === undefined || token === "" || isClosedSource(kept.token)) return;
  if ([kept.token, kept.previous].includes(token)) return;
  await assertNotExpelled(source, name, token);
  if (sync.label === given.label) return;
  throw new ReplicateError(
    "SYNC_MISMATCH",
    `sync ${baseName(name)} of ${target.place} has ${sync.label} on its other side, and not ${placeText(placeOf(given))}, which has a sync of that name with another database`,
    {
      hint: `Give both sides of one sync. Or drop one side alone: --target-only or --source-only.`,
    },
  );
}
