import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";

import { main } from "../../../src/cli/main.ts";
import { freePair, type Pair } from "../../support/database.ts";
import { difficultSchema, leftBehind, tellWhySkipped } from "../../support/schema-setup.ts";

// The same from the command line.

const isSkipped = tellWhySkipped();

/** What every command begins with: the two databases. */
const onlyPlaces = /^\S+ schema default: source .*, target .*\n$/;

interface Outcome {
  code: number;
  out: string;
  err: string;
}

async function replicate(pair: Pair, ...words: string[]): Promise<Outcome> {
  const outcome = { code: -1, out: "", err: "" };
  outcome.code = await main([...words, "--source", pair.source.url, "--target", pair.target.url], {
    env: { HOME: tmpdir() },
    stdout: { write: (text) => (outcome.out += text) },
    stderr: { write: (text) => (outcome.err += text) },
  });
  return outcome;
}

test.skipIf(isSkipped)("schema and verify --schema, for people and for programs", async () => {
  await using pair = await freePair();
  await pair.source.sql(difficultSchema);
  await pair.source.sql(leftBehind);

  const dry = await replicate(pair, "schema", "--dry-run");
  expect(dry).toMatchObject({ code: 0, err: expect.stringMatching(onlyPlaces) });
  expect(dry.out).toContain("\n  table app.customer\n");
  expect(dry.out).toContain(
    "left out (publications are made anew by who needs them):\n  publication everything\n",
  );
  expect(dry.out).toMatch(/\nwould create \d+ objects; nothing was changed\n$/);

  const printed = await replicate(pair, "schema", "--print", "--section", "pre-data");
  expect(printed.code).toBe(0);
  expect(printed.out).toContain("CREATE TABLE app.customer");
  expect(printed.out).not.toContain("left out");
  expect(printed.err).toContain("publication everything");

  const before = await replicate(pair, "verify", "--schema", "--json");
  expect(before.code).toBe(1);
  expect(JSON.parse(before.out)).toMatchObject({ equal: false });

  const done = await replicate(pair, "schema");
  expect(done).toMatchObject({ code: 0, err: expect.stringMatching(onlyPlaces) });
  expect(done.out).toContain("then: replicate schema --section post-data");
  expect((await replicate(pair, "schema", "--section", "post-data")).out).toContain(
    "2 materialized views filled",
  );
  const same = await replicate(pair, "verify", "--schema");
  expect(same.out).toMatch(/^equal; \d+ objects compared\n$/);
  expect(same.code).toBe(0);

  await pair.target.sql(`alter table app.customer alter column note set default 'x'`);
  const changed = await replicate(pair, "verify", "--schema");
  expect(changed.out).toContain(
    "  changed on the target: column app.customer.note\n      default: none -> 'x'::text\n",
  );
  expect(changed.code).toBe(1);
});

test.skipIf(isSkipped)("run --schema does all in order", async () => {
  await using pair = await freePair();
  await pair.source.sql(`
    create table parent (id int primary key); create table child (id int primary key, parent int references parent);
    insert into parent select generate_series(1, 100); insert into child select g, g from generate_series(1, 100) g;
    create materialized view number as select count(*)::int as n from child`);
  const { code, out } = await replicate(pair, "run", "--schema", "--until-caught-up", "--json");
  expect(code).toBe(0);
  const result = JSON.parse(out.trim().split("\n").at(-1) ?? "") as Record<string, { refreshed: string[] }>;
  expect(result["schemaAfter"]?.refreshed).toEqual(["public.number"]);
  expect(await pair.target.sql("select n from number")).toEqual([{ n: 100 }]);
  expect((await replicate(pair, "verify", "--schema")).code).toBe(0);
  expect((await replicate(pair, "drop", "--yes")).code).toBe(0);
});

test("an unfit PGBIN is an error with a code and a way on", async () => {
  await using pair = await freePair();
  const outcome = { err: "" };
  const code = await main(["schema", "--source", pair.source.url, "--target", pair.target.url], {
    env: { HOME: tmpdir(), PGBIN: "/nonexistent" },
    stdout: { write: () => undefined },
    stderr: { write: (text) => (outcome.err += text) },
  });
  expect(code).toBe(3);
  expect(outcome.err).toMatch(
    /\nerror CLIENT_MISSING: .*\nhint: Install the package postgresql-client-\d+ .*by hand/,
  );
});

test.skipIf(isSkipped)(
  "tables that are others on the target are left out, and passed over by the comparison",
  async () => {
    await using pair = await freePair();
    const settings = {
      source: pair.source.url,
      target: pair.target.url,
      tables: ["public.*"],
      overrides: {
        "public.users": { target: "app.people" },
        "public.item": { columns: { note: null, price: { to: "cost" } } },
      },
    };
    const file = join(mkdtempSync(join(tmpdir(), "replicate-schema-")), "mapped.yaml");
    writeFileSync(file, JSON.stringify(settings));
    await pair.source.sql(`
    create table users (id int primary key);
    create table item (id int primary key, price int, note text);
    create table plain (id int primary key)`);
    const run = async (...words: string[]): Promise<Outcome> =>
      await replicate(pair, ...words, "--config", file);
    const created = await run("schema");
    expect(created).toMatchObject({ code: 0, err: expect.stringMatching(onlyPlaces) });
    expect(created.out).toContain(
      "left out (it is called app.people on the target: create it there by hand)",
    );
    const there =
      "select array_agg(relname::text order by 1) as tables from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace";
    expect(await pair.target.sql(there)).toEqual([{ tables: ["item", "plain"] }]);
    await pair.target.sql(`
    create schema app;
    create table app.people (id int primary key);
    alter table item rename price to cost;
    alter table item drop note;
    alter table plain add more int`);
    const compared = await run("verify", "--schema", "--json");
    expect(JSON.parse(compared.out)).toMatchObject({ differences: [{ object: "column public.plain.more" }] });
    const checked = JSON.parse((await run("preflight", "--json")).out) as {
      findings: { severity: string; subject: string }[];
    };
    expect(checked.findings.filter(({ severity }) => severity !== "note")).toEqual([]);
  },
);
