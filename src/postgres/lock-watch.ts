/**
 * Keeps others from waiting for locks that long statements of ours hold. A statement that wants a strong lock on a
 * table we read waits for us, and everybody else who comes to that table waits behind it: we give way.
 */
import type { Connection } from "./connect.ts";

const defaultIntervalMs = 1000;

// Waiters show in pg_locks to every role, unlike the details of pg_stat_activity.
const cancelBlockersSql = `
  select b.pid, pg_catalog.pg_cancel_backend(b.pid) as "isCancelled"
  from (select distinct blocker.pid
        from pg_catalog.pg_locks l
        cross join lateral pg_catalog.unnest(pg_catalog.pg_blocking_pids(l.pid)) as blocker (pid)
        where not l.granted and blocker.pid = any ($1::int[])) as b`;

/**
 * Looks, once a second and from a session of its own, whether anybody waits for one of the watched sessions, and
 * cancels what that session is doing: its statement fails with QUERY_CANCELED, and the caller ends the transaction and
 * tries again later. A session that is idle in its transaction is cancelled at its next statement that is still running
 * at the next look.
 */
export class LockWatch {
  readonly #open: () => Promise<Connection>;
  readonly #intervalMs: number;
  readonly #watched = new Set<Connection>();
  #session: Promise<Connection> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> = Promise.resolve();
  #isClosed = false;

  /** `open` opens the watching session; it is called when there is something to watch, and again when it broke. */
  constructor(open: () => Promise<Connection>, intervalMs: number = defaultIntervalMs) {
    this.#open = open;
    this.#intervalMs = intervalMs;
  }

  /** Opens the watching session now. Throws as `connect` does. */
  async open(): Promise<void> {
    await this.#watcher();
  }

  watch(connection: Connection): void {
    this.#watched.add(connection);
    this.#schedule();
  }

  unwatch(connection: Connection): void {
    this.#watched.delete(connection);
  }

  /** Closes the watching session while nothing is watched: its connection is for others. */
  async rest(): Promise<void> {
    if (this.#session === undefined || this.#watched.size > 0) return;
    await this.#looking;
    const session = this.#session;
    this.#session = undefined;
    await (await session?.catch(() => undefined))?.close();
  }

  /** Cancels what a session on the same server is doing. Returns false if the server could not be asked to. */
  async cancel(connection: Connection): Promise<boolean> {
    // A second time, because a watching session that broke may show so only when it is used.
    for (let tries = 0; tries < 2 && !connection.isBroken; tries += 1) {
      try {
        const session = await this.#watcher();
        await session.rows(`select pg_catalog.pg_cancel_backend($1)`, [connection.pid]);
        return true;
      } catch {
        continue;
      }
    }
    return false;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    await this.#looking;
    const session = await this.#session?.catch(() => undefined);
    await session?.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #schedule(): void {
    if (this.#timer !== undefined || this.#isClosed) return;
    this.#timer = setTimeout(() => {
      this.#looking = this.#look().finally(() => {
        this.#timer = undefined;
        if (this.#watched.size > 0) this.#schedule();
      });
    }, this.#intervalMs);
  }

  async #look(): Promise<void> {
    const pids = [...this.#watched].filter((each) => !each.isBroken).map((each) => each.pid);
    if (pids.length === 0) return;
    try {
      const session = await this.#watcher();
      await session.rows(cancelBlockersSql, [pids]);
    } catch {
      // The next look opens another session; whoever waits is no worse off than with a server that we cannot reach.
    }
  }

  async #watcher(): Promise<Connection> {
    const current = await this.#session?.catch(() => undefined);
    if (current !== undefined && !current.isBroken) return current;
    this.#session = this.#open();
    return await this.#session;
  }
}
