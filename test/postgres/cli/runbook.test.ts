import { execFile } from "node:child_process";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";

import { compareDatabases } from "../../support/compare.ts";
import { leastPrivilegedPair } from "../../support/least-privileged-pair.ts";
import { replicate, start } from "../../support/replicate.ts";

// A runbook is right when following it works: its script is run part by part on a database of its own.

const program = fileURLToPath(new URL("../../../bin/replicate.js", import.meta.url));
let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "replicate-runbook-"));
  writeFileSync(join(folder, "replicate"), `#!/bin/sh\nexec '${process.execPath}' '${program}' "$@"\n`);
  chmodSync(join(folder, "replicate"), 0o755);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Ran {
  readonly code: number | null;
  readonly out: string;
}

it(
  "takes a sync there, back and away by its script, with the password in a variable alone",
  { timeout: 180_000 },
  async () => {
    await using pair = await leastPrivilegedPair();
    await pair.source.sql(
      "create table item (id bigint generated always as identity primary key, v text); create table note (v text)",
    );
    await pair.source.sql(
      `create materialized view first as select id, v from item; create materialized view second as select count(*) as n from first`,
    );
    await pair.source.asAdmin(`alter database "${pair.source.name}" set lock_timeout = '7s'`);
    await pair.source.sql("insert into item (v) select 'v' from generate_series(1, 500)");
    const given = ["--name", "move-1", "--source", pair.source.url, "--target", pair.target.url];
    const selected = [
      "--tables",
      "public.item",
      "note",
      "--keyless",
      "reload",
      "--on-open",
      'echo opened >> "$HOME/opened"',
    ];

    const markdown = await replicate(["runbook", ...given, ...selected]);
    expect(markdown.code).toBe(0);
    const script = await replicate(["runbook", "--shell", ...given, ...selected]);
    expect(script.code).toBe(0);
    for (const { stdout, stderr } of [markdown, script]) {
      // What is told of the pair, and nothing else.
      expect(stderr.trim().split("\n")).toHaveLength(1);
      expect(stderr).toContain(`/${pair.source.name}, target `);

      expect(stdout).toContain("export REPLICATE_NAME=move-1");
      expect(stdout).toContain(pair.source.name);
      for (const { owner } of [pair.source, pair.target]) {
        expect(stdout).not.toContain(owner.password);
        expect(stdout).not.toContain(encodeURIComponent(owner.password));
      }
    }

    const file = join(folder, "runbook.sh");
    writeFileSync(file, script.stdout);
    const passwords = {
      REPLICATE_SOURCE_PASSWORD: pair.source.owner.password,
      REPLICATE_TARGET_PASSWORD: pair.target.owner.password,
    };
    const env = { PATH: `${folder}:${process.env["PATH"]}`, HOME: folder };
    const run = async (part: string, extra: NodeJS.ProcessEnv = passwords): Promise<Ran> =>
      await new Promise((resolve) => {
        execFile(
          "sh",
          [file, ...(part === "" ? [] : [part])],
          { env: { ...env, ...extra } },
          (error, stdout, stderr) =>
            resolve({ code: error === null ? 0 : (error.code as unknown as number), out: stdout + stderr }),
        );
      });
    expect(await run("look", {})).toMatchObject({
      code: 2,
      out: expect.stringContaining("REPLICATE_SOURCE_PASSWORD"),
    });
    expect(await run("")).toMatchObject({
      code: 2,
      out: expect.stringContaining("start|follow|look|settings|views|rehearse|cutover"),
    });
    const done = async (part: string): Promise<string> => {
      const { code, out } = await run(part);
      expect({ part, code, out }).toMatchObject({ code: 0 });
      return out;
    };
    await done("start");
    const follower = start(["follow", "--name", "move-1"], {
      env: { REPLICATE_SOURCE: pair.source.url, REPLICATE_TARGET: pair.target.url },
    });
    try {
      await follower.says("following");
      await pair.source.sql("insert into item (v) values ('later')");
      expect(await done("look")).toMatch(/following.*equal/s);
      expect(await done("settings")).toContain("alter database");
      expect(await pair.target.sql("select relispopulated from pg_class where relname = 'first'")).toEqual([{ relispopulated: false }]); // prettier-ignore
      expect(await done("views")).toContain("2 materialized views filled");
      expect(await pair.target.sql("select n::int from second")).toEqual([{ n: 501 }]);
      expect(await done("rehearse")).toContain("nothing was changed");
      expect(await done("cutover")).toContain("applications write to the target");
      await done("views");
      await pair.target.sql("insert into item (v) values ('there')");
      expect(await done("back")).toContain("applications write to the source");
      expect(await pair.source.sql("select v from item where v = 'there'")).toHaveLength(1);
      expect(await done("cutover")).toContain("applications write to the target");
    } finally {
      follower.child.kill("SIGTERM");
      await follower.finished;
    }
    await done("clean-up");
    expect((await compareDatabases(pair.source.adminUrl, pair.target.adminUrl)).differences).toEqual([]);
    for (const side of [pair.source, pair.target])
      expect(await side.sql("select to_regnamespace('replicate') as schema")).toEqual([{ schema: null }]);
  },
);

it("names the tables of a sync that is set up, and gives it up again", { timeout: 60_000 }, async () => {
  await using pair = await leastPrivilegedPair();
  for (const side of [pair.source, pair.target])
    await side.sql('create table "Odd Name" (id int primary key)');
  const given = ["--source", pair.source.url, "--target", pair.target.url];
  expect((await replicate(["init", ...given])).code).toBe(0);
  const { stdout } = await replicate(["runbook", ...given]);
  expect(stdout).toContain('| public."Odd Name" |');
  const json = JSON.parse((await replicate(["runbook", "--json", ...given])).stdout) as { text: string };
  expect(`${json.text}\n`).toBe(stdout);
  const commands = [...stdout.matchAll(/^(replicate drop[^#]*)#/gm)].map(([, command = ""]) =>
    command.trim(),
  );
  expect(commands).toEqual(["replicate drop --dry-run", "replicate drop --yes"]);
  for (const command of commands) {
    expect((await replicate([...command.split(" ").slice(1), ...given])).code).toBe(0);
  }
  expect(await pair.source.sql("select to_regnamespace('replicate') as schema")).toEqual([{ schema: null }]);
});
