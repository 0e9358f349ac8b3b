import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

import { freePair, type Pair } from "../../support/database.ts";
import { superuserPassword } from "../../support/data-directory.ts";
import { jsonLines, replicate, start, type Running } from "../../support/replicate.ts";

// How the command behaves as a process: signals, pipes, terminals, what others can see of it.

let pair: Pair;
let env: NodeJS.ProcessEnv;
const running: Running[] = [];
beforeEach(async () => {
  pair = await freePair();
  env = { REPLICATE_SOURCE: pair.source.url, REPLICATE_TARGET: pair.target.url };
  await Promise.all(
    [pair.source, pair.target].map((side) => side.sql("create table a (id int primary key, x text)")),
  );
  await pair.source.sql("insert into a select i, repeat('x', 100) from generate_series(1, 100) i");
});
afterEach(async () => {
  for (const { child } of running.splice(0)) child.kill("SIGKILL");
  await pair.dispose();
});

function begin(...args: string[]): Running {
  const process = start(args, { env });
  running.push(process);
  return process;
}

async function prepare(): Promise<void> {
  expect(await replicate(["init"], { env })).toMatchObject({ code: 0 });
  expect(await replicate(["copy"], { env })).toMatchObject({ code: 0 });
}

describe("follow", () => {
  beforeEach(prepare);

  it.each<NodeJS.Signals>(["SIGINT", "SIGTERM"])(
    "ends cleanly at %s, with exit code 0 and a result",
    async (signal) => {
      const follow = begin("follow", "--json");
      await pair.source.sql("update a set x = 'new' where id = 1");
      await follow.says('"rows":1,');
      follow.child.kill(signal);
      const finished = await follow.finished;
      expect(finished).toMatchObject({ code: 0, signal: null });
      expect(jsonLines(finished).at(-1)).toMatchObject({ type: "result", verb: "follow", reason: "stopped" });
      expect(await pair.target.sql("select x from a where id = 1")).toEqual([{ x: "new" }]);
    },
  );

  it.each([
    ["follow", "--until-caught-up"],
    ["follow", "--once"],
  ])("ends with exit code 3 where the end that was asked for is not reached: %s %s", async (...args) => {
    const blocker = await pair.target.client();
    await blocker.query("begin; lock table a");
    await pair.source.sql("update a set x = 'later'");
    const follow = begin(...args, "--json");
    await follow.says("applying changes");
    await sleep(1000);
    follow.child.kill("SIGINT");
    await sleep(200);
    await blocker.query("rollback");
    const finished = await follow.finished;
    expect(finished).toMatchObject({ code: 3, signal: null });
    expect(finished.stderr).toContain("error ABORTED: follow was stopped before ");
    const [result, error] = jsonLines<Record<string, unknown>>(finished).slice(-2);
    expect(JSON.stringify(result)).toContain('"reason":"stopped"');
    expect(error).toMatchObject({ error: { code: "ABORTED" } });
    // The same command does the rest.
    expect(await replicate([...args], { env })).toMatchObject({ code: 0 });
  });

  it("ends at once at the second signal", async () => {
    const follow = begin("follow");
    await pair.source.sql("update a set x = 'first'");
    await follow.says("100 rows applied");
    const blocker = await pair.target.client();
    await blocker.query("begin; lock table a");
    await pair.source.sql("update a set x = 'second'");
    await sleep(1500);
    follow.child.kill("SIGTERM");
    await follow.says("ending cleanly");
    const asked = Date.now();
    follow.child.kill("SIGTERM");
    expect(await follow.finished).toMatchObject({ code: 130 });
    expect(Date.now() - asked).toBeLessThan(2000);
    await blocker.query("rollback");
  });

  it("lets no second runner in", async () => {
    const follow = begin("follow");
    await pair.source.sql("update a set x = 'new'");
    await follow.says("100 rows applied");
    const second = await replicate(["follow", "--json"], { env });
    expect(second.code).toBe(4);
    expect(JSON.parse(second.stdout)).toMatchObject({ error: { code: "RUNNER_ACTIVE" } });
    expect((await replicate(["status"], { env })).stdout).toMatch(/runner +alive on .*, pid \d+/);
    expect(await replicate(["drop", "--yes"], { env })).toMatchObject({ code: 4 });
    follow.child.kill("SIGTERM");
    expect(await follow.finished).toMatchObject({ code: 0 });
  });

  it("ends when nobody reads its output any more", async () => {
    const follow = begin("follow", "--json");
    follow.child.stdout?.destroy();
    await pair.source.sql("update a set x = 'new'");
    expect(await follow.finished).toMatchObject({ code: 0 });
  });
});

