import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

import { urlWith } from "../../support/admin.ts";
import { freePair, type Pair } from "../../support/database.ts";
import { superuser, superuserPassword } from "../../support/data-directory.ts";
import { freePort } from "../../support/free-port.ts";
import { json, replicate, type Finished } from "../../support/replicate.ts";

// Each ends with a code, a hint and the documented exit code, before anything was changed.

interface Failure {
  error: {
    code: string;
    message: string;
    hint: string;
    problems: { subject: string; message: string; remedy?: string }[];
  };
}

let pair: Pair;
let folder: string;
const said: Finished[] = [];
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "replicate-failures-"));
  pair = await freePair();
  await pair.source.sql(
    "create table a (id int primary key, x text); create table b (id int primary key); insert into a values (1, 'x')",
  );
  await pair.target.sql("create table a (id int primary key)");
});
afterAll(async () => {
  rmSync(folder, { recursive: true, force: true });
  await pair.dispose();
});

async function fail(
  args: readonly string[],
  exitCode: number,
  env: NodeJS.ProcessEnv = {},
): Promise<Failure["error"]> {
  const sides = { REPLICATE_SOURCE: pair.source.url, REPLICATE_TARGET: pair.target.url };
  const finished = await replicate([...args, "--json"], { env: { ...sides, ...env }, cwd: folder });
  said.push(finished);
  const { error } = json<Failure>(finished);
  expect(finished.code).toBe(exitCode);
  expect(finished.stderr).toContain(`error ${error.code}: `);
  expect(finished.stderr).toContain(`hint: ${error.hint}`);
  expect(finished.stderr).not.toMatch(/\n\s+at /);
  for (const side of [pair.source, pair.target]) {
    expect(await side.sql("select 1 from pg_namespace where nspname = 'replicate'")).toEqual([]);
  }
  return error;
}

