import { afterAll, beforeAll, expect, test } from "vitest";

import { openSync, type Finding, type PreflightOptions, type Sync } from "../../../src/index.ts";
import { quoteName, uniqueName } from "../../support/admin.ts";
import {
  type LeastPrivilegedPair,
  type LeastPrivilegedSide,
  leastPrivilegedPair,
} from "../../support/least-privileged-pair.ts";
import { describeSchema } from "../../support/schema-description.ts";

// Each finding appears by what it is about, and is gone once the statement that it prints was run as the role that it
// names: with owners who are nothing but owners.

const tables = `
  create table a (id int primary key, v text);
  create table b (id serial primary key, a int constraint b_a references a, t text default 'x', n int not null);
  create index b_t on b (t);
  create sequence free_numbers;
  create view v as select id from a;`;

let pair: LeastPrivilegedPair;
let sync: Sync;
const app = uniqueName("preflight_app");
const group = uniqueName("preflight_group");
const stranger = uniqueName("preflight_stranger");
const roles = [app, group, stranger].map(quoteName).join(", ");

beforeAll(async () => {
  pair = await leastPrivilegedPair();
  for (const side of [pair.source, pair.target]) {
    await side.asAdmin(`
      create role ${quoteName(app)} login; create role ${quoteName(group)}; create role ${quoteName(stranger)};
      grant ${quoteName(group)} to ${quoteName(app)}`);
    await side.sql(tables);
    await side.sql(`
      grant usage on schema public to ${quoteName(app)};
      grant select, insert on a, b to ${quoteName(app)}; grant update (t) on b to ${quoteName(app)};
      grant usage on sequence b_id_seq to ${quoteName(app)}; grant select on v to ${quoteName(group)}`);
  }
  sync = await openSync({ source: pair.source.url, target: pair.target.url, env: {} });
});

afterAll(async () => {
  await sync[Symbol.asyncDispose]();
  for (const side of [pair.source, pair.target]) {
    await side
      .asAdmin(`drop owned by ${roles}, ${quoteName(pair.source.writer.name)}`)
      .catch(() => undefined);
    await side.asAdmin(`drop owned by ${roles}`);
    await side.asAdmin(`drop role ${roles}`);
  }
  // Made by a remedy.
  await pair.target.asAdmin(`drop role if exists ${quoteName(pair.source.writer.name)}`);
  await pair.target.asAdmin(
    `revoke set on parameter session_replication_role from ${quoteName(pair.target.owner.name)}`,
  );
  await pair.dispose();
});

const show = ({ severity, subject, message }: Finding): string => `${severity}: ${subject}: ${message}`;

const look = async (options: PreflightOptions = {}): Promise<readonly Finding[]> =>
  (await sync.preflight(options)).findings;

/** Runs a remedy as it says. */
async function settle({ remedy = "", side, role }: Finding): Promise<void> {
  if (side === undefined) throw new Error(`not SQL: ${remedy}`);
  expect(remedy).toContain(`-- on the ${side}, as ${role}\n`);
  const on: LeastPrivilegedSide = pair[side];
  if (role === on.owner.name) await on.sql(remedy);
  else if (role === "an administrator" || role === "postgres") await on.asAdmin(remedy);
  else await on.asAdmin(`set role ${quoteName(role ?? "")};\n${remedy}\n; reset role`);
}

test("on a pair that fits, there are notes alone once all remedies were run", async () => {
  const first = await look();
  const said = first.map(({ severity, subject }) => `${severity} ${subject}`);
  expect(said).toEqual(
    [
      `warning role ${pair.source.writer.name}`,
      `warning role ${pair.source.writer.name}`,
      `warning default privileges of ${pair.target.owner.name}`,
      "note transactions on the source",
      "note transactions on the target",
      "note session_replication_role",
      "note disk of the target",
      "note disk of the source",
    ].filter((each) => said.includes(each) || !each.includes("transactions")),
  );
  for (const each of first.filter(({ side }) => side !== undefined)) await settle(each);
  expect((await look()).map(show)).toEqual([
    expect.stringContaining("note: disk of the target: the copy takes about "),
    expect.stringContaining("note: disk of the source: at "),
  ]);
});

