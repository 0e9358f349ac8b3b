import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { openSync, type SyncOptions } from "../../../src/index.ts";
import { json, replicate } from "../../support/replicate.ts";
import { urlWith, withClient } from "../../support/admin.ts";
import { type Cluster, type ClusterDatabase, startCluster } from "../../support/cluster.ts";
import { freePair, type Pair } from "../../support/database.ts";
import { startOldServer, startPooler } from "../../support/fake-servers.ts";
import { freePort } from "../../support/free-port.ts";
import { leastPrivilegedPair } from "../../support/least-privileged-pair.ts";
import { giveToServerUser } from "../../support/run-folder.ts";
import { describeSchema } from "../../support/schema-description.ts";

// Whatever is asked for in error is refused with a code, a hint and the documented exit code, by the library and by the
// command alike, and neither side is changed.

interface Refusal {
  code: string;
  message: string;
  summary: string;
  hint: string;
  exitCode: number;
  problems: { subject: string; message: string; remedy?: string }[];
}

/** Containers offer neither a socket nor a data directory. */
const isEmbedded = !(process.env["REPLICATE_TEST_PG"] ?? "").startsWith("docker");

type Given = Pick<SyncOptions, "source" | "target" | "tables">;

let pair: Pair;
beforeAll(async () => {
  pair = await freePair();
  const tables = `create table good (id int primary key, v text); create table "Other" (id int primary key)`;
  await pair.source.sql(`${tables}; insert into good values (1, 'a')`);
  await pair.target.sql(tables);
});
afterAll(async () => await pair.dispose());

const urls = (): Given => ({ source: pair.source.url, target: pair.target.url });

/** What init says, through the library and the command, which have to agree; looks at both databases before and after. */
async function refusal(
  given: Given,
  looked: readonly string[] = [pair.source.url, pair.target.url],
): Promise<Refusal> {
  const before = await Promise.all(looked.map(describeSchema));
  const fail = async (): Promise<Refusal> => {
    await using sync = await openSync({ ...given, env: {} });
    await sync.init();
    throw new Error("init did not refuse");
  };
  const said = await fail().catch((error: unknown) => error as Refusal);
  const env = { REPLICATE_SOURCE: given.source, REPLICATE_TARGET: given.target };
  const tables = given.tables === undefined ? [] : ["--tables", ...given.tables];
  const finished = await replicate(["init", "--json", ...tables], { env });
  expect(finished.code).toBe(said.exitCode);
  const { error } = json<{ error: Refusal }>(finished);
  const { code, summary, hint, problems } = said;
  // The command lists the problems by themselves, the library's message has them all.
  expect({ ...error, problems: error.problems ?? [] }).toMatchObject({
    code,
    message: summary,
    hint,
    problems,
  });
  if (code === "PREFLIGHT_BLOCKED")
    for (const { message } of problems) expect(said.message).toContain(message);
  expect(hint.length).toBeGreaterThan(10);
  expect(finished.stderr).toContain(`error ${code}: `);
  expect(await Promise.all(looked.map(describeSchema))).toEqual(before);
  return said;
}

