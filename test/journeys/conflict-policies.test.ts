import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";

import type { LoggedConflict, Status } from "../../src/index.ts";
import { freePair, type Database, type Pair } from "../support/database.ts";
import { json, replicate, type Finished } from "../support/replicate.ts";

// What becomes of rows that both sides have changed, by each policy, as a shell sees it.

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "replicate-policies-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

type Run = (...args: string[]) => Promise<Finished>;

/** Tables of these names, with two rows each on both sides, are followed both ways. */
async function start(pair: Pair, tables: readonly string[], settings: string): Promise<Run> {
  for (const side of [pair.source, pair.target])
    for (const table of tables)
      await side.sql(`create table ${table} (id int primary key, v text, stamp int);
        insert into ${table} values (1, 'old', 0), (2, 'old', 0)`);
  const file = join(folder, "replicate.yaml");
  const nodes = "nodes: { source: office, target: cloud }";
  writeFileSync(
    file,
    `source: ${pair.source.url}\ntarget: ${pair.target.url}\ndirection: both\n${nodes}\n${settings}\n`,
  );
  const run: Run = async (...args) => await replicate([...args, "--config", file]);
  for (const args of [["init"], ["copy", "--adopt"], ["follow", "--until-caught-up"]])
    expect(await run(...args)).toMatchObject({ code: 0 });
  return run;
}

/** `1 office, 2 gone` */
async function rows(side: Database, table: string): Promise<string> {
  const found = await side.sql<{ id: number; v: string }>(`select id, v from ${table}`);
  return [1, 2].map((id) => `${id} ${found.find((row) => row.id === id)?.v ?? "gone"}`).join(", ");
}

test("a delete against an update, by each policy", async () => {
  await using pair = await freePair();
  writeFileSync(
    join(folder, "merge.mjs"),
    `export default ({ source, target }) => ({ row: { ...(source.image ?? target.image), v: "merged" } });`,
  );
  const policies = {
    by_source: "source-wins",
    by_target: "target-wins",
    by_time: "latest",
    by_stamp: "{ latest: stamp }",
    by_order: "{ order: [elsewhere, office, cloud] }",
    by_module: "{ custom: ./merge.mjs }",
    by_nobody: "skip",
  };
  const tables = Object.keys(policies);
  const overrides = Object.entries(policies).map(([table, policy]) => `  ${table}: { conflict: ${policy} }`);
  const run = await start(pair, tables, `overrides:\n${overrides.join("\n")}`);
  for (const table of tables)
    await pair.source.sql(
      `delete from ${table} where id = 1; update ${table} set v = 'office', stamp = 9 where id = 2`,
    );
  for (const table of tables)
    await pair.target.sql(
      `update ${table} set v = 'cloud', stamp = 1 where id = 1; delete from ${table} where id = 2`,
    );
  expect(await run("follow", "--until-caught-up")).toMatchObject({ code: 0 });

  const source = "1 gone, 2 office";
  const target = "1 cloud, 2 gone";
  const wanted: Record<string, readonly [string, string]> = {
    by_source: [source, source],
    by_target: [target, target],
    by_time: [target, target],
    // A row that is gone has no stamp.
    by_stamp: [target, target],
    by_order: [source, source],
    by_module: ["1 merged, 2 merged", "1 merged, 2 merged"],
    by_nobody: [source, target],
  };
  const found: Record<string, readonly string[]> = {};
  for (const table of tables) found[table] = [await rows(pair.source, table), await rows(pair.target, table)];
  expect(found).toEqual(wanted);

  const { conflicts } = json<{ conflicts: LoggedConflict[] }>(await run("conflicts", "--all", "--json"));
  const told = conflicts.map(({ table, key, source: ours, target: theirs, winner, resolved }) =>
    [table, key["id"], ours.node, ours.change, theirs.node, theirs.change, winner, resolved].join(" "),
  );
  const winners = { by_source: "source", by_target: "target", by_time: "target", by_stamp: "target", by_order: "source", by_module: "merged", by_nobody: "skip" }; // prettier-ignore
  expect(new Set(told)).toEqual(
    new Set(
      Object.entries(winners).flatMap(([table, winner]) => [
        `public.${table} 1 office delete cloud update ${winner} ${winner !== "skip"}`,
        `public.${table} 2 office update cloud delete ${winner} ${winner !== "skip"}`,
      ]),
    ),
  );
  // Every image that was overwritten is there.
  for (const { key, source: ours, target: theirs } of conflicts) {
    expect(ours.image).toEqual(key["id"] === 1 ? null : { id: 2, v: "office", stamp: 9 });
    expect(theirs.image).toEqual(key["id"] === 2 ? null : { id: 1, v: "cloud", stamp: 1 });
  }
});

test("error stops before anything is written, and another policy goes on", async () => {
  await using pair = await freePair();
  const run = await start(pair, ["t"], "conflict: error");
  await pair.source.sql("update t set v = 'office'");
  await pair.target.sql("delete from t where id = 1");
  const stopped = await run("follow", "--until-caught-up");
  expect(stopped.code).toBe(1);
  expect(stopped.stderr).toMatch(
    /error CONFLICT: changed on both sides: public\.t id=1 \(.*: update on office, delete on cloud\)/,
  );
  expect([await rows(pair.source, "t"), await rows(pair.target, "t")]).toEqual([
    "1 office, 2 office",
    "1 gone, 2 old",
  ]);
  expect(await run("conflicts")).toMatchObject({ stdout: "no conflicts\n" });
  expect(json<Status>(await run("status", "--json"))).toMatchObject({
    phase: "failed",
    lastError: { code: "CONFLICT", cleared: false },
  });
  expect((await run("status")).stdout).toMatch(
    /not over yet:\n +CONFLICT: changed on both sides: public\.t id=1/,
  );
  expect(await run("follow", "--until-caught-up", "--conflict", "source-wins")).toMatchObject({ code: 0 });
  expect(await rows(pair.target, "t")).toBe("1 office, 2 office");
  expect(json<Status>(await run("status", "--json"))).toMatchObject({
    phase: "following",
    lastError: { code: "CONFLICT", cleared: true },
  });
});

test("latest is about the change, not about when its transaction began or ended", async () => {
  await using pair = await freePair();
  const run = await start(pair, ["t"], "conflict: latest");
  const [ours, theirs] = [await pair.source.client(), await pair.target.client()];
  // The target's transaction begins first, changes the row last, and ends first.
  await theirs.query("begin; select 1");
  await ours.query("begin; update t set v = 'office' where id = 1");
  await theirs.query("update t set v = 'cloud'; commit");
  await ours.query("update t set v = 'office' where id = 2; commit");
  await Promise.all([ours.end(), theirs.end()]);
  expect(await run("follow", "--until-caught-up")).toMatchObject({ code: 0 });
  expect([await rows(pair.source, "t"), await rows(pair.target, "t")]).toEqual([
    "1 cloud, 2 office",
    "1 cloud, 2 office",
  ]);
});