it("copy ends at a signal with exit code 3 and is resumed by the same command", async () => {
  await pair.source.sql(
    "insert into a select i, repeat(md5(i::text), 20) from generate_series(101, 100000) i; analyze a",
  );
  expect(await replicate(["init"], { env })).toMatchObject({ code: 0 });
  const args = ["copy", "--part-size", "256kB", "--jobs", "1"];
  const copy = begin(...args);
  await copy.says("to copy:");
  copy.child.kill("SIGINT");
  const finished = await copy.finished;
  expect(finished).toMatchObject({ code: 3, stderr: expect.stringContaining("error ABORTED: ") });
  expect(finished.stderr).toContain("the same command again: it resumes");
  expect(await replicate(args, { env })).toMatchObject({
    code: 0,
    stdout: expect.stringContaining("1 table, 100,000 rows"),
  });
  expect(await pair.target.sql("select count(*)::int as n from a")).toEqual([{ n: 100_000 }]);
});

it.runIf(process.platform === "linux")(
  "shows no connection string to other users of the machine",
  async () => {
    await prepare();
    const follow = start([
      "follow",
      "--name",
      "default",
      "--source",
      pair.source.url,
      "--target",
      pair.target.url,
    ]);
    running.push(follow);
    await follow.says("following");
    const shown = readFileSync(`/proc/${follow.child.pid}/cmdline`, "utf8").replaceAll("\0", " ").trim();
    expect(shown).toBe("replicate follow default");
    expect(
      execFileSync("ps", ["-ww", "-o", "args=", "-p", String(follow.child.pid)], { encoding: "utf8" }),
    ).not.toContain(superuserPassword);
    follow.child.kill("SIGTERM");
    expect(await follow.finished).toMatchObject({ code: 0 });
  },
);

it("status --watch goes on until it is stopped", async () => {
  await prepare();
  const watch = begin("status", "--watch", "--json");
  await expect
    .poll(() => watch.said.stdout.trim().split("\n").length, { timeout: 10_000 })
    .toBeGreaterThan(1);
  watch.child.kill("SIGINT");
  const finished = await watch.finished;
  expect(finished.code).toBe(0);
  for (const line of jsonLines(finished)) expect(line).toMatchObject({ sync: "default", phase: "copied" });
});

function hasScript(): boolean {
  try {
    return execFileSync("script", ["--version"], { encoding: "utf8" }).includes("util-linux");
  } catch {
    return false;
  }
}

describe.runIf(hasScript())("on a terminal", () => {
  const program = new URL("../../../bin/replicate.js", import.meta.url).pathname;
  const onTerminal = (command: string, input = ""): { code: number; shown: string } => {
    const shell = `stty cols 120; ${process.execPath} ${program} ${command}; echo "exit $?"`;
    const shown = execFileSync("script", ["-qec", shell, "/dev/null"], {
      env: { ...env, PATH: process.env["PATH"], HOME: "/nonexistent", SHELL: "/bin/sh" },
      input,
      encoding: "utf8",
    });
    return { code: Number(/exit (\d+)\s*$/.exec(shown)?.[1]), shown };
  };

  it("draws a block again and again", async () => {
    expect(await replicate(["init"], { env })).toMatchObject({ code: 0 });
    await replicate(["copy"], { env });
    const { code, shown } = onTerminal("copy --restart");
    expect(code).toBe(0);
    expect(shown).toContain("the copy is done: 1 table, 100 rows");
    const following = onTerminal("follow --until-caught-up");
    expect(following.code).toBe(0);
    expect(following.shown).toContain("caught up: ");
  });

  it("asks before it drops", async () => {
    expect(await replicate(["init"], { env })).toMatchObject({ code: 0 });
    const refused = onTerminal("drop", "n\n");
    expect(refused.shown).toContain("Remove the sync default from both servers? The rows stay. [y/N]");
    expect(refused).toMatchObject({ code: 1, shown: expect.stringContaining("nothing was changed") });
    expect(onTerminal("drop", "y\n")).toMatchObject({
      code: 0,
      shown: expect.stringContaining("the sync is gone"),
    });
  });
});
