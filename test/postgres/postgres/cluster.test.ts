import { existsSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { withClient } from "../../support/admin.ts";
import { type Cluster, startCluster } from "../../support/cluster.ts";
import { hasOpenssl } from "../../support/data-directory.ts";
import { freePair } from "../../support/database.ts";
import { leastPrivilegedPair } from "../../support/least-privileged-pair.ts";

const inContainer = (process.env["REPLICATE_TEST_PG"] ?? "").startsWith("docker");

describe("a cluster of its own", () => {
  let cluster: Cluster;
  beforeAll(async () => {
    cluster = await startCluster({ version: "18", settings: { work_mem: "5MB" } });
  });
  afterAll(() => cluster.stop());

  test("has the asked version and settings", async () => {
    const database = await cluster.createDatabase("settings");
    const settings = await withClient(database.url, async (client) => {
      const { rows } = await client.query<{ name: string; setting: string }>(
        `select name, setting from pg_settings
          where name in ('fsync', 'max_prepared_transactions', 'work_mem', 'server_encoding')`,
      );
      return Object.fromEntries(rows.map(({ name, setting }) => [name, setting]));
    });
    expect(settings).toEqual({
      fsync: "off",
      max_prepared_transactions: "20",
      server_encoding: "UTF8",
      work_mem: "5120",
    });
    if (!inContainer) expect(cluster.major).toBe(18);
    await database.drop();
  });

  test("refuses a wrong password", async () => {
    await expect(withClient(cluster.urlFor("postgres", "postgres", "wrong"), async () => 0)).rejects.toThrow(
      /password authentication failed/,
    );
  });

  test.each(["fast", "immediate", "kill9"] as const)(
    "keeps port and committed data over %s",
    async (mode) => {
      const database = await cluster.createDatabase("restart");
      await withClient(database.url, (client) => client.query("create table kept as select 1 as id"));
      const { port, pid } = cluster;
      const witness = withClient(database.url, (client) => client.query("select pg_sleep(60)"));
      const interrupted = expect(witness).rejects.toThrow();
      await untilSleeping(database.url);
      if (mode === "kill9") {
        await cluster.kill9();
        await expect(withClient(database.url, async () => 0)).rejects.toThrow(
          /ECONNREFUSED|ECONNRESET|terminated/,
        );
      }
      await cluster.restart(mode === "kill9" ? "fast" : mode);
      await interrupted;
      expect(cluster.port).toBe(port);
      if (!inContainer) expect(cluster.pid).not.toBe(pid);
      const rows = await withClient(database.url, async (client) => (await client.query("table kept")).rows);
      expect(rows).toEqual([{ id: 1 }]);
      const recovered = (await cluster.log()).split("ready to accept connections").at(-2) ?? "";
      expect(recovered.includes("was not properly shut down")).toBe(mode !== "fast");
      await database.drop();
    },
  );
});

test.skipIf(inContainer)("leaves neither process nor folder behind", async () => {
  const cluster = await startCluster({ version: "13", auth: "trust", unixSocket: true });
  const { pid, dataDir, socketDir } = cluster;
  if (pid === undefined || dataDir === undefined || socketDir === undefined)
    throw new Error("not an embedded one");
  const viaSocket = `postgresql://postgres@/postgres?host=${encodeURIComponent(socketDir)}&port=${cluster.port}`;
  await withClient(viaSocket, (client) => client.query("select 1"));
  await cluster.stop();
  expect(() => process.kill(pid, 0)).toThrow("ESRCH");
  expect(existsSync(dataDir)).toBe(false);
});

test.skipIf(inContainer || !(await hasOpenssl()))("offers and requires TLS", async () => {
  await using cluster = await startCluster({ version: "18", tls: "required" });
  const unencrypted = cluster.urlFor("postgres");
  await expect(withClient(unencrypted, async () => 0)).rejects.toThrow(/no encryption|SSL off/);
  const rows = await withClient(cluster.adminUrl, async (client) => {
    return (await client.query("select ssl from pg_stat_ssl where pid = pg_backend_pid()")).rows as unknown[];
  });
  expect(rows).toEqual([{ ssl: true }]);
});

describe("a pair of databases", () => {
  test("is empty, and of the asked versions", async () => {
    await using pair = await freePair();
    await using reversed = await freePair({ source: "18", target: "13" });
    for (const side of [pair.source, pair.target, reversed.source, reversed.target]) {
      expect(await side.sql("select 1 from pg_tables where schemaname = 'public'")).toEqual([]);
    }
    const names = [pair.source.name, pair.target.name, reversed.source.name, reversed.target.name];
    expect(new Set(names).size).toBe(4);
    await pair.source.sql("create table only_here (id int); insert into only_here values (1)");
    expect(await pair.source.sql("select id from only_here where id = $1", [1])).toEqual([{ id: 1 }]);
    await expect(pair.target.sql("table only_here")).rejects.toThrow(/does not exist/);
  });

  test("fails on connections that a test leaves open", async () => {
    const pair = await freePair();
    const { default: pg } = await import("pg");
    const leaked = new pg.Client({ connectionString: pair.source.url, application_name: "forgotten" });
    leaked.on("error", () => undefined);
    await leaked.connect();
    await expect(pair.dispose()).rejects.toThrow(/forgotten/);
  });

  test("creates roles and drops them", async () => {
    const pair = await freePair();
    const role = await pair.source.createRole({ prefix: "reader", password: "a:b@c/d%e" });
    await withClient(role.url, (client) => client.query("select 1"));
    await pair.dispose();
    await expect(withClient(role.url, async () => 0)).rejects.toThrow();
  });
});

describe("a least-privileged pair", () => {
  test("has an owner who is no superuser but may create schemas", async () => {
    await using pair = await leastPrivilegedPair();
    for (const side of [pair.source, pair.target]) {
      const [role] = await side.sql(
        "select rolsuper, rolreplication from pg_roles where rolname = current_user",
      );
      expect(role).toEqual({ rolsuper: false, rolreplication: false });
      await side.sql("create schema replicate");
      await side.sql("create table public.orders (id bigint generated by default as identity primary key)");
      await expect(side.sql("create role another")).rejects.toThrow(/permission denied/);
    }
  });

  test("has a writer who reads and writes the owner's tables only", async () => {
    await using pair = await leastPrivilegedPair();
    const { source } = pair;
    await source.sql("create table public.orders (id serial primary key, note text)");
    await source.sql("create schema replicate; create table replicate.delta (id bigint)");
    await source.asWriter("insert into orders (note) values ('x'); update orders set note = 'y'");
    expect(await source.asWriter("select id, note from orders")).toEqual([{ id: 1, note: "y" }]);
    expect(await source.asWriter("delete from orders returning id")).toEqual([{ id: 1 }]);
    await expect(source.asWriter("truncate orders")).rejects.toThrow(/permission denied/);
    await expect(source.asWriter("create table public.t (id int)")).rejects.toThrow(/permission denied/);
    await expect(source.asWriter("table replicate.delta")).rejects.toThrow(/permission denied/);
  });
});

async function untilSleeping(url: string): Promise<void> {
  await withClient(url, async (client) => {
    const asleep = "select 1 from pg_stat_activity where query = 'select pg_sleep(60)' and state = 'active'";
    while ((await client.query(asleep)).rowCount !== 1)
      await new Promise((resolve) => setTimeout(resolve, 5));
  });
}
