import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { openSync, type Finding } from "../../../src/index.ts";
import { connect, createDatabaseAt, quoteName, urlWith, withClient } from "../../support/admin.ts";
import { startCluster, type Cluster, type ClusterDatabase } from "../../support/cluster.ts";
import { freePair } from "../../support/database.ts";
import { startProxy } from "../../support/proxy.ts";

// Findings about the servers themselves: their settings, their databases' order and encoding, what works on them.

const show = ({ severity, subject, message }: Finding): string => `${severity}: ${subject}: ${message}`;

async function look(source: string, target: string): Promise<readonly Finding[]> {
  await using sync = await openSync({ source, target, env: {} });
  return (await sync.preflight()).findings;
}

/** Its statements one by one, since ALTER SYSTEM wants no transaction. */
async function settle(url: string, { remedy = "" }: Finding, before = ""): Promise<void> {
  await withClient(url, async (client) => {
    if (before !== "") await client.query(before);
    const statements = remedy.replaceAll(/--.*$/gm, "").split(/;\s*(?:\n|$)/);
    for (const statement of statements.filter((each) => each.trim() !== "")) await client.query(statement);
  });
}

async function until(isSo: () => Promise<boolean>): Promise<void> {
  for (let n = 0; n < 300; n += 1) {
    if (await isSo()) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error("did not come about in 30 s");
}

describe("a target with settings of its own", () => {
  let cluster: Cluster;
  let databases: readonly [ClusterDatabase, ClusterDatabase];
  beforeAll(async () => {
    cluster = await startCluster({
      version: "18",
      settings: { max_wal_size: "32MB", min_wal_size: "32MB", autovacuum: "off", wal_level: "logical" },
    });
    databases = [await cluster.createDatabase("source"), await cluster.createDatabase("target")];
    for (const { url } of databases) {
      await withClient(url, (client) => client.query("create table t (id int primary key, v text)"));
    }
    await withClient(databases[0].url, (client) =>
      client.query(
        "insert into t select i, repeat(md5(i::text), 20) from generate_series(1, 60000) i; analyze t",
      ),
    );
  });
  afterAll(async () => await cluster.stop());

  const find = async (subject: string): Promise<Finding | undefined> => {
    const findings = await look(databases[0].url, databases[1].url);
    return findings.find((each) => each.subject === subject);
  };

  test.each(["max_wal_size", "autovacuum"])("%s", async (subject) => {
    const finding = await find(subject);
    expect(finding).toMatchObject({ side: "target", role: "an administrator" });
    await settle(cluster.adminUrl, finding as Finding);
    await until(async () => (await find(subject)) === undefined);
  });

  test("a synchronous standby for which each commit waits", async () => {
    await settle(cluster.adminUrl, {
      severity: "note",
      subject: "",
      message: "",
      remedy: "alter system set synchronous_standby_names = 'ghost';\nselect pg_reload_conf();",
    });
    await until(async () => (await find("synchronous_commit")) !== undefined);
    const finding = await find("synchronous_commit");
    expect(finding?.message).toContain("ghost");
    await settle(databases[1].url, finding as Finding, "set synchronous_commit = local");
    expect(await find("synchronous_commit")).toBeUndefined();
  });

  test("a limit on temporary files", async () => {
    await withClient(cluster.adminUrl, (client) =>
      client.query("set synchronous_commit = local; alter role postgres set temp_file_limit = '64kB'"),
    );
    const finding = await find("temp_file_limit");
    expect(finding).toMatchObject({ severity: "warning" });
    await settle(cluster.adminUrl, finding as Finding);
    expect(await find("temp_file_limit")).toBeUndefined();
  });

  test("a subscription that writes to the same tables", async () => {
    const [source, target] = databases;
    await withClient(source.url, async (client) => {
      await client.query("create publication feeds for table t");
      await client.query("select pg_create_logical_replication_slot('feeds', 'pgoutput')");
    });
    const own = await connect(target.url);
    try {
      await own.query(
        `create subscription feeds connection '${source.url}' publication feeds with (create_slot = false, copy_data = false)`,
      );
      const finding = await find("subscription feeds");
      expect(finding).toMatchObject({
        severity: "warning",
        message: expect.stringContaining("writes to public.t"),
      });
      await settle(target.url, finding as Finding);
      expect(await find("subscription feeds")).toBeUndefined();
      await own.query("alter subscription feeds set (slot_name = none)");
      await own.query("drop subscription feeds");
    } finally {
      await own.end();
    }
    await until(async () => {
      const dropped = withClient(source.url, (client) =>
        client.query("select pg_drop_replication_slot('feeds')"),
      );
      return await dropped.then(() => true, () => false); // prettier-ignore
    });
  });

  test("no transaction of preflight writes anything, not even its state", async () => {
    const position = async (): Promise<unknown> =>
      await withClient(cluster.adminUrl, async (client) => {
        const { rows } = await client.query("select pg_snapshot_xmax(pg_current_snapshot())::text as xid");
        return rows;
      });
    await withClient(cluster.adminUrl, (client) => client.query("alter system set autovacuum = off"));
    await withClient(cluster.adminUrl, (client) => client.query("select pg_reload_conf()"));
    await until(async () => (await find("autovacuum")) !== undefined);
    const before = await position();
    await look(databases[0].url, databases[1].url);
    expect(await position()).toEqual(before);
  });
});

test("an autovacuum to prevent wraparound, which holds capture up", async () => {
  const settings = {
    autovacuum_naptime: "1s",
    autovacuum_vacuum_cost_delay: "100ms",
    autovacuum_vacuum_cost_limit: "1",
  };
  await using cluster = await startCluster({ version: "18", settings });
  const [source, target] = [await cluster.createDatabase("source"), await cluster.createDatabase("target")];
  for (const { url } of [source, target]) {
    await withClient(url, (client) =>
      client.query(
        "create table t (id int primary key, v text) with (autovacuum_freeze_max_age = 100000, fillfactor = 10)",
      ),
    );
  }
  const found = async (): Promise<Finding | undefined> =>
    (await look(source.url, target.url)).find(({ subject }) => subject === "public.t");
  await withClient(source.url, async (client) => {
    await client.query("insert into t select i, repeat('x', 500) from generate_series(1, 5000) i");
    expect(await found()).toBeUndefined();
    // A transaction id for each subtransaction that writes.
    await client.query(`create temporary table used (i int);
      do $$ begin for i in 1 .. 100500 loop begin insert into used values (i); exception when others then null; end; end loop; end $$`);
  });
  await until(async () => (await found()) !== undefined);
  const finding = await found();
  expect(finding).toMatchObject({
    severity: "warning",
    message: expect.stringContaining("autovacuum to prevent wraparound"),
  });
  const watch = await withClient(source.url, (client) => client.query(finding?.remedy ?? ""));
  expect(watch.rows).toHaveLength(1);
  await withClient(source.url, async (client) => {
    await client.query("alter system set autovacuum_vacuum_cost_delay = 0");
    await client.query("select pg_reload_conf()");
  });
  await until(async () => (await found()) === undefined);
});

describe("databases of another kind", () => {
  const tables = `
    create table t (id int primary key, v text unique);
    create table p (v text not null, n int, primary key (v, n)) partition by range (v);
    create table p1 partition of p for values from ('a') to ('n')`;

  interface Kind {
    readonly source: string;
    readonly target: string;
    readonly finds: string;
  }
  const kinds: readonly Kind[] = [
    { source: "encoding 'UTF8'", target: "encoding 'LATIN1'", finds: "blocking: encoding: text is UTF8 on the source and LATIN1 on the target" },
    { source: "encoding 'SQL_ASCII'", target: "encoding 'UTF8'", finds: "warning: encoding: text is SQL_ASCII on the source" },
    { source: "encoding 'LATIN1'", target: "encoding 'SQL_ASCII'", finds: "warning: encoding: text is LATIN1 on the source and SQL_ASCII on the target" },
    { source: "lc_collate 'C.UTF-8' lc_ctype 'C.UTF-8'", target: "", finds: "warning: collation: text sorts by C.UTF-8 on the source and by C on the target; 2 columns in indexes are concerned (public.t.v, public.p.v); rows may belong to other partitions by public.p.v" },
  ]; // prettier-ignore

  test.each(kinds)("$finds", async ({ source, target, finds }) => {
    await using pair = await freePair();
    const admin = (url: string): string => urlWith(url, { database: "postgres" });
    const own = await createDatabaseAt(admin(pair.source.url), "kind", `template template0 ${source}`);
    const other = await createDatabaseAt(admin(pair.target.url), "kind", `template template0 ${target}`);
    try {
      for (const { url } of [own, other]) await withClient(url, (client) => client.query(tables));
      const findings = await look(own.url, other.url);
      const found = findings.find((each) => show(each).startsWith(finds));
      expect(found, findings.map(show).join("\n")).toBeDefined();
      await other.drop();
      const remedy = (found?.remedy ?? "").replaceAll(/--.*$/gm, "");
      expect(remedy).toContain(`create database ${quoteName(other.name)} `);
      // A database that stores bytes can be read as any encoding, but not as the one wanted.
      if (source.includes("SQL_ASCII")) return;
      await withClient(admin(pair.target.url), (client) => client.query(remedy));
      await withClient(other.url, (client) => client.query(tables));
      const after = (await look(own.url, other.url)).map(show);
      expect(after.filter((line) => /: (encoding|collation): /.test(line))).toEqual([]);
    } finally {
      await Promise.all([own.drop(), other.drop()]);
    }
  });

  test("a collation of the same name that takes more for equal", async () => {
    await using pair = await freePair();
    for (const side of [pair.source, pair.target]) {
      await side.sql(`create collation plain (provider = icu, locale = 'und-u-ks-level2'${side === pair.target ? ", deterministic = false" : ""});
        create table t (id int primary key, v text collate plain unique)`);
    }
    const found = async (): Promise<Finding | undefined> =>
      (await look(pair.source.url, pair.target.url)).find(
        ({ subject }) => subject === "collation public.plain",
      );
    const finding = await found();
    expect(finding).toMatchObject({
      severity: "warning",
      message: expect.stringContaining("a unique index then refuses"),
    });
    await pair.target.sql(`${finding?.remedy}; alter table t alter v type text collate plain`);
    expect(await found()).toBeUndefined();
  });

  test("a target that is older", async () => {
    await using pair = await freePair({ source: "18", target: "13" });
    for (const side of [pair.source, pair.target]) await side.sql("create table t (id int primary key)");
    const said = (await look(pair.source.url, pair.target.url)).map(show);
    expect(said.filter((line) => line.startsWith("note: versions: the target (13) is older"))).toHaveLength(
      1,
    );
    expect(said.filter((line) => line.includes("could not be checked"))).toEqual([]);
  });
});

test("the number of its round trips does not depend on the number of tables", async () => {
  await using pair = await freePair();
  const trips: number[][] = [];
  for (const tables of [1, 60]) {
    for (const side of [pair.source, pair.target]) {
      await side.sql(`do $$ begin for i in 1 .. ${tables} loop
        execute format('create table if not exists t%s (id serial primary key, v text)', i); end loop; end $$`);
    }
    const [from, to] = [new URL(pair.source.url), new URL(pair.target.url)];
    await using source = await startProxy({ targetHost: from.hostname, targetPort: Number(from.port) });
    await using target = await startProxy({ targetHost: to.hostname, targetPort: Number(to.port) });
    [from.port, to.port] = [String(source.port), String(target.port)];
    await look(from.toString(), to.toString());
    trips.push([source.traffic().roundTrips, target.traffic().roundTrips]);
  }
  expect(trips[1]).toEqual(trips[0]);
  for (const number of trips[0] ?? []) expect(number).toBeLessThan(50);
});
