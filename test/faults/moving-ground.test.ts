import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { freePair } from "../support/database.ts";
import { seededRandom } from "../support/random.ts";
import { startFollowed } from "../support/follow-setup.ts";

// Tables are emptied, filled, rewritten and moved about while they are read, and nobody waits for us: what a batch has read
// of one that was changed under its snapshot must never be applied. Money moves from table to table, and its sum shows at
// each moment on the target whether it is the source's of one moment.

const TABLES = 6;
const ROWS = 2000;
const names = Array.from({ length: TABLES }, (_, n) => `m${n + 1}`);
const sumSql = `select sum(amount)::int as sum, count(*)::int as rows from (${names.map((name) => `select amount from ${name}`).join(" union all ")}) as x`;

test.each(["13", "18"])("version %s: what is read while its ground moves is not applied", async (version) => {
  const random = seededRandom("moving-ground");
  await using pair = await freePair({ source: version, target: "18" });
  await using followed = await startFollowed(
    pair,
    names
      .map((name) => `create table ${name} (id int primary key, amount int not null, note text);
        insert into ${name} select g, 100, repeat('n', 200) from generate_series(1, ${ROWS}) g;`)
      .join("\n"),
  ); // prettier-ignore
  await followed.drain();
  const total = { sum: TABLES * ROWS * 100, rows: TABLES * ROWS };
  const end = new AbortController();
  const done = { moves: 0, empties: 0, rewrites: 0, watches: 0, batches: 0 };
  const turns = async (
    what: keyof typeof done,
    pauseMs: number,
    work: () => Promise<unknown>,
  ): Promise<void> => {
    while (!end.signal.aborted) {
      await work();
      done[what] += 1;
      await sleep(random.next() * pauseMs);
    }
  };
  const [mover, emptier, rewriter] = await Promise.all([1, 2, 3].map(async () => await pair.source.client()));
  const moves = turns("moves", 5, async () => {
    const [from, to] = random.shuffle(names) as [string, string];
    const range = `id between ${random.int(1, ROWS)} and ${ROWS}`;
    // Some rows each, as many on both sides.
    await mover?.query(`begin;
      lock table ${[from, to].toSorted().join(", ")} in share row exclusive mode;
      update ${from} set amount = amount - 1 where ${range};
      update ${to} set amount = amount + 1 where ${range}; commit`);
  });
  // So rarely that batches get through in between: each of these makes the one that is being read begin anew.
  const empties = turns("empties", 2000, async () => {
    const name = random.pick(names);
    await emptier?.query(`begin;
      lock table ${name} in access exclusive mode;
      create temporary table kept on commit drop as select * from ${name};
      truncate ${name};
      insert into ${name} select id, amount, note from kept;
      commit`);
  });
  const rewrites = turns("rewrites", 2000, async () => {
    const name = random.pick(names);
    await rewriter?.query(
      random.pick([
        `alter table ${name} alter column amount type int using amount + 0`,
        `vacuum full ${name}`,
        `alter table ${name} alter column note set statistics 50`,
      ]),
    );
  });
  const wrong: unknown[] = [];
  const watches = turns("watches", 5, async () => {
    // A reader of all tables and a batch that empties several may stand in each other's way.
    const found = await pair.target.sql(sumSql).then(
      ([row]) => row,
      (error: unknown) => ((error as { code?: string }).code === "40P01" ? total : error),
    );
    if (JSON.stringify(found) !== JSON.stringify(total)) wrong.push(found);
  });
  const following = (async () => {
    for await (const _ of followed.sync.follow({ signal: end.signal })) done.batches += 1;
  })();
  // On a busy machine it takes longer until all have met each other.
  await sleep(10_000);
  for (let left = 80; left > 0 && Math.min(...Object.values(done)) < 3; left -= 1) await sleep(1000);
  end.abort();
  await Promise.all([moves, empties, rewrites, watches, following]);
  expect(wrong).toEqual([]);
  expect(Math.min(...Object.values(done))).toBeGreaterThan(2);
  expect(await followed.differences()).toEqual([]);
});
