import { expect, test } from "vitest";
import { compareDatabases } from "../../support/compare.ts";
import { freePair } from "../../support/database.ts";
import { leastPrivilegedPair } from "../../support/least-privileged-pair.ts";
import { followUntilCaughtUp, onBoth, openCopySync } from "../../support/copy-setup.ts";

// What keeps an owner from writing to its own tables is told before anything starts, with the statement that settles it; and
// where it comes later, the sync stops with it instead of trying again.

test("privileges that an owner has revoked from itself", async () => {
  await using pair = await leastPrivilegedPair();
  // Side, table or partition, and what is revoked; whether a sync can do without it.
  const members: readonly (readonly ["source" | "target", string, string, boolean])[] = [
    ["source", "t0", "select", false],
    ["source", "t1", "trigger", false],
    ["source", "t2", "insert, update, delete", true],
    ["source", "t3", "update, delete, truncate", false],
    ["source", "leaf", "select", false],
    ["target", "t0", "update, delete", false],
    ["target", "t1", "select", false],
    ["target", "t2", "insert", false],
    ["target", "t3", "truncate", false],
    ["target", "t4", "trigger", false],
    ["target", "leaf", "insert, truncate", false],
    ["target", "t5", "references", true],
  ];
  const tables = `${[0, 1, 2, 3, 4, 5].map((n) => `create table t${n} (id int primary key, v text)`).join("; ")};
    create table parent (id int) partition by range (id); create table leaf partition of parent for values from (0) to (1000);
    alter table leaf add primary key (id); create sequence counter`;
  for (const side of [pair.source, pair.target]) await side.sql(tables);
  await pair.source.sql(
    "insert into t0 select g from generate_series(1, 9) g; insert into t2 select g from generate_series(1, 9) g",
  );
  for (const [side, table, what] of members)
    await pair[side].sql(`revoke ${what} on ${table} from ${pair[side].owner.name}`);
  await pair.target.sql(`revoke all on sequence counter from ${pair.target.owner.name}`);
  const { sync } = await openCopySync(pair, { exclude: ["public.parent"] });
  await using _ = sync;
  const all = (await sync.preflight()).findings;
  expect(all.filter(({ subject }) => subject === "sequence public.counter")).toHaveLength(1);
  const blocking = all.filter(({ severity }) => severity === "blocking");
  const expected = members.filter(([, table, , isHarmless]) => !isHarmless && table !== "leaf");
  expect(blocking.map(({ side, subject }) => `${side} ${subject}`).toSorted()).toEqual(
    expected.map(([side, table]) => `${side} public.${table}`).toSorted(),
  );
  await expect(sync.init()).rejects.toMatchObject({ code: "PREFLIGHT_BLOCKED" });
  // Each remedy does what it says, as the owner whom it names.
  for (const { side = "source", remedy = "" } of blocking) await pair[side].sql(remedy);
  expect((await sync.preflight()).findings.filter(({ severity }) => severity === "blocking")).toEqual([]);
  await sync.init();
  await sync.copy();
  await pair.source.asWriter("update t0 set v = 'x' where id < 5; delete from t0 where id = 7");
  await followUntilCaughtUp(sync);
  expect((await compareDatabases(pair.source.adminUrl, pair.target.adminUrl)).differences).toEqual([]);
  // Later on it stops at once, whatever is being read meanwhile.
  await pair.target.sql(`revoke delete, update, insert on t0 from ${pair.target.owner.name}`);
  await pair.source.asWriter("insert into t0 select g, repeat('x', 1000) from generate_series(100, 5000) g");
  await expect(followUntilCaughtUp(sync)).rejects.toMatchObject({
    code: "PERMISSION_DENIED",
    message: expect.stringContaining("t0") as string,
    hint: expect.stringContaining('grant all on table "public"."t0"') as string,
  });
});

test("publications that cannot tell the rows of a table apart", async () => {
  await using pair = await freePair({ source: "18", target: "18" });
  await onBoth(
    pair,
    `create table keyless (v text); create table nothing (id int primary key); alter table nothing replica identity nothing;
     create table gone (id int primary key, u int not null); create unique index gone_u on gone (u);
     alter table gone replica identity using index gone_u; drop index gone_u;
     create schema s; create table s.listed (id int primary key); alter table s.listed replica identity nothing;
     create table parent (id int primary key) partition by range (id);
     create table leaf partition of parent for values from (0) to (1000); alter table leaf replica identity nothing;
     create table fine (id int primary key); create table inserted (id int primary key); alter table inserted replica identity nothing;
     create publication one for table keyless, nothing, gone, fine; create publication schema for tables in schema s;
     create publication root for table parent with (publish_via_partition_root); create publication inserts for table inserted with (publish = 'insert')`,
  );
  const { sync } = await openCopySync(pair, { keyless: "reload" });
  await using _ = sync;
  const { findings } = await sync.preflight();
  const told = findings.filter(({ message }) => message.includes("cannot tell its rows apart"));
  const subjects = ["public.gone", "public.keyless", "public.leaf", "public.nothing", "s.listed"];
  for (const [side, severity] of [["source", "warning"], ["target", "blocking"]] as const) // prettier-ignore
    expect(told.filter((each) => each.side === side && each.severity === severity).map(({ subject }) => subject).toSorted()).toEqual(subjects); // prettier-ignore
  for (const { side = "target", remedy = "" } of told) await pair[side].sql(remedy);
  await sync.init();
  await sync.copy();
  await pair.source.sql(
    "insert into nothing values (1), (2); insert into keyless values ('a'); insert into s.listed values (1); insert into parent values (1)",
  );
  await followUntilCaughtUp(sync);
  await pair.source.sql(
    "delete from nothing where id = 1; delete from keyless; delete from s.listed; delete from parent",
  );
  await followUntilCaughtUp(sync);
  expect((await compareDatabases(pair.source.url, pair.target.url)).differences).toEqual([]);
  // One that comes later is named with its remedy, at once.
  await pair.target.sql("alter table fine replica identity nothing");
  await pair.source.sql("insert into fine values (1), (2); delete from fine where id = 2");
  await expect(followUntilCaughtUp(sync)).rejects.toMatchObject({
    hint: expect.stringContaining('alter table "public"."fine" replica identity full') as string,
  });
  await pair.target.sql(`alter table "fine" replica identity full`);
  await followUntilCaughtUp(sync);
  expect((await compareDatabases(pair.source.url, pair.target.url)).differences).toEqual([]);
});

test("a publication of all tables, and a two-way sync", async () => {
  await using pair = await freePair();
  await onBoth(
    pair,
    "create table t (id int primary key, v text); create publication everything for all tables",
  );
  const { sync } = await openCopySync(pair, { direction: "both", conflict: "source-wins" });
  await using _ = sync;
  await sync.init();
  await sync.copy();
  await onBoth(pair, "insert into t values (1, current_database())");
  await followUntilCaughtUp(sync);
  await pair.target.sql("update t set v = 'new'");
  await followUntilCaughtUp(sync);
  expect((await compareDatabases(pair.source.url, pair.target.url)).differences).toEqual([]);
});
