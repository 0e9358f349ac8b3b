import { expect, test } from "vitest";
import { freePair } from "../../support/database.ts";
import { leastPrivilegedPair } from "../../support/least-privileged-pair.ts";
import { differences, followUntilCaughtUp, openCopySync, schemaOf } from "../../support/copy-setup.ts";

// Constraints that old rows break are legal on the source, and pg_dump has them come after the rows. So do we: the old rows
// arrive, also when they are read again, and the constraints are back at the end as they were.

/** `open`: what is added NOT VALID, after the rows on the source. */
const members: readonly { name: string; table: string; rows: string; open: string; since?: number }[] = [
  {
    name: "a check of a plain table, with a comment",
    table: "create table m (id int primary key, z int)",
    rows: "insert into m select g, -g from generate_series(1, 5) g",
    open: `alter table m add constraint "Z pos" check (z > 0) not valid; comment on constraint "Z pos" on m is 'why'`,
  },
  {
    name: "a large table, and NO INHERIT",
    table: "create table m (id int primary key, z int, pad text)",
    rows: "insert into m select g, -g, repeat('x', 500) from generate_series(1, 5000) g",
    open: "alter table m add constraint z_pos check (z > 0) no inherit not valid",
  },
  {
    name: "a partitioned table and one of its leaves",
    table:
      "create table m (id int primary key, z int) partition by range (id); create table m_1 partition of m for values from (0) to (100); create table m_2 partition of m for values from (100) to (200)",
    rows: "insert into m select g, -g from generate_series(1, 150) g",
    open: "alter table m add constraint z_pos check (z > 0) not valid; alter table m_1 add constraint leaf check (z > 1) not valid",
  },
  {
    name: "what is inherited",
    table:
      "create table up (id int primary key, z int); create table m (primary key (id)) inherits (up); create table n (primary key (id)) inherits (up)",
    rows: "insert into m select g, -g from generate_series(1, 5) g; insert into n values (1, -1); insert into up values (7, -7)",
    open: "alter table up add constraint z_pos check (z > 0) not valid",
  },
  {
    name: "a child's own that is inherited too",
    table: "create table up (id int primary key, z int); create table m (primary key (id)) inherits (up)",
    rows: "insert into m select g, -g from generate_series(1, 5) g; insert into up values (7, -7)",
    open: `alter table m add constraint z_pos check (z > 0) not valid; comment on constraint z_pos on m is 'why';
      alter table up add constraint z_pos check (z > 0) not valid`,
  },
  {
    name: "a grandchild's and a child's own that two parents have too",
    table: `create table up (id int primary key, z int); create table other (z int);
      create table mid (primary key (id)) inherits (up, other); create table m (primary key (id)) inherits (mid)`,
    rows: "insert into m select g, -g from generate_series(1, 5) g; insert into mid values (7, -7)",
    open: `alter table m add constraint z_pos check (z > 0) not valid; alter table mid add constraint z_pos check (z > 0) not valid;
      alter table other add constraint z_pos check (z > 0) not valid; alter table up add constraint z_pos check (z > 0) not valid`,
  },
  {
    name: "NOT NULL of a child's own, by another name than its parent's",
    since: 18,
    table: "create table up (id int primary key, z int); create table m (primary key (id)) inherits (up)",
    rows: "insert into m select g, null from generate_series(1, 5) g; insert into up values (7, null)",
    open: "alter table m add constraint own not null z not valid; alter table up add constraint theirs not null z not valid",
  },
  {
    name: "a domain of two tables, within another domain",
    table:
      "create domain d as int; create domain e as d; create table m (id int primary key, z e); create table n (id int primary key, z d)",
    rows: "insert into m select g, -g from generate_series(1, 5) g; insert into n select g, -g from generate_series(1, 5) g",
    open: "alter domain d add constraint pos check (value > 0) not valid; comment on constraint pos on domain d is 'why'",
  },
  {
    name: "NOT NULL, and what is not enforced",
    since: 18,
    table: "create table m (id int primary key, z int)",
    rows: "insert into m select g, null from generate_series(1, 5) g",
    open: "alter table m add constraint there not null z not valid; alter table m add constraint other check (z > 0) not enforced",
  },
];

test.each(members.flatMap((member) => ["13", "18"].map((version) => ({ ...member, version }))))(
  "$name, $version to $version",
  async ({ table, rows, open, version, since = 0 }) => {
    if (Number(version) < since) return;
    await using pair = await freePair({ source: version, target: version });
    await pair.source.sql(`${table}; ${rows}; ${open}; analyze`);
    await pair.target.sql(`${table}; ${open}`);
    const before = await schemaOf(pair.target);
    const { sync } = await openCopySync(pair, { keyless: "reload" });
    await using _ = sync;
    await sync.init();
    await sync.copy();
    expect(await differences(pair)).toEqual([]);
    await followUntilCaughtUp(sync);
    // The source itself lets nobody change such a row, unless the constraint was away meanwhile.
    await pair.target.sql("update m set z = null where id = 2; delete from m where id = 3");
    expect((await sync.verify({ repair: true })).equal).toBe(false);
    await followUntilCaughtUp(sync);
    expect(await differences(pair)).toEqual([]);
    await sync.drop();
    expect(await schemaOf(pair.target)).toBe(before);
    expect(await differences(pair)).toEqual([]);
  },
);

