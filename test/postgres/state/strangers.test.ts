import { beforeAll, afterAll, describe, expect, test } from "vitest";

import { ReplicateError } from "../../../src/errors.ts";
import { openSync, type Sync } from "../../../src/index.ts";
import { quoteName, uniqueName, urlWith } from "../../support/admin.ts";
import { freePair, type Pair, type Role } from "../../support/database.ts";

// Whoever has a say in schema replicate would have his code run with our rights: nothing is done there then.

async function refusal(work: Promise<unknown>): Promise<ReplicateError | undefined> {
  try {
    await work;
    return undefined;
  } catch (error) {
    if (error instanceof ReplicateError) return error;
    throw error;
  }
}

let pair: Pair;
const lesser = { source: undefined as Role | undefined, target: undefined as Role | undefined };

beforeAll(async () => {
  pair = await freePair();
  for (const side of ["source", "target"] as const) {
    lesser[side] = await pair[side].createRole({ prefix: "lesser" });
    const name = quoteName(lesser[side].name);
    await pair[side].sql(`
      create table t (id int primary key, v text);
      grant create on database ${quoteName(pair[side].name)} to ${name}; grant create, usage on schema public to ${name};
      create table ran (who text); grant insert on ran to public;
      create function trap() returns trigger language plpgsql as $$ begin insert into public.ran values (current_user); return new; end $$;
      create function trap_default() returns text language plpgsql as $$ begin insert into public.ran values (current_user); return ''; end $$;
      create function trap_check(text) returns bool immutable language plpgsql as $$ begin return true; end $$;
      create function trap_index(text) returns text immutable language sql as 'select $1';
      create operator public.=== (leftarg = text, rightarg = text, procedure = texteq);
      alter function trap() owner to ${name}; alter function trap_default() owner to ${name};`);
  }
});
afterAll(async () => await pair.dispose());

const open = async (): Promise<Sync> =>
  await openSync({ source: pair.source.url, target: pair.target.url, tables: ["public.t"], env: {} });

interface Member {
  readonly make: (role: string) => string;
  readonly says: RegExp;
  /** What is left when the remedies were run. */
  readonly clean?: string;
}

const members: Record<string, Member> = {
  "the schema's owner": {
    make: (role) => `alter schema replicate owner to ${role}`,
    says: /schema replicate belongs to/,
    clean: "alter schema replicate owner to current_user",
  },
  "a table's owner": { make: (role) => `alter table replicate.runner owner to ${role}`, says: /replicate\.runner belongs to/ }, // prettier-ignore
  "a sequence": { make: (role) => `create sequence replicate.s; alter sequence replicate.s owner to ${role}`, says: /replicate\.s belongs to/ }, // prettier-ignore
  "a function's owner": {
    make: (role) =>
      `alter function replicate.advance(text, text, text, text, text, integer[]) owner to ${role}`,
    says: /function replicate\.advance\(.*\) belongs to/,
  },
  "a type's owner": { make: (role) => `create type replicate.e as enum ('a'); alter type replicate.e owner to ${role}`, says: /type replicate\.e belongs to/ }, // prettier-ignore
  "a trigger": { make: () => `create trigger z before insert on replicate.sync for each row execute procedure trap()`, says: /trigger z on replicate\.sync/ }, // prettier-ignore
  "a trigger that is disabled": {
    make: () =>
      `create trigger z before insert on replicate.runner for each row execute procedure trap(); alter table replicate.runner disable trigger z`,
    says: /trigger z on replicate\.runner/,
  },
  "a rule": { make: () => `create rule z as on insert to replicate.deferred do also select 1`, says: /rule z on replicate\.deferred/ }, // prettier-ignore
  "a policy": { make: () => `create policy z on replicate.sync using (trap_check(name))`, says: /policy z on replicate\.sync/ }, // prettier-ignore
  "row level security": { make: () => `alter table replicate.sync enable row level security`, says: /replicate\.sync has row level security/ }, // prettier-ignore
  "a default": { make: () => `alter table replicate.runner alter column host set default trap_default()`, says: /uses function .*trap_default/ }, // prettier-ignore
  "a check": { make: () => `alter table replicate.runner add constraint z check (trap_check(host))`, says: /uses function .*trap_check/ }, // prettier-ignore
  "a check with an operator": { make: () => `alter table replicate.runner add constraint z check (host operator(public.===) host)`, says: /uses operator/ }, // prettier-ignore
  "an index": { make: () => `create index z on replicate.runner (trap_index(host))`, says: /uses function .*trap_index/ }, // prettier-ignore
  "a child": { make: () => `create table child () inherits (replicate.sync)`, says: /child inherits from replicate\.sync/, clean: "drop table child" }, // prettier-ignore
  "a view": { make: () => `create view replicate.z as select 1`, says: /view replicate\.z is none of ours/ },
  "a materialized view": { make: () => `create materialized view replicate.z as select 1`, says: /replicate\.z is none of ours/ }, // prettier-ignore
  "the right to create": { make: (role) => `grant create on schema replicate to ${role}`, says: /may create objects in it/ }, // prettier-ignore
  "everybody's right to create": { make: () => `grant all on schema replicate to public`, says: /public may create/, clean: "revoke all on schema replicate from public" }, // prettier-ignore
  "the right to put triggers": {
    make: (role) => `grant usage on schema replicate to ${role}; grant all on replicate.sync to ${role}`,
    says: /may put triggers on it/,
    clean: "revoke all on schema replicate from LESSER; revoke all on replicate.sync from LESSER",
  },
};

