import { execFile } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

import { root } from "./documents.ts";
import { freePair, type Database, type Pair } from "./database.ts";

// A place where the examples of the documents are typed: a folder that has the package, two databases with a small shop.

export const execute = promisify(execFile);

/** A folder in which `replicate` is a command and the package can be imported. */
export function packageFolder(): { path: string; remove: () => void } {
  const path = mkdtempSync(join(tmpdir(), "replicate-readme-"));
  for (const name of ["bin", "node_modules"]) mkdirSync(join(path, name));
  symlinkSync(root, join(path, "node_modules", "pg-replicate"));
  const program = join(path, "bin", "replicate");
  writeFileSync(
    program,
    `#!/bin/sh\nexec '${process.execPath}' '${join(root, "bin", "replicate.js")}' "$@"\n`,
  );
  chmodSync(program, 0o755);
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

const tables = `
  create table customer (id uuid primary key default gen_random_uuid(), name text not null);
  create index on customer (name);
  create table orders (id bigint generated always as identity primary key, customer_id uuid references customer);`;

export interface Shop extends Pair {
  /** Where commands are typed; a new one per shop. */
  folder: string;
  env: NodeJS.ProcessEnv;
  /** Types a script, which fails where a command of it does. */
  type: (script: string) => Promise<{ stdout: string; stderr: string }>;
  save: (name: string, text: string) => void;
}

/** Two databases with the tables of a shop, rows on the source. */
export async function openShop(packages: string): Promise<Shop> {
  const pair = await freePair();
  for (const side of [pair.source, pair.target]) await side.sql(tables);
  await pair.source.sql(`
    insert into customer (name) select 'Customer ' || n from generate_series(1, 100) n;
    insert into orders (customer_id) select id from customer`);
  const folder = mkdtempSync(join(packages, "shop-"));
  const env = {
    PATH: `${join(packages, "bin")}:${process.env["PATH"]}`,
    HOME: packages,
    REPLICATE_SOURCE: pair.source.url,
    REPLICATE_TARGET: pair.target.url,
  };
  return {
    ...pair,
    folder,
    env,
    type: async (script) => await execute("sh", ["-eu", "-c", script], { cwd: folder, env }),
    save: (name, text) => writeFileSync(join(folder, name), text),
    [Symbol.asyncDispose]: pair.dispose,
  };
}

/** What the customers are, in one value. */
export async function customers(side: Database): Promise<unknown> {
  const [found] = await side.sql(
    "select count(*)::int as n, md5(string_agg(c::text, '|' order by id)) as all from customer c",
  );
  return found;
}

/** Whether nothing of ours is left. */
export async function isClean(side: Database): Promise<unknown> {
  const [found] = await side.sql("select to_regnamespace('replicate') is null as clean");
  return found?.["clean"];
}
