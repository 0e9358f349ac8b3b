import { once } from "node:events";
import { createServer, type AddressInfo, type Socket } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

import { ReplicateError } from "../../../src/errors.ts";
import { connect } from "../../../src/postgres/connect.ts";
import { resolveConnection } from "../../../src/postgres/conninfo.ts";
import { literal } from "../../../src/postgres/sql.ts";
import { type Cluster, startCluster } from "../../support/cluster.ts";
import { hasOpenssl, superuser, superuserPassword } from "../../support/data-directory.ts";
import { freePort } from "../../support/free-port.ts";

const noHome = { HOME: "/nonexistent" };
const isEmbedded = !(process.env["REPLICATE_TEST_PG"] ?? "").startsWith("docker");

async function isEncrypted(text: string, env: NodeJS.ProcessEnv = {}): Promise<boolean> {
  const settings = resolveConnection(text, { ...noHome, ...env });
  await using connection = await connect(settings, { side: "source", purpose: "test" });
  const row = await connection.row<{ ssl: boolean }>(
    "select ssl from pg_stat_ssl where pid = pg_backend_pid()",
  );
  return row.ssl;
}

async function failure(
  text: string,
  env: NodeJS.ProcessEnv = {},
  signal?: AbortSignal,
): Promise<ReplicateError> {
  const settings = resolveConnection(text, { ...noHome, ...env });
  try {
    await using _ = await connect(settings, { side: "target", purpose: "test", signal });
  } catch (error) {
    expect(error).toBeInstanceOf(ReplicateError);
    expect((error as ReplicateError).message).not.toContain(superuserPassword);
    return error as ReplicateError;
  }
  throw new Error(`let in: ${settings.label}`);
}

