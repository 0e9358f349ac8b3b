import { expect, test } from "vitest";

import { freePair } from "../support/database.ts";
import { startFollowed } from "./follow-setup.ts";

// Values of sequences go forward to the target, whatever way the sequence counts.

const schema = `
  create table t (id bigint generated always as identity primary key, n serial, v text);
  create sequence "Mixed Case" start 5 increment 5 maxvalue 100 cycle;
  create sequence down increment -2 start -10;
  create sequence unused start 77;`;

async function values(side: { sql: (text: string) => Promise<unknown[]> }): Promise<unknown> {
  return await side.sql(`
    select 'id' as s, last_value::text, is_called from t_id_seq union all select 'n', last_value::text, is_called from t_n_seq
    union all select 'mixed', last_value::text, is_called from "Mixed Case" union all select 'down', last_value::text, is_called from down
    union all select 'unused', last_value::text, is_called from unused order by 1`);
}

test("owned and free sequences, ascending and descending, called and never called", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, schema);
  await pair.source.sql(
    `insert into t (v) select 'v' from generate_series(1, 20); select nextval('"Mixed Case"'), nextval('down'), nextval('down')`,
  );
  const { sequences, missing } = await followed.sync.sequences();
  expect(missing).toEqual([]);
  expect(
    sequences
      .filter((each) => each.changed)
      .map((each) => each.name)
      .toSorted(),
  ).toEqual(['public."Mixed Case"', "public.down", "public.t_id_seq", "public.t_n_seq"]);
  expect(await values(pair.target)).toEqual(await values(pair.source));
  // Again: nothing to do.
  expect((await followed.sync.sequences()).sequences.every((each) => !each.changed)).toBe(true);
});

test("the target never goes back, and a margin leaves room", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, schema);
  await pair.source.sql(
    "insert into t (v) select 'v' from generate_series(1, 20); select nextval('down'), nextval('down')",
  );
  await pair.target.sql("select setval('t_id_seq', 500); select setval('down', -500)");
  await followed.sync.sequences({ margin: 10 });
  expect(await values(pair.target)).toEqual([
    { s: "down", last_value: "-500", is_called: true },
    { s: "id", last_value: "500", is_called: true },
    { s: "mixed", last_value: "5", is_called: false },
    { s: "n", last_value: "30", is_called: true },
    { s: "unused", last_value: "77", is_called: false },
  ]);
  await pair.source.sql("select setval('t_id_seq', 600, false)");
  await followed.sync.sequences();
  const [{ next } = { next: "" }] = await pair.target.sql<{ next: string }>(
    "select nextval('t_id_seq')::text as next",
  );
  expect(Number(next)).toBeGreaterThanOrEqual(600);
});

test("a sequence that the target lacks is named", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, schema);
  await pair.target.sql("drop sequence down");
  expect((await followed.sync.sequences()).missing).toEqual(["public.down"]);
});