interface Case {
  readonly finds: string;
  /** As the superuser. `OWNER` is the role of the product on that side, DB its database. */
  readonly source?: string;
  readonly target?: string;
  /** Whose remedy is not run as it is: what is run instead, as the superuser of that side. */
  readonly instead?: { readonly side: "source" | "target"; readonly sql: string };
  /** What is put back afterwards. */
  readonly afterSource?: string;
  readonly afterTarget?: string;
  readonly options?: PreflightOptions;
}

const own = { app: quoteName(app), group: quoteName(group), stranger: quoteName(stranger) };

const cases: readonly Case[] = [
  { finds: "warning: role OWNER on the source: copy with 4 jobs and follow open 7 sessions on the source, and ", source: "alter role OWNER connection limit 6", afterSource: "alter role OWNER connection limit -1" },
  { finds: "blocking: database DB: copy with 4 jobs and follow open 9 sessions on the target, and ", target: "alter database DB connection limit 4", afterTarget: "alter database DB connection limit -1" },
  { finds: "blocking: target: role OWNER may not create schema replicate", target: "revoke create on database DB from OWNER" },
  { finds: "blocking: target: role OWNER may not create temporary tables", target: "revoke temporary on database DB from OWNER, public" },
  { finds: "blocking: schema public: on the source, role OWNER has no usage on it, so it cannot read its tables", source: "alter schema public owner to postgres; revoke all on schema public from OWNER, public", afterSource: "alter schema public owner to OWNER" },
  { finds: "blocking: schema public: on the target, role OWNER has no create on it, so it cannot build indexes there", target: "alter schema public owner to postgres; revoke create on schema public from OWNER; grant usage on schema public to OWNER", afterTarget: "alter schema public owner to OWNER" },
  { finds: `blocking: public.a: is owned by ${stranger}: triggers can be created by its owner only`, source: `alter table a owner to ${own.stranger}`, afterSource: `alter table a owner to OWNER; revoke ${own.stranger} from OWNER` },
  { finds: `blocking: public.a: on the target, public.a is owned by ${stranger}: indexes can be rebuilt by its owner only`, target: `alter table a owner to ${own.stranger}`, afterTarget: `alter table a owner to OWNER; revoke ${own.stranger} from OWNER` },
  { finds: "blocking: public.a: on the target, row security applies to this role on public.a", target: "alter table a enable row level security; alter table a force row level security", afterTarget: "alter table a disable row level security" },
  { finds: "warning: sequence public.free_numbers: role OWNER may not read it on the source", source: "alter sequence free_numbers owner to postgres", afterSource: "alter sequence free_numbers owner to OWNER" },
  { finds: "warning: sequence public.free_numbers: role OWNER may not set it on the target", target: "alter sequence free_numbers owner to postgres", afterTarget: "alter sequence free_numbers owner to OWNER" },
  { finds: `warning: role ${app}: may do less on the target than on the source, with public.a, public.b`, target: `revoke insert on a, b from ${own.app}` },
  { finds: `warning: role ${app}: may do less on the target than on the source, with public.b`, target: `revoke update (t) on b from ${own.app}` },
  { finds: `warning: role ${app}: may do less on the target than on the source, with public.b_id_seq`, target: `revoke usage on sequence b_id_seq from ${own.app}` },
  { finds: `warning: role ${app}: may do less on the target than on the source, with public`, target: `revoke usage on schema public from ${own.app}` },
  { finds: `warning: role ${group}: may do less on the target than on the source, with public.v`, target: `revoke select on v from ${own.group}` },
  { finds: `warning: role ${app}: is a member of ${group} on the source and not on the target`, target: `revoke ${own.group} from ${own.app}` },
  { finds: "warning: all roles: may do less on the target than on the source, with public.a", source: "grant select on a to public", afterTarget: "revoke select on a from public", afterSource: "revoke select on a from public" },
  { finds: `warning: role ${stranger}: may do less on the target than on the source, with public.a`, source: `alter table b owner to ${own.stranger}; alter table b owner to OWNER; grant truncate on a to ${own.stranger}`, afterSource: `revoke all on a from ${own.stranger}`, afterTarget: `revoke all on a from ${own.stranger}` },
  { finds: "warning: default privileges of OWNER_TARGET: ", source: `alter default privileges for role OWNER in schema public grant references on tables to ${own.app}` },
  { finds: "note: extension citext: is missing on the target; no replicated column is of its types", source: "create extension citext", afterSource: "drop extension citext" },
  { finds: "note: extension citext: is 1.6 on the source and 1.4 on the target", source: "create extension if not exists citext", target: "drop extension if exists citext; create extension citext version '1.4'" },
  { finds: "warning: extension pg_trgm: is missing on the target, and index public.a_trgm needs it", source: "create extension pg_trgm; create index a_trgm on a using gin (v gin_trgm_ops)", afterSource: "drop index a_trgm; drop extension pg_trgm" },
  { finds: "blocking: extension hstore: is missing on the target, and columns of public.h are of its types", source: "create extension hstore; create table h (id int primary key, v hstore); alter table h owner to OWNER", afterSource: "drop table h; drop extension hstore" },
  { finds: "note: prepared transaction idle: prepared for ", source: "begin; select txid_current(); prepare transaction 'idle'" },
  { finds: "warning: prepared transaction writer: prepared for ", source: "begin; delete from a; prepare transaction 'writer'" },
  { finds: "warning: publication everything: publishes all tables of the source", source: "create publication everything for all tables", afterSource: "drop publication everything" },
  { finds: "warning: publication everything: publishes all tables of the target", target: "create publication everything for all tables with (publish = 'insert, delete')", afterTarget: "drop publication everything" },
  { finds: "warning: event trigger guard: fires on the source at ddl_command_end of CREATE TABLE", source: "create function guard() returns event_trigger language plpgsql as 'begin end'; create event trigger guard on ddl_command_end when tag in ('CREATE TABLE', 'DROP VIEW') execute function guard()", afterSource: "drop event trigger guard; drop function guard" },
  { finds: "warning: event trigger guard: fires on the target at ddl_command_start of every command", target: "create function guard() returns event_trigger language plpgsql as 'begin end'; create event trigger guard on ddl_command_start execute function guard(); alter event trigger guard enable always", afterTarget: "drop event trigger guard; drop function guard" },
  { finds: "note: triggers and rules of the target: reacts on public.a would act on replicated rows: disabled from copy until cutover or drop", target: "create function reacts() returns trigger language plpgsql as 'begin return new; end'; create trigger reacts before insert on a for each row execute function reacts(); alter table a enable always trigger reacts", instead: { side: "target", sql: "drop function reacts cascade" } },
  { finds: "warning: public.u: is unlogged", source: "create unlogged table u (id int primary key); alter table u owner to OWNER", target: "create table u (id int primary key); alter table u owner to OWNER", afterSource: "drop table u", afterTarget: "drop table u" },
  { finds: "warning: foreign key b_a on public.b: 2 rows of the source have no row in public.a", source: "set session_replication_role = replica; insert into b (a, n) values (7, 1), (8, 1), (null, 1); reset session_replication_role", instead: { side: "source", sql: "delete from b where a in (7, 8)" }, afterSource: "truncate b", options: { checkForeignKeys: true } },
  { finds: "warning: index public.b_t: is missing on the target", target: "drop index b_t" },
  { finds: "warning: foreign key b_a on public.b: is missing on the target", target: "alter table b drop constraint b_a" },
  { finds: "warning: foreign key b_a on public.b: valid is true on the source and false on the target", target: "alter table b drop constraint b_a; alter table b add constraint b_a foreign key (a) references a not valid" },
  { finds: "warning: column public.b.t: default is 'x'::text on the source and none on the target", target: "alter table b alter t drop default" },
  { finds: "warning: column public.b.n: not null is true on the source and false on the target", target: "alter table b alter n drop not null" },
  { finds: "warning: view public.v: is missing on the target", target: "drop view v", afterTarget: `grant select on v to ${own.group}, SOURCE_WRITER` },
  { finds: "warning: sequence public.free_numbers: is missing on the target", target: "drop sequence free_numbers", afterTarget: `grant usage, select on sequence free_numbers to SOURCE_WRITER` },
  { finds: "warning: check more on public.b: exists on the target alone", target: "alter table b add constraint more check (n > 5)" },
  { finds: "warning: unique constraint once on public.b: exists on the target alone", target: "alter table b add constraint once unique (n)" },
  { finds: "note: index public.more: exists on the target alone", target: "create index more on b (n)" },
  { finds: "blocking: public.a: the target's table has no unique index on the key (id)", target: "alter table a drop constraint a_pkey cascade", afterTarget: "alter table b add constraint b_a foreign key (a) references a" },
]; // prettier-ignore