test("a check that was away on the source while such a row was changed", async () => {
  await using pair = await freePair();
  const table = "create table m (id int primary key, z int)";
  const open = "alter table m add constraint z_pos check (z > 0) not valid";
  await pair.source.sql(`${table}; insert into m values (1, 5), (2, -5); ${open}`);
  await pair.target.sql(`${table}; ${open}`);
  const { sync } = await openCopySync(pair);
  await using _ = sync;
  await sync.init();
  await sync.copy();
  await pair.source.sql(
    `alter table m drop constraint z_pos; update m set z = -6 where id = 2; insert into m values (3, -1); ${open}`,
  );
  await followUntilCaughtUp(sync);
  expect(await differences(pair)).toEqual([]);
  await sync.cutover();
  const [found] = await pair.target.sql<{ definition: string }>(
    `select pg_get_constraintdef(oid) as definition from pg_constraint where conname = 'z_pos'`,
  );
  expect(found?.definition).toBe("CHECK ((z > 0)) NOT VALID");
  await expect(pair.target.sql("insert into m values (9, -1)")).rejects.toThrow(/z_pos/);
});

test("a unique index over columns that are NOT NULL for new rows alone is no key", async () => {
  await using pair = await freePair({ source: "18", target: "18" });
  const table = "create table m (a int, b int); create unique index m_a on m (a)";
  await pair.source.sql(
    `${table}; insert into m values (null, 1); alter table m add constraint there not null a not valid`,
  );
  await pair.target.sql(table);
  const { sync } = await openCopySync(pair);
  await using _ = sync;
  await expect(sync.init()).rejects.toMatchObject({ code: "PREFLIGHT_BLOCKED" });
});

test("what belongs to another role, and cannot be taken away: preflight says so, with what settles it", async () => {
  await using pair = await leastPrivilegedPair();
  const target = pair.target.owner.name;
  await pair.source.asAdmin("create domain d as int; create domain within as d; create domain whole as int");
  await pair.target.asAdmin("create domain d as int; create domain within as d; create domain whole as int");
  for (const side of [pair.source, pair.target])
    await side.sql("create table m (id int primary key, z within[], w whole)");
  await pair.source.sql("insert into m values (1, '{-1}', 1)");
  for (const side of [pair.source, pair.target])
    await side.asAdmin(
      "alter domain d add constraint pos check (value > 0) not valid; alter domain whole add constraint pos check (value > 0) not valid",
    );
  const { sync } = await openCopySync(pair);
  await using _ = sync;
  const blocking = async (): Promise<readonly { subject: string; message: string; remedy?: string }[]> =>
    (await sync.preflight()).findings.filter(({ severity }) => severity === "blocking");
  const told = await blocking();
  expect(told.map(({ subject }) => subject).toSorted()).toEqual(["domain public.d", "domain public.whole"]);
  expect(told[0]?.message).toContain("belongs to postgres");
  await expect(sync.init()).rejects.toMatchObject({ code: "PREFLIGHT_BLOCKED" });
  // Each of the ways that it tells.
  await pair.target.asAdmin(`alter domain "public"."whole" validate constraint "pos"`);
  expect(told.map(({ remedy }) => remedy).join()).toContain(
    `alter domain "public"."whole" validate constraint "pos"`,
  );
  const left = await blocking();
  expect(left.map(({ remedy }) => remedy?.split("\n")[1])).toEqual([`grant "postgres" to "${target}";`]);
  await pair.target.asAdmin(`create role ${target}_types; alter domain d owner to ${target}_types`);
  try {
    const [changed] = await blocking();
    await pair.target.asAdmin(changed?.remedy ?? "");
    expect(await blocking()).toEqual([]);
    await sync.init();
    await sync.copy();
    expect(await pair.target.sql("select z::text from m")).toEqual([{ z: "{-1}" }]);
    await sync.drop();
    const [found] = await pair.target.sql<{ definition: string }>(
      "select pg_get_constraintdef(oid) as definition from pg_constraint where contypid = 'd'::regtype",
    );
    expect(found?.definition).toBe("CHECK ((VALUE > 0)) NOT VALID");
  } finally {
    await pair.target.asAdmin(`alter domain d owner to postgres; drop role ${target}_types`);
  }
});
