import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

import { resolveConnection } from "../../../src/postgres/conninfo.ts";
import { normalise } from "../../../src/catalog/expression-text.ts";
import { diffSchemas } from "../../../src/schema/compare.ts";
import type { Description } from "../../../src/schema/difference.ts";
import { findPrograms } from "../../../src/schema/programs.ts";
import { providerOf } from "../../../src/catalog/providers.ts";
import { restoreErrors } from "../../../src/schema/restore.ts";
import { parseToc } from "../../../src/schema/toc.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "replicate-schema-test-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** A folder with programs that say they are of these versions. */
function install(name: string, pgDump: string, pgRestore = pgDump): string {
  const path = join(folder, name);
  mkdirSync(path);
  for (const [program, version] of Object.entries({ pg_dump: pgDump, pg_restore: pgRestore })) {
    writeFileSync(join(path, program), `#!/bin/sh\necho "${program} (PostgreSQL) ${version}"\n`);
    chmodSync(join(path, program), 0o755);
  }
  return path;
}

describe("client programs", () => {
  const find = async (folders: string[], source: number, target: number): Promise<number> =>
    (await findPrograms({}, { source, target }, folders)).major;

  it("are of the target's version, else of the nearest that can read the source", async () => {
    const folders = ["13.4", "15.18 (Debian 15.18-0+deb12u1)", "17.6", "18beta1"].map((version, n) =>
      install(`v${n}`, version),
    );
    expect(await find(folders, 13, 18)).toBe(18);
    expect(await find(folders, 10, 15)).toBe(15);
    expect(await find(folders.slice(0, 3), 13, 18)).toBe(17);
    expect(await find(folders, 14, 13)).toBe(15);
    expect(await find(folders, 16, 14)).toBe(17);
  });

  it("are passed over where one is missing, broken, or older than the other", async () => {
    const bad = [install("mixed", "16.1", "15.1"), install("words", "sixteen"), join(folder, "nothing")];
    await expect(find(bad, 13, 18)).rejects.toMatchObject({
      code: "CLIENT_MISSING",
      message: expect.stringContaining("none is installed") as string,
    });
    expect(await find([...bad, install("good", "14.2")], 13, 18)).toBe(14);
  });

  it("that are all too old are named, with the package to install", async () => {
    const old = [install("a", "9.6.24"), install("b", "12.1")];
    await expect(find(old, 13, 16)).rejects.toMatchObject({
      code: "CLIENT_MISSING",
      message: "pg_dump and pg_restore of version 13 or newer are needed; found: 9, 12",
      hint: expect.stringContaining("postgresql-client-16") as string,
    });
  });

  it("come from PGBIN alone where it is set", async () => {
    const PGBIN = install("mine", "16.3");
    expect(await findPrograms({ PGBIN }, { source: 13, target: 18 })).toMatchObject({
      major: 16,
      pgDump: join(PGBIN, "pg_dump"),
    });
    await expect(findPrograms({ PGBIN }, { source: 17, target: 18 })).rejects.toMatchObject({
      message: expect.stringContaining(`in PGBIN (${PGBIN}); found: 16`) as string,
    });
  });
});

describe("variables for client programs", () => {
  const variables = (text: string, env = {}): Readonly<Record<string, string>> =>
    resolveConnection(text, { HOME: folder, ...env }).variables ?? {};

  it("say what the text said, and what was looked up", () => {
    const url = "postgresql://me:p%40s%3As%25@db.example:6000/shop?sslmode=require&options=-c%20geqo%3Doff";
    expect(variables(url)).toEqual({
      PGHOST: "db.example",
      PGPORT: "6000",
      PGUSER: "me",
      PGDATABASE: "shop",
      PGPASSWORD: "p@s:s%",
      PGSSLMODE: "require",
      PGOPTIONS: "-c geqo=off",
      PGCONNECT_TIMEOUT: "15",
    });
    expect(variables("host=h user=u", { PGPASSWORD: "x", PGDATABASE: "d" })).toMatchObject({
      PGPASSWORD: "x",
      PGDATABASE: "d",
    });
  });

  it("turn node-postgres's no-verify into what libpq knows", () => {
    expect(variables("postgresql://u@h/d?sslmode=no-verify")).toMatchObject({ PGSSLMODE: "require" });
  });

  it("are not shown with the settings", () => {
    expect(
      JSON.stringify(resolveConnection("host=h user=u password=secret", { HOME: folder })),
    ).not.toContain("secret");
  });
});

