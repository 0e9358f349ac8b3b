import { expect, test } from "vitest";

import { compareDatabases } from "../support/compare.ts";
import { freePair } from "../support/database.ts";
import { describeSchema } from "../support/schema-description.ts";
import { dieAt, runToEnd, startRunner, type Orders } from "../support/torture.ts";

// A death at every step on a new table's way into the sync: the next run goes on with it, nothing is lost or doubled, and what
// the table hangs on is there in the end.

const steps = [
  "join.created",
  "join.created:2",
  "join.captured",
  "join.registered",
  "join.registered:2",
  "copy.prepare.saved",
  "copy.prepare.planned",
  "copy.prepare.committed",
  "copy.part.loaded:3",
  "copy.part.committed:2",
  "deferred.marked",
  "join.copied",
  "batch.committed",
];

const created = `
  create type mood as enum ('a', 'b');
  create table big (id serial primary key, m mood default 'a', v text);
  create table child (id int primary key, big int references big, old int references old);
  create index big_v on big (v); comment on table big is 'b';
  insert into big (v) select repeat('x', 100) || g from generate_series(1, 20000) g;
  insert into child select g, g, 1 from generate_series(1, 100) g`;

const ordersFor = (pair: { source: { url: string }; target: { url: string } }): Orders => ({
  sync: {
    name: "crash",
    source: pair.source.url,
    target: pair.target.url,
    copy: { partSize: "256kB", jobs: 1, indexJobs: 1 },
  },
  verbs: ["follow"],
  follow: { untilCaughtUp: true },
});

test.for(steps)("a death at %s while a new table joins", { timeout: 180_000 }, async (step) => {
  await using pair = await freePair({ leaks: "ignore" });
  await using reference = await freePair({ source: "18", target: "18" });
  const old = "create table old (id int primary key, v text)";
  for (const side of [pair.source, pair.target, reference.source]) await side.sql(old);
  for (const side of [pair.source, reference.source]) await side.sql("insert into old values (1, 'x')");
  const orders = ordersFor(pair);
  await runToEnd({ ...orders, verbs: ["init", "copy", "follow"] });
  for (const side of [pair.source, reference.source]) await side.sql(created);
  await dieAt(step, orders);
  await pair.source.sql(
    "update big set v = 'later' where id % 100 = 0; delete from child where id = 7; insert into old values (2, 'y')",
  );
  await runToEnd(orders);
  expect((await compareDatabases(pair.source.url, pair.target.url)).differences).toEqual([]);
  expect(
    await pair.target.sql("select state, count(*)::int as n from replicate.sync_table group by 1"),
  ).toEqual([{ state: "following", n: 3 }]);
  expect(await pair.source.sql("select count(*)::int as n from replicate.capture")).toEqual([{ n: 3 }]);
  await runToEnd({ ...orders, verbs: ["drop"] });
  expect(await describeSchema(pair.target.url)).toEqual(await describeSchema(reference.source.url));
});

test(
  "a second runner that takes over in the middle goes on with new tables",
  { timeout: 180_000 },
  async () => {
    await using pair = await freePair({ leaks: "ignore" });
    for (const side of [pair.source, pair.target])
      await side.sql("create table old (id int primary key, v text); insert into old values (1, 'x')");
    const orders = ordersFor(pair);
    await runToEnd({ ...orders, verbs: ["init", "copy"], copy: { adopt: true } });
    const first = startRunner({ ...orders, follow: {} });
    const second = startRunner({ ...orders, follow: { standby: true } });
    await second.until("standing-by");
    await pair.source.sql(created);
    await first.until("table-created");
    first.kill("SIGKILL");
    await second.until("table-joined");
    second.kill("SIGTERM");
    await second.ended;
    await runToEnd(orders);
    expect((await compareDatabases(pair.source.url, pair.target.url)).differences).toEqual([]);
  },
);
