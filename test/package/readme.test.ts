import { execFile } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

import { exitCodes, verbNames, verbs } from "../../src/cli/verbs.ts";
import { reference } from "../../src/cli/help.ts";
import { decide } from "../../src/conflict/decide.ts";
import { loadOptions, resolveConfig, type ConflictSide } from "../../src/index.ts";
import { replicate } from "../support/replicate.ts";
import { freePair, type Pair } from "../support/database.ts";

// What the README tells people to type works, and what it says about options is what the program says itself.
// REPLICATE_UPDATE_DOCS=1 writes the parts that are made from the program's own tables.

const execute = promisify(execFile);
const root = fileURLToPath(new URL("../..", import.meta.url));
const isUpdate = process.env["REPLICATE_UPDATE_DOCS"] === "1";

function read(path: string): string {
  return readFileSync(join(root, path), "utf8");
}

/** Fenced blocks of a language that are marked with a word, without their indentation, in order. */
function blocks(language: string, mark = "test"): string[] {
  const fenced = new RegExp(`^( *)\`\`\`${language} ${mark}\n(.*?)^ *\`\`\`$`, "gms");
  return [...read("README.md").matchAll(fenced)].map(([, indent = "", text = ""]) =>
    text.replaceAll(new RegExp(`^${indent}`, "gm"), ""),
  );
}

/** What stands between two marks. */
function part(name: string): string {
  const [, text] = new RegExp(`<!-- ${name} -->\n(.*?)<!-- /${name} -->`, "s").exec(read("README.md")) ?? [];
  if (text === undefined) throw new Error(`the README has no part ${name}`);
  return text;
}

function expectPart(name: string, lines: readonly string[]): void {
  const wanted = `\n${lines.join("\n")}\n\n`;
  if (isUpdate) {
    const [begin, end] = [`<!-- ${name} -->\n`, `<!-- /${name} -->`];
    const text = read("README.md").replace(`${begin}${part(name)}${end}`, () => `${begin}${wanted}${end}`);
    writeFileSync(join(root, "README.md"), text);
  }
  expect(part(name)).toBe(wanted);
}

let folder: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "replicate-readme-"));
  mkdirSync(join(folder, "bin"));
  mkdirSync(join(folder, "node_modules"));
  symlinkSync(root, join(folder, "node_modules", "pg-replicate"));
  const program = join(folder, "bin", "replicate");
  writeFileSync(
    program,
    `#!/bin/sh\nexec '${process.execPath}' '${join(root, "bin", "replicate.js")}' "$@"\n`,
  );
  chmodSync(program, 0o755);
  // Builds where that is due.
  expect((await replicate(["--version"])).code).toBe(0);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function environment(pair: Pair): NodeJS.ProcessEnv {
  return {
    PATH: `${join(folder, "bin")}:${process.env["PATH"]}`,
    HOME: folder,
    REPLICATE_SOURCE: pair.source.url,
    REPLICATE_TARGET: pair.target.url,
  };
}

async function shop(pair: Pair): Promise<void> {
  const tables = `
    create table customer (id uuid primary key default gen_random_uuid(), name text not null);
    create index on customer (name);
    create table orders (id bigint generated always as identity primary key, customer_id uuid references customer);`;
  await pair.source.sql(tables);
  await pair.target.sql(tables);
  await pair.source.sql(`
    insert into customer (name) select 'Customer ' || n from generate_series(1, 100) n;
    insert into orders (customer_id) select id from customer`);
}