describe("table of contents", () => {
  it("is read with kinds of several words and dependencies", () => {
    const entries = parseToc(
      [
        ";     Dumped from database version: 13.23",
        "; Selected TOC Entries:",
        ";",
        "5; 2615 2200 SCHEMA - public postgres",
        "203; 1259 16388 TABLE public my table; no: 7 owner",
        ";\tdepends on: 5 203 5",
        "2923; 2606 16540 FK CONSTRAINT public c c_a_fkey postgres",
        ";\tdepends on: 203",
        "2908; 0 0 TABLE ATTACH public p1 postgres",
        "9; 1259 1 MATERIALIZED VIEW public mv ",
      ].join("\n"),
    );
    expect(entries.map(({ id, kind, rest, needs }) => [id, kind, rest, [...needs]])).toEqual([
      [5, "SCHEMA", "- public postgres", []],
      [203, "TABLE", "public my table; no: 7 owner", [5, 203]],
      [2923, "FK CONSTRAINT", "public c c_a_fkey postgres", [203]],
      [2908, "TABLE ATTACH", "public p1 postgres", []],
      [9, "MATERIALIZED VIEW", "public mv", []],
    ]);
  });
});

describe("errors of pg_restore", () => {
  it("belong to entries, in the words of every version", () => {
    const since12 = `pg_restore: creating TABLE "public.t"
pg_restore: while INITIALIZING:
pg_restore: error: could not execute query: ERROR:  unrecognized configuration parameter "transaction_timeout"
Command was: SET transaction_timeout = 0;

pg_restore: while PROCESSING TOC:
pg_restore: from TOC entry 203; 1259 16386 TABLE t postgres
pg_restore: error: could not execute query: ERROR:  type "x" does not exist
LINE 2:     a x
            ^
HINT:  look elsewhere
Command was: CREATE TABLE public.t (
    HINT: no hint
pg_restore: error: could not execute query: ERROR:  relation "t" does not exist
Command was: ALTER TABLE public.t
pg_restore: warning: errors ignored on restore: 3`;
    expect(restoreErrors(since12)).toEqual([
      {
        id: 0,
        message: 'unrecognized configuration parameter "transaction_timeout"',
        command: "SET transaction_timeout = 0;",
      },
      { id: 203, message: 'type "x" does not exist (look elsewhere)', command: "CREATE TABLE public.t (" },
      { id: 203, message: 'relation "t" does not exist', command: "ALTER TABLE public.t" },
    ]);
    const before12 = `pg_restore: [archiver (db)] Error while PROCESSING TOC:
pg_restore: [archiver (db)] Error from TOC entry 7; 1259 1 TABLE t postgres
pg_restore: [archiver (db)] could not execute query: ERROR:  permission denied for schema public
    Command was: CREATE TABLE public.t (`;
    expect(restoreErrors(before12)).toEqual([
      { id: 7, message: "permission denied for schema public", command: "CREATE TABLE public.t (" },
    ]);
    // The server's language is its own.
    const german = `pg_restore: from TOC entry 203; 1259 16386 TABLE t postgres
pg_restore: error: could not execute query: FEHLER:  Typ »x« existiert nicht
ZEILE 2:     a x
             ^
TIP:  woanders suchen
Command was: CREATE TABLE public.t (`;
    expect(restoreErrors(german)).toEqual([
      { id: 203, message: "Typ »x« existiert nicht (woanders suchen)", command: "CREATE TABLE public.t (" },
    ]);
  });
});

