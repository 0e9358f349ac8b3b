import { expect, test } from "vitest";
import { freePair, type Database } from "../../support/database.ts";
import { followUntilCaughtUp, onBoth, openCopySync, schemaOf } from "../../support/copy-setup.ts";
import { application, contents, hostile, path, rows } from "../../support/search-path-setup.ts";

// Everything a table can have that calls functions by the search path: through copy, follow, repair, the switch and the way
// back. Read and compared in the application's own search path.

const functions = (how: string): string => `
  set search_path = ${path};
  create schema app; create schema tools;
  create function tools.folded(t text) returns text language sql immutable strict as 'select lower($1)';
  create function app.slug(t text) returns text language plpgsql immutable ${how} as $$ begin return folded(t); end $$;
  create function app.is_fine(t text) returns boolean language plpgsql immutable ${how} as $$ begin return folded(t) <> 'bad'; end $$;
  create table app.seen (slug text);
  create function app.see() returns trigger language plpgsql as $$ begin insert into seen values (folded(new.name)); return new; end $$;`;

interface Member {
  readonly name: string;
  readonly schema: string;
  /** Has no key: is read again as a whole. */
  readonly isKeyless?: boolean;
}

const table = "create table app.m (id int primary key, name text)";
const members: readonly Member[] = [
  {
    name: "a partition key",
    isKeyless: true,
    schema: `create table app.m (id int, name text) partition by list (app.slug(name));
      create table app.m_3 partition of app.m for values in ('name 3'); create table app.m_rest partition of app.m default`,
  },
  {
    name: "partition keys of two levels",
    isKeyless: true,
    schema: `create table app.m (id int, name text) partition by hash (app.slug(name));
      create table app.m_0 partition of app.m for values with (modulus 2, remainder 0) partition by range (app.slug(name || id));
      create table app.m_0_rest partition of app.m_0 default;
      create table app.m_1 partition of app.m for values with (modulus 2, remainder 1)`,
  },
  {
    name: "a row policy",
    schema: `${table}; alter table app.m enable row level security;
      create policy fine on app.m using (app.is_fine(name)) with check (app.is_fine(name))`,
  },
  {
    name: "a rule",
    schema: `${table}; create rule noted as on insert to app.m do also insert into app.seen values (app.slug(new.name));
      create rule fine as on update to app.m where not app.is_fine(new.name) do instead nothing;
      alter table app.m enable always rule noted`,
  },
  {
    name: "a trigger that always fires, with a condition",
    schema: `${table}; create trigger seen before insert or update on app.m for each row when (app.is_fine(new.name)) execute function app.see();
      alter table app.m enable always trigger seen`,
  },
  {
    name: "a constraint trigger",
    schema: `${table}; create constraint trigger seen after insert or update on app.m deferrable initially deferred
        for each row when (app.is_fine(new.name)) execute function app.see();
      alter table app.m enable always trigger seen`,
  },
  {
    name: "unaccent",
    schema: `create extension unaccent schema tools;
      create function app.plain(t text) returns text language sql immutable set search_path = ${path} as 'select folded(unaccent($1))';
      ${table}; create index m_plain on app.m (app.plain(name)); create unique index m_each on app.m (app.plain(name || id))`,
  },
  {
    name: "earthdistance",
    schema: `create extension cube schema tools; create extension earthdistance schema tools;
      create table app.m (id int primary key, name text, lat float8 default 48.1, lon float8 default 11.5,
        place tools.earth default tools.ll_to_earth(52.5, 13.4));
      create index m_at on app.m using gist (tools.ll_to_earth(lat, lon)); create index m_place on app.m using gist (place)`,
  },
  {
    name: "an exclusion constraint, and a domain over an array",
    schema: `create domain app.word as text check (app.is_fine(value)); create domain app.words as app.word[] check (app.is_fine(value[1]));
      create table app.m (id int primary key, name text, words app.words default '{a,B}',
        exclude using hash (app.slug(name || id) with =) where (app.is_fine(name)))`,
  },
  {
    name: "a foreign key to a key with a check and an index",
    schema: `${table}; alter table app.m add check (app.is_fine(name)); create index m_slug on app.m (app.slug(name));
      create table app.n (id int primary key, m_id int references app.m on update cascade, name text check (app.is_fine(name)));
      create index n_slug on app.n (app.slug(name))`,
  },
];

async function texts(side: Database): Promise<string[]> {
  const found = await side.sql<{ line: string }>(
    `set search_path = ${path}; select t::text as line from app.m t order by t::text collate "C"`,
  );
  return found.map(({ line }) => line);
}

const servers = [
  ["13", "13"],
  ["13", "18"],
] as const;

