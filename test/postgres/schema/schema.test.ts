import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";

import { openSync, type Sync } from "../../../src/index.ts";
import { freePair, type Pair } from "../../support/database.ts";
import { leastPrivilegedPair } from "../../support/least-privileged-pair.ts";
import { describeSchema } from "../../support/schema-description.ts";
import { difficultSchema, leftBehind, tellWhySkipped } from "../../support/schema-setup.ts";

// The schema by pg_dump and pg_restore, from 13 to 18.

const isSkipped = tellWhySkipped();

const open = async (pair: { source: { url: string }; target: { url: string } }, more = {}): Promise<Sync> =>
  await openSync({ source: pair.source.url, target: pair.target.url, env: {}, ...more });

/** Without what is meant to differ: owners, privileges, publications, matviews that wait for rows. */
const withoutRoles = (lines: string[]): string[] =>
  lines
    .filter(
      (line) =>
        !/^(publication|default privileges|schema (public|replicate|information_schema)|event trigger)/.test(
          line,
        ),
    )
    .map((line) =>
      line
        .replace(/ owner .*$/, "")
        .replace(/\{[^}]*=[^}]*\}/g, "")
        .trimEnd(),
    )
    // Version 18 lists NOT NULL among the constraints, newer ones give sequences no type and qualify less in views.
    .filter(
      (line) => !/_not_null NOT NULL |^type .*(_seq"?|ticket) c$|^rule CREATE RULE "_RETURN"/.test(line),
    )
    // Read again, a check is written with other casts.
    .map((line) => (line.includes(" CHECK ") ? line.replace(/::[\w ]+(\[\])?|[()]/g, "") : line))
    .sort();

const schemaOf = async (database: { url: string }): Promise<string[]> =>
  withoutRoles(await describeSchema(database.url));

async function makeSource(pair: Pair): Promise<void> {
  await pair.source.sql(difficultSchema);
  await pair.source.sql(leftBehind);
}

test.skipIf(isSkipped)("everything is created, once, and what stays behind is named", async () => {
  await using pair = await freePair();
  await makeSource(pair);
  await using sync = await open(pair);

  const dry = await sync.schema({ dryRun: true });
  expect(await schemaOf(pair.target)).toEqual([]);
  const report = await sync.schema();
  expect(report.created).toEqual(dry.created);
  expect(report.created).toContain("table app.customer");
  expect(report.created).toContain('fk constraint later on app."Order Lines"');
  expect(report.existing).toEqual([]);
  expect(await schemaOf(pair.target)).toEqual(await schemaOf(pair.source));
  const leftOut = report.leftOut.map(({ object }) => object);
  expect(leftOut).toContain("publication everything");
  expect(leftOut.filter((each) => each.startsWith("acl "))).not.toEqual([]);
  expect(leftOut.filter((each) => each.startsWith("default acl "))).not.toEqual([]);
  for (const { reason } of report.leftOut) expect(reason).not.toBe("");

  const again = await sync.schema();
  expect(again.created).toEqual([]);
  expect([...again.existing].sort()).toEqual([...report.created].sort());
  expect(await schemaOf(pair.target)).toEqual(await schemaOf(pair.source));
});

test.skipIf(isSkipped)("in two sections, with the copy in between", async () => {
  await using pair = await freePair();
  await makeSource(pair);
  await pair.source.sql(`
    drop rule quiet on app.unkeyed;
    insert into app.customer (email, kind) values ('a', 'a'), ('b', 'b');
    insert into app."Order Lines" (customer) values (1), (2);
    insert into app.event values (1, '2020-02-02', 'x'), (2, '1999-01-01', 'y');
    refresh materialized view app.counts;
    refresh materialized view app.all_counts`);
  await using sync = await open(pair);
  const before = await sync.schema({ section: "pre-data" });
  expect(before.created).toContain("constraint customer_pkey on app.customer");
  expect(before.created).toContain("constraint event_pkey on app.event");
  expect(before.created).toContain("index app.unkeyed_a");
  expect(before.created).not.toContain("index app.customer_note");
  expect(before.created.filter((each) => /^(fk|trigger|policy)/.test(each))).toEqual([]);
  expect(await pair.target.sql(`select * from app.grouped`)).toEqual([]);
  await sync.init();
  await sync.copy();
  for await (const _ of sync.follow({ untilCaughtUp: true }));
  const after = await sync.schema({ section: "post-data" });
  expect(after.created).toContain("index app.customer_note");
  expect(after.created).toContain("trigger touch on app.customer");
  expect(after.refreshed).toEqual(["app.counts", "app.all_counts"]);
  expect(await pair.target.sql(`select number::int from app.all_counts`)).toEqual([{ number: 2 }]);
  expect(await sync.compareSchemas()).toMatchObject({ differences: [], owed: [] });
  await sync.drop();
  expect(await schemaOf(pair.target)).toEqual(await schemaOf(pair.source));
});

test.skipIf(isSkipped)(
  "the capture on the source stays there, and the copy keeps what it took away",
  async () => {
    await using pair = await freePair();
    await pair.source.sql(`create table t (id int primary key, v text); create index t_v on t (v);
    insert into t select g, repeat(md5(g::text), 4) from generate_series(1, 20000) g`);
    await using sync = await open(pair);
    await sync.schema();
    await sync.init();
    // As in the middle of a copy.
    await pair.target.sql(`
    insert into replicate.deferred (sync, capture_id, kind, object_name, table_name, stage, statements)
      values ('default', 1, 'index', 't_v', 'public.t', 1, '{select 1}');
    drop index t_v;`);
    const report = await sync.schema();
    expect(report.created).toEqual([]);
    expect(report.leftOut).toContainEqual({
      object: "index public.t_v",
      reason: "copy took it away and gives it back",
    });
    await pair.target.sql(`delete from replicate.deferred`);
    expect((await sync.schema()).created).toEqual(["index public.t_v"]);
    expect(await pair.target.sql(`select tgname from pg_trigger where not tgisinternal`)).toEqual([]);
  },
);

test.skipIf(isSkipped)("as owners who are no superusers, with passwords that are hard to spell", async () => {
  await using pair = await leastPrivilegedPair();
  await pair.source.sql(difficultSchema.replaceAll("app.", "public.").replace("create schema app;", ""));
  await using sync = await open(pair);
  const report = await sync.schema();
  expect(report.created).toContain("table public.customer");
  expect(withoutRoles(await describeSchema(pair.target.adminUrl))).toEqual(
    withoutRoles(await describeSchema(pair.source.adminUrl)),
  );
});

test.skipIf(isSkipped)(
  "a table that cannot be created is named with the server's reason; the others are made",
  async () => {
    await using pair = await leastPrivilegedPair();
    await pair.source.asAdmin(`
    create schema locked; create table locked.t (id int primary key);
    create table public.fine (id int primary key);
    alter table public.fine enable row level security;
    create policy theirs on public.fine to ${pair.source.writer.name} using (true);
    grant all on schema locked to public; grant all on locked.t, public.fine to public`);
    await pair.target.asAdmin(
      `revoke create on database "${pair.target.name}" from "${pair.target.owner.name}"`,
    );
    await using sync = await open(pair);
    const failure = sync.schema();
    await expect(failure).rejects.toMatchObject({ code: "SCHEMA_INCOMPLETE", exitCode: 1 });
    const { problems } = (await failure.catch((error: unknown) => error)) as {
      problems: { subject: string; message: string; remedy?: string }[];
    };
    expect(problems[0]).toMatchObject({
      subject: "schema locked",
      message: `permission denied for database ${pair.target.name}`,
    });
    expect(problems[0]?.remedy).toContain("grant create on database");
    const subjects = problems.map(({ subject }) => subject);
    expect(subjects).toContain("table locked.t");
    const policy = problems.find(({ subject }) => subject === "policy theirs on public.fine");
    expect(policy?.remedy).toContain(`create role "${pair.source.writer.name}"`);
    expect(await pair.target.sql(`select * from public.fine`)).toEqual([]);
  },
);

test.skipIf(isSkipped)("only the chosen tables and what they need", async () => {
  await using pair = await freePair();
  await pair.source.sql(`
    create schema app; create schema legacy; create schema types;
    create type types.color as enum ('red');
    create type types.unused as enum ('red');
    create table app.wanted (id int primary key, color types.color);
    create table app.other (id int primary key);
    create table app.child (id int primary key, other int references app.other, wanted int references app.wanted);
    create view app.others as select * from app.other;
    create view app.plain as select * from app.wanted;
    create table legacy.old (id serial primary key);
    create function legacy.f() returns int language sql as 'select 1';
    create table app.moved (id int primary key);
    create table app.split (id int primary key) partition by list (id);
    create table legacy.split_1 partition of app.split for values in (1)`);
  await using sync = await open(pair, {
    tables: ["app.*"],
    exclude: ["app.other"],
    overrides: { "app.moved": { target: "app.elsewhere" } },
  });
  const report = await sync.schema();
  const rows = await pair.target.sql<{ name: string }>(
    `select oid::regclass::text as name from pg_class
      where relnamespace in (select oid from pg_namespace where nspname in ('app', 'legacy', 'types')) and relkind in ('r', 'p', 'v')
      order by 1`,
  );
  expect(rows.map(({ name }) => name)).toEqual([
    "app.child",
    "app.plain",
    "app.split",
    "app.wanted",
    "legacy.split_1",
  ]);
  expect(report.leftOut).toContainEqual({
    object: "view app.others",
    reason: "needs table app.other, which is left out",
  });
  expect(report.leftOut).toContainEqual({
    object: "table app.moved",
    reason: "it is called app.elsewhere on the target: create it there by hand",
  });
  const leftOut = report.leftOut.map(({ object }) => object);
  expect(leftOut).toContain("function legacy.f()");
  expect(leftOut).toContain("type types.unused");
  expect(leftOut).toContain("fk constraint child_other_fkey on app.child");
  expect(report.created).toContain("fk constraint child_wanted_fkey on app.child");
});

test.skipIf(isSkipped)(
  "a provider's schemas stay behind with what refers to them; a customer's of the same name comes",
  async () => {
    await using pair = await freePair();
    const provider = await pair.source.createRole({ prefix: "supabase_admin" });
    const customer = await pair.source.createRole({ prefix: "customer", attributes: "superuser" });
    await pair.source.sql(`
    create schema auth authorization ${provider.name};
    create table auth.users (id int primary key);
    create function auth.uid() returns int language sql as 'select 1';
    create schema storage authorization ${customer.name};
    create table storage.box (id int primary key);
    create table public.profile (id int primary key references auth.users);
    alter table public.profile enable row level security;
    create policy own on public.profile using (id = auth.uid());
    create view public.names as select * from auth.users;
    create schema heroku_ext;
    create extension citext schema heroku_ext;
    create extension pg_stat_statements;
    create table public.mail (address heroku_ext.citext primary key)`);
    await using sync = await openSync({ source: customer.url, target: pair.target.url, env: {} });
    const report = await sync.schema();
    expect(report.leftOut).toContainEqual({ object: "schema auth", reason: "belongs to Supabase" });
    for (const object of ["fk constraint profile_id_fkey on public.profile", "view public.names"]) {
      expect(report.leftOut).toContainEqual({ object, reason: "refers to auth.users: belongs to Supabase" });
    }
    expect(report.leftOut).toContainEqual({
      object: "policy own on public.profile",
      reason: "refers to auth.uid: belongs to Supabase",
    });
    expect(report.leftOut.map(({ object }) => object)).toContain("comment - EXTENSION citext");
    const rows = await pair.target.sql(
      `select format_type(atttypid, -1) as type from pg_attribute where attname = 'address'`,
    );
    expect(rows).toContainEqual({ type: "heroku_ext.citext" });
    expect(report.created).toContain("table storage.box");
    expect(report.created).toContain("table public.profile");
  },
);

test.skipIf(isSkipped)("an extension in another schema is told before anything is created", async () => {
  await using pair = await freePair();
  await pair.source.sql(
    `create schema ext; create extension citext schema ext; create table t (id ext.citext primary key)`,
  );
  await pair.target.sql(`create extension citext`);
  await using sync = await open(pair);
  const failure = (await sync.schema().catch((error: unknown) => error)) as {
    problems: { remedy: string }[];
  };
  expect(failure).toMatchObject({ code: "PREFLIGHT_BLOCKED" });
  expect(await pair.target.sql(`select 1 from pg_namespace where nspname = 'ext'`)).toEqual([]);
  await pair.target.sql(failure.problems[0]?.remedy ?? "");
  expect((await sync.schema()).created).toEqual(["table public.t", "constraint t_pkey on public.t"]);
});

test.skipIf(isSkipped)("printed, it is the SQL of what would be done", async () => {
  await using pair = await freePair();
  await makeSource(pair);
  await using sync = await open(pair);
  const { sql } = await sync.schema({ section: "pre-data", print: true });
  expect(sql).toContain("CREATE TABLE app.customer");
  expect(sql).toContain("ADD CONSTRAINT customer_pkey PRIMARY KEY");
  expect(sql).not.toContain("CREATE TRIGGER");
  expect(sql).not.toContain("OWNER TO");
  expect(await schemaOf(pair.target)).toEqual([]);
});

test("without client programs, says which package to install", async () => {
  await using pair = await freePair();
  await using sync = await open(pair, { env: { PGBIN: "/nonexistent" } });
  await expect(sync.schema()).rejects.toMatchObject({
    code: "CLIENT_MISSING",
    hint: expect.stringContaining("postgresql-client-18") as string,
  });
});

test.skipIf(isSkipped)(
  "the programs are told no secret on their command line, and leave no file",
  async () => {
    await using pair = await leastPrivilegedPair();
    await pair.source.sql(`create table t (id int primary key)`);
    const usual = process.env["TMPDIR"];
    const folder = mkdtempSync(join(tmpdir(), "replicate-programs-"));
    try {
      for (const program of ["pg_dump", "pg_restore"]) {
        const real = execFileSync("sh", ["-c", `command -v ${program}`], { encoding: "utf8" }).trim();
        const script = `#!/bin/sh\nprintf '%s\\n' "$0 $*" >> "${folder}/said"\nexec ${real} "$@"\n`;
        writeFileSync(join(folder, program), script, { mode: 0o755 });
      }
      // Of its own, since other tests work in the usual one.
      process.env["TMPDIR"] = folder;
      await using sync = await open(pair, { env: { PGBIN: folder } });
      expect((await sync.schema()).created).toContain("table public.t");
      const said = readFileSync(join(folder, "said"), "utf8");
      expect(said).toContain("--schema-only");
      expect(said).toContain("--use-list=");
      for (const { owner } of [pair.source, pair.target]) {
        expect(said).not.toContain(owner.password);
        expect(said).not.toContain(encodeURIComponent(owner.password));
      }
      expect(readdirSync(folder).toSorted()).toEqual(["pg_dump", "pg_restore", "said"]);
    } finally {
      if (usual === undefined) delete process.env["TMPDIR"];
      else process.env["TMPDIR"] = usual;
      rmSync(folder, { recursive: true });
    }
  },
);
