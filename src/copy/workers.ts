/** Who works on a run: the workers for parts and indexes, and what runs beside them, on as many connections as there are. */
import { ReplicateError } from "../errors.ts";
import { asReplicateError } from "../postgres/sqlstate.ts";
import { assertConnectionBudget, isOverBudget } from "../state/connection-budget.ts";
import type { CopyRun } from "./run.ts";
import { reportProgress, yieldToWaiters } from "./watch.ts";
import { copyWorker, indexWorker } from "./work.ts";

/** A worker for parts and the watch for waiters; a worker for parts and one for indexes. */
const LEAST_CONNECTIONS = { source: 2, target: 2 };

/**
 * Runs all workers; the first error stops the others and is thrown once they have closed their sessions. Where the
 * servers allow fewer connections than that takes, those that can be done without stay away.
 */
export async function runWorkers(run: CopyRun, stop: AbortController): Promise<void> {
  const done = new AbortController();
  let failure: { readonly error: unknown } | undefined;
  const guard = async (task: Promise<void>): Promise<void> => {
    try {
      await task;
    } catch (error) {
      failure ??= { error };
      stop.abort();
    }
  };
  await assertConnectionBudget(run.context, "copy", LEAST_CONNECTIONS);
  const watching = newStart();
  const copying = newStart();
  const indexing = newStart();
  const beside = [guard(yieldToWaiters(run, done.signal, watching.onOpen))];
  const workers = [copyWorker(run, copying.onOpen), indexWorker(run, indexing.onOpen)].map(guard);
  // Whatever else takes connections must not take theirs.
  await Promise.race([
    Promise.all([watching.opened, copying.opened, indexing.opened]),
    ...beside,
    ...workers,
  ]);
  const spare = [
    ...Array.from({ length: run.jobs - 1 }, () => copyWorker(run)),
    ...Array.from({ length: run.indexJobs - 1 }, () => indexWorker(run)),
  ];
  workers.push(...unlessOverBudget(run, spare).map(guard));
  beside.push(...unlessOverBudget(run, [reportProgress(run, done.signal)]).map(guard));
  await Promise.all(workers);
  done.abort();
  await Promise.all(beside);
  if (failure === undefined) return;
  if (run.context.signal.aborted)
    throw new ReplicateError("ABORTED", "the copy was stopped", { cause: failure.error });
  throw asReplicateError(failure.error, "the copy failed");
}

/** Says when a worker has its sessions. */
function newStart(): { readonly opened: Promise<void>; readonly onOpen: () => void } {
  let onOpen = (): void => undefined;
  const opened = new Promise<void>((resolve) => (onOpen = resolve));
  return { opened, onOpen };
}

/** Workers that end when there is no connection to be had for them; said once. */
function unlessOverBudget(run: CopyRun, tasks: readonly Promise<void>[]): Promise<void>[] {
  let isSaid = false;
  return tasks.map(async (task) => {
    try {
      await task;
    } catch (error) {
      if (!isOverBudget(error)) throw error;
      if (!isSaid) {
        const message = `goes on with fewer connections than asked for: ${error.message}`;
        run.context.emit({ type: "warning", message });
      }
      isSaid = true;
    }
  });
}
