import { setTimeout as sleep } from "node:timers/promises";

import { connect } from "../../test/support/admin.ts";
import type { Sides } from "./command.ts";

export interface Load {
  /** Beside the heartbeat; 0 for none. */
  commitsPerSecond: number;
  seconds: number;
}

export interface Lag {
  /** From the end of a commit on the source until a reader of the target sees the row. */
  lagsMs: number[];
  /** What was reached. */
  commitsPerSecond: number;
}

const heartbeatMs = 50;
const lookMs = 2;
const writers = 4;
const patienceMs = 30_000;

/** Writes a row every 50 ms beside a load on `account`, and looks for it on the target every 2 ms. */
export async function measureLag(sides: Sides, load: Load): Promise<Lag> {
  const source = await connect(sides.source);
  const target = await connect(sides.target);
  const stopping = new AbortController();
  try {
    // Above what an earlier measurement may have left on the target.
    const { rows: last } = await source.query<{ id: number }>(
      "select coalesce(max(id), 0) + 1 as id from heartbeat",
    );
    const first = last[0]?.id ?? 1;
    // The time that following takes to start, and to apply what waits, is not lag.
    await source.query("insert into heartbeat (id) values ($1)", [first]);
    await waitFor(target, first);
    const commits = { count: 0 };
    const writing = Array.from({ length: writers }, () =>
      write(sides.source, load, commits, stopping.signal),
    );
    await sleep(1000);
    commits.count = 0;
    const startedAt = performance.now();

    const writtenAt: number[] = [];
    const seenAt: number[] = [];
    const beats = Math.round((load.seconds * 1000) / heartbeatMs);
    const beating = (async () => {
      for (let id = 1; id <= beats; id++) {
        await source.query("insert into heartbeat (id, at) values ($1, clock_timestamp())", [first + id]);
        writtenAt[id] = performance.now();
        const nextAt = startedAt + id * heartbeatMs;
        await sleep(Math.max(0, nextAt - performance.now()));
      }
    })();
    for (let seen = 0; seen < beats;) {
      const { rows } = await target.query<{ id: number }>("select max(id) as id from heartbeat");
      const now = performance.now();
      for (; seen < (rows[0]?.id ?? 0) - first; seen++) seenAt[seen + 1] = now;
      if (now - startedAt > load.seconds * 1000 + patienceMs)
        throw new Error(`beat ${seen} of ${beats} never came`);
      await sleep(lookMs);
    }
    await beating;
    const seconds = (performance.now() - startedAt) / 1000;
    const reached = commits.count / seconds;
    stopping.abort();
    await Promise.all(writing);
    // The target may show a row before the source's answer has come back: no lag then.
    const lagsMs = seenAt.slice(1).map((at, index) => Math.max(0, at - (writtenAt[index + 1] ?? at)));
    return { lagsMs, commitsPerSecond: reached };
  } finally {
    stopping.abort();
    await Promise.all([source.end(), target.end()]);
  }
}

async function waitFor(target: Awaited<ReturnType<typeof connect>>, id: number): Promise<void> {
  const deadline = performance.now() + patienceMs;
  for (;;) {
    const { rowCount } = await target.query("select from heartbeat where id = $1", [id]);
    if (rowCount === 1) return;
    if (performance.now() > deadline) throw new Error("nothing is being applied");
    await sleep(20);
  }
}

/** One of several writers: so many commits a second, or fewer where the server cannot keep up. */
async function write(
  url: string,
  { commitsPerSecond }: Load,
  commits: { count: number },
  signal: AbortSignal,
): Promise<void> {
  if (commitsPerSecond === 0) return;
  const client = await connect(url);
  const everyMs = (1000 * writers) / commitsPerSecond;
  let nextAt = performance.now() + Math.random() * everyMs;
  try {
    while (!signal.aborted) {
      await sleep(Math.max(0, nextAt - performance.now()), undefined, { signal }).catch(() => undefined);
      // Missed turns are not made up for: that would be a load of another kind.
      nextAt = Math.max(nextAt + everyMs, performance.now());
      const id = 1 + Math.floor(Math.random() * 100_000);
      await client.query("update account set balance = balance + 1 where id = $1", [id]);
      commits.count++;
    }
  } finally {
    await client.end();
  }
}
