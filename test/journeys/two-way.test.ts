import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";

import type { LoggedConflict, Status } from "../../src/index.ts";
import { freePair } from "../support/database.ts";
import { json, replicate, type Finished } from "../support/replicate.ts";

// A sync that goes both ways, from beginning to end, as a shell has it.

test("both sides are written to; a skipped conflict is resolved; drop leaves no trace", async () => {
  await using pair = await freePair();
  const schema = "create table t (id int primary key, v text)";
  await pair.source.sql(`${schema}; insert into t select g, 'v' || g from generate_series(1, 100) g`);
  await pair.target.sql(schema);
  const env = { REPLICATE_SOURCE: pair.source.url, REPLICATE_TARGET: pair.target.url };
  const folder = mkdtempSync(join(tmpdir(), "two-way-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, "replicate.yaml"), "direction: both\nconflict: skip\n");
  const run = async (...args: string[]): Promise<Finished> =>
    await replicate([...args, "--config", join(folder, "replicate.yaml")], { env });
  const follow = async (): Promise<void> => {
    expect(await run("follow", "--until-caught-up")).toMatchObject({ code: 0 });
  };
  expect(await run("init")).toMatchObject({ code: 0 });
  expect(await run("copy")).toMatchObject({ code: 0 });
  await follow();
  await pair.source.sql("update t set v = 'source' where id in (1, 2); insert into t values (201, 'source')");
  await pair.target.sql("update t set v = 'target' where id in (1, 3); insert into t values (202, 'target')");
  await follow();
  const rows = "select id, v from t where id in (1, 2, 3, 201, 202) order by id";
  const agreed = [
    { id: 2, v: "source" },
    { id: 3, v: "target" },
    { id: 201, v: "source" },
    { id: 202, v: "target" },
  ];
  expect(await pair.source.sql(rows)).toEqual([{ id: 1, v: "source" }, ...agreed]);
  expect(await pair.target.sql(rows)).toEqual([{ id: 1, v: "target" }, ...agreed]);

  const status = json<Status>(await run("status", "--json"));
  expect(status).toMatchObject({
    direction: "both",
    conflicts: 1,
    lag: { rows: 0 },
    back: { lag: { rows: 0 } },
  });
  expect((await run("status")).stdout).toMatch(/two-way +2 rows from the target to the source; lag none/);
  const { conflicts } = json<{ conflicts: LoggedConflict[] }>(await run("conflicts", "--pending", "--json"));
  expect(conflicts).toMatchObject([{ key: { id: 1 }, kind: "update_origin_differs" }]);
  const id = String(conflicts[0]?.id);
  expect(await run("conflicts", "resolve", id, "--with", "target")).toMatchObject({ code: 0 });
  await follow();
  expect(await pair.source.sql(rows)).toEqual([{ id: 1, v: "target" }, ...agreed]);
  expect(await run("verify")).toMatchObject({ code: 0 });

  // Settings that would overwrite what the target has changed are noticed.
  for (const verb of ["follow", "copy", "verify"]) {
    expect(await replicate([verb, ...(verb === "follow" ? ["--once"] : [])], { env })).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("direction: is one-way, and the sync goes both ways") as string,
    });
  }
  expect(await replicate(["cutover", "--yes"], { env })).toMatchObject({
    stderr: expect.stringContaining("goes both ways") as string,
  });

  expect(await replicate(["drop", "--yes"], { env })).toMatchObject({ code: 0 });
  for (const side of [pair.source, pair.target]) {
    const left = await side.sql(
      `select nspname::text as name from pg_namespace where nspname = 'replicate' union all
       select tgname::text from pg_trigger where tgrelid = 't'::regclass`,
    );
    expect(left).toEqual([]);
  }
});
