import { ReplicateError, type Sync, type SyncEvent } from "../../index.ts";
import { open, printResult, wasStopped, type Command, type CommandContext } from "../command.ts";
import { count } from "../../text/format.ts";

/** How following ended, and what it did meanwhile. */
interface FollowResult {
  readonly batches: number;
  readonly rows: number;
  /** The source snapshot that the target equals; null if no batch was applied. */
  readonly position: string | null;
  readonly reason: "stopped" | "caught-up" | "once" | "asked";
  /** The command that asked for the end, where one did. */
  readonly askedBy?: string;
}

export const follow: Command = async (context) => {
  await using sync = await open(context);
  const result = await applyBatches(sync, context);
  printResult(context, result);
  printFollow(context, result);
  assertFinished(context, result);
  return 0;
};

/** Follows until the end or until stopped, which is no failure: every batch is complete or not there at all. */
export async function applyBatches(
  sync: Sync,
  { values, signal, progress, listeners, output }: CommandContext,
): Promise<FollowResult> {
  const once = values.once === true;
  const untilCaughtUp = values["until-caught-up"] === true;
  const standby = values.standby === true;
  output.log.info(
    {},
    untilCaughtUp || once ? "applying changes" : "following; SIGINT or SIGTERM ends it cleanly",
  );
  let batches = 0;
  let rows = 0;
  let position: string | null = null;
  let askedBy: string | undefined;
  const listen = (event: SyncEvent): void => {
    if (event.type === "asked-to-end") askedBy = event.by;
  };
  listeners.add(listen);
  try {
    for await (const batch of sync.follow({ untilCaughtUp, once, standby, signal })) {
      batches++;
      rows += batch.rows;
      position = batch.position;
      progress.batch(batch);
    }
  } catch (error) {
    if (!wasStopped(error, signal)) throw error;
  } finally {
    listeners.delete(listen);
    output.endProgress(true);
  }
  const done = { batches, rows, position };
  if (signal.aborted) return { ...done, reason: "stopped" };
  if (askedBy !== undefined) return { ...done, reason: "asked", askedBy };
  return { ...done, reason: once ? "once" : "caught-up" };
}

/** Who asked for an end that was not reached must not go on as if it had been: throws ABORTED. */
export function assertFinished({ values }: CommandContext, { reason, askedBy }: FollowResult): void {
  const isCut = reason === "stopped" || reason === "asked";
  if (!isCut || (values["until-caught-up"] !== true && values.once !== true)) return;
  const end = values.once === true ? "one batch was applied" : "the target had caught up";
  const by = askedBy === undefined ? "" : ` by \`${askedBy}\``;
  throw new ReplicateError("ABORTED", `follow was stopped${by} before ${end}`);
}

export function printFollow(
  { output }: CommandContext,
  { batches, rows, reason, askedBy }: FollowResult,
): void {
  const asked = `ended, because \`${askedBy}\` asked for it`;
  const ended = { stopped: "stopped", "caught-up": "caught up", once: "done", asked }[reason];
  output.print(`${ended}: ${count(batches, "batch", "batches")} with ${count(rows, "row")} applied`);
}
