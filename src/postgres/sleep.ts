/** Waits that end early when the work is to stop. */
import { ReplicateError } from "../errors.ts";

/** Resolves after `ms` milliseconds. Throws ABORTED as soon as the signal fires. */
export async function sleep(ms: number, signal: AbortSignal): Promise<void> {
  throwIfAborted(signal);
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", onAbort);
      resolve();
    }, ms);
    const onAbort = (): void => {
      clearTimeout(timer);
      reject(aborted());
    };
    signal.addEventListener("abort", onAbort, { once: true });
  });
}

export function throwIfAborted(signal: AbortSignal): void {
  if (signal.aborted) throw aborted();
}

function aborted(): ReplicateError {
  return new ReplicateError("ABORTED", "stopped on request");
}
