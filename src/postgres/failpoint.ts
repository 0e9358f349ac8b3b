/**
 * Named steps at which a test can have the process die. The environment variable REPLICATE_FAILPOINT names one, or
 * `name:3` for the third time it is reached. Without the variable nothing happens.
 */

/** Every step there is, in the order of the data's way. */
export const failpoints = [
  "init.source-registered",
  "init.captured",
  "copy.prepare.saved",
  "copy.prepare.dropped",
  "copy.prepare.truncated",
  "copy.prepare.planned",
  "copy.prepare.committed",
  "copy.part.taken",
  "copy.part.snapshot",
  "copy.part.loaded",
  "copy.part.committed",
  "owed.taken",
  "owed.restored",
  "owed.marked",
  "owed.committed",
  "owed.validated",
  "batch.read",
  "batch.staged",
  "batch.committed",
  "rotate.switched",
  "rotate.truncated",
  "drop.detached",
  "drop.forgotten",
] as const;

const wanted = process.env["REPLICATE_FAILPOINT"];
const [wantedName, wantedTime = "1"] = (wanted ?? "").split(":");
let reached = 0;

/** Whether a test waits for a step: statements that otherwise share a round trip then go one by one. */
export const hasFailpoint: boolean = wanted !== undefined && wanted !== "";

/** Ends the process here, as by `kill -9`, when the environment asks for it. */
export async function failpoint(name: string): Promise<void> {
  if (wanted === undefined || name !== wantedName) return;
  reached++;
  if (reached < Number(wantedTime)) return;
  process.kill(process.pid, "SIGKILL");
  // The signal is delivered at once, but not before this line can run.
  await new Promise(() => undefined);
}
