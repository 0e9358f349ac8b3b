import { expect } from "vitest";

import { openSync } from "../../src/index.ts";
import { withClient } from "./admin.ts";
import { freePair, type Role } from "./database.ts";

// Whose code runs as whom: the sync runs as a superuser, the tables belong to a role that may do little, and whatever that
// role defines on its types, and in its search path, would like to run as more. A sequence counts how often it did, because
// what is rolled back does not take that back.

const trap = (returns: string, value: string): string =>
  `returns ${returns} language plpgsql as $$ begin
     if (select rolsuper from pg_catalog.pg_roles where rolname = current_user) then
       perform pg_catalog.nextval('public.escaped');
     end if;
     return ${value};
   end $$`;

/** `key`: how the table's key is declared. `before`: run by the owner before the table is captured; `after`: then, when the key has become an enum. */
export interface Member {
  readonly name: string;
  readonly types?: string;
  readonly key: string;
  readonly rows: readonly string[];
  readonly before?: string;
  readonly after?: string;
  /** The owner's search path while it writes. */
  readonly path?: string;
  readonly moved: string;
}

const enumType = `create type en as enum ('a', 'b', 'c', 'd');
  create function en_text(en) ${trap("text", "'a'")}; create function text_en(text) ${trap("en", "'b'::en")};
  create function en_bool(en) ${trap("boolean", "true")}`;
const casts = (kind: string): string =>
  `create cast (en as text) with function en_text(en) ${kind.replace("implicit", "assignment")};
   create cast (text as en) with function text_en(text) ${kind}`;
const letters = ["'a'", "'b'", "'c'"];

export const members: readonly Member[] = [
  ...["as assignment", "as implicit"].map((kind) => ({
    name: `casts of an enum, ${kind}`,
    types: enumType,
    key: "en",
    rows: letters,
    before: casts(kind),
    moved: "'d'",
  })),
  {
    name: "casts of an enum under a domain with a check",
    types: `${enumType}; create domain en_dom as en check (en_bool(value))`,
    key: "en_dom",
    rows: letters,
    before: casts("as assignment"),
    moved: "'d'",
  },
  {
    name: "a domain with a check",
    types: `create function ok(int) ${trap("boolean", "true")}; create domain int_dom as int check (ok(value))`,
    key: "int_dom",
    rows: ["1", "2", "3"],
    moved: "9",
  },
  {
    name: "casts of a composite type and of what is in it",
    types: `${enumType}; create type pair as (n int, e en); create function pair_text(pair) ${trap("text", "'(1,a)'")};
      create function text_pair(text) ${trap("pair", "null")}`,
    key: "pair",
    rows: ["row(1, 'a')::pair", "row(2, 'b')::pair"],
    before: `${casts("as implicit")}; create cast (pair as text) with function pair_text(pair) as assignment;
      create cast (text as pair) with function text_pair(text) as implicit`,
    moved: "row(3, 'c')::pair",
  },
  {
    name: "operators in the search path",
    key: "text",
    rows: letters,
    before: `create schema trap; create function trap.eq(text, text) ${trap("boolean", "true")};
      create operator trap.= (leftarg = text, rightarg = text, procedure = trap.eq);
      create operator trap.<> (leftarg = text, rightarg = text, procedure = trap.eq)`,
    path: "trap, public, pg_catalog",
    moved: "'d'",
  },
  ...(["date", "text", "int8"] as const).map((type) => ({
    name: `a type called ${type} in the search path`,
    key: `pg_catalog.${type}`,
    rows: type === "date" ? ["'2020-01-01'", "'2020-01-02'"] : ["'1'", "'2'"],
    before: `create schema trap; create function trap.ok(pg_catalog.${type}) ${trap("boolean", "true")};
      create domain trap.${type} as pg_catalog.${type} check (trap.ok(value))`,
    path: "trap, public, pg_catalog",
    moved: type === "date" ? "'2020-01-09'" : "'9'",
  })),
  ...["date", "bigint", "text"].map((type) => ({
    name: `a key of type ${type} becomes one of another type, with casts`,
    types: `${enumType}; create function en_back(en) ${trap(type, `'${type === "date" ? "2020-01-01" : "1"}'::${type}`)}`,
    key: type,
    rows: type === "date" ? ["'2020-01-01'", "'2020-01-02'"] : ["'1'", "'2'"],
    after: `create cast (en as ${type}) with function en_back(en) as assignment`,
    moved: "'d'",
  })),
];

async function rowsAs(role: Role, text: string): Promise<unknown[]> {
  return await withClient(role.url, async (client) => (await client.query(text)).rows as unknown[]);
}

async function asRole(role: Role, text: string): Promise<void> {
  await withClient(role.url, async (client) => void (await client.query(text)));
}

/** Takes a table of the member's through everything that reads its key. */
export async function runsAsItsOwnerAlone(
  { types = "", key, rows, before = "", after, path, moved }: Member,
  capture: "row" | "statement",
  version: string,
): Promise<void> {
  await using pair = await freePair({ source: version, target: version });
  const owners = new Map<string, Role>();
  for (const side of [pair.source, pair.target]) {
    const owner = await side.createRole({ prefix: "limited", attributes: "nosuperuser" });
    owners.set(side.url, owner);
    await side.sql(`create sequence escaped; alter sequence escaped owner to ${owner.name};
      grant create on schema public to ${owner.name}; grant create on database "${side.name}" to ${owner.name}`);
    await asRole(owner, `${types}; create table t (k ${key} primary key, v text); ${before}`);
  }
  const [source, target] = [owners.get(pair.source.url), owners.get(pair.target.url)] as [Role, Role];
  const values = rows.map((row, n) => `((${row})::${key}, '${n + 1}')`).join(", ");
  await asRole(source, `insert into t values ${values}`);
  await using sync = await openSync({
    source: pair.source.url,
    target: pair.target.url,
    overrides: { "public.t": { capture } },
    env: {},
  });
  await sync.init();
  await sync.copy();
  if (after !== undefined) {
    // Deltas of the old type are there as well.
    await asRole(source, `update t set v = v`);
    const retype = `alter table t alter k type en using (case v when '1' then 'a' else 'b' end)::en`;
    for (const owner of [source, target]) await asRole(owner, `${retype}; ${after}`);
  }
  const set = `set search_path = ${path ?? "public"}`;
  await asRole(source, `${set}; update t set v = v; update t set k = ${moved} where v like '1'`);
  for await (const _ of sync.follow({ untilCaughtUp: true })) void _;
  await asRole(source, `${set}; update t set v = 'again'`);
  // With deltas that are not applied yet.
  await sync.verify();
  await sync.copy({ restart: true, overwrite: true });
  for await (const _ of sync.follow({ untilCaughtUp: true })) void _;
  expect((await sync.verify()).equal).toBe(true);
  // As the owner, by the output functions: the casts are not to be trusted.
  const content = `select pg_catalog.format('%s', k) as k, v from public.t order by 1`;
  const [ours, theirs] = await Promise.all([rowsAs(source, content), rowsAs(target, content)]);
  expect(theirs).toEqual(ours);
  expect(ours).toHaveLength(rows.length);
  expect(await pair.source.sql(`select last_value::int as n, is_called as called from escaped`)).toEqual([
    { n: 1, called: false },
  ]);
}