describe("schemas of providers", () => {
  it("are theirs by name and owner", () => {
    const of = (name: string, owner: string, isForeign: boolean): string | undefined =>
      providerOf({ name, owner, isForeign }, "me");
    expect(of("auth", "supabase_admin", false)).toBe("Supabase");
    expect(of("_heroku", "u1", true)).toBe("Heroku");
    expect(of("auth", "me", false)).toBeUndefined();
    expect(of("auth", "team", false)).toBeUndefined();
    expect(of("authors", "supabase_admin", true)).toBeUndefined();
  });
});

describe("expressions", () => {
  it.each([
    [
      "CHECK (((kind)::text = ANY ((ARRAY['a'::character varying, 'b'::character varying])::text[])))",
      "CHECK (((kind)::text = ANY (ARRAY[('a'::character varying)::text, ('b'::character varying)::text])))",
    ],
    ["'x'::character varying(10)", "'x'::text"],
    ["now()::timestamp(3) without time zone", "now()"],
    ["CREATE TRIGGER t EXECUTE PROCEDURE f()", "CREATE TRIGGER t EXECUTE FUNCTION f()"],
    ["(a + b)", "a + b"],
  ])("%s is %s", (one, other) => {
    expect(normalise(one)).toBe(normalise(other));
  });

  it.each([
    ["'a::b'", "'a::c'"],
    ["'(x)'", "'x'"],
    ["a < 1", "a <= 1"],
    ["'x  y'", "'x y'"],
    ["lower(a)", "upper(a)"],
  ])("%s is not %s", (one, other) => {
    expect(normalise(one)).not.toBe(normalise(other));
  });
});

describe("differences", () => {
  const row = (kind: string, name: string, details = {}, relation: string | null = null): Description => ({
    kind,
    name,
    schema: "public",
    relation,
    details,
  });
  const options = { owed: new Set<string>(), isSameVersion: false };

  it("are what is missing, changed, or more on a table of ours", () => {
    const source = [
      row("table", "public.t", { unlogged: false }, "public.t"),
      row("column", "public.t.a", { type: "integer", default: "(1)" }, "public.t"),
      row(
        "index",
        "public.t_a",
        { valid: true, definition: "create index t_a on public.t using btree (a)" },
        "public.t",
      ),
      row("extension", "citext", { version: "1.6", schema: "public" }),
      row("view", "public.v", { query: "SELECT t.a FROM t" }, "public.v"),
    ];
    const target = [
      row("table", "public.t", { unlogged: true }, "public.t"),
      row("column", "public.t.a", { type: "bigint", default: "1" }, "public.t"),
      row("column", "public.t.b", { type: "bigint" }, "public.t"),
      row("table", "public.more", {}, "public.more"),
      row("extension", "citext", { version: "1.10", schema: "public" }),
      row("view", "public.v", { query: "SELECT a FROM t" }, "public.v"),
    ];
    expect(diffSchemas(source, target, options)).toEqual({
      equal: false,
      objects: 5,
      owed: [],
      differences: [
        {
          object: "column public.t.a",
          kind: "changed",
          changes: [{ property: "type", source: "integer", target: "bigint" }],
          relation: "public.t",
          remedy: "alter table public.t alter column a type integer using a::integer;",
        },
        {
          object: "column public.t.b",
          kind: "extra",
          changes: [],
          relation: "public.t",
          remedy: "alter table public.t drop column b;",
        },
        {
          object: "index public.t_a",
          kind: "missing",
          changes: [],
          relation: "public.t",
          remedy: "create index t_a on public.t using btree (a);",
        },
        {
          object: "table public.t",
          kind: "changed",
          changes: [{ property: "unlogged", source: "false", target: "true" }],
          relation: "public.t",
          remedy: "alter table public.t set logged;",
        },
      ],
    });
    expect(diffSchemas(source, source, options)).toMatchObject({ equal: true, differences: [] });
  });

  it("are none where the copy gives back", () => {
    const index = row("index", 'public."A.b"', {}, "public.t");
    const owed = new Set(["A.b on public.t"]);
    expect(diffSchemas([index], [], { ...options, owed })).toMatchObject({
      equal: true,
      owed: ['index public."A.b"'],
    });
  });
});