describe("README.md", () => {
  it("moves a database by the commands it shows", async () => {
    await using pair = await freePair();
    await shop(pair);
    const scripts = blocks("sh");
    expect(scripts.length).toBeGreaterThan(2);
    for (const [index, script] of scripts.entries()) {
      await execute("sh", ["-eu", "-c", script], { cwd: folder, env: environment(pair) });
      // The application writes on.
      if (index === 0) await pair.source.sql("insert into customer (name) values ('latecomer')");
    }
    const [found] = await pair.target.sql(`
      select (select count(*)::int from customer) as customers, (select count(*)::int from orders) as orders,
             nextval('orders_id_seq') > 100 as is_free, to_regnamespace('replicate') as schema`);
    expect(found).toEqual({ customers: 101, orders: 100, is_free: true, schema: null });
  });

  it.each(["both", "adopt"])("goes both ways by the commands it shows: %s", async (mark) => {
    await using pair = await freePair();
    await shop(pair);
    if (mark === "adopt") {
      await pair.target.sql("insert into customer (name) values ('Customer of the target')");
      await pair.source.sql("truncate orders, customer");
      await pair.source.sql("insert into customer (name) values ('Customer of the source')");
    }
    const cwd = mkdtempSync(join(folder, "both-"));
    writeFileSync(join(cwd, "replicate.yaml"), blocks("yaml", "both").join());
    const scripts = blocks("sh", mark);
    expect(scripts).toHaveLength(1);
    await execute("sh", ["-eu", "-c", scripts.join()], { cwd, env: environment(pair) });
    for (const side of [pair.source, pair.target])
      await side.sql("insert into customer (name) values (current_database())");
    await execute("replicate", ["follow", "--until-caught-up", "--config", "replicate.yaml"], {
      cwd,
      env: environment(pair),
    });
    const count =
      "select count(*)::int as n, md5(string_agg(c::text, '|' order by id)) as all from customer c";
    const [there] = await pair.target.sql(count);
    expect(await pair.source.sql(count)).toEqual([there]);
    expect(there).toMatchObject({ n: mark === "adopt" ? 4 : 102 });
  });

  it("has a program that does the same by the library", async () => {
    await using pair = await freePair();
    await shop(pair);
    const [program = ""] = blocks("js");
    writeFileSync(join(folder, "program.mjs"), program);
    const { stdout } = await execute(process.execPath, ["program.mjs"], {
      cwd: folder,
      env: environment(pair),
    });
    expect(stdout.trim().split("\n")).toEqual(expect.arrayContaining(["public.customer 100", "equal"]));
    const [found] = await pair.target.sql("select to_regnamespace('replicate') as schema");
    expect(found).toEqual({ schema: null });
  });

  it("has a resolver that compiles and decides", async () => {
    const [program = ""] = blocks("ts");
    writeFileSync(join(folder, "resolve.mts"), program);
    const flags = "--strict --target es2023 --module nodenext --skipLibCheck --types node".split(" ");
    const roots = ["--typeRoots", join(root, "node_modules/@types")];
    await execute(join(root, "node_modules/.bin/tsc"), [...flags, ...roots, "resolve.mts"], { cwd: folder });
    const { conflict } = resolveConfig(
      { source: "host=s", target: "host=t", conflict: { custom: join(folder, "resolve.mjs") } },
      {},
    );
    const side = (change: "update" | "delete", pieces: number): ConflictSide => ({
      node: "a",
      at: null,
      change,
      image: change === "delete" ? null : { id: 1, pieces },
    });
    const met = { key: { id: 1 }, kind: "update_origin_differs", comparison: null } as const;
    const sides = { source: side("update", 3), target: side("update", 5) };
    expect(await decide(conflict, { ...met, ...sides, table: "public.stock" })).toEqual({
      winner: "merged",
      image: { id: 1, pieces: 3 },
    });
    expect(await decide(conflict, { ...met, ...sides, table: "public.t" })).toEqual({ winner: "target" });
    const gone = { ...sides, target: side("delete", 0) };
    expect(await decide(conflict, { ...met, ...gone, table: "public.stock" })).toEqual({ winner: "skip" });
  });

  it("has a configuration file without mistakes", () => {
    const [file = ""] = blocks("yaml");
    const path = join(folder, "replicate.yaml");
    writeFileSync(path, file);
    const env = { HEROKU_DATABASE_URL: "postgresql://a@b/c", RDS_DATABASE_URL: "postgresql://d@e/f" };
    const options = loadOptions({ file: path }, env);
    expect(options).toMatchObject({ name: "shop", source: env.HEROKU_DATABASE_URL, copy: { jobs: 4 } });
    expect(options.overrides?.["public.event"]).toEqual({ capture: "statement", skipNoop: true });
  });

  it("maps tables as it shows", async () => {
    await using pair = await freePair();
    await pair.source.sql(`
      create table users (id int primary key, email text, name text, born date, legacy_flag bool, deleted_at timestamptz);
      insert into users values (1, 'a@b', 'A', '2000-01-01', true, null), (2, 'c@d', 'C', '2000-01-01', true, now());
      create table orders (id int primary key, what text);
      insert into orders values (1, 'book')`);
    await pair.target.sql(`
      create schema app;
      create table app.people (id int primary key, email text, full_name text, birth_year int, country text, deleted_at timestamptz);
      create table app.orders (id int, shop int, what text, primary key (shop, id));
      insert into app.orders values (1, 8, 'other')`);
    const path = join(folder, "mapping.yaml");
    writeFileSync(path, blocks("yaml")[1] ?? "");
    const env = { HEROKU_DATABASE_URL: pair.source.url, RDS_DATABASE_URL: pair.target.url };
    const { code, stderr } = await replicate(["run", "--config", path, "--until-caught-up"], { env });
    expect(code, stderr).toBe(0);
    const people =
      "select id, email = md5('a@b') as is_hashed, full_name, birth_year, country from app.people";
    expect(await pair.target.sql(people)).toEqual([
      { id: 1, is_hashed: true, full_name: "A", birth_year: 2000, country: "de" },
    ]);
    expect(await pair.target.sql("select shop, what from app.orders order by shop")).toEqual([
      { shop: 7, what: "book" },
      { shop: 8, what: "other" },
    ]);
  });

  it("lists the commands and their options", () => {
    expectPart("commands", [
      "| command | what it does | options |",
      "|---|---|---|",
      ...verbNames.map((name) => {
        const { summary, options } = verbs[name];
        return `| \`${name}\` | ${summary} | ${options.map((option) => `\`--${option}\``).join(" ")} |`;
      }),
    ]);
  });

  it("lists the exit codes", () => {
    expectPart("exit-codes", [
      "| code | meaning |",
      "|---|---|",
      ...exitCodes.map(([code, says]) => `| ${code} | ${says} |`),
    ]);
  });
});

describe("docs/reference.md", () => {
  it("is what the program says about itself", () => {
    const wanted = `# Reference\n\nMade from the program's own table of options.\n\n${reference().replaceAll(/^### /gm, "## ")}\n`;
    if (isUpdate) writeFileSync(join(root, "docs/reference.md"), wanted);
    expect(read("docs/reference.md")).toBe(wanted);
  });
});
