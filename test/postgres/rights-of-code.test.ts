import { expect, test } from "vitest";

import { openSync, type Finding } from "../../src/index.ts";
import { leastPrivilegedPair } from "../support/least-privileged-pair.ts";

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
