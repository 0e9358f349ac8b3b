/** Keeps a sync followed while it is switched: by the runner that is there, or else by one of our own. */
import { ReplicateError } from "../errors.ts";
import { followSync } from "../follow/follow.ts";
import type { Connection } from "../postgres/connect.ts";
import { sleep } from "../postgres/sleep.ts";
import type { SyncContext } from "../state/context.ts";
import { isRunnerAlive } from "../state/runner-lock.ts";
import { askReload, isCovered } from "./ask-reload.ts";
import { countPending, owingReload } from "./pending.ts";

/** Between two looks at how far the target is. */
const LOOK_MS = 25;
/** What is pending is counted when the target has moved on, and else so often: some of it can go without a batch. */
const COUNT_MS = 500;
/** Between two looks at whether a runner is alive. */
const ALIVE_MS = 1000;

async function positionOf(target: Connection, sync: string): Promise<string | null> {
  const { position } = await target.row<{ position: string | null }>(
    `select position from replicate.sync where name = $1`,
    [sync],
  );
  return position;
}

export class Follower {
  readonly #context: SyncContext;
  readonly #stop: AbortController;
  #running: Promise<void> | undefined;
  #failure: unknown;
  #checkedAt = 0;
  /** Rows per second that were applied by us, while there was something to apply. */
  rate: number | undefined;

  /** `stop` ends our runner; the context's signal has to follow it, and must not cut its sessions. */
  constructor(context: SyncContext, stop: AbortController) {
    this.#context = context;
    this.#stop = stop;
  }

  /** Sees to it that somebody follows. Throws what our own runner failed with. */
  async ensure(target: Connection): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#running !== undefined || Date.now() - this.#checkedAt < ALIVE_MS) return;
    this.#checkedAt = Date.now();
    if (await isRunnerAlive(target, this.#context.config.name)) return;
    this.#running = this.#run().finally(() => (this.#running = undefined));
  }

  async #run(): Promise<void> {
    try {
      // What would join now could not be fenced any more.
      for await (const batch of followSync(this.#context, { leavesNewTables: true })) {
        if (batch.rows > 0 && batch.seconds > 0) this.rate = batch.rows / batch.seconds;
      }
    } catch (error) {
      // Somebody else was faster.
      if (error instanceof ReplicateError && error.code === "RUNNER_ACTIVE") return;
      this.#failure = error;
    }
  }

  /**
   * Has all tables that has a deferred reload read again, whatever their size, and waits for it. One that changes on may owe
   * another one afterwards. Throws ABORTED, or what following failed with.
   */
  async reload(source: Connection, target: Connection, signal: AbortSignal): Promise<void> {
    const { name } = this.#context.config;
    const asked = await askReload(source, await owingReload(target, name));
    for (let tries = 1; asked !== null && !(await isCovered(target, name, asked)); tries += 1) {
      await this.ensure(target);
      await sleep(Math.min(LOOK_MS * tries, 10 * LOOK_MS), signal);
    }
  }

  /**
   * Waits until at most so many deltas are pending, and returns how many are; until none are, reloads included, if that is
   * wanted. Throws ABORTED, or what following failed with.
   */
  async reach(most: number, source: Connection, target: Connection, signal: AbortSignal): Promise<number> {
    const asked = new Set<number>();
    const { name } = this.#context.config;
    for (;;) {
      await this.ensure(target);
      if (most === 0) {
        const owing = (await owingReload(target, name)).filter(({ captureId }) => !asked.has(captureId));
        await askReload(source, owing);
        for (const { captureId } of owing) asked.add(captureId);
      }
      const from = await positionOf(target, name);
      const pending = await countPending(source, target, name);
      if (pending <= most) return pending;
      const countedAt = Date.now();
      // Counting takes longer than a look, and keeps the source from other work.
      do {
        await sleep(LOOK_MS, signal);
        await this.ensure(target);
      } while ((await positionOf(target, name)) === from && Date.now() - countedAt < COUNT_MS);
    }
  }

  /** Ends our own runner, if there is one. */
  async end(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }
}