function fill(text: string, side: LeastPrivilegedSide): string {
  return text
    .replaceAll("OWNER", quoteName(side.owner.name))
    .replaceAll("DB", quoteName(side.name))
    .replaceAll("SOURCE_WRITER", quoteName(pair.source.writer.name));
}

const sideOf = ({ source, finds }: Case): LeastPrivilegedSide =>
  source !== undefined && !finds.includes("on the target,") ? pair.source : pair.target;

test.each(cases)("$finds", async (each) => {
  const { source, target, instead, afterSource, afterTarget, options } = each;
  const wanted = fill(each.finds.replaceAll("OWNER_TARGET", "TARGETS"), sideOf(each))
    .replaceAll("TARGETS", pair.target.owner.name)
    .replaceAll('"', "");
  const isWanted = (finding: Finding): boolean => show(finding).startsWith(wanted);
  const before = (await look(options)).map(show);
  expect(before.filter((line) => line.startsWith(wanted))).toEqual([]);
  try {
    if (source !== undefined) await pair.source.asAdmin(fill(source, pair.source));
    if (target !== undefined) await pair.target.asAdmin(fill(target, pair.target));
    const findings = await look(options);
    const [found, ...more] = findings.filter(isWanted);
    expect([found, more], findings.map(show).join("\n")).toEqual([expect.anything(), []]);
    // Nothing is said twice: what else there is, is another finding's case.
    if (/ (once|more) on /.test(wanted)) expect(findings.length).toBe(before.length + 1);
    if (instead === undefined) await settle(found as Finding);
    else await pair[instead.side].asAdmin(instead.sql);
    expect((await look(options)).filter(isWanted)).toEqual([]);
  } finally {
    if (afterSource !== undefined) await pair.source.asAdmin(fill(afterSource, pair.source));
    if (afterTarget !== undefined) await pair.target.asAdmin(fill(afterTarget, pair.target));
  }
});

