/**
 * Named steps at which a test can have the process die. The environment variable REPLICATE_FAILPOINT names one, or
 * `name:3` for the third time it is reached; with `name:1:stop` it is paused there, until it is sent SIGCONT. Without the
 * variable nothing happens.
 */

import type { Connection, Results } from "./connect.ts";

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
  "deferred.taken",
  "deferred.restored",
  "deferred.marked",
  "deferred.committed",
  "deferred.moved",
  "deferred.validated",
  "batch.read",
  "batch.staged",
  "schema.changed",
  "schema.recorded",
  "schema.built",
  "batch.committed",
  "join.created",
  "join.captured",
  "join.registered",
  "join.copied",
  "conflict.recorded",
  "conflict.decided",
  "conflict.returned",
  "conflict.settled",
  "conflict.begun",
  "conflict.key-recorded",
  "parked.written",
  "rotate.switched",
  "rotate.truncated",
  "cutover.marked",
  "cutover.reload-asked",
  "cutover.retention-point-set",
  "cutover.retention-point-moved",
  "cutover.captured",
  "cutover.planted",
  "cutover.begun",
  "cutover.covered",
  "cutover.raised",
  "cutover.fencing",
  "cutover.fenced",
  "cutover.drained",
  "cutover.verified",
  "cutover.carried",
  "cutover.closed",
  "cutover.restored",
  "cutover.placed",
  "cutover.sealed",
  "cutover.opened",
  "cutover.told",
  "cutover.new-side-lifted",
  "cutover.hooked",
  "cutover.detached",
  "cutover.retired",
  "cutover.lifted",
  "cutover.undo.lifted",
  "cutover.undo.forgotten",
  "cutover.stood-by",
  "interleave.target-committed",
  "drop.detached",
  "drop.forgotten",
] as const;

const wanted = process.env["REPLICATE_FAILPOINT"];
const [wantedName, wantedTime = "1", wantedEnd = "kill"] = (wanted ?? "").split(":");
let reached = 0;

/** Whether a test waits for a step. */
const isArmed = wanted !== undefined && wanted !== "";

/** Ends the process here, as by `kill -9`, when the environment asks for it. */
export async function failpoint(name: string): Promise<void> {
  if (wanted === undefined || name !== wantedName) return;
  reached++;
  if (reached < Number(wantedTime)) return;
  if (wantedEnd === "stop") {
    if (reached === Number(wantedTime)) process.kill(process.pid, "SIGSTOP");
    return;
  }
  process.kill(process.pid, "SIGKILL");
  // The signal is delivered at once, but not before this line can run.
  await new Promise(() => undefined);
}

/**
 * Runs statements in one round trip, and returns their results. When a test waits for a step, they go step by step, and
 * each step's name is a failpoint after it.
 */
export async function inSteps(
  connection: Connection,
  steps: readonly (readonly [name: string, statements: readonly string[]])[],
): Promise<Results> {
  if (!isArmed) {
    const statements = steps.flatMap(([, each]) => each);
    return statements.length === 0 ? [] : await connection.script(statements.join(";\n"));
  }
  const results: Results[number][] = [];
  for (const [name, statements] of steps) {
    if (statements.length === 0) continue;
    results.push(...(await connection.script(statements.join(";\n"))));
    await failpoint(name);
  }
  return results;
}
