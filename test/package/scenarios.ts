import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";

import { decide } from "../../src/conflict/decide.ts";
import { loadOptions, resolveConfig, type ConflictSide, type Status } from "../../src/index.ts";
import { blocksOf, exchanges, read, root, withoutFigures, type Block } from "../support/documents.ts";
import { customers, execute, isClean, openShop, type Shop } from "../support/example-shop.ts";
import { until } from "../support/until.ts";

// The examples of the documents, each with the rows that it needs and what has to come of it. A scenario has all blocks of
// its document that are marked with its name.

type Scenario = (blocks: readonly Block[], packages: string) => Promise<void>;

const texts = (blocks: readonly Block[], language = "sh"): string[] =>
  blocks.filter((block) => block.language === language).map(({ text }) => text);

const followed = "replicate run --until-caught-up";

/** A scenario on a shop, whose commands are typed by `run`. */
const inShop =
  (run: (shop: Shop, blocks: readonly Block[]) => Promise<void>): Scenario =>
  async (blocks, packages) => {
    await using shop = await openShop(packages);
    await run(shop, blocks);
  };

/** Types what a transcript types, and compares what is printed, but for figures. `meanwhile` begins what ends in `&`. */
async function play(
  { type }: Shop,
  transcript: string,
  meanwhile?: (command: string) => Promise<void>,
): Promise<void> {
  for (const { command, output } of exchanges(transcript)) {
    if (meanwhile !== undefined && command.endsWith(" &")) await meanwhile(command.replace(/ &$/, ""));
    else expect(withoutFigures((await type(command)).stdout), command).toBe(withoutFigures(output));
  }
}

/** The story at the top: while it is followed, customers come in. */
const first: Scenario = inShop(async (shop, blocks) => {
  let follower: ReturnType<typeof spawn> | undefined;
  try {
    await play(shop, texts(blocks, "console").join(""), async (command) => {
      const [program = "", ...args] = command.split(" ");
      follower = spawn(program, args, { cwd: shop.folder, env: shop.env, stdio: "ignore" });
      await shop.source.sql("insert into customer (name) select 'new' from generate_series(1, 50)");
      await until("the status has nothing left to do", async () => {
        const { stdout } = await shop.type("replicate status --json");
        const { phase, lag, follow, owed } = JSON.parse(stdout) as Status;
        return phase === "following" && lag.rows === 0 && follow.rowsApplied >= 50 && owed.open === 0;
      });
    });
    expect(await customers(shop.target)).toEqual(await customers(shop.source));
  } finally {
    if (follower !== undefined && follower.exitCode === null) {
      follower.kill("SIGTERM");
      await once(follower, "exit");
    }
  }
});

const move: Scenario = inShop(async (shop, blocks) => {
  for (const [index, script] of texts(blocks).entries()) {
    await shop.type(script);
    // The application writes on.
    if (index === 0) await shop.source.sql("insert into customer (name) values ('latecomer')");
  }
  const [found] = await shop.target.sql(`
    select (select count(*)::int from customer) as customers, (select count(*)::int from orders) as orders,
           nextval('orders_id_seq') > 100 as is_free`);
  expect(found).toEqual({ customers: 101, orders: 100, is_free: true });
  expect([await isClean(shop.source), await isClean(shop.target)]).toEqual([true, true]);
});

/** Types all, after the shop was followed, and returns what was printed. */
async function typeFollowed(shop: Shop, blocks: readonly Block[]): Promise<string> {
  await shop.type(followed);
  let printed = "";
  for (const script of texts(blocks)) printed += (await shop.type(script)).stdout;
  return printed;
}

const toTheEnd: Scenario = inShop(async (shop, blocks) => {
  await typeFollowed(shop, blocks);
  expect(await customers(shop.target)).toEqual(await customers(shop.source));
  expect([await isClean(shop.source), await isClean(shop.target)]).toEqual([true, true]);
});

const monitor: Scenario = inShop(async (shop, blocks) => {
  await typeFollowed(shop, blocks);
  const { stdout } = await shop.type("cat status.json verify.json");
  const [status, verified] = stdout.split(/(?<=^})\n(?={)/m).map((text) => JSON.parse(text) as object);
  expect(verified).toMatchObject({ equal: true });
  // Every field that the document names is there, as far as nothing on the way is null.
  const [, table = ""] = /^\| field of .*?\n\|---\|---\|\n(.*?)\n\n/ms.exec(read("docs/operations.md")) ?? [];
  const fields = table.split("\n").flatMap((row) => (row.split("|")[1] ?? "").match(/[\w.[\]]+/g) ?? []);
  expect(fields.length).toBeGreaterThan(10);
  for (const field of fields) {
    let at: unknown = status;
    for (const step of field.replaceAll("[]", ".0").split(".")) {
      if (at === null) break;
      expect(at, field).toHaveProperty([step]);
      at = (at as Record<string, unknown>)[step];
    }
  }
});

