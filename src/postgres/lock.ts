/**
 * Locks on tables that an application uses. Whoever waits for a strong lock makes every later statement on the table
 * wait behind it, so we wait only briefly, let everybody pass, and try again.
 */
import { ReplicateError } from "../errors.ts";
import type { Connection } from "./connect.ts";
import { literal } from "./sql.ts";
import { LOCK_NOT_AVAILABLE, sqlstateOf } from "./sqlstate.ts";
import { sleep } from "./sleep.ts";

export interface LockRetryOptions {
  /** For messages: the table's name. */
  readonly what: string;
  readonly signal: AbortSignal;
  /** Called before each pause, with those who hold the lock. */
  onWait?(blockedBy: string, attempt: number): void;
  /** Give up after this many milliseconds. Default 15 minutes. */
  readonly budgetMs?: number;
  /** No attempt waits for longer, in milliseconds; the pauses are as long as ever. Default 400. */
  readonly longestMs?: number;
}

/**
 * Milliseconds that each attempt may wait; the last one repeats. Well below the server's deadlock_timeout (1 s unless it was
 * changed): where a table and its partitions are locked one after the other, it is we who give up, not an application.
 */
const waits = [50, 150, 400];
/** Pause after an attempt, as a multiple of its wait: most of the time nobody queues behind us. */
const pauseFactor = 3;

/**
 * Runs `work` in a transaction with a short lock_timeout, again and again until it gets its locks. Throws
 * LOCK_NOT_AVAILABLE, naming who holds them, when the budget is spent.
 */
export async function withBriefLocks<T>(
  connection: Connection,
  options: LockRetryOptions,
  work: () => Promise<T>,
): Promise<T> {
  const deadline = Date.now() + (options.budgetMs ?? 15 * 60_000);
  for (let attempt = 1; ; attempt += 1) {
    const waitMs = waits[Math.min(attempt, waits.length) - 1] as number;
    try {
      const longestMs = Math.min(waitMs, options.longestMs ?? waitMs);
      const result = await connection.transaction(work, `begin; set local lock_timeout = ${longestMs}`);
      if (attempt > 1) await showWait(connection, undefined);
      return result;
    } catch (error) {
      if (sqlstateOf(error) !== LOCK_NOT_AVAILABLE && sqlstateOf(error) !== "40P01") throw error;
      const blockedBy = await oldestTransaction(connection);
      if (Date.now() > deadline) {
        throw new ReplicateError("LOCK_NOT_AVAILABLE", `no lock on ${options.what}: ${blockedBy}`, {
          cause: error,
          hint: "End that transaction, or run the command again when it is over. Nothing of yours waits meanwhile.",
        });
      }
      if (attempt === 1) await showWait(connection, options.what);
      options.onWait?.(blockedBy, attempt);
      await sleep(waitMs * pauseFactor, options.signal);
    }
  }
}

/**
 * Shows in pg_stat_activity that this session tries to lock `what`, or that it does not any more: between two attempts
 * there is no lock that could be seen to be waited for.
 */
async function showWait(connection: Connection, what: string | undefined): Promise<void> {
  await connection.rows(
    `select pg_catalog.set_config('application_name', pg_catalog.split_part(pg_catalog.current_setting('application_name'), ' waits: ', 1) || $1, false)`,
    [what === undefined ? "" : ` waits: ${what}`],
  );
}

/** In words: the oldest other transaction of this database, which is most likely who we wait for, and those that are prepared. */
async function oldestTransaction(connection: Connection): Promise<string> {
  const [oldest] = await connection.rows<{ pid: number; user: string; state: string; seconds: number }>(
    `select pid, coalesce(usename, '?')::text as user, coalesce(state, 'state not shown') as state,
            round(extract(epoch from clock_timestamp() - xact_start))::int as seconds
     from pg_catalog.pg_stat_activity
     where datname = pg_catalog.current_database() and pid <> pg_catalog.pg_backend_pid()
       and xact_start is not null
     order by xact_start limit 1`,
  );
  // Nobody's session has them any more: they hold their locks until somebody ends them by name.
  const prepared = await connection.rows<{ gid: string; owner: string; since: string }>(
    `select gid, owner::text as owner, pg_catalog.to_char(prepared, 'YYYY-MM-DD HH24:MI:SS TZ') as since
     from pg_catalog.pg_prepared_xacts where database = pg_catalog.current_database() order by prepared limit 5`,
  );
  const holders = [
    ...prepared.map(({ gid, owner, since }) => {
      const name = literal(gid);
      return `prepared transaction ${name} of ${owner}, since ${since} (end it with: commit prepared ${name}; or: rollback prepared ${name};)`;
    }),
    ...(oldest === undefined
      ? []
      : [
          `the oldest transaction is pid ${oldest.pid} of ${oldest.user}, ${oldest.state}, open for ${oldest.seconds} s`,
        ]),
  ];
  return holders.length === 0 ? "its holder is not visible to this role" : holders.join("; ");
}
