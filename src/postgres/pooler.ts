/**
 * Whether a session is ours alone. A pool gives one server session to many clients, so nothing may be changed in a session
 * before this is known: whatever is set would stay for the next client, which may be an application.
 *
 * A server announces the pid of its process when a client logs in, and tells the same one when asked in SQL. Something in
 * between that hands out sessions logs clients in itself and makes the number up. Where the two are the same, nothing is in
 * between, and that is all there is to ask. Where they differ, it is a pool, which will do if it keeps a session for a client
 * as long as he is connected. That cannot be asked either, but seen, from the pids of the sessions that answer: his never
 * changes, and a second client never gets it. In transaction or statement mode a session goes back after every statement.
 * The one that was given back last is the next to be given away, as a rule, and then the second client gets that of the
 * first; or it is the last to be, and then each gets another one every time, unless there is but one, for both.
 */
import { ReplicateError } from "../errors.ts";
import type { Side } from "../events.ts";

/** The pid of the server session that answers. */
export type Ask = () => Promise<number>;

/** Who asks: first the orders that give every orderly pool away, and then any, as no application keeps time with that. */
const ORDER = [1, 0, 0, 1, 1, 0, 1, 0];
const RANDOM_LOOKS = 10;

/** What was found holds for so long, in milliseconds: a command opens many sessions, and a pool may be set up anew. */
const VALID_MS = 60_000;

const known = new Map<string, { readonly until: number; readonly verdict: Promise<boolean> }>();

/** True where each of two clients keeps its session. `pid`: of the one that has answered the first of them. */
export async function keepsSessions(pid: number, first: Ask, second: Ask): Promise<boolean> {
  const secondPid = await second();
  const pids = [pid, secondPid];
  if (secondPid === pid) return false;
  const random = Array.from({ length: RANDOM_LOOKS }, () => (Math.random() < 0.5 ? 0 : 1));
  for (const client of [...ORDER, ...random]) {
    if ((await (client === 0 ? first : second)()) !== pids[client]) return false;
  }
  return true;
}

/**
 * Throws POOLER_IN_BETWEEN where the pool `name` shares sessions between clients, as `look` finds out, unless it was looked at
 * a moment ago.
 */
export async function assertKeepsSessions(
  side: Side,
  label: string,
  name: string,
  look: () => Promise<boolean>,
): Promise<void> {
  let found = known.get(name);
  if (found === undefined || found.until < Date.now()) {
    found = { until: Date.now() + VALID_MS, verdict: look() };
    known.set(name, found);
    found.verdict.then(
      (keeps) => keeps || known.delete(name),
      () => known.delete(name),
    );
  }
  if (await found.verdict) return;
  throw new ReplicateError(
    "POOLER_IN_BETWEEN",
    `the ${side} ${label} is reached through a pool that gives a session to others after each transaction (transaction or statement mode)`,
    { side },
  );
}