const newcomer: Scenario = inShop(async (shop, blocks) => {
  await shop.type(followed);
  for (const side of [shop.source, shop.target]) await side.sql("create table coupon (id int primary key)");
  await shop.source.sql("insert into coupon values (7)");
  for (const script of texts(blocks)) await shop.type(script);
  expect(await shop.target.sql("select id from coupon")).toEqual([{ id: 7 }]);
});

const keyless: Scenario = inShop(async (shop, blocks) => {
  for (const side of [shop.source, shop.target]) await side.sql("create table import_a (line text)");
  await shop.source.sql("insert into import_a values ('a'), ('a')");
  shop.save("replicate.yaml", texts(blocks, "yaml").join(""));
  for (const script of texts(blocks)) await shop.type(script);
  expect(await shop.target.sql("select line from import_a")).toEqual([{ line: "a" }, { line: "a" }]);
});

const parked: Scenario = inShop(async (shop, blocks) => {
  await shop.target.sql("alter table customer add constraint polite check (name <> 'Customer 7')");
  const [script = ""] = texts(blocks);
  const isRepair = (line: string): boolean => line.startsWith("replicate parked --retry");
  const lines = script.trim().split("\n");
  const repairAt = lines.findIndex(isRepair);
  const { stdout } = await shop.type(lines.slice(0, repairAt).join("\n"));
  expect(stdout).toContain("polite");
  await shop.target.sql("alter table customer drop constraint polite");
  await shop.type(lines.slice(repairAt).join("\n"));
  expect(await customers(shop.target)).toEqual(await customers(shop.source));
});

const mapping: Scenario = async (blocks, packages) => {
  await using shop = await openShop(packages);
  await shop.source.sql(`
    drop table orders, customer;
    create table users (id int primary key, email text, name text, born date, legacy_flag bool, deleted_at timestamptz);
    insert into users values (1, 'a@b', 'A', '2000-01-01', true, null), (2, 'c@d', 'C', '2000-01-01', true, now());
    create table orders (id int primary key, what text);
    insert into orders values (1, 'book')`);
  await shop.target.sql(`
    drop table orders, customer;
    create schema app;
    create table app.people (id int primary key, email text, full_name text, birth_year int, country text, deleted_at timestamptz);
    create table app.orders (id int, shop int, what text, primary key (shop, id));
    insert into app.orders values (1, 8, 'other')`);
  shop.save("replicate.yaml", texts(blocks, "yaml").join(""));
  shop.env["HEROKU_DATABASE_URL"] = shop.source.url;
  shop.env["RDS_DATABASE_URL"] = shop.target.url;
  for (const script of texts(blocks)) await shop.type(script);
  const people = "select id, email = md5('a@b') as is_hashed, full_name, birth_year, country from app.people";
  expect(await shop.target.sql(people)).toEqual([
    { id: 1, is_hashed: true, full_name: "A", birth_year: 2000, country: "de" },
  ]);
  expect(await shop.target.sql("select shop, what from app.orders order by shop")).toEqual([
    { shop: 7, what: "book" },
    { shop: 8, what: "other" },
  ]);
};

const twoWays: Scenario = inShop(async (shop, blocks) => {
  const isAdopted = blocks[0]?.mark === "adopt";
  if (isAdopted) {
    await shop.target.sql("insert into customer (name) values ('Customer of the target')");
    await shop.source.sql("truncate orders, customer");
    await shop.source.sql("insert into customer (name) values ('Customer of the source')");
  }
  shop.save("replicate.yaml", texts(blocksOf("docs/two-way.md"), "yaml").join(""));
  for (const script of texts(blocks)) await shop.type(script);
  for (const side of [shop.source, shop.target])
    await side.sql("insert into customer (name) values (current_database())");
  await shop.type("replicate follow --until-caught-up --config replicate.yaml");
  const there = await customers(shop.target);
  expect(await customers(shop.source)).toEqual(there);
  expect(there).toMatchObject({ n: isAdopted ? 4 : 102 });
});

/** A shop with two targets, BERLIN and PARIS. */
async function twoTargets(packages: string, run: (shop: Shop, paris: Shop) => Promise<void>): Promise<void> {
  await using shop = await openShop(packages);
  await using paris = await openShop(packages);
  shop.env["BERLIN"] = shop.target.url;
  shop.env["PARIS"] = paris.target.url;
  await run(shop, paris);
}

