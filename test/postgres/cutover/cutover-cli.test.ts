import { expect, test } from "vitest";

import type { Rehearsal, Status, SwitchReport } from "../../../src/index.ts";
import { json, replicate, type Finished } from "../../support/replicate.ts";
import { freePair } from "../../support/database.ts";
import { drain, prepareCutover } from "../../support/cutover-setup.ts";

// The verbs as a shell has them: what they print, their exit codes, and that they hold no secret.

test("cutover, rollback and finish from the command line", async () => {
  await using pair = await freePair();
  await using prepared = await prepareCutover(pair);
  const run = async (...args: string[]): Promise<Finished> =>
    await replicate([...args, "--name", "shop"], {
      env: { REPLICATE_SOURCE: pair.source.url, REPLICATE_TARGET: pair.target.url },
    });

  const rehearsed = await run("cutover", "--rehearse");
  expect(rehearsed.code).toBe(0);
  expect(rehearsed.stdout).toMatch(
    /the switch would keep applications from writing for about [\d.]+ s:\n {2}fence .*\n {2}drain/,
  );
  expect(rehearsed.stdout).toMatch(/nothing was changed\n$/);
  const dry = json<{ rehearsal: Rehearsal }>(await run("cutover", "--dry-run", "--json"));
  expect(dry.rehearsal.blockers).toEqual([]);
  expect((await prepared.sync.status()).switch).toBeNull();

  expect(await run("cutover")).toMatchObject({
    code: 2,
    stderr: expect.stringContaining("--yes") as unknown,
  });
  expect(await run("cutover", "--yes", "--timeout", "soon")).toMatchObject({ code: 2 });
  expect(await run("rollback", "--yes")).toMatchObject({
    code: 2,
    stderr: expect.stringContaining("CUTOVER_STATE") as unknown,
  });
  const slow = await run("cutover", "--yes", "--timeout", "1ms");
  expect(slow).toMatchObject({ code: 1, stderr: expect.stringContaining("CUTOVER_TIMEOUT") as unknown });

  const switched = await run("cutover", "--yes", "--timeout", "30s", "--on-open", "echo to $PGDATABASE");
  expect(switched.code).toBe(0);
  expect(switched.stderr).toContain(`on-open: to ${pair.target.name}`);
  expect(switched.stdout).toMatch(
    /switched: applications write to the target; nobody could write for [\d.]+ s/,
  );
  const status = await run("status");
  expect(status.stdout).toContain("shop: cut-over - applications write to the target");
  expect(status.stdout).toMatch(/fence +the source refuses writes of applications since/);
  expect(status.stdout).toContain("replicate follow --name shop");
  await pair.target.sql(`insert into account (name) values ('on the new side')`);
  expect((await run("follow", "--until-caught-up")).code).toBe(0);
  expect(await pair.source.sql(`select name from account where name like 'on%'`)).toHaveLength(1);
  expect((await run("verify")).code).toBe(0);

  const back = json<SwitchReport>(await run("rollback", "--yes", "--json"));
  expect(back).toMatchObject({ result: "switched", primary: "source" });
  expect(json<Status>(await run("status", "--json")).phase).toBe("following");
  expect((await run("cutover", "--yes", "--no-reverse", "--no-verify")).code).toBe(0);
  const finished = await run("cutover", "--finish", "--yes");
  expect(finished).toMatchObject({
    code: 0,
    stdout: expect.stringContaining("the target stands alone") as unknown,
  });
  expect(await pair.source.sql(`select 1 from pg_namespace where nspname = 'replicate'`)).toEqual([]);
  expect(await pair.target.sql(`select 1 from pg_namespace where nspname = 'replicate'`)).toEqual([]);
  await expect(drain(prepared.sync)).rejects.toMatchObject({ code: "SYNC_UNKNOWN" });
});
