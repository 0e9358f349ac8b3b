import { afterEach, beforeEach, expect, it } from "vitest";

import { freePair, type Pair } from "../../support/database.ts";
import { superuserPassword } from "../../support/data-directory.ts";
import { jsonLines, replicate } from "../../support/replicate.ts";

// --log-level trace: every statement is said, on both sides, and nothing of what is in the rows, nor a password.

/** Values that could come into a statement of ours as a bound, a key, a condition, or in a server's complaint. */
const SECRETS = ["ZEBRA", "918273645", "2071-05-06", "91827364-5000-4000-8000-000000000000", "\\xabcdef99"];

const schema = `
  create table texts (id text primary key, value text unique);
  create table numbers (id bigint primary key, value numeric);
  create table days (id date primary key, value uuid);
  create table bytes (id bytea primary key, value jsonb);
  create table keyless (value text);
  create table parted (id bigint, value text, primary key (id, value)) partition by list (value);
  create table parted_one partition of parted for values in ('ZEBRA''s \\ part');
  create function zebra() returns text language sql as $$ select 'ZEBRA' $$;
`;
const rows = `
  insert into texts select i || 'ZEBRA''s \\ "key" $$', 'ZEBRA ' || i from generate_series(1, 500) i;
  insert into numbers select 918273645 + i, 918273645 from generate_series(0, 500) i;
  insert into days select '2071-05-06'::date + i, '91827364-5000-4000-8000-000000000000' from generate_series(0, 500) i;
  insert into bytes select '\\xabcdef99'::bytea || int4send(i), '{"a": "ZEBRA"}' from generate_series(0, 500) i;
  insert into keyless values ('ZEBRA'), (null);
  insert into parted select 918273645 + i, 'ZEBRA''s \\ part' from generate_series(1, 50) i;
  analyze;
`;
const changes = [
  "update texts set value = value || ' ZEBRA' where id like '1%'",
  "update texts set id = 'ZEBRA ' || id where id like '2%'",
  "delete from numbers where id % 3 = 0",
  "update days set id = id + 10000 where extract(day from id) = 7",
  "update bytes set value = '\"ZEBRA\"'",
  "insert into keyless values ('ZEBRA')",
  "update parted set id = -918273645 - id",
];

let pair: Pair;
beforeEach(async () => (pair = await freePair()));
afterEach(() => pair.dispose());

interface Line {
  level: number;
  side?: string;
  purpose?: string;
  milliseconds?: number;
  rows?: number;
  error?: string;
  msg: string;
}

it("says each statement, and no value", async () => {
  const env = { REPLICATE_SOURCE: pair.source.url, REPLICATE_TARGET: pair.target.url };
  await Promise.all([pair.source, pair.target].map((side) => side.sql(schema)));
  await pair.source.sql(rows);
  // One row that the target rejects: the server's complaint has the value in it.
  await pair.target.sql("alter table numbers add check (id <> 918273646)");
  const said: Line[] = [];
  const run = async (...args: string[]): Promise<void> => {
    const finished = await replicate([...args, "--log-level", "trace", "--log-format", "json"], { env });
    const shown = finished.stderr;
    // 1 where it names the row that is parked.
    expect([0, 1], args.join(" ")).toContain(finished.code);
    if (["init", "copy", "follow"].includes(args[0] ?? "")) expect(finished.code, args[0]).toBe(0);
    for (const secret of [...SECRETS, superuserPassword])
      expect(
        shown.split("\n").find((line) => line.includes(secret) && line.includes(`"level":10`)),
      ).toBeUndefined();
    said.push(
      ...jsonLines<Line>({
        ...finished,
        stdout: shown
          .split("\n")
          .filter((line) => line.startsWith("{"))
          .join("\n"),
      }),
    );
  };
  await run("preflight", "--keyless", "reload");
  await run("init", "--keyless", "reload");
  await run("copy", "--on-refusal", "park");
  for (const change of changes) await pair.source.sql(change);
  await run("follow", "--until-caught-up", "--on-refusal", "park");
  await run("verify", "--repair");
  await run("parked", "--retry");
  await run("status");
  await run("cutover", "--rehearse");

  const statements = said.filter(({ level }) => level === 10);
  const ofPurpose = (purpose: string): Line[] =>
    statements.filter((each) => each.purpose?.startsWith(purpose));
  for (const purpose of ["preflight", "init", "copy", "follow", "verify"])
    expect(ofPurpose(purpose), purpose).not.toEqual([]);
  for (const { side, milliseconds, rows: count, msg } of statements) {
    expect(side).toMatch(/^(source|target)$/);
    expect(typeof milliseconds).toBe("number");
    expect(typeof count).toBe("number");
    expect(msg.replaceAll(/"[^"]*"|'…'/g, "")).not.toContain("'");
  }
  const copied = ofPurpose("copy").filter(({ msg }) => /copy .*from stdin/i.test(msg));
  expect(copied.map(({ side }) => side)).toContain("target");
  expect(
    statements.some(({ msg, rows: count }) => /"texts".* to stdout/.test(msg) && (count ?? 0) >= 500),
  ).toBe(true);
  expect(statements.some(({ error }) => error === "23514")).toBe(true);
});

it("says none where the level is debug", async () => {
  const env = { REPLICATE_SOURCE: pair.source.url, REPLICATE_TARGET: pair.target.url };
  const { stderr } = await replicate(["preflight", "--log-level", "debug", "--log-format", "json"], { env });
  expect(stderr).not.toContain('"level":10');
  expect(stderr).not.toContain("pg_catalog");
});