test.each(servers.flatMap(([from, to]) => members.map((member) => ({ ...member, from, to }))))(
  "$name, $from to $to",
  { timeout: 120_000 },
  async ({ schema, isKeyless = false, from, to }) => {
    await using pair = await freePair({ source: from, target: to });
    await pair.source.sql(`${functions("")}; ${schema}`);
    // From 17 on, indexes are built under a search path of the server's own.
    await pair.target.sql(`${functions(to === "18" ? `set search_path = ${path}` : "")}; ${schema}`);
    await pair.source.sql(
      `set search_path = ${path}; insert into app.m select g, 'Name ' || g from generate_series(1, 3000) g; analyze`,
    );
    for (const side of [pair.source, pair.target])
      await side.sql(`alter database "${side.name}" set search_path = ${path}`);
    const before = await schemaOf(pair.target);
    const { sync } = await openCopySync(pair, { keyless: "reload", exclude: ["app.seen"] });
    await using _ = sync;
    const findings = (await sync.preflight()).findings.filter(({ severity }) => severity === "blocking");
    expect(findings).toEqual([]);
    await sync.init();
    await sync.copy();
    await pair.source.sql(`set search_path = ${path};
      update app.m set name = 'Changed ' || id where id % 50 = 0; delete from app.m where id % 50 = 1; insert into app.m values (-1, 'Name 3')`);
    await followUntilCaughtUp(sync);
    expect((await sync.verify()).equal).toBe(true);
    expect(await texts(pair.target)).toEqual(await texts(pair.source));
    if (!isKeyless) {
      await pair.target.sql(
        `set search_path = ${path}; update app.m set name = 'damaged' where id % 40 = 0; delete from app.m where id = 3`,
      );
      expect((await sync.verify({ repair: true })).equal).toBe(false);
      await followUntilCaughtUp(sync);
      expect(await texts(pair.target)).toEqual(await texts(pair.source));
    }
    await sync.cutover();
    await pair.target.sql(`set search_path = ${path};
      update app.m set name = 'There ' || id where id % 30 = 0; delete from app.m where id % 30 = 7; insert into app.m values (-2, 'Name 4')`);
    const there = await texts(pair.target);
    expect(there).toContainEqual(expect.stringContaining("There 30"));
    await followUntilCaughtUp(sync);
    expect(await texts(pair.source)).toEqual(there);
    await sync.cutover({ finish: true });
    expect(await schemaOf(pair.target)).toBe(before);
    expect(await texts(pair.target)).toEqual(there);
  },
);

test("two-way: a hostile schema on the path stands in for nothing, conflicts included", async () => {
  await using pair = await freePair({ source: "13", target: "13" });
  await onBoth(pair, application());
  await pair.source.sql(rows);
  await onBoth(pair, hostile);
  for (const side of [pair.source, pair.target])
    await side.sql(`alter database "${side.name}" set search_path = trap, pg_catalog, app, tools`);
  const { sync } = await openCopySync(pair, {
    direction: "both",
    conflict: "latest",
    exclude: ["app.by_partition", "app.keyless", "trap.*"],
  });
  await using _ = sync;
  expect((await sync.preflight()).findings.filter(({ severity }) => severity === "blocking")).toEqual([]);
  await sync.init();
  await sync.copy();
  const change = (name: string, from: number): string => `
    set search_path = app, tools;
    update app.by_index set name = '${name} ' || id where id % 50 = ${from}; delete from app.by_index where id % 50 = ${from + 1};
    update app.by_check set name = '${name} ' || id where id % 50 = ${from}; update app.by_column set name = '${name}' where id = ${from + 1};
    insert into app.by_default values (-1, '${name}'); update app.child set name = '${name}' where id < 9;
    update app.by_index set name = 'both ${name}' || id where id % 50 = 10; delete from app.by_check where id = 100 + ${from}`;
  await pair.source.sql(change("source", 0));
  await pair.target.sql(change("target", 2));
  await followUntilCaughtUp(sync);
  await followUntilCaughtUp(sync);
  expect((await sync.verify()).equal).toBe(true);
  const { keyless: mine, ...found } = await contents(pair.target);
  const { keyless: theirs, ...wanted } = await contents(pair.source);
  expect([mine?.length, theirs?.length]).toEqual([0, 50]);
  expect(found).toEqual(wanted);
  expect(JSON.stringify(found)).toContain("both target");
  const conflicts = await pair.target.sql("select from replicate.conflict");
  expect(conflicts.length).toBeGreaterThan(200);
  // Whole tables are read again, beside changes on the other side.
  await pair.source.sql(`set search_path = app, tools; truncate app.by_column; truncate app.by_default;
    insert into app.by_column values (1, 'anew'), (900, 'anew'); insert into app.by_default values (1, 'anew')`);
  await pair.target.sql(`set search_path = app, tools; insert into app.by_column values (901, 'there');
    update app.by_column set name = 'there' where id < 5; insert into app.by_default values (-9, 'there')`);
  await followUntilCaughtUp(sync);
  await followUntilCaughtUp(sync);
  expect((await sync.verify()).equal).toBe(true);
  const after = await contents(pair.source);
  expect({ ...(await contents(pair.target)), keyless: [] }).toEqual({ ...after, keyless: [] });
  expect(after["by_column"]).toContainEqual(expect.stringMatching(/^\(900,anew,/));
  await sync.drop();
});
