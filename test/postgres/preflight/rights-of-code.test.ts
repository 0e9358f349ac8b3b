import { expect, test } from "vitest";

import { openSync, type Finding, type Sync } from "../../../src/index.ts";
import { leastPrivilegedPair } from "../../support/least-privileged-pair.ts";

// Who is told that code of others would run with more rights than theirs, and who is not.

const about = (findings: readonly Finding[], subject: string): Finding[] =>
  findings.filter((finding) => finding.subject.startsWith(subject));

test("a superuser is warned where the tables belong to lesser roles; the remedy's role is not", async () => {
  await using pair = await leastPrivilegedPair();
  for (const side of [pair.source, pair.target]) await side.sql("create table t (id int primary key)");
  const preflight = async (source: string, target: string): Promise<readonly Finding[]> => {
    await using sync = await openSync({ source, target, env: {} });
    return (await sync.preflight()).findings;
  };
  const warned = about(await preflight(pair.source.adminUrl, pair.target.adminUrl), "role ");
  const told = warned.filter(({ message }) => message.includes("docs/security.md"));
  expect(told.map(({ side, severity }) => [side, severity])).toEqual([
    ["source", "warning"],
    ["target", "warning"],
  ]);
  expect(told[1]?.message).toContain(pair.target.owner.name);
  const asOwner = await preflight(pair.source.url, pair.target.url);
  expect(asOwner.filter(({ message }) => message.includes("docs/security.md"))).toEqual([]);
});

test("a cast that the keys would be compared through is named", async () => {
  await using pair = await leastPrivilegedPair();
  for (const side of [pair.source, pair.target]) {
    await side.sql(`create type en as enum ('a', 'b'); create table t (k en primary key);
      create function en_text(en) returns text language sql as $$ select 'a'::text $$`);
  }
  await using sync = await openSync({ source: pair.source.url, target: pair.target.url, env: {} });
  expect(about((await sync.preflight()).findings, "cast")).toEqual([]);
  await pair.source.sql("create cast (en as text) with function en_text(en) as implicit");
  const [found, ...more] = about((await sync.preflight()).findings, "cast");
  expect(more).toEqual([]);
  expect(found).toMatchObject({ severity: "blocking", side: "source", subject: "cast (public.en as text)" });
  await pair.source.sql(found?.remedy ?? "");
  await pair.source.sql("create cast (en as text) with function en_text(en) as assignment");
  expect(about((await sync.preflight()).findings, "cast")).toEqual([]);
});

const parts = [
  { name: "an enum", types: "create type x as enum ('a', 'b')", column: "x", cast: "x" },
  { name: "an array", types: "create type x as enum ('a', 'b')", column: "x[]", cast: "x" },
  { name: "a domain", types: "create type x as enum ('a', 'b'); create domain d as x", column: "d", cast: "x" },
  { name: "a composite", types: "create type x as (n int)", column: "x", cast: "x" },
  { name: "what is in a composite", types: "create type x as enum ('a', 'b'); create type c as (n int, x x)", column: "c", cast: "x" },
  { name: "a range", types: "create type x as range (subtype = text)", column: "x", cast: "x" },
]; // prettier-ignore

test.each(parts)(
  "where conflicts are logged, a cast to json is refused: $name",
  async ({ types, column, cast }) => {
    await using pair = await leastPrivilegedPair();
    for (const side of [pair.source, pair.target])
      await side.sql(`${types}; create table t (id int primary key, v ${column});
      create function x_json(${cast}) returns json language sql as $$ select '1'::json $$`);
    const options = { source: pair.source.url, target: pair.target.url, env: {} };
    await pair.target.sql(`create cast (${cast} as json) with function x_json(${cast}) as assignment`);
    await using oneWay = await openSync(options);
    expect(about((await oneWay.preflight()).findings, "cast")).toEqual([]);
    await using sync = await openSync({ ...options, conflict: "latest" });
    const refused = {
      code: "PREFLIGHT_BLOCKED",
      problems: [{ side: "target", subject: "cast (public.x as json)" }],
    };
    await expect(sync.init()).rejects.toMatchObject(refused);
    const [found] = about((await sync.preflight()).findings, "cast");
    await pair.target.sql(found?.remedy ?? "");
    await sync.init();
    await sync.copy();
    await pair.target.sql(`create cast (${cast} as json) with function x_json(${cast}) as assignment`);
    await expect(drain(sync)).rejects.toMatchObject(refused);
    await pair.target.sql(found?.remedy ?? "");
    await drain(sync);
  },
);

async function drain(sync: Sync): Promise<void> {
  for await (const _ of sync.follow({ untilCaughtUp: true })) void _;
}

const keys = [
  { types: "create type x as enum ('a', 'b')", side: "source" },
  { types: "create type x as enum ('a', 'b')", side: "target" },
  { types: "create type x as (n int)", side: "source" },
  { types: "create type x as range (subtype = int)", side: "target" },
] as const;

test.each(keys)(
  "init and follow stop on an implicit cast of a key: $side, $types",
  async ({ types, side }) => {
    await using pair = await leastPrivilegedPair();
    for (const each of [pair.source, pair.target])
      await each.sql(`${types}; create table t (k x primary key);
      create function x_text(x) returns text language sql as $$ select 'a'::text $$`);
    await using sync = await openSync({ source: pair.source.url, target: pair.target.url, env: {} });
    const create = "create cast (x as text) with function x_text(x) as implicit";
    const refused = { code: "PREFLIGHT_BLOCKED", problems: [{ side, subject: "cast (public.x as text)" }] };
    await pair[side].sql(create);
    await expect(sync.init()).rejects.toMatchObject(refused);
    await pair[side].sql("drop cast (x as text)");
    await sync.init();
    await sync.copy();
    await drain(sync);
    await pair[side].sql(create);
    await expect(drain(sync)).rejects.toMatchObject(refused);
    await pair[side].sql("drop cast (x as text)");
    await drain(sync);
  },
);
