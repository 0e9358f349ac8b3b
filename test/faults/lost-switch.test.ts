import { expect, test } from "vitest";

import { type CutoverOptions, type Sync } from "../../src/index.ts";
import { sleepAt } from "../support/asleep.ts";
import { compareDatabases } from "../support/compare.ts";
import { schemaOf } from "../support/copy-setup.ts";
import { drain, openPrepared, rows, schema } from "../support/cutover-setup.ts";
import { freePair, type Pair } from "../support/database.ts";
import { onBoth, type Side } from "../support/follow-setup.ts";
import { dieAt, type Orders, type Runner } from "../support/torture.ts";
import { until } from "../support/until.ts";

// A process that switches a sync sleeps at some step and loses the right to do so: its session was cut, and another process
// has taken over. When it wakes up it must stop, and change nothing on either side.

type Verb = "cutover" | "rollback";

const syncOf = (pair: Pair): Orders["sync"] => ({
  name: "shop",
  source: pair.source.url,
  target: pair.target.url,
  env: {},
  keylessLimit: 0,
});

const sleepIn = async (pair: Pair, step: string, verb: Verb, cutover: CutoverOptions): Promise<Runner> =>
  await sleepAt(step, { sync: syncOf(pair), verbs: [verb], cutover });

/** Cuts the session by which it has the right to switch. */
async function cutOff(pair: Pair): Promise<void> {
  const cut = await pair.target.sql(
    `select pg_terminate_backend(a.pid) from pg_stat_activity a join replicate.lease l on l.backend = a.pid where l.name = 'switch shop'`,
  );
  expect(cut).toHaveLength(1);
  await until("the session is gone", async () => {
    const left = await pair.target.sql(
      `select from pg_stat_activity a join replicate.lease l on l.backend = a.pid where l.name = 'switch shop'`,
    );
    return left.length === 0;
  });
}

/** All that a switch might change. */
async function factsOf(side: Side): Promise<unknown> {
  const tables = await side.sql<{ name: string }>(
    `select relname as name from pg_class where relnamespace = 'replicate'::regnamespace and relkind = 'r' order by 1`,
  );
  const contents: Record<string, unknown> = {};
  for (const { name } of tables) {
    contents[name] = await side.sql(
      `select (to_jsonb(t) - array['expires_at', 'seen_at', 'backend', 'backend_start'])::text as row from replicate.${name} t order by 1`,
    );
  }
  const functions = await side.sql(
    `select proname, prosrc from pg_proc where pronamespace = 'replicate'::regnamespace order by 1, 2`,
  );
  const values = await side.sql(`select last_value, is_called from ticket`);
  return { contents, functions, values, schema: await schemaOf(side) };
}

const takesWrites = async (side: Side): Promise<boolean> =>
  await side
    .sql("update touched set times = times where false")
    .then(() => true, (error: { code?: string }) => { if (error.code !== "25006") throw error; return false; }); // prettier-ignore

/** Wakes the sleeper up, who must have changed nothing by the time it has ended. */
async function wake(pair: Pair, sleeper: Runner): Promise<void> {
  const known = [await factsOf(pair.source), await factsOf(pair.target)];
  sleeper.kill("SIGCONT");
  expect((await sleeper.ended).code, sleeper.complaint()).toBe(4);
  expect(sleeper.complaint()).toContain("another process has taken over the switch of sync shop");
  expect([await factsOf(pair.source), await factsOf(pair.target)]).toEqual(known);
}

interface Story {
  /** What others do meanwhile. A process that it leaves asleep goes on afterwards. */
  readonly others: (sync: Sync, pair: Pair) => Promise<Runner | undefined>;
  /** Which side takes writes in the end. */
  readonly open: "source" | "target";
}

const stories: Record<string, Story> = {
  "another one undoes it": {
    others: async (sync) => {
      expect((await sync.cutover({ undo: true })).result).toBe("undone");
      return undefined;
    },
    open: "source",
  },
  "another one completes it": {
    others: async (sync) => {
      expect((await sync.cutover()).result).toBe("switched");
      return undefined;
    },
    open: "target",
  },
  "another one takes it up, and is about to open the target": {
    others: async (_, pair) => await sleepIn(pair, "cutover.sealed", "cutover", {}),
    open: "target",
  },
  "another one undoes it, and a third is about to open the target": {
    others: async (sync, pair) => {
      await sync.cutover({ undo: true });
      return await sleepIn(pair, "cutover.sealed", "cutover", {});
    },
    open: "target",
  },
  "another one completes it and goes back": {
    others: async (sync) => {
      await sync.cutover();
      await drain(sync);
      expect((await sync.rollback()).result).toBe("switched");
      return undefined;
    },
    open: "source",
  },
  "another one completes it, and a third is about to go back": {
    others: async (sync, pair) => {
      await sync.cutover();
      return await sleepIn(pair, "cutover.sealed", "rollback", {});
    },
    open: "source",
  },
};

const [undone, completed, takenUp, anew, back, goingBack] = Object.keys(stories) as [string, string, string, string, string, string]; // prettier-ignore

/** By the step at which the first process sleeps. */
const cases: [step: string, story: string, first: CutoverOptions][] = [
  ["cutover.marked", completed, {}],
  ["cutover.captured", undone, {}],
  ["cutover.begun", anew, {}],
  ["cutover.covered", takenUp, {}],
  ["cutover.raised", anew, {}],
  ["cutover.fencing", completed, {}],
  ["cutover.fenced", takenUp, {}],
  ["cutover.drained", undone, {}],
  ["cutover.carried", anew, {}],
  ["cutover.closed", completed, {}],
  ["cutover.restored", undone, {}],
  ["cutover.placed", anew, {}],
  ["cutover.sealed", undone, {}],
  ["cutover.sealed", anew, {}],
  ["cutover.sealed", takenUp, {}],
  ["cutover.opened", goingBack, {}],
  ["cutover.new-side-lifted", back, {}],
  ["cutover.told", goingBack, {}],
  ["cutover.hooked", back, {}],
  ["cutover.retired", goingBack, {}],
  ["cutover.undo.lifted", anew, { undo: true }],
  ["cutover.undo.forgotten", completed, { undo: true }],
  ["cutover.lifted", anew, { undo: true }],
];

test.for(cases)("asleep at %s, while %s", { timeout: 180_000 }, async ([step, story, first]) => {
  const { others, open } = stories[story] as Story;
  await using pair = await freePair({ leaks: "ignore" });
  await onBoth(pair, schema);
  await pair.source.sql(rows);
  const { sync } = await openPrepared(pair);
  await using _ = sync;
  if (first.undo === true) await dieAt("cutover.placed", { sync: syncOf(pair), verbs: ["cutover"] });
  const sleeper = await sleepIn(pair, step, "cutover", { onOpen: "true", ...first });
  let successor: Runner | undefined;
  try {
    await cutOff(pair);
    successor = await others(sync, pair);
    await wake(pair, sleeper);
    successor?.kill("SIGCONT");
    if (successor !== undefined) expect((await successor.ended).code, successor.complaint()).toBe(0);
  } finally {
    sleeper.kill("SIGKILL");
    successor?.kill("SIGKILL");
  }
  expect({ source: await takesWrites(pair.source), target: await takesWrites(pair.target) }).toEqual({
    source: open === "source",
    // Before the first cutover the target is not fenced.
    target: open === "target" || story === undone,
  });
  await pair[open].sql("insert into account (name) values ('after')");
  await drain(sync);
  expect((await compareDatabases(pair.source.url, pair.target.url)).differences).toEqual([]);
  await sync.drop();
});
