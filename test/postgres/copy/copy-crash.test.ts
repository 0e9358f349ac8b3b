import { expect, test } from "vitest";
import { failpoints } from "../../../src/postgres/failpoint.ts";
import { freePair, type Pair } from "../../support/database.ts";
import { dieAt, runToEnd, type Orders } from "../../support/torture.ts";
import {
  differences,
  followUntilCaughtUp,
  onBoth,
  openCopySync,
  schemaOf,
} from "../../support/copy-setup.ts";

// Killed at any step: the next run has everything that is needed to finish, and the target's schema is as it was.

const schema = `
  create table person (id int primary key, name text not null, boss int references person, filler text, unique (name));
  comment on constraint person_pkey on person is 'the key';
  create table visit (id bigint primary key, person_id int references person on delete cascade, at timestamptz, filler text);
  create index visit_at on visit (at desc) where id > 0;
  create index visit_person on visit (person_id) with (fillfactor = 70);
  create table small (id int primary key, person_id int references person);
  create function noop() returns trigger language plpgsql as $$ begin raise exception 'fired'; end $$;
  create trigger t_small before insert on small for each row execute procedure noop();
  alter table small enable always trigger t_small;
  create table log (id int, at date, filler text, primary key (id, at)) partition by range (at);
  create table log_1 partition of log for values from ('2020-01-01') to ('2020-07-01');
  create table log_2 partition of log for values from ('2020-07-01') to ('2021-01-01');
  create index log_at on log (at);
`;
const rows = `
  drop trigger t_small on small;
  insert into person select g, 'p' || g, nullif(g / 2, 0), repeat('x', 90) from generate_series(1, 12000) g;
  insert into visit select g, 1 + g % 12000, now(), repeat('y', 90) from generate_series(1, 20000) g;
  insert into small select g, g from generate_series(1, 100) g;
  insert into log select g, date '2020-01-01' + g % 360, repeat('z', 90) from generate_series(1, 15000) g;
  analyze;
`;

/** For a process of its own. */
function ordersOf({ source, target }: Pair, restart = false): Orders {
  return {
    sync: { source: source.url, target: target.url, env: {} },
    verbs: ["copy"],
    copy: { jobs: 2, indexJobs: 2, partBytes: 400_000, restart },
    follow: { untilCaughtUp: true },
  };
}

const names = failpoints.filter((name) => name.startsWith("copy.") || name.startsWith("owed."));
// Nothing is truncated on the way of a first copy.
const cases = [
  ...names.filter((name) => name !== "copy.prepare.truncated"),
  "copy.part.loaded:4",
  "deferred.marked:4",
];

test.each(cases)("killed at %s, the next run finishes", async (name) => {
  await using pair = await freePair({ leaks: "ignore" });
  await onBoth(pair, schema);
  await pair.source.sql(rows);
  const before = await schemaOf(pair.target);
  const { sync } = await openCopySync(pair);
  await using _ = sync;
  await sync.init();

  await dieAt(name, { ...ordersOf(pair), verbs: ["copy", "follow", "drop"] });
  await pair.source.sql(
    `update person set name = name || '!' where id % 100 = 0; delete from visit where id % 50 = 0;
     insert into log select 100000 + g, '2020-08-01', '' from generate_series(1, 10) g`,
  );
  const report = await sync.copy({ partBytes: 400_000 });
  expect(
    report.tables.map(({ state }) => state).filter((state) => !["copied", "following"].includes(state)),
  ).toEqual([]);
  await followUntilCaughtUp(sync);
  expect(await differences(pair)).toEqual([]);
  const dropped = await sync.drop();
  expect(dropped.leftInvalid).toEqual([]);
  expect(await schemaOf(pair.target)).toBe(before);
});

test("killed while starting over with another run's indexes gone: the definitions are still those of the beginning", async () => {
  await using pair = await freePair({ leaks: "ignore" });
  await onBoth(pair, schema);
  await pair.source.sql(rows);
  const before = await schemaOf(pair.target);
  const { sync } = await openCopySync(pair);
  await using _ = sync;
  await sync.init();
  await dieAt("copy.part.committed:5", ordersOf(pair));
  const restart = ordersOf(pair, true);
  await dieAt("copy.prepare.truncated", restart);
  await dieAt("copy.prepare.planned:2", restart);
  await dieAt("deferred.marked:2", restart);
  await runToEnd(restart);
  await dieAt("copy.prepare.dropped:2", restart);
  await sync.copy({ restart: true });
  expect(await differences(pair)).toEqual([]);
  await sync.drop();
  expect(await schemaOf(pair.target)).toBe(before);
});