describe("tables", () => {
  test("patterns that fit nothing", async () => {
    const { code, exitCode, problems } = await refusal({ ...urls(), tables: ["good", "public.othr", "x.*"] });
    expect([code, exitCode]).toEqual(["PATTERN_MATCHES_NOTHING", 2]);
    expect(problems.map(({ subject }) => subject)).toEqual(["public.othr", "x.*"]);
  });

  test("no key, and what the target lacks, all at once with what to do", async () => {
    await using other = await freePair();
    await other.source.sql(`
      create table keyless (id int, v text);
      create table nullable (id int unique);
      create table missing (id int primary key);
      create table narrow (id int primary key, extra text);
      create table unkeyed (id int primary key);
      create table typed (id int primary key, v text);
      create table wanting (id int primary key);`);
    await other.target.sql(`
      create table keyless (id int, v text);
      create table nullable (id int unique);
      create table narrow (id int primary key);
      create table unkeyed (id int);
      create table typed (id int primary key, v int);
      create table wanting (id int primary key, v int not null);`);
    const sides = { source: other.source.url, target: other.target.url };
    const { code, exitCode, problems } = await refusal(sides, [sides.source, sides.target]);
    expect([code, exitCode]).toEqual(["PREFLIGHT_BLOCKED", 1]);
    const subjects = ["keyless", "missing", "narrow", "nullable", "typed", "unkeyed", "wanting"];
    expect(problems.map(({ subject }) => subject).toSorted()).toEqual(
      subjects.map((name) => `public.${name}`),
    );
    expect(problems.every(({ remedy }) => remedy !== undefined)).toBe(true);

    // What concerns the target and is a statement repairs it as it is.
    for (const { subject, remedy } of problems) {
      if (/narrow|unkeyed|typed|wanting/.test(subject)) {
        await other.target.sql(remedy ?? "");
      }
    }
    const rest = await refusal(sides, [sides.source, sides.target]);
    expect(rest.problems.map(({ subject }) => subject).toSorted()).toEqual(
      ["keyless", "missing", "nullable"].map((name) => `public.${name}`),
    );
  });

  test("rows hidden by row security", async () => {
    await using other = await leastPrivilegedPair();
    await other.source.sql(`
      create table t (id int primary key, tenant text); insert into t values (1, 'mine'), (2, 'theirs');
      create policy tenants on t using (tenant = 'mine');
      alter table t enable row level security; alter table t force row level security;`);
    await other.target.sql("create table t (id int primary key, tenant text)");
    const sides = { source: other.source.url, target: other.target.url };
    const looked = [other.source.adminUrl, other.target.adminUrl];
    const { code, exitCode, problems } = await refusal(sides, looked);
    expect([code, exitCode]).toEqual(["PREFLIGHT_BLOCKED", 1]);
    expect(problems).toMatchObject([
      { subject: "public.t", message: expect.stringContaining("row security") },
    ]);
    await other.source.sql(problems[0]?.remedy ?? "");
    await using sync = await openSync({ ...sides, env: {} });
    await sync.init();
    expect((await sync.copy()).rows).toBe(2);

    // Hidden later, they are an error and not deletions.
    await other.source.sql("update t set tenant = 'ours'; alter table t force row level security");
    const follow = async (): Promise<void> => {
      for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
    };
    await expect(follow()).rejects.toMatchObject({ sqlstate: "42501" });
    expect(await other.target.sql("select count(*)::int as n from t")).toEqual([{ n: 2 }]);
  });

  test("what is not replicated is named", async () => {
    await using other = await freePair();
    await other.source.sql(`
      create table good (id int primary key); create unlogged table fleeting (id int primary key);
      create materialized view seen as select * from good;
      select lo_create(0);
      create publication everything for all tables;`);
    await other.target.sql(
      "create table good (id int primary key); create table fleeting (id int primary key); create materialized view seen as select * from good",
    );
    await using sync = await openSync({ source: other.source.url, target: other.target.url, env: {} });
    const { ok, findings } = await sync.preflight();
    expect(ok).toBe(true);
    const warned = findings.filter(({ severity }) => severity === "warning").map(({ subject }) => subject);
    expect(warned.toSorted()).toEqual(
      [
        "large objects",
        "materialized views",
        "public.fleeting",
        "public.seen",
        "publication everything",
      ].toSorted(),
    );
  });
});

describe("connections", () => {
  test("a server that is not there", async () => {
    const nowhere = `postgresql://u:p@127.0.0.1:${await freePort()}/d`;
    for (const side of ["source", "target"] as const) {
      const { code, exitCode, message } = await refusal({ ...urls(), [side]: nowhere });
      expect([code, exitCode]).toEqual(["SERVER_UNREACHABLE", 3]);
      expect(message).toContain(side);
    }
  });

  test("a wrong password, which is not repeated", async () => {
    for (const side of ["source", "target"] as const) {
      const url = urlWith(pair[side].url, { password: "wr0ng:pass/word" });
      const said = await refusal({ ...urls(), [side]: url });
      expect([said.code, said.exitCode]).toEqual(["LOGIN_REFUSED", 3]);
      expect(said.message).toContain(side);
      expect(JSON.stringify([said.message, said.hint])).not.toContain("wr0ng");
    }
  });

  test("the same database twice", async () => {
    const { code, exitCode, problems } = await refusal({ source: pair.source.url, target: pair.source.url });
    expect([code, exitCode]).toEqual(["SAME_DATABASE", 2]);
    expect(problems.map(({ subject }) => subject)).toEqual(['public."Other"', "public.good"]);
  });

  test("a source before 10", async () => {
    await using old = await startOldServer("90624");
    const url = `postgresql://u@127.0.0.1:${old.port}/d?sslmode=disable`;
    for (const side of ["source", "target"] as const) {
      const { code, exitCode, message } = await refusal({ ...urls(), [side]: url });
      expect([code, exitCode]).toEqual(["SERVER_TOO_OLD", 3]);
      expect(message).toContain("90624");
    }
  });
});

