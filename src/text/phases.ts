/** The phases of a sync in words, and what follows from them. */
import type { Status } from "../index.ts";

/** Below, a lag and its trend are noise. */
export const leastLagSeconds = 10;
export const leastTrend = 0.02;

export const phases: Readonly<Record<Status["phase"], string>> = {
  new: "nothing is set up yet",
  initialised: "changes are being recorded on the source; no rows are copied yet",
  copying: "the rows are being copied",
  copied: "the rows are copied; the changes since then wait to be applied",
  "catching-up": "applying the changes that have piled up",
  following: "the target keeps up with the source",
  fenced: "applications cannot write: neither side is open",
  "cut-over": "applications write to the target",
  failed: "stopped by an error",
};

export function phaseText({ phase, runner }: Pick<Status, "phase" | "runner">): string {
  return phase === "following" && !runner.alive
    ? "stopped: changes wait until it is followed again"
    : phases[phase];
}

export function isFallingBehind({ seconds, trend }: Status["lag"]): boolean {
  return seconds !== null && trend !== null && seconds > leastLagSeconds && trend > leastTrend;
}

function slowStep({ lag }: Status): string | undefined {
  return isFallingBehind(lag)
    ? "more is written to the source than the target takes: look at the target's disk and locks, or let large jobs on the source wait"
    : undefined;
}

function fencedStep({ switch: known }: Status, name: string): string | undefined {
  const way = known?.way ?? "cutover";
  return known?.isRunning === true
    ? undefined
    : `at once: replicate ${way} --undo${name} opens the old side again; replicate ${way}${name} goes on to the new one`;
}

function cutOverStep({ switch: known, runner }: Status, name: string): string | undefined {
  if (known?.isRunning === true) return undefined;
  if (known?.step === "opening") return `complete it: replicate cutover${name}`;
  const finish = `replicate cutover --finish${name}, when there is no going back`;
  if (known?.isReversible === false) return finish;
  return runner.alive ? finish : `nobody keeps the source current for a rollback: replicate follow${name}`;
}

/** What there is to do next for whoever looks after the sync; undefined: nothing. `name`: ` --name SYNC`, or nothing. */
export function nextStep(status: Status, name: string): string | undefined {
  const { phase, runner } = status;
  const follow = `replicate follow${name}`;
  const steps: Readonly<Record<Status["phase"], string | undefined>> = {
    new: `replicate init${name}`,
    initialised: `replicate copy${name}`,
    copying: runner.alive
      ? undefined
      : `if no copy is running, the same command resumes it: replicate copy${name}`,
    copied: runner.alive ? undefined : follow,
    "catching-up": runner.alive ? slowStep(status) : `nobody applies changes: ${follow}`,
    following: runner.alive ? slowStep(status) : `nobody applies changes: ${follow}`,
    fenced: fencedStep(status, name),
    "cut-over": cutOverStep(status, name),
    failed: `when that is settled: ${follow}`,
  };
  return steps[phase];
}
