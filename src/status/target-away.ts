/** What there is to say while the target, which has the state of a sync, cannot be reached. */
import { ReplicateError } from "../errors.ts";
import type { SyncContext } from "../state/context.ts";
import { readFence } from "../fence/fence.ts";

/** The error to throw for it: names a fence that stands on the source, and what opens it without the target. */
export async function explainTargetAway(context: SyncContext, error: unknown): Promise<unknown> {
  if (!(error instanceof ReplicateError) || error.retry !== "now") return error;
  try {
    await using source = await context.source("status");
    const fence = await readFence(source, context.config.name);
    // Sealed, it is that of a switch which is done, as far as can be told from here.
    if (fence === undefined || !fence.isUp || fence.isSealed) return error;
    return new ReplicateError(
      error.code,
      `${error.message}; meanwhile the source refuses writes of applications, since ${fence.fencedAt.toISOString()}`,
      {
        cause: error,
        hint: "Where no cutover is at work any more, `replicate cutover --undo` opens the source again; the target is not needed for it.",
      },
    );
  } catch {
    return error;
  }
}