describe("bad input", () => {
  it("pattern that fits no table", async () => {
    const error = await fail(["init", "--tables", "a", "nothing.*", "usres"], 2);
    expect(error.code).toBe("PATTERN_MATCHES_NOTHING");
    expect(JSON.stringify(error)).toContain("nothing.*");
    expect(JSON.stringify(error)).toContain("usres");
  });

  it("table and column that the target does not have, in one go", async () => {
    const error = await fail(["init"], 1);
    expect(error.code).toBe("PREFLIGHT_BLOCKED");
    expect(error.problems.map(({ subject }) => subject)).toEqual(
      expect.arrayContaining(["public.a", "public.b"]),
    );
  });

  it("wrong password", async () => {
    const url = urlWith(pair.source.url, { password: "not-the-password" });
    const error = await fail(["init"], 3, { REPLICATE_SOURCE: url });
    expect(error).toMatchObject({
      code: "LOGIN_REFUSED",
      message: expect.stringContaining("password authentication failed"),
    });
    expect(JSON.stringify(said.at(-1))).not.toContain("not-the-password");
  });

  it("no password", async () => {
    const { hostname, port, pathname } = new URL(pair.source.url);
    const source = `host=${hostname} port=${port} user=${superuser} dbname=${pathname.slice(1)}`;
    expect(await fail(["init"], 3, { REPLICATE_SOURCE: source })).toMatchObject({
      code: "LOGIN_REFUSED",
      hint: expect.stringContaining("PGPASSWORD"),
    });
  });

  it("server that is not there", async () => {
    const source = `host=127.0.0.1 port=${await freePort()}`;
    expect(await fail(["copy"], 3, { REPLICATE_SOURCE: source })).toMatchObject({
      code: "SERVER_UNREACHABLE",
    });
    expect(await fail(["init"], 3, { REPLICATE_SOURCE: "host=no.such.host.invalid" })).toMatchObject({
      code: "SERVER_UNREACHABLE",
      message: expect.stringContaining("no.such.host.invalid:5432/"),
    });
  });

  it("database that is not there", async () => {
    const target = urlWith(pair.target.url, { database: "nowhere" });
    expect(await fail(["init"], 3, { REPLICATE_TARGET: target })).toMatchObject({ code: "LOGIN_REFUSED" });
  });

  it("the same database twice", async () => {
    expect(await fail(["init", "--tables", "a"], 2, { REPLICATE_TARGET: pair.source.url })).toMatchObject({
      code: "SAME_DATABASE",
    });
  });

  it("a sync that nobody has begun", async () => {
    for (const verb of [
      "copy",
      "follow",
      "verify",
      "status",
      "sequences",
      "parked",
      "conflicts",
      "cutover --yes",
    ]) {
      const error = await fail([...verb.split(" "), "--name", "unknown"], 2);
      expect(error.code, verb).toBe("SYNC_UNKNOWN");
      expect(error.message, verb).toContain(`/${pair.target.name} knows no sync named unknown`);
    }
    expect(await fail(["drop", "--yes"], 2)).toMatchObject({ code: "SYNC_UNKNOWN" });
  });

  it("five mistakes in the configuration file", async () => {
    const lines = [
      "name: my sync",
      "source: ${NOT_SET_AT_ALL}",
      "target: postgresql://u:top-secret%zz@h/d",
      "direction: sideways",
      "copy: { jobs: many }",
    ];
    writeFileSync(join(folder, "replicate.yaml"), lines.join("\n"));
    const none = { REPLICATE_SOURCE: "", REPLICATE_TARGET: "" };
    const error = await fail(["run", "--config", "replicate.yaml"], 2, none);
    expect(error.code).toBe("CONFIG_INVALID");
    expect(error.problems.map(({ subject }) => subject).sort()).toEqual([
      "copy.jobs",
      "direction",
      "name",
      "source",
      "target",
    ]);
    for (const { subject } of error.problems) expect(said.at(-1)?.stderr).toContain(`\n  ${subject}: `);
    expect(JSON.stringify(said.at(-1))).not.toContain("top-secret");
  });

  it("rows in the target's table", async () => {
    await using other = await freePair();
    for (const side of [other.source, other.target]) {
      await side.sql("create table a (id int primary key); insert into a values (1)");
    }
    const env = { REPLICATE_SOURCE: other.source.url, REPLICATE_TARGET: other.target.url };
    expect(await replicate(["init"], { env })).toMatchObject({ code: 0 });
    const refused = await replicate(["copy"], { env });
    expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining("error TARGET_NOT_EMPTY") });
    expect(refused.stderr).toContain("--overwrite");
    expect(await replicate(["copy", "--overwrite"], { env })).toMatchObject({ code: 0 });
  });
});

it("connections may be given in parts, as keywords, by libpq's variables, by a password file and by a service file", async () => {
  const { hostname, port, pathname } = new URL(pair.source.url);
  const target = new URL(pair.target.url);
  const home = mkdtempSync(join(folder, "home-"));
  writeFileSync(join(home, ".pgpass"), `${hostname}:${port}:*:*:${superuserPassword}\n`, { mode: 0o600 });
  const service = [
    "[destination]",
    `host=${target.hostname}`,
    `port=${target.port}`,
    `dbname=${target.pathname.slice(1)}`,
  ];
  writeFileSync(join(home, ".pg_service.conf"), service.join("\n"));
  const args = ["preflight", "--tables", "a", "--source-host", hostname, "--source-port", port];
  const finished = await replicate(
    [...args, "--source-dbname", pathname.slice(1), "--target", "service=destination"],
    {
      env: { HOME: home, PGUSER: superuser, REPLICATE_TARGET_PASSWORD: superuserPassword },
    },
  );
  said.push(finished);
  expect(finished.code).toBe(1);
  expect(finished.stdout).toContain("blocking: public.a: ");
});

it("no output held the password", () => {
  expect(said.length).toBeGreaterThan(10);
  for (const { stdout, stderr } of said) expect(stdout + stderr).not.toContain(superuserPassword);
});