test("what belongs to a provider is passed over", async () => {
  const theirs = uniqueName("rds_preflight");
  await pair.target.asAdmin("drop extension if exists hstore");
  await pair.source.asAdmin(`
    create schema graphql; create extension hstore schema graphql;
    create role ${quoteName(theirs)}; grant select on a to ${quoteName(theirs)}`);
  const others = async (): Promise<string[]> =>
    (await look()).map(show).filter((line) => !line.includes(": disk of the "));
  try {
    expect(await others()).toEqual([]);
    await pair.source.asAdmin(`
      alter extension hstore set schema public; grant select on a to ${quoteName(stranger)}`);
    expect(await others()).toEqual([
      expect.stringContaining("note: extension hstore: is missing on the target"),
      expect.stringContaining(`warning: role ${stranger}: may do less`),
    ]);
  } finally {
    await pair.source.asAdmin(`
      drop extension hstore; drop schema graphql; revoke all on a from ${quoteName(stranger)};
      drop owned by ${quoteName(theirs)}; drop role ${quoteName(theirs)}`);
  }
});

test("transactions that are open for long, and what they hold", async () => {
  const client = await pair.source.client("admin");
  try {
    await client.query("begin; insert into a values (99, 'x')");
    // Only a member of pg_read_all_stats sees others' transactions; the first test gave it that.
    const findings = await look({ longTransactionSeconds: 0 });
    const long = findings.find(({ subject }) => subject.startsWith("long transaction of pid "));
    expect(long).toMatchObject({
      severity: "warning",
      message: expect.stringContaining("with a lock on public.a: installing capture waits for it"),
    });
    expect((await look()).filter(({ subject }) => subject.startsWith("long transaction"))).toEqual([]);
    await settle(long as Finding);
    const after = await look({ longTransactionSeconds: 0 });
    expect(after.filter(({ subject }) => subject === long?.subject)).toEqual([]);
  } finally {
    await client.end().catch(() => undefined);
  }
});

