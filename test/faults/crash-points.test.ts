import { expect, test } from "vitest";

import { failpoints } from "../../src/postgres/failpoint.ts";
import { schemaOf } from "../support/copy-setup.ts";
import { compareDatabases } from "../support/compare.ts";
import { freePair, type Pair } from "../support/database.ts";
import { seededRandom } from "../support/random.ts";
import { dieAt, runToEnd, type Orders } from "../support/torture.ts";
import { brokenInvariants, fillWorkload, startWorkload, workloadSchema } from "../support/workload.ts";

// A death at every named step, under writes: the next run carries on, both sides are equal in the end, and the
// target has its schema back. A step that is never reached fails its test, because nobody died there.

/** Also later times at which some steps are reached: with others of their kind done, and others not. */
const later = ["init.captured:4", "copy.part.loaded:7", "deferred.restored:5", "drop.detached:5"];

const isOf = (name: string, ...stages: string[]): boolean =>
  stages.some((stage) => name.startsWith(`${stage}.`));

// Those of a cutover, of new tables, of schema changes, of conflicts that are resolved, of sequences, and of rows that are rejected, have tests of their own.
const names = failpoints.filter(
  (name) => !isOf(name, "cutover", "join", "conflict", "interleave", "parked", "schema"),
);

test.for([...names, ...later])("a death at %s", { timeout: 180_000 }, async (name) => {
  const random = seededRandom(name);
  await using pair = await freePair({ leaks: "ignore" });
  await pair.source.sql(workloadSchema);
  await pair.target.sql(workloadSchema);
  await fillWorkload(await pair.source.client());
  const schemas = await schemasOf(pair);
  let deaths = 0;
  const die = async (orders: Orders): Promise<void> => {
    await dieAt(name, orders);
    deaths += 1;
  };
  // Emptied, because there is something to empty.
  await pair.target.sql(`insert into codes values ('old', 'of an earlier try')`);
  const orders: Orders = {
    sync: { name: "crash", source: pair.source.url, target: pair.target.url, keyless: "reload" },
    verbs: ["init", "copy", "follow"],
    copy: { jobs: 2, partBytes: 64 * 1024, overwrite: true },
  };
  const drained: Orders = { ...orders, verbs: ["follow"], follow: { untilCaughtUp: true } };

  // Without transactions that hold the tables for long: what a step is reached by is the subject here.
  const writers = await startWorkload(pair.source.url, random, {
    writers: 2,
    longTransactions: false,
    preparedTransactions: false,
  });
  try {
    if (isOf(name, "init", "copy", "deferred")) {
      await die(orders);
      await runToEnd({ ...orders, ...drained, verbs: orders.verbs });
    } else {
      await runToEnd({ ...orders, ...drained, verbs: orders.verbs });
      if (isOf(name, "batch", "rotate")) {
        // More than fits a batch in memory, and more deltas than are kept before a rotation.
        await pair.source.sql(`
          insert into items (name, body) select 'bulk ' || g, repeat(md5(g::text), 40) from generate_series(1, 3000) as g;
          insert into readings select '1999-01-01'::timestamptz + g * interval '1 s' from generate_series(1, 60000) as g`);
        await die({ ...orders, verbs: ["follow"] });
      }
    }
  } finally {
    expect((await writers.stop()).failures).toEqual([]);
  }

  await runToEnd(drained);
  const comparison = await compareDatabases(pair.source.url, pair.target.url);
  expect(comparison.differences.slice(0, 10)).toEqual([]);
  // How many are left depends on the last TRUNCATE; none would mean that nothing was compared.
  expect(comparison.rows).toBeGreaterThan(100);
  expect(await pair.target.sql(brokenInvariants)).toEqual([]);

  if (isOf(name, "drop")) await die({ ...orders, verbs: ["drop"] });
  await runToEnd({ ...orders, verbs: ["drop"] });
  expect(await schemasOf(pair)).toEqual(schemas);
  // A step of a stage that nobody thought of above would pass otherwise.
  expect(deaths).toBe(1);
});

async function schemasOf(pair: Pair): Promise<{ source: string; target: string }> {
  return { source: await schemaOf(pair.source), target: await schemaOf(pair.target) };
}
