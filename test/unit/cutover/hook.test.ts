import { execFileSync } from "node:child_process";
import { describe, expect, it } from "vitest";

import { hookEnvironment } from "../../../src/cutover/hook.ts";
import { resolveConnection } from "../../../src/postgres/conninfo.ts";

// libpq's variables, as its documentation lists them, by what becomes of ours in the environment of --on-open.

const elsewhere = [
  "PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGPASSFILE", "PGCHANNELBINDING", "PGSERVICE", "PGSERVICEFILE",
  "PGOPTIONS", "PGSSLMODE", "PGREQUIRESSL", "PGSSLNEGOTIATION", "PGSSLCERT", "PGSSLKEY", "PGSSLCERTMODE", "PGSSLROOTCERT", "PGSSLSNI",
  "PGSSLMINPROTOCOLVERSION", "PGSSLMAXPROTOCOLVERSION", "PGGSSENCMODE", "PGKRBSRVNAME", "PGGSSLIB", "PGGSSDELEGATION",
  "PGCONNECT_TIMEOUT", "PGTARGETSESSIONATTRS", "PGLOADBALANCEHOSTS", "PGMINPROTOCOLVERSION", "PGMAXPROTOCOLVERSION", "PGSYSCONFDIR",
]; // prettier-ignore
const harmless = [
  "PGAPPNAME", "PGCLIENTENCODING", "PGREQUIREAUTH", "PGREQUIREPEER", "PGSSLCRL", "PGSSLCRLDIR", "PGDATESTYLE", "PGTZ", "PGGEQO",
  "PGLOCALEDIR", "PATH", "REPLICATE_SOURCE",
]; // prettier-ignore

const ours = Object.fromEntries(
  [...elsewhere, ...harmless, "REPLICATE_TARGET_PASSWORD"].map((name) => [name, "of-ours"]),
);

const noHome = { HOME: "/nonexistent" };
const plain = "postgresql://app:p%20w@new.example.org/shop";

describe("the environment of --on-open", () => {
  it.each([...elsewhere, "REPLICATE_TARGET_PASSWORD"])("does not lead elsewhere by our %s", (name) => {
    expect(hookEnvironment(resolveConnection(plain, noHome), ours)[name]).not.toBe("of-ours");
  });

  it.each(harmless)("keeps our %s", (name) => {
    expect(hookEnvironment(resolveConnection(plain, noHome), ours)[name]).toBe("of-ours");
  });

  const path = new URL(import.meta.url).pathname;
  it.each([
    [
      plain,
      {
        PGHOST: "new.example.org",
        PGPORT: "5432",
        PGUSER: "app",
        PGDATABASE: "shop",
        PGPASSWORD: "p w",
        PGSSLMODE: "prefer",
      },
    ],
    [`${plain}?sslmode=disable&options=-c%20jit%3Doff`, { PGSSLMODE: "disable", PGOPTIONS: "-c jit=off" }],
    [
      `${plain}?channel_binding=require&sslmode=require`,
      { PGCHANNELBINDING: "require", PGSSLMODE: "require" },
    ],
    [
      `${plain}?ssl_min_protocol_version=TLSv1.3&connect_timeout=7`,
      { PGSSLMINPROTOCOLVERSION: "TLSv1.3", PGCONNECT_TIMEOUT: "7" },
    ],
    [`${plain}?hostaddr=10.1.2.3`, { PGHOST: "new.example.org", PGHOSTADDR: "10.1.2.3" }],
    ["host=/tmp port=5433 user=app dbname=shop", { PGHOST: "/tmp", PGPORT: "5433" }],
  ] as const)("leads to %s, in variables and in the URL", (text, variables) => {
    const settings = resolveConnection(text, noHome);
    const environment = hookEnvironment(settings, ours);
    expect(environment).toMatchObject(variables);
    // Whoever takes the URL and nothing else comes to the same place, in the same way.
    const again = resolveConnection(environment["REPLICATE_TARGET"] as string, noHome);
    const fields = [
      "host", "name", "port", "user", "database", "password", "sslFallback", "channelBinding", "options", "connectTimeoutMs", "label",
    ] as const; // prettier-ignore
    for (const field of fields) expect(again[field], field).toBe(settings[field]);
    expect(again.variables).toMatchObject(variables);
  });

  it("passes the root certificate on", () => {
    // Any file that can be read does for a name.
    const text = `${plain}?sslmode=verify-full&sslrootcert=${encodeURIComponent(path)}`;
    const environment = hookEnvironment(resolveConnection(text, noHome), ours);
    expect(environment["PGSSLROOTCERT"]).toBe(path);
    expect(environment["PGSSLMODE"]).toBe("verify-full");
    const query = new URL(environment["REPLICATE_TARGET"] as string).searchParams;
    expect([query.get("sslrootcert"), query.get("sslmode")]).toEqual([path, "verify-full"]);
  });

  it("is what a process gets", () => {
    const env = hookEnvironment(resolveConnection(plain, noHome), { ...ours, PATH: process.env["PATH"] });
    const said = execFileSync("/bin/sh", ["-c", 'echo "$PGHOST/$PGDATABASE $PGSERVICE."'], { env });
    expect(said.toString().trim()).toBe("new.example.org/shop .");
  });
});