describe.each(["source", "target"] as const)("on the %s", (side) => {
  test.each(Object.entries(members))("%s", async (_, { make, says, clean }) => {
    for (const each of [pair.source, pair.target]) await each.sql("drop schema if exists replicate cascade; drop table if exists child"); // prettier-ignore
    await using first = await open();
    await first.init();
    const role = lesser[side] as Role;
    const name = quoteName(role.name);
    await pair[side].sql(make(name));
    for (const verb of ["init", "copy", "status", "drop", "cutover", "preflight"] as const) {
      await using sync = await open();
      const error = await refusal(sync[verb]());
      // Where it asks the other side first, and that is all.
      if (verb === "status" && side === "source") continue;
      expect([verb, error?.code]).toEqual([verb, "STATE_NOT_OURS"]);
      expect(error?.message).toContain(pair[side].name);
      expect(error?.problems.map(({ subject, message }) => `${subject} ${message}`).join("\n")).toMatch(says);
    }
    // As said, and it goes on.
    await using again = await open();
    const error = await refusal(again.init());
    for (const { remedy = "" } of error?.problems ?? [])
      if (!remedy.startsWith("drop schema")) await pair[side].sql(remedy);
    if (clean !== undefined) await pair[side].sql(clean.replaceAll("LESSER", name));
    await again.init();
    await again.drop();
    expect(await pair[side].sql("select * from ran")).toEqual([]);
  });
});

test("a schema that a lesser role has made beforehand: its code does not run as a superuser", async () => {
  const { name } = lesser.target as Role;
  await pair.target.sql("drop schema if exists replicate cascade");
  await pair.target.sql(`set role ${quoteName(name)};
    create schema replicate; create table replicate.migration (version int primary key, applied_at timestamptz);
    create view replicate.sync as select public.trap_default() as name; create view replicate.source_sync as select public.trap_default() as name;
    create trigger z before insert on replicate.migration for each row execute procedure public.trap(); reset role`);
  for (const verb of ["preflight", "init", "copy", "status", "drop"] as const) {
    await using sync = await open();
    expect((await refusal(sync[verb]()))?.code).toBe("STATE_NOT_OURS");
  }
  expect(await pair.target.sql("select * from ran")).toEqual([]);
  await pair.target.sql("drop schema replicate cascade");
});

test("what is a superuser's, our own, or of a role that we are a member of, is ours", async () => {
  await using own = await freePair();
  const group = uniqueName("group");
  const member = await own.target.createRole({ prefix: "member" });
  const name = quoteName(member.name);
  await own.source.sql("create table t (id int primary key)");
  await own.target.sql(`create table t (id int primary key); alter table t owner to ${name};
    create role ${quoteName(group)}; grant ${quoteName(group)} to ${name};
    grant create on schema public to ${name}; grant create, temporary on database ${quoteName(own.target.name)} to ${name}, ${quoteName(group)}`);
  const asMember = { source: own.source.url, target: urlWith(member.url, {}), env: {} };
  try {
    await using sync = await openSync(asMember);
    expect((await refusal(sync.init()))?.problems ?? []).toEqual([]);
    await own.target.sql(`alter schema replicate owner to ${quoteName(group)}`);
    await using again = await openSync(asMember);
    expect(await refusal(again.init())).toBeUndefined();
    // To a superuser they are strangers.
    await using above = await openSync({ ...asMember, target: own.target.url });
    const error = await refusal(above.init());
    expect(error?.code).toBe("STATE_NOT_OURS");
    expect(error?.problems[0]?.remedy).toContain(`connect as ${group}`);
    await own.target.sql(`alter schema replicate owner to postgres; grant usage, create on schema replicate to ${name}`); // prettier-ignore
    await using third = await openSync(asMember);
    expect(await refusal(third.init())).toBeUndefined();
  } finally {
    await own.target.sql(`drop schema if exists replicate cascade; drop owned by ${quoteName(group)}; drop role ${quoteName(group)}`); // prettier-ignore
  }
});
