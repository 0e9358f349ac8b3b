/**
 * Keeps others from waiting for locks that long statements of ours hold. A statement that wants a strong lock on a
 * table we read waits for us, and everybody else who comes to that table waits behind it: we give way.
 */
import type { Connection } from "./connect.ts";
import { load } from "./sql.ts";

/** Pause between two looks. Whoever is seen waiting twice has waited for long enough. */
export const LOOK_MS = 100;
/** The watching session is kept for so long after it was last used. */
const REST_MS = 3000;

/** Who waits for whom, from look to look. */
export class Patience {
  #seen = new Set<string>();

  /** Pids of those among `pids` for whom somebody waits who did so at the last look already. */
  async look(session: Connection, pids: readonly number[]): Promise<Set<number>> {
    const found = await session.rows<{ waiter: number; pid: number }>(load("catalog/waiters"), [pids]);
    const name = ({ waiter, pid }: { waiter: number; pid: number }): string => `${waiter} ${pid}`;
    const blocking = found.filter((each) => this.#seen.has(name(each)));
    this.#seen = new Set(found.map(name));
    return new Set(blocking.map(({ pid }) => pid));
  }
}

/**
 * Looks, several times a second and from a session of its own, whether anybody waits for one of the watched sessions, and
 * cancels what that session is doing: its statement fails with QUERY_CANCELED, and the caller ends the transaction and
 * tries again later. Where that does not help, the session is ended. A session that is idle in its transaction is cancelled at its next statement that is still running
 * at the next look.
 */
export class LockWatch {
  readonly #open: () => Promise<Connection>;
  readonly #watched = new Set<Connection>();
  readonly #patience = new Patience();
  /** Backends that were cancelled at the last look. */
  #cancelled: ReadonlySet<number> = new Set();
  #usedAt = 0;
  #session: Promise<Connection> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> = Promise.resolve();
  #isClosed = false;

  /** `open` opens the watching session; it is called when there is something to watch, and again when it broke. */
  constructor(open: () => Promise<Connection>) {
    this.#open = open;
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

  /** Closes the watching session when nothing has been watched for a while: its connection is for others. */
  async rest(): Promise<void> {
    if (this.#session === undefined || this.#watched.size > 0) return;
    if (Date.now() - this.#usedAt < REST_MS) return;
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
    }, LOOK_MS);
  }

  async #look(): Promise<void> {
    const pids = [...this.#watched].filter((each) => !each.isBroken).map((each) => each.pid);
    if (pids.length === 0) return;
    try {
      this.#usedAt = Date.now();
      const session = await this.#watcher();
      const blocking = await this.#patience.look(session, pids);
      // A session that is sending what we do not take hears of a cancellation only when we do.
      for (const pid of blocking)
        await session.rows(
          `select pg_catalog.${this.#cancelled.has(pid) ? "pg_terminate_backend" : "pg_cancel_backend"}($1)`,
          [pid],
        );
      this.#cancelled = blocking;
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
