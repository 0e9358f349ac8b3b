import { expect, test } from "vitest";

import { connect, type Connection } from "../../../src/postgres/connect.ts";
import { resolveConnection } from "../../../src/postgres/conninfo.ts";
import { migrate, migrateOlder, migrations, type Migration } from "../../../src/state/migrate.ts";
import { freePair, type Database } from "../../support/database.ts";

// How a state that an earlier version has made is brought up to date. There is one version yet, so the second is the test's.

const known = migrations();
const newest = known.at(-1)?.version ?? 0;
const second = (sql: string): Migration[] => [...known, { version: newest + 1, sql }];
const next = second(
  "alter table replicate.sync add column colour text; update replicate.sync set colour = 'blue'",
);

const open = async (database: Database): Promise<Connection> =>
  await connect(resolveConnection(database.url, {}), { side: "target", purpose: "test" });

const versions = async (database: Database): Promise<number[]> =>
  (await database.sql<{ version: number }>("select version from replicate.migration order by 1")).map(
    ({ version }) => version,
  );

test("an earlier version is brought up to date once, with what it remembers; none is made where there is none", async () => {
  await using pair = await freePair();
  await using session = await open(pair.target);
  await migrateOlder(session, next);
  expect(await pair.target.sql("select from pg_namespace where nspname = 'replicate'")).toEqual([]);

  await migrate(session);
  await pair.target.sql(
    "insert into replicate.sync (name, source_label, token) values ('s', 'here', 'word')",
  );
  expect(await versions(pair.target)).toEqual([newest]);
  // What this program knows is there already.
  await migrateOlder(session);
  expect(await versions(pair.target)).toEqual([newest]);

  await migrateOlder(session, next);
  await migrateOlder(session, next);
  await migrate(session, next);
  expect(await versions(pair.target)).toEqual([newest, newest + 1]);
  expect(await pair.target.sql("select name, token, colour from replicate.sync")).toEqual([
    { name: "s", token: "word", colour: "blue" },
  ]);
});

test("from nothing to the newest at once, by several at the same time", async () => {
  await using pair = await freePair();
  const sessions = await Promise.all(Array.from({ length: 4 }, async () => await open(pair.target)));
  await Promise.all(sessions.map(async (session) => await migrate(session, next)));
  expect(await versions(pair.target)).toEqual([newest, newest + 1]);
  await Promise.all(sessions.map(async (session) => await session.close()));
});

test("a step that fails leaves the earlier version as it was", async () => {
  await using pair = await freePair();
  await using session = await open(pair.target);
  await migrate(session);
  const broken = second("alter table replicate.sync add column colour text; select 1 / 0");
  await expect(migrate(session, broken)).rejects.toMatchObject({ code: "22012" });
  expect(await versions(pair.target)).toEqual([newest]);
  expect(
    await pair.target.sql(
      "select from pg_attribute where attrelid = 'replicate.sync'::regclass and attname = 'colour'",
    ),
  ).toEqual([]);
  await migrate(session, next);
  expect(await versions(pair.target)).toEqual([newest, newest + 1]);
});

test("a later version than this program knows is refused", async () => {
  await using pair = await freePair();
  await using session = await open(pair.target);
  await migrate(session, next);
  await expect(migrate(session)).rejects.toMatchObject({ code: "STATE_TOO_NEW" });
  expect(await versions(pair.target)).toEqual([newest, newest + 1]);
});
