import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

import { ReplicateError } from "../../../src/errors.ts";
import { resolveConnection } from "../../../src/postgres/conninfo.ts";

let home: string;
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "replicate-home-"));
});
afterEach(() => rmSync(home, { recursive: true }));

const resolve = (text: string, env: NodeJS.ProcessEnv = {}) =>
  resolveConnection(text, { HOME: home, ...env });

function problemsOf(text: string, env: NodeJS.ProcessEnv = {}): string[] {
  try {
    resolve(text, env);
  } catch (error) {
    expect(error).toBeInstanceOf(ReplicateError);
    expect((error as ReplicateError).code).toBe("CONFIG_INVALID");
    expect((error as ReplicateError).exitCode).toBe(2);
    return (error as ReplicateError).problems.map(({ message }) => message);
  }
  throw new Error(`understood: ${text}`);
}

function file(name: string, text: string, mode = 0o600): string {
  const path = join(home, name);
  mkdirSync(join(path, ".."), { recursive: true });
  writeFileSync(path, text);
  chmodSync(path, mode);
  return path;
}

describe("URL", () => {
  it("takes every part", () => {
    expect(resolve("postgresql://ann:pw@db.example.org:5433/shop?sslmode=disable")).toMatchObject({
      host: "db.example.org",
      port: 5433,
      user: "ann",
      password: "pw",
      database: "shop",
      ssl: false,
      label: "db.example.org:5433/shop",
    });
  });

  it.each([
    ["percent-encoded", "postgres://u:%3A%40%2F%3F%23%25%20@h/d", ":@/?#% "],
    ["with a colon", "postgres://u:a:b:@h/d", "a:b:"],
    ["with an at sign", "postgres://u:a@b@h/d", "a@b"],
    ["with a hash", "postgres://u:a#b@h/d", "a#b"],
    ["with a plus, which is no space", "postgres://u:a+b@h/d", "a+b"],
    ["of non-ASCII characters", "postgres://u:p%C3%A4ß@h/d", "päß"],
  ])("takes a password %s", (_, url, password) => {
    expect(resolve(url)).toMatchObject({ user: "u", password, host: "h", database: "d" });
  });

  it.each([
    ["postgresql://h", { host: "h", port: 5432 }],
    ["postgresql://h/?user=x", { host: "h", user: "x", database: "x" }],
    ["postgresql://ann@h", { user: "ann", database: "ann", password: undefined }],
    ["postgresql://[2001:db8::1]:6000/d", { host: "2001:db8::1", port: 6000, label: "[2001:db8::1]:6000/d" }],
    ["postgresql://%2Fvar%2Flib%2Fpg/d", { host: "/var/lib/pg", ssl: false, label: "/var/lib/pg:5432/d" }],
    ["postgresql:///d?host=/var/lib/pg&port=6000", { host: "/var/lib/pg", port: 6000, database: "d" }],
    ["postgresql://u@h/my%20data", { database: "my data" }],
    ["postgresql://h/d?application_name=x&target_session_attrs=read-write", { host: "h", database: "d" }],
    ["postgresql://h/d?options=-c%20geqo%3Doff", { options: "-c geqo=off" }],
  ])("reads %s", (url, expected) => {
    expect(resolve(url)).toMatchObject(expected);
  });

  it.each([
    ["postgres://u:pa/ss@h/d", /percent-encoding: .*\/ as %2F/],
    ["postgres://u:pa?ss@h/d", /percent-encoding: .*\/ as %2F/],
    ["postgres://u:50%@h/d", /the password of the URL holds a %/],
    ["postgres://h:12x/d", /port of the URL is not a number/],
    ["postgres://h:70000/d", /port has to be a whole number from 1 to 65535/],
    ["postgres://a,b/d", /several hosts/],
    ["postgres://h/d?sslmod=require", /"sslmod" is unknown; did you mean "sslmode"\?/],
    ["postgres://h/d?sslmode=on", /sslmode has to be one of disable, allow, prefer, require/],
    ["postgres://h/d?require_auth=scram-sha-256", /require_auth is not supported/],
    ["mysql://h/d", /has to begin with postgresql:\/\//],
    ["shop", /neither a URL/],
  ])("refuses %s", (url, message) => {
    expect(problemsOf(url)).toEqual([expect.stringMatching(message)]);
  });

  it("reports all problems at once", () => {
    expect(problemsOf("postgres://h:0/d?sslmode=x&connect_timeout=y&foo=1&channel_binding=z")).toHaveLength(
      5,
    );
  });
});

describe("keyword string", () => {
  it.each([
    [
      "host=h port=1 dbname=d user=u password=p",
      { host: "h", port: 1, database: "d", user: "u", password: "p" },
    ],
    ["  host = h   dbname='my data'", { host: "h", database: "my data" }],
    [String.raw`host=h password='it\'s a \\ b'`, { password: String.raw`it's a \ b` }],
    [String.raw`host=h password=a\ b\'c`, { password: "a b'c" }],
    ["host=h password=a:b@c/d%41", { password: "a:b@c/d%41" }],
    ["host=h password=a=b", { password: "a=b" }],
    ["host=h password='' user=u", { password: undefined, user: "u" }],
    ["hostaddr=127.0.0.1 host=h", { host: "127.0.0.1", label: "h:5432/" + userInfo().username }],
  ])("reads %s", (text, expected) => {
    expect(resolve(text)).toMatchObject(expected);
  });

  it.each([
    ["host=h password=a b", /put values with spaces into single quotes/],
    ["host=h password='a", /quotes do not fit/],
    ["host=h password='a'b", /quotes do not fit/],
    ["host=a,b", /several hosts/],
    ["host=h =x", /without "="/],
  ])("refuses %s", (text, message) => {
    expect(problemsOf(text)).toEqual([expect.stringMatching(message)]);
  });
});

/** Ways in which people get a password into a connection that cannot be read; P is a piece of it. */
const leaky: readonly string[] = [
  `"postgresql://u:P@h/d"`, `'postgresql://u:P@h/d?x=1'`, `'postgresql://u:P@h/d?P=1'`, "`postgresql://u:P@h/d?x=1`",
  `<postgresql://u:P@h/d?x=1>`, `" postgresql://u:P@h/d?x=1"`,
  `postgresql+psycopg2://u:P@h/d`, `postgresql+psycopg2://u:P@h/d?x=1`, `postgresql+asyncpg://u:P@h/d?P=1`, `postgres+ssl://u:P@h/d?P=P`,
  `jdbc:postgresql://u:P@h/d?x=1`, `jdbc:postgresql://h/d?user=u&password=P`, `jdbc:postgresql://h/d?user=u&password=a&P=b`,
  `JDBC:POSTGRESQL://u:P@h/d?x=1`, `POSTGRES://u:P@h/d?x=1`, `Postgresql://u:P@h`, `pgsql://u:P@h/d?x=1`, `mysql://u:P@h?P=1`,
  `psql postgresql://u:P@h/d?x=1`, `DATABASE_URL=postgresql://u:P@h/d?x=1`, `export DATABASE_URL="postgresql://u:P@h/d?x=1"`,
  `postgres:/u:P@h/d?x=1`, `postgres:u:P@h/d?x=1`, `//u:P@h/d?x=1`, `u:P@h/d?x=1`, `u:P@h/d`, `h/d?password=P`, `P`,
  // Characters that had to be encoded.
  `postgres://u:x/P@h/d`, `postgres://u:P/x@h/d`, `postgres://u:1/P@h/d`, `postgres://u:x@P/y@h/d`, `postgres://u:x@P?y@h/d`,
  `postgres://u:x@P/y@h:5432/d?sslmode=require`, `postgres://u:x?P=y@h/d`, `postgres://u:P?x=y@h/d`, `postgres://u:1?P=y@h/d`,
  `postgres://u:P?x@h/d`, `postgres://u:x#P/y@h/d`, `postgres://u:P#/x@h/d`, `postgres://u:P%@h/d`, `postgres://u:%P@h/d`, `postgres://u:P%zz@h/d`,
  `postgres://u:x:P:y/z@h/d`, `postgres://u:P@h:x@h/d/@`, `postgres://u:P@h/d/x@y`, `postgres://u:[P]/@h/d`, `postgres://P:x/y@h/d`,
  `postgres://u:x/P`, `postgres://u:P`, `postgres://u:P,P@h/d?x=1`, `postgres://u:P@h1:1,h2:2/d`, `postgres://u:P@h:P/d`, `postgres://h:P/d`,
  // In the query.
  `postgres://u@h/d?password=x&P=y`, `postgres://u@h/d?password=x&P`, `postgres://u@h/d?password=P%`, `postgres://u@h/d?passwd=P`,
  `postgres://u@h/d?pass=x&P=y`, `postgres://u@h/d?password=x&P=y&sslmode=P`, `postgres://u@h/d?sslpassword=x&P=y`,
  `postgres://?password=P&P=x`, `postgres://u@h/d?x=1&password=P&foo=P`, `postgres://u:P@h/d?ssl=P`, `postgres://u@h/d?password=P@x&y=1`,
  // Keyword strings.
  `host=h password=a P`, `host=h password=a P=b`, `host=h password='P`, `host=h password='a'P`, `host=h password='a' P`,
  `host=h password=a'P' P=c`, `"host=h password=P`, `"host=h password=P x=1"`, `'host=h' 'password=P'`, `host=h; password=P; x=1`,
  `host=h;password=x;P=1`, `host=h,password=P,x=1`, `Host=h;Username=u;Password=P`, `PASSWORD=a P=b`, `pwd=a P=b`, `passwd=a P=b`,
  `host=h password = a P = b`, `password=P port=x`, `host=h password="a P=b"`, `host=h password=a&P=b x`, `host=h user=u:P@x password`,
  `host=postgresql://u:P@h/d`, `dbname=postgresql://u:P@h/d`, `dbname='host=h password=P'`, `host='h password=P'`, `host=u:P@h`,
  `user='postgres://u:P@h'`, `service=nothing password=P P=x`, `host=h\npassword=P\nP`, `{"host": "h", "password": "P", "x=": 1}`,
]; // prettier-ignore

it.each(leaky)("never shows a piece of a password that cannot be read: %s", (text) => {
  for (const secret of ["s3cr3t", "S3CR3T", "hunter"]) {
    const given = text.replaceAll("P@", `${secret}@`).replaceAll(/(?<![A-Za-z])P(?![A-Za-z])/g, secret);
    expect(given).toContain(secret);
    const problems = JSON.stringify(problemsOf(given));
    expect(problems.toLowerCase()).not.toContain(secret.toLowerCase());
    expect(problems.length).toBeGreaterThan(20);
  }
});

it.each([
  ["postgres://u:x/y@h/d", /@ as %40, \/ as %2F, \? as %3F/],
  ["postgres://u:x@y/z@h/d", /@ as %40/],
  ["postgres://u:x?y@h/d", /\? as %3F/],
  ["postgres://u:x%y@h/d", /write it as %25/],
  ["postgres://u@h/d?password=a&b", /& in a password is written as %26/],
  [`"postgres://u:p@h/d"`, /in quotes: leave them out/],
  ["jdbc:postgresql://h/d?user=u", /begin with postgresql:\/\/ .*leave jdbc: out/],
  ["postgresql+psycopg2://u:p@h/d", /without the name of a driver/],
  ["postgres://u:p@h1:5432,h2:5433/d?target_session_attrs=primary", /name the primary server alone/],
  ["postgres://u:p@h1,h2/d", /name the primary server alone/],
  ["host=h1,h2 port=1,2", /name the primary server alone/],
])("says what to do about %s", (text, message) => {
  expect(problemsOf(text)).toContainEqual(expect.stringMatching(message));
});

it.each([
  "schema=public",
  "pgbouncer=true",
  "connection_limit=5",
  "pool_timeout=0",
  "currentSchema=a",
  "ssl=1",
])("says that ?%s can be left out, with all others", (parameter) => {
  const [name] = parameter.split("=");
  const said = `the parameter ${name} is of another program: leave it out`;
  expect(problemsOf(`postgres://u:p@h/d?${parameter}`)).toEqual([said]);
  const both = problemsOf(`postgres://u:p@h/d?${parameter}&statement_cache_size=0`);
  expect(both).toEqual([said, "the parameter statement_cache_size is of another program: leave it out"]);
  expect(problemsOf(`host=h password=p ${parameter}`)).toEqual([said]);
});

it("never shows a piece of a password in a problem or in print", () => {
  const secret = "s3cr3t";
  for (const text of [
    `postgres://u:x${secret}/${secret}@h/d`,
    `postgres://u:${secret}%@h/d`,
    `postgres://u:x?${secret}=${secret}@h/d`,
    `host=h password=a ${secret}`,
    `host=h password=a ${secret}=b`,
    `host=h password='${secret}`,
    `${secret}`,
    `mysql://u:${secret}@h`,
  ]) {
    expect(JSON.stringify(problemsOf(text))).not.toContain(secret);
  }
  const settings = resolve(`postgres://u:${secret}@h/d`);
  for (const shown of [
    inspect(settings),
    inspect({ a: [settings] }),
    JSON.stringify({ settings }),
    settings.label,
  ]) {
    expect(shown).toContain("h:5432/d");
    expect(shown).not.toContain(secret);
  }
});

describe("variables", () => {
  it("fill in what the text leaves out", () => {
    const env = {
      PGHOST: "vh",
      PGPORT: "7",
      PGUSER: "vu",
      PGDATABASE: "vd",
      PGPASSWORD: "vp",
      PGSSLMODE: "disable",
    };
    expect(resolve("", env)).toMatchObject({
      host: "vh",
      port: 7,
      user: "vu",
      database: "vd",
      password: "vp",
      ssl: false,
    });
    expect(resolve("host=h user=u", env)).toMatchObject({ host: "h", port: 7, user: "u", database: "vd" });
  });

  it("count as not given when they are empty", () => {
    expect(resolve("host=h", { PGPORT: "", PGUSER: "" })).toMatchObject({
      port: 5432,
      user: userInfo().username,
    });
  });

  it.each([
    ["host=h", {}, 15_000],
    ["host=h connect_timeout=30", {}, 30_000],
    ["host=h connect_timeout=1", {}, 2000],
    ["host=h connect_timeout=0", {}, 0],
    ["host=h connect_timeout=-1", {}, 0],
    ["host=h", { PGCONNECT_TIMEOUT: "5" }, 5000],
  ])("connect_timeout: %s with %j", (text, env, connectTimeoutMs) => {
    expect(resolve(text, env)).toMatchObject({ connectTimeoutMs });
  });
});

describe("password file", () => {
  const lines = [
    "# a comment",
    "",
    "h:5432:other:u:wrong",
    "h:5432:d:u:first",
    "h:*:d:u:second",
    String.raw`a\:b:*:*:*:with \: and \\ in it`,
    "localhost:*:*:*:local",
    "*:*:*:v:",
    "*:*:*:v:any",
  ].join("\n");

  it.each([
    ["host=h dbname=d user=u", "first"],
    ["host=h port=5433 dbname=d user=u", "second"],
    ["host=h dbname=x user=u", undefined],
    ["host=a:b dbname=x user=u", "with : and \\ in it"],
    ["host=/tmp dbname=x user=u", "local"],
    ["host=/elsewhere dbname=x user=u", undefined],
    ["host=z dbname=x user=v", "any"],
  ])("%s", (text, password) => {
    file(".pgpass", lines);
    expect(resolve(text).password).toBe(password);
  });

  it("is found through PGPASSFILE and passfile=, and comes after every other password", () => {
    const path = file("elsewhere", "*:*:*:*:from file");
    expect(resolve("host=h", { PGPASSFILE: path }).password).toBe("from file");
    expect(resolve(`host=h passfile=${path}`).password).toBe("from file");
    expect(resolve("host=h password=own", { PGPASSFILE: path }).password).toBe("own");
    expect(resolve("host=h", { PGPASSFILE: path, PGPASSWORD: "variable" }).password).toBe("variable");
  });

  it("is ignored with a word when others may read it", () => {
    const path = file(".pgpass", "*:*:*:*:secret", 0o640);
    const settings = resolve("host=h");
    expect(settings.password).toBeUndefined();
    expect(settings.warnings).toEqual([expect.stringContaining(`chmod 0600 ${path}`)]);
  });

  it("may be absent", () => {
    expect(resolve("host=h").warnings).toBeUndefined();
    expect(resolve("host=h", { PGPASSFILE: join(home, "none") }).password).toBeUndefined();
  });
});

describe("service file", () => {
  const services = [
    "# services",
    "[other]",
    "host=wrong",
    "[shop]",
    "host=sh",
    "port=6000",
    "password=a = b ",
    "application_name=x",
    "",
    "[shop]",
    "dbname=second section",
  ].join("\r\n");

  it("fills in before the variables", () => {
    file(".pg_service.conf", services);
    const env = { PGHOST: "variable", PGDATABASE: "vd" };
    expect(resolve("service=shop port=1", env)).toMatchObject({
      host: "sh",
      port: 1,
      password: "a = b",
      database: "vd",
    });
    expect(resolve("", { ...env, PGSERVICE: "shop" })).toMatchObject({ host: "sh", port: 6000 });
    expect(resolve("postgresql:///?service=shop")).toMatchObject({ host: "sh" });
  });

  it("is looked for in PGSERVICEFILE, then PGSYSCONFDIR", () => {
    const own = file("own.conf", "[mine]\nhost=m");
    file("system/pg_service.conf", services);
    const env = { PGSERVICEFILE: own, PGSYSCONFDIR: join(home, "system") };
    expect(resolve("service=mine", env)).toMatchObject({ host: "m" });
    expect(resolve("service=shop", env)).toMatchObject({ host: "sh" });
  });

  it("must exist and define the service", () => {
    expect(problemsOf("service=shop")).toEqual(['no service file defines the service "shop"']);
    expect(problemsOf("service=shop", { PGSERVICEFILE: join(home, "x") })).toEqual([
      expect.stringContaining("there is no service file"),
    ]);
    file(".pg_service.conf", "[shop]\nhost=h\nhots=x\nservice=y");
    expect(problemsOf("service=shop")).toEqual([
      expect.stringContaining("line 3 of the service file"),
      expect.stringContaining("line 4 of the service file"),
    ]);
  });
});

describe("sslmode", () => {
  const ssl = (text: string) =>
    resolve(`host=h ${text}`).ssl as Exclude<ReturnType<typeof resolve>["ssl"], false>;
  const stranger = { subject: { CN: "stranger" }, subjectaltname: "DNS:stranger" } as never;

  it("prefer is the default: encrypted without verifying, or else not at all", () => {
    expect(resolve("host=h")).toMatchObject({ ssl: { rejectUnauthorized: false }, sslFallback: true });
    expect(resolve("host=h sslmode=allow")).toMatchObject({
      ssl: { rejectUnauthorized: false },
      sslFallback: true,
    });
  });

  it("require encrypts and verifies nothing", () => {
    expect(resolve("host=h sslmode=require")).not.toHaveProperty("sslFallback");
    expect(ssl("sslmode=require")).toMatchObject({ rejectUnauthorized: false });
    expect(ssl("sslmode=require").checkServerIdentity?.("h", stranger)).toBeUndefined();
    expect(resolve("postgres://h/d?ssl=true")).toMatchObject({ ssl: { rejectUnauthorized: false } });
  });

  it("require verifies the chain where there is a root certificate, as libpq does", () => {
    file(".postgresql/root.crt", "ROOT");
    expect(ssl("sslmode=require")).toMatchObject({ rejectUnauthorized: true, ca: Buffer.from("ROOT") });
    expect(ssl("sslmode=require").checkServerIdentity?.("h", stranger)).toBeUndefined();
    expect(ssl("sslmode=no-verify")).toMatchObject({ rejectUnauthorized: false });
  });

  it("verify-ca verifies the chain, verify-full the name too", () => {
    const root = file("ca.crt", "ROOT");
    expect(ssl(`sslmode=verify-ca sslrootcert=${root}`)).toMatchObject({ rejectUnauthorized: true });
    expect(ssl(`sslmode=verify-ca sslrootcert=${root}`).checkServerIdentity?.("h", stranger)).toBeUndefined();
    expect(ssl(`sslmode=verify-full sslrootcert=${root}`).checkServerIdentity?.("", stranger)).toBeInstanceOf(
      Error,
    );
    expect(problemsOf("host=h sslmode=verify-full")).toEqual([
      expect.stringContaining("needs a root certificate"),
    ]);
    expect(problemsOf(`host=h sslmode=verify-ca sslrootcert=${join(home, "x")}`)).toEqual([
      expect.stringContaining("cannot be read: ENOENT"),
    ]);
  });

  it("system roots mean verify-full", () => {
    expect(ssl("sslrootcert=system")).toMatchObject({ rejectUnauthorized: true });
    expect(ssl("sslrootcert=system")).not.toHaveProperty("ca");
    expect(problemsOf("host=h sslrootcert=system sslmode=require")).toHaveLength(1);
  });

  it("client certificates are read", () => {
    const cert = file("c.crt", "CERT");
    const key = file("c.key", "KEY");
    expect(ssl(`sslcert=${cert} sslkey=${key} sslpassword=p ssl_min_protocol_version=TLSv1.3`)).toMatchObject(
      {
        cert: Buffer.from("CERT"),
        key: Buffer.from("KEY"),
        passphrase: "p",
        minVersion: "TLSv1.3",
      },
    );
  });

  it("means nothing on a Unix socket", () => {
    expect(resolve("host=/tmp sslmode=require").ssl).toBe(false);
  });
});