test("what the orphans' finding prints shows them", async () => {
  await pair.source.asAdmin(
    "set session_replication_role = replica; insert into b (id, a, n) values (70, 7, 1); reset session_replication_role",
  );
  const [found] = (await look({ checkForeignKeys: true })).filter(({ subject }) =>
    subject.startsWith("foreign key"),
  );
  expect(await pair.source.sql(found?.remedy ?? "")).toMatchObject([{ id: 70, a: 7 }]);
  expect((await look()).filter(({ subject }) => subject.startsWith("foreign key"))).toEqual([]);
  await pair.source.sql("truncate b");
});

test("large objects and temporary tables are named", async () => {
  const client = await pair.source.client("admin");
  await client.query("create temporary table passing (i int); select lo_create(4711)");
  const said = (await look()).map(show);
  expect(said).toContain("note: temporary tables: 1 of open sessions are not replicated");
  expect(
    said.filter((line) => line.startsWith("warning: large objects: 1 of them, not replicated")),
  ).toHaveLength(1);
  await client.query("drop table passing; select lo_unlink(4711)");
  await client.end();
});

test("nothing is changed by it, and what a copy took away is no finding", async () => {
  const urls = [pair.source.adminUrl, pair.target.adminUrl];
  const before = await Promise.all(urls.map(describeSchema));
  await look({ checkForeignKeys: true });
  expect(await Promise.all(urls.map(describeSchema))).toEqual(before);

  await sync.init();
  const said = (await look()).map(show);
  await pair.target.sql(`
    alter table b drop constraint b_a; drop index b_t; alter table a drop constraint a_pkey;
    insert into replicate.deferred (sync, capture_id, kind, object_name, table_name, stage, statements) values
      ('default', 1, 'foreign-key', 'b_a', 'public.b', 1, '{select 1}'), ('default', 1, 'index', 'b_t', 'public.b', 1, '{select 1}'),
      ('default', 1, 'key', 'a_pkey', 'public.a', 1, '{select 1}')`);
  const meanwhile = (await look()).map(show).filter((line) => !line.includes("disk"));
  // The constraint of the key is another object than its index, which the ledger names.
  expect(meanwhile).toEqual(said.filter((line) => !line.includes("disk")));
  await pair.target.sql(`
    delete from replicate.deferred; alter table a add primary key (id);
    alter table b add constraint b_a foreign key (a) references a; create index b_t on b (t)`);
  await sync.drop();
});