const targets: Scenario = async (blocks, packages) =>
  await twoTargets(packages, async (shop, paris) => {
    for (const script of texts(blocks)) await shop.type(script);
    for (const side of [shop.target, paris.target])
      expect(await customers(side)).toEqual(await customers(shop.source));
  });

const interleave: Scenario = inShop(async (shop, blocks) => {
  await shop.type(followed);
  await play(shop, texts(blocks, "console").join(""));
});

const shares: Scenario = async (blocks, packages) =>
  await twoTargets(packages, async (shop, paris) => {
    await shop.type(`${followed} --name hub-to-berlin --target "$BERLIN"`);
    await shop.type(`${followed} --name hub-to-paris --target "$PARIS"`);
    for (const script of texts(blocks)) await shop.type(script);
    const given: unknown[] = [];
    for (const side of [shop.source, shop.target, paris.target]) {
      const numbers = await side.sql(
        "select nextval('orders_id_seq')::int % 3 as share from (values (1), (2)) v",
      );
      expect(numbers[0]).toEqual(numbers[1]);
      given.push(numbers[0]?.["share"]);
    }
    expect(new Set(given).size).toBe(3);
  });

const library: Scenario = inShop(async (shop, blocks) => {
  // The package is found from the folder above.
  shop.save("program.mjs", texts(blocks, "js").join(""));
  const { stdout } = await execute(process.execPath, ["program.mjs"], { cwd: shop.folder, env: shop.env });
  expect(stdout.trim().split("\n")).toEqual(expect.arrayContaining(["public.customer 100", "equal"]));
  expect(await isClean(shop.target)).toBe(true);
});

/** Is compiled with all other programs. */
const isCompiled: Scenario = async () => undefined;

const resolver: Scenario = async ([block], packages) => {
  writeFileSync(join(packages, "resolve.mts"), block?.text ?? "");
  const flags = "--strict --target es2023 --module nodenext --skipLibCheck --types node".split(" ");
  const roots = ["--typeRoots", join(root, "node_modules/@types")];
  await execute(join(root, "node_modules/.bin/tsc"), [...flags, ...roots, "resolve.mts"], { cwd: packages });
  const { conflict } = resolveConfig(
    { source: "host=s", target: "host=t", conflict: { custom: join(packages, "resolve.mjs") } },
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
};

const settings: Scenario = async ([block], packages) => {
  const path = join(packages, "settings.yaml");
  writeFileSync(path, block?.text ?? "");
  const env = { HEROKU_DATABASE_URL: "postgresql://a@b/c", RDS_DATABASE_URL: "postgresql://d@e/f" };
  const options = loadOptions({ file: path }, env);
  expect(options).toMatchObject({ name: "shop", source: env.HEROKU_DATABASE_URL, copy: { jobs: 4 } });
  expect(options.overrides?.["public.event"]).toEqual({ capture: "statement", skipNoop: true });
};

/** The examples of each command, in the order of the commands: no example is answered with "wrong usage" or a failure. */
const examples: Scenario = inShop(async (shop, blocks) => {
  for (const side of [shop.source, shop.target])
    await side.sql("create table users (id int primary key, name text)");
  for (const command of texts(blocks)) {
    const { code, stderr } = await shop.type(command).then(
      (said) => ({ ...said, code: 0 }),
      (error: unknown) => error as { code: number; stderr: string },
    );
    expect([0, 1], `${command}${stderr}`).toContain(code);
  }
});

/** By document and mark. */
export const scenarios: Readonly<Record<string, Scenario>> = {
  "README.md first": first,
  "README.md move": move,
  "docs/cutover.md cutover": toTheEnd,
  "docs/cutover.md plain": toTheEnd,
  "docs/keyless.md keyless": keyless,
  "docs/library.md hooks": isCompiled,
  "docs/library.md library": library,
  "docs/library.md typed": isCompiled,
  "docs/mapping.md mapping": mapping,
  "docs/operations.md drop": toTheEnd,
  "docs/operations.md monitor": monitor,
  "docs/operations.md newcomer": newcomer,
  "docs/reference.md examples": examples,
  "docs/reference.md settings": settings,
  "docs/rejected-rows.md parked": parked,
  "docs/several-databases.md interleave": interleave,
  "docs/several-databases.md shares": shares,
  "docs/several-databases.md targets": targets,
  "docs/two-way.md adopt": twoWays,
  "docs/two-way.md both": twoWays,
  "docs/two-way.md resolver": resolver,
};
