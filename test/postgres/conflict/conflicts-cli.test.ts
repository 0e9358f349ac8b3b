import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";

import type { LoggedConflict, ResolveReport, Status } from "../../../src/index.ts";
import { json, replicate, type Finished } from "../../support/replicate.ts";
import { freePair, type Pair } from "../../support/database.ts";
import { entryOf, startLogged } from "../../support/conflict-setup.ts";

// The verb as a shell has it: what it prints and its exit codes.

function shell(pair: Pair): (...args: string[]) => Promise<Finished> {
  const env = { REPLICATE_SOURCE: pair.source.url, REPLICATE_TARGET: pair.target.url };
  return async (...args) => await replicate([...args, "--name", "shop"], { env });
}

test("conflicts are listed, seen in the status, and resolved", async () => {
  await using pair = await freePair();
  await using logged = await startLogged(pair);
  const run = shell(pair);
  expect(await run("conflicts")).toMatchObject({ code: 0, stdout: "no conflicts\n" });
  const first = await logged.log("target");
  const second = await logged.log("source", { key: { id: 2, group: "a" } });
  const done = await logged.log("target", { key: { id: 3, group: "b" }, isPending: false });

  const listed = await run("conflicts");
  expect(listed.code).toBe(0);
  expect(listed.stdout).toContain(`${first}  public.users id=1, group=a: update_origin_differs, `);
  expect(listed.stdout).toMatch(/latest: source won\n +source +target\n +made on +office +cloud\n/);
  expect(listed.stdout).toMatch(
    /3 conflicts, 2 to be resolved\nnext: replicate conflicts resolve ID --with source\|target --name shop\n$/,
  );
  expect((await run("conflicts", "--limit", "1")).stdout).toMatch(
    /^\d+ {2}public.users id=3.*\n[^]*\n1 conflict, 0 to/,
  );
  const { conflicts } = json<{ conflicts: LoggedConflict[] }>(await run("conflicts", "--pending", "--json"));
  expect(conflicts.map(({ id, resolved, winner }) => [id, resolved, winner])).toEqual([
    [second, false, "skip"],
    [first, false, "skip"],
  ]);
  expect((await run("conflicts", "--kind", "insert_exists", "--since", "1h")).stdout).toBe("no conflicts\n");
  expect(await run("conflicts", "--kind", "insert_exist", "--since", "x")).toMatchObject({
    code: 2,
    stderr: expect.stringMatching(/did you mean "insert_exists"\?\n[^]*since: has to be/) as string,
  });
  expect(json<Status>(await run("status", "--json")).conflicts).toBe(2);
  expect((await run("status")).stdout).toContain(
    "2 to be resolved: replicate conflicts --pending --name shop\n",
  );

  expect(await run("conflicts", "resolve", "998", String(first), "--with", "source")).toMatchObject({
    code: 2,
    stderr: expect.stringContaining("conflict 998: there is none with this id") as string,
  });
  expect(await run("conflicts", "resolve", String(first), "--with", "source")).toMatchObject({
    code: 0,
    stdout: "1 conflict resolved with the source; follow takes the rows over\n",
  });
  expect(await logged.noted("source")).toEqual(["1 a U now"]);
  const report = await run("conflicts", "resolve", "--all-pending", "--yes", "--with", "target", "--json");
  expect(json<ResolveReport>(report)).toEqual({ resolved: [second], unchanged: [] });
  expect(await entryOf(pair.source, second)).toBe("target resolved");
  expect(await entryOf(pair.target, done)).toBe("source resolved");
  expect((await run("conflicts", "--pending")).stdout).toBe("no conflicts\n");
});

test("conflicts of a sync that does not exist", async () => {
  await using pair = await freePair();
  const run = shell(pair);
  for (const args of [["conflicts"], ["conflicts", "resolve", "2", "--with", "source"]])
    expect(await run(...args)).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("SYNC_UNKNOWN") as string,
    });
});

test("a resolver is loaded from its module before anything is touched", async () => {
  await using pair = await freePair();
  const folder = mkdtempSync(join(tmpdir(), "replicate-resolver-"));
  try {
    await pair.source.sql(`create table t (id int primary key)`);
    await pair.target.sql(`create table t (id int primary key)`);
    const file = join(folder, "replicate.yaml");
    writeFileSync(
      file,
      `source: ${pair.source.url}\ntarget: ${pair.target.url}\nconflict: { custom: ./resolve.mjs }\n`,
    );
    const init = async (): Promise<Finished> => await replicate(["init", "--config", file]);
    const path = join(folder, "resolve.mjs");
    expect(await init()).toMatchObject({
      code: 2,
      stderr: expect.stringContaining(`conflict.custom: there is no such file: ${path}`) as string,
    });
    writeFileSync(path, `export const merge = () => "skip";`);
    expect(await init()).toMatchObject({
      code: 2,
      stderr: expect.stringContaining(`conflict.custom: ${path} exports no function`) as string,
    });
    expect(await pair.source.sql(`select 1 from pg_namespace where nspname = 'replicate'`)).toEqual([]);
    writeFileSync(path, `export default () => "skip";`);
    expect(await init()).toMatchObject({ code: 0 });
  } finally {
    rmSync(folder, { recursive: true });
  }
});
