/** A command that has to have a sync for itself: whoever follows it is asked to end, and nobody else may begin meanwhile. */
import { randomUUID } from "node:crypto";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { sleep } from "../postgres/sleep.ts";
import type { SyncContext } from "../state/context.ts";
import { askToEnd, describeHolder, takeLease, type Lease } from "../state/lease.ts";
import { migrateOlder } from "../state/migrate.ts";
import { runnerLease } from "../state/runner-lock.ts";
import { baseName } from "../catalog/delta.ts";

/** Between two looks. */
const LOOK_MS = 200;
/** A runner ends within two seconds, unless it is in the middle of a long batch. */
const PATIENCE_MS = 2 * 60_000;

/**
 * Takes the way for `target`, a session on its target that keeps it until it is closed. `by`: the command, for whoever is
 * asked. Throws RUNNER_ACTIVE where he does not end, ABORTED.
 */
export async function takeOver(
  { config, emit, signal }: SyncContext,
  target: Connection,
  by: string,
): Promise<Lease> {
  await migrateOlder(target);
  const lease = runnerLease(config.name, randomUUID());
  const deadline = Date.now() + PATIENCE_MS;
  let asked: string | undefined;
  const withdraw = async (): Promise<void> => {
    // Whoever did not end in time must not do so later, when nobody waits for it any more.
    if (asked !== undefined && !target.isBroken)
      await askToEnd(target, { ...lease, token: asked }, null).catch(() => undefined);
  };
  try {
    for (;;) {
      const { isTaken, before } = await takeLease(target, lease, { isBound: true });
      if (isTaken) return lease;
      if (before !== undefined) {
        const who = describeHolder(before);
        if (Date.now() > deadline) {
          throw new ReplicateError(
            "RUNNER_ACTIVE",
            `sync ${baseName(config.name)} is being followed, and its runner does not end: ${who}`,
            { hint: "Stop that process, then run the same command again." },
          );
        }
        if (before.token !== asked) emit({ type: "switch-step", step: `asking the runner to end (${who})` });
        asked = before.token;
        await askToEnd(target, { ...lease, token: before.token }, by);
      }
      await sleep(LOOK_MS, signal);
    }
  } catch (error) {
    await withdraw();
    throw error;
  }
}