test("five mistakes in the settings are five problems", async () => {
  const wrong: unknown = {
    name: "no spaces allowed",
    source: "postgresql://u:secret@host:notaport/d",
    tables: ["a.b.c.d"],
    direction: "sideways",
    copy: { jobs: 0, partsize: "1MB" },
  };
  const error: unknown = await openSync({ ...(wrong as SyncOptions), env: {} }).catch(
    (each: unknown) => each,
  );
  expect(error).toMatchObject({ code: "CONFIG_INVALID", exitCode: 2 });
  const { problems } = error as Refusal;
  expect(problems.map(({ subject }) => subject).toSorted()).toEqual(
    ["copy.jobs", "copy.partsize", "direction", "name", "source", "tables", "target"].toSorted(),
  );
  expect(JSON.stringify(problems)).not.toContain("secret");
});

describe("a server of another kind", () => {
  let cluster: Cluster;
  let database: ClusterDatabase;
  beforeAll(async () => {
    cluster = await startCluster({ version: "18", auth: "trust", unixSocket: isEmbedded });
    database = await cluster.createDatabase("kind");
    await withClient(database.url, async (client) => {
      await client.query(
        `create table good (id int primary key, v text); create table "Other" (id int primary key)`,
      );
    });
  });
  afterAll(async () => await cluster.stop());

  test("a pool in transaction mode; one in session mode will do", async () => {
    await using pooler = await startPooler(cluster.port, 2);
    const through = (port: number): string =>
      `postgresql://postgres@127.0.0.1:${port}/${database.name}?sslmode=disable`;
    const looked = [pair.source.url, database.url];
    const asTarget = { source: pair.source.url, target: through(pooler.port) };
    const { code, exitCode, message } = await refusal(asTarget, looked);
    expect([code, exitCode]).toEqual(["POOLER_IN_BETWEEN", 3]);
    expect(message).toContain("target");
    const asSource = { source: through(pooler.port), target: pair.target.url };
    expect((await refusal(asSource, [database.url, pair.target.url])).message).toContain("source");

    await using sessions = await startPooler(cluster.port, 1);
    await using sync = await openSync({ source: pair.source.url, target: through(sessions.port), env: {} });
    await sync.init();
    await sync.copy();
    for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
    expect((await sync.verify()).equal).toBe(true);
    await sync.drop();
  });

  test.runIf(isEmbedded)("the same database by two ways", async () => {
    const socket = `host=${cluster.socketDir} port=${cluster.port} user=postgres dbname=${database.name}`;
    const { code } = await refusal({ source: socket, target: database.url }, [database.url]);
    expect(code).toBe("SAME_DATABASE");
  });

  // The last: it changes the server.
  test.runIf(isEmbedded)("a hot standby", async () => {
    const signal = join(cluster.dataDir ?? "", "standby.signal");
    await writeFile(signal, "");
    giveToServerUser(signal);
    await cluster.restart();
    const looked = [pair.source.url, database.url];
    const asTarget = await refusal({ source: pair.source.url, target: database.url }, looked);
    expect([asTarget.code, asTarget.exitCode]).toEqual(["SERVER_IS_STANDBY", 3]);
    expect(asTarget.message).toContain("target");
    const asSource = await refusal({ source: database.url, target: pair.target.url }, looked);
    expect([asSource.code, asSource.exitCode]).toEqual(["SERVER_IS_STANDBY", 3]);
  });
});
