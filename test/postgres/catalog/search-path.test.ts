import { expect, test } from "vitest";
import { freePair } from "../../support/database.ts";
import { followUntilCaughtUp, onBoth, openCopySync, schemaOf } from "../../support/copy-setup.ts";
import {
  application,
  changes,
  contents,
  hostile,
  path,
  roles,
  rows,
} from "../../support/search-path-setup.ts";

// What an application has written about its tables finds what it finds in the application's sessions, although ours see
// pg_catalog alone; and nothing that somebody puts into those schemas can stand in for what our statements mean.

test.each([
  ["13", "13"],
  ["13", "18"],
])("functions that name things without a schema, %s to %s", async (from, to) => {
  await using pair = await freePair({ source: from, target: to });
  await pair.source.sql(application());
  // From 17 on, indexes are built under a search path of the server's own.
  await pair.target.sql(application(to === "18" ? `set search_path = ${path}` : ""));
  await pair.source.sql(rows);
  for (const side of [pair.source, pair.target]) await side.sql(roles.path(side.name));
  const before = await schemaOf(pair.target);
  const { sync } = await openCopySync(pair, { keyless: "reload", exclude: ["app.by_partition"] });
  await using _ = sync;
  expect((await sync.preflight()).findings.filter(({ severity }) => severity === "blocking")).toEqual([]);
  await sync.init();
  await pair.source.sql(`update app.by_index set n = -n where id % 7 = 0`);
  await sync.copy();
  await pair.source.sql(changes);
  await followUntilCaughtUp(sync);
  expect((await sync.verify()).equal).toBe(true);
  expect(await contents(pair.target)).toEqual(await contents(pair.source));
  // A row of the target's own in the way: it is looked for by the index's expression.
  await pair.target.sql(
    `delete from app.by_index where id = 20; update app.by_index set id = -30 where id = 30`,
  );
  expect((await sync.verify({ repair: true })).equal).toBe(false);
  await followUntilCaughtUp(sync);
  expect(await contents(pair.target)).toEqual(await contents(pair.source));
  await sync.drop();
  expect(await schemaOf(pair.target)).toBe(before);
});

test("a hostile schema on the path stands in for nothing of ours", async () => {
  await using pair = await freePair({ source: "13", target: "13" });
  await onBoth(pair, application());
  await pair.source.sql(rows);
  await onBoth(pair, hostile);
  for (const side of [pair.source, pair.target])
    await side.sql(`alter database "${side.name}" set search_path = trap, pg_catalog, app, tools`);
  const { sync } = await openCopySync(pair, {
    keyless: "reload",
    exclude: ["app.by_partition"],
    onRefusal: "park",
  });
  await using _ = sync;
  await sync.init();
  await sync.copy();
  await pair.source.sql(`
    set search_path = app, tools;
    update app.by_index set name = 'Changed ' || id where id % 50 = 0; delete from app.by_index where id % 50 = 1;
    update app.keyless set name = 'changed' where name = 'Name 7'`);
  await followUntilCaughtUp(sync);
  const verified = await sync.verify();
  expect(verified.equal).toBe(true);
  await pair.target.sql(
    `set search_path = app, tools; update app.by_index set name = 'damaged' where id % 4 = 0`,
  );
  expect((await sync.verify({ repair: true })).equal).toBe(false);
  await followUntilCaughtUp(sync);
  expect(await contents(pair.target)).toEqual(await contents(pair.source));
  await sync.drop();
});

test("an index that a target of 17 or newer cannot compute is told, with the statement that settles it", async () => {
  await using pair = await freePair({ source: "13", target: "18" });
  await pair.source.sql(application());
  await pair.source.sql(rows);
  // As they are after a restore of the schema: the index is made while the function does not matter.
  await pair.target.sql(application(`set search_path = ${path}`));
  await pair.target.sql(`set search_path = ${path};
    alter function app.slug_later(text) reset search_path; alter function app.slug(text) reset search_path`);
  const { sync } = await openCopySync(pair, { keyless: "reload", exclude: ["app.by_partition"] });
  await using _ = sync;
  // The application sets its path itself, so nobody else knows it: the source's rows cannot be read either.
  const told = (await sync.preflight()).findings.filter(({ severity }) => severity === "blocking");
  expect(new Set(told.map(({ side }) => side))).toEqual(new Set(["source", "target"]));
  expect([...new Set(told.map(({ subject }) => subject))].toSorted()).toEqual(
    ["app.by_index", "app.child", "app.keyless", "app.parent"].toSorted(),
  );
  await expect(sync.init()).rejects.toMatchObject({ code: "PREFLIGHT_BLOCKED" });
  await pair.source.sql(`alter database "${pair.source.name}" set search_path = ${path}`);
  await pair.target.sql(`alter database "${pair.target.name}" set search_path = ${path}`);
  const again = (await sync.preflight()).findings.filter(({ severity }) => severity === "blocking");
  expect(new Set(again.map(({ side }) => side))).toEqual(new Set(["target"]));
  for (const { remedy = "" } of again) await pair.target.sql(remedy);
  expect((await sync.preflight()).findings.filter(({ severity }) => severity === "blocking")).toEqual([]);
  await sync.init();
  await sync.copy();
  await followUntilCaughtUp(sync);
  expect(await contents(pair.target)).toEqual(await contents(pair.source));
});