describe("a server without encryption", () => {
  let cluster: Cluster;
  beforeAll(async () => {
    cluster = await startCluster({ version: "18", unixSocket: isEmbedded });
  });
  afterAll(() => cluster.stop());

  it("is reached by prefer and allow, refused by require", async () => {
    expect(await isEncrypted(cluster.adminUrl)).toBe(false);
    expect(await isEncrypted(`${cluster.adminUrl}?sslmode=allow`)).toBe(false);
    expect(await isEncrypted(`${cluster.adminUrl}?sslmode=disable`)).toBe(false);
    expect(await failure(`${cluster.adminUrl}?sslmode=require`)).toMatchObject({
      code: "LOGIN_REFUSED",
      exitCode: 3,
      message: expect.stringContaining("does not support SSL"),
    });
  });

  it.runIf(isEmbedded)("is reached through its socket", async () => {
    const text = `host=${cluster.socketDir} port=${cluster.port} user=${superuser} dbname=postgres sslmode=require`;
    expect(await isEncrypted(text, { PGPASSWORD: superuserPassword })).toBe(false);
  });

  it("says what is wrong with the login", async () => {
    const base = { code: "LOGIN_REFUSED", exitCode: 3, hint: expect.stringContaining("PGPASSWORD") };
    expect(await failure(cluster.urlFor("postgres", superuser, "wrong"))).toMatchObject(base);
    const none = `host=127.0.0.1 port=${cluster.port} user=${superuser} dbname=postgres`;
    expect(await failure(none)).toMatchObject({
      ...base,
      message: expect.stringContaining("none was given"),
    });
    expect(await failure(cluster.urlFor("nowhere"))).toMatchObject({
      code: "LOGIN_REFUSED",
      message: expect.stringContaining('database "nowhere" does not exist'),
    });
  });

  it("never looks for a password behind the caller's back", async () => {
    const text = `host=127.0.0.1 port=${cluster.port} user=${superuser} dbname=postgres`;
    process.env["PGPASSWORD"] = superuserPassword;
    try {
      expect(await failure(text)).toMatchObject({ code: "LOGIN_REFUSED" });
      expect(await isEncrypted(text, process.env)).toBe(false);
    } finally {
      delete process.env["PGPASSWORD"];
    }
  });

  it("takes awkward passwords", async () => {
    const password = String.raw`p:a@s/s?w#o%r d'\"é`;
    await using admin = await connect(resolveConnection(cluster.adminUrl, noHome), {
      side: "source",
      purpose: "test",
    });
    await admin.rows(`create role awkward login password ${literal(password)}`);
    expect(await isEncrypted(cluster.urlFor("postgres", "awkward", password))).toBe(false);
    const quoted = password.replaceAll(/['\\]/g, String.raw`\$&`);
    const text = `host=127.0.0.1 port=${cluster.port} dbname=postgres user=awkward password='${quoted}'`;
    expect(await isEncrypted(text)).toBe(false);
  });

  it("passes options on", async () => {
    const settings = resolveConnection(`${cluster.adminUrl}?options=-c%20geqo_seed%3D0.25`, noHome);
    await using connection = await connect(settings, { side: "source", purpose: "test" });
    expect(await connection.row("show geqo_seed")).toEqual({ geqo_seed: "0.25" });
  });
});

describe.runIf(isEmbedded && (await hasOpenssl()))(
  "a server that insists on encryption, with a certificate of its own",
  () => {
    let cluster: Cluster;
    beforeAll(async () => {
      cluster = await startCluster({ version: "13", tls: "required" });
    });
    afterAll(() => cluster.stop());
    const url = (query: string) => `${cluster.urlFor("postgres")}?${query}`;

    it("is reached by prefer and require, which verify nothing", async () => {
      expect(await isEncrypted(cluster.adminUrl)).toBe(true);
      expect(await isEncrypted(url("sslmode=allow"))).toBe(true);
      expect(await isEncrypted(url("sslmode=require"))).toBe(true);
      expect(await failure(url("sslmode=disable"))).toMatchObject({
        code: "LOGIN_REFUSED",
        message: expect.stringContaining("pg_hba.conf"),
      });
    });

    it("is verified by verify-ca and verify-full", async () => {
      const root = `sslrootcert=${encodeURIComponent(cluster.certificate ?? "")}`;
      expect(await isEncrypted(url(`sslmode=verify-ca&${root}`))).toBe(true);
      expect(await isEncrypted(url(`sslmode=verify-full&${root}`))).toBe(true);
      const stranger = `host=stranger.example.org hostaddr=127.0.0.1 port=${cluster.port} user=${superuser} dbname=postgres`;
      const env = { PGPASSWORD: superuserPassword, PGSSLROOTCERT: cluster.certificate };
      expect(await isEncrypted(`${stranger} sslmode=verify-ca`, env)).toBe(true);
      expect(await failure(`${stranger} sslmode=verify-full`, env)).toMatchObject({
        code: "LOGIN_REFUSED",
        message: expect.stringContaining("stranger.example.org"),
      });
      expect(await failure(url("sslrootcert=system"))).toMatchObject({ code: "LOGIN_REFUSED" });
    });
  },
);

describe.runIf(isEmbedded && (await hasOpenssl()))("channel_binding=require", () => {
  let cluster: Cluster;
  beforeAll(async () => {
    cluster = await startCluster({ version: "13", tls: "optional", auth: "trust" });
    await using admin = await connect(resolveConnection(cluster.adminUrl, noHome), {
      side: "source",
      purpose: "test",
    });
    await admin.script("set password_encryption = 'md5'; create role by_md5 login password 'p'");
    await admin.script("set password_encryption = 'scram-sha-256'; create role by_scram login password 'p'");
    await admin.script("create role by_password login password 'p'; create role by_trust login");
    const { file } = await admin.row<{ file: string }>("select current_setting('hba_file') as file");
    await admin.script(`copy (values ('host all by_md5 all md5'), ('host all by_scram all scram-sha-256'),
      ('host all by_password all password'), ('host all all all trust')) to '${file}'`);
    await admin.script("select pg_reload_conf()");
  });
  afterAll(() => cluster.stop());
  const url = (role: string, query: string) => `${cluster.urlFor("postgres", role, "p")}?${query}`;
  const required = "channel_binding=require&sslmode=require";

  it("lets in with scram-sha-256 over TLS, and prefer with all", async () => {
    expect(await isEncrypted(url("by_scram", required))).toBe(true);
    expect(await isEncrypted(url("by_scram", "channel_binding=require"))).toBe(true);
    for (const role of ["by_md5", "by_scram", "by_password", "by_trust"])
      expect(await isEncrypted(url(role, "channel_binding=prefer&sslmode=require")), role).toBe(true);
  });

  it.each([
    ["by_scram", "channel_binding=require&sslmode=disable", "not encrypted"],
    ["by_trust", "channel_binding=require&sslmode=disable", "not encrypted"],
    ["by_trust", required, "lets this user in without it"],
    ["by_md5", required, "asks for the password itself"],
    ["by_password", required, "asks for the password itself"],
  ])("refuses %s with %s", async (role, query, message) => {
    expect(await failure(url(role, query))).toMatchObject({
      code: "LOGIN_REFUSED",
      message: expect.stringContaining(message),
      hint: expect.stringContaining("channel_binding=require needs TLS"),
    });
  });
});

describe("no server", () => {
  it("is told apart from a refusal", async () => {
    const port = await freePort();
    expect(await failure(`host=127.0.0.1 port=${port}`)).toMatchObject({
      code: "SERVER_UNREACHABLE",
      message:
        `cannot connect to the target 127.0.0.1:${port}/root: connect ECONNREFUSED 127.0.0.1:${port}`.replace(
          "/root",
          `/${resolveConnection("host=x", noHome).database}`,
        ),
    });
    expect(await failure("host=no.such.host.invalid")).toMatchObject({ code: "SERVER_UNREACHABLE" });
  });

  it("that never answers is given up, and at once when the caller wants to stop", async () => {
    const sockets: Socket[] = [];
    const silent = createServer((socket) => void sockets.push(socket)).listen(0, "127.0.0.1");
    await once(silent, "listening");
    try {
      const { port } = silent.address() as AddressInfo;
      const text = `host=127.0.0.1 port=${port} sslmode=disable`;
      const started = Date.now();
      expect(await failure(`${text} connect_timeout=2`)).toMatchObject({ code: "SERVER_UNREACHABLE" });
      expect(Date.now() - started).toBeGreaterThan(1500);
      const stop = new AbortController();
      setTimeout(() => stop.abort(), 100);
      expect(await failure(text, {}, stop.signal)).toMatchObject({ code: "ABORTED" });
      expect(Date.now() - started).toBeLessThan(5000);
    } finally {
      for (const socket of sockets) socket.destroy();
      silent.close();
    }
  });
});
