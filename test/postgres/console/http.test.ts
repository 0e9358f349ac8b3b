import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

import { freePair, type Pair, type Role } from "../../support/database.ts";
import { freePort } from "../../support/free-port.ts";
import { replicate, start, type Running } from "../../support/replicate.ts";

// The console as programs and attackers meet it.

const operator = "opera tor's pass word";
const viewer = "looks-only";

let pair: Pair;
let roles: { source: Role; target: Role };
let env: NodeJS.ProcessEnv;
let base: string;
const running: Running[] = [];

beforeEach(async () => {
  pair = await freePair({ leaks: "ignore" });
  for (const side of [pair.source, pair.target])
    await side.sql("create table item (id int primary key, v text)");
  await pair.source.sql("insert into item select n, 'value ' || n from generate_series(1, 100) n");
  const create = (side: Pair["source"]): Promise<Role> =>
    side.createRole({ password: "s3cret-of-the-database", attributes: "superuser" });
  roles = { source: await create(pair.source), target: await create(pair.target) };
  env = { REPLICATE_SOURCE: roles.source.url, REPLICATE_TARGET: roles.target.url };
  base = `http://127.0.0.1:${await freePort()}`;
});
afterEach(async () => {
  for (const { child, finished } of running.splice(0)) {
    child.kill("SIGKILL");
    await finished;
  }
  await pair.dispose();
});

async function begin(args: readonly string[], more: NodeJS.ProcessEnv = {}): Promise<void> {
  const begun = start([...args, "--listen", new URL(base).host], { env: { ...env, ...more } });
  running.push(begun);
  await begun.says("the console is at");
}

const withPasswords = { REPLICATE_CONSOLE_PASSWORD: operator, REPLICATE_CONSOLE_VIEWER_PASSWORD: viewer };

interface Answer {
  status: number;
  headers: Headers;
  text: string;
}

async function ask(path: string, init: RequestInit = {}): Promise<Answer> {
  const response = await fetch(`${base}${path}`, init);
  return { status: response.status, headers: response.headers, text: await response.text() };
}

const post = (path: string, body: object = {}, headers: Record<string, string> = {}): Promise<Answer> =>
  ask(path, { method: "POST", body: JSON.stringify(body), headers });

async function signIn(password: string): Promise<string> {
  const { status, headers } = await post("/api/login", { password });
  expect(status).toBe(200);
  const [cookie = ""] = headers.getSetCookie();
  expect(cookie).toMatch(/HttpOnly/i);
  expect(cookie).toMatch(/SameSite=Strict/i);
  return cookie.split(";")[0] ?? "";
}

async function csrfOf(cookie: string): Promise<string | null> {
  const { text } = await ask("/api/state", { headers: { cookie } });
  return (JSON.parse(text) as { csrf: string | null }).csrf;
}

describe("serve", () => {
  it("asks for the password for everything but health", async () => {
    await begin(["serve", "--allow-actions"], withPasswords);
    expect((await ask("/healthz")).status).toBe(200);
    for (const path of ["/api/state", "/api/stream", "/metrics", "/api/syncs/default/diagnostics"])
      expect([path, (await ask(path)).status]).toEqual([path, 401]);
    expect((await post("/api/syncs/default/actions/start")).status).toBe(401);
    expect((await post("/api/login", { password: "wrong" })).status).toBe(401);
    const basic = `Basic ${Buffer.from(`prometheus:${viewer}`).toString("base64")}`;
    expect((await ask("/metrics", { headers: { authorization: basic } })).status).toBe(200);
    expect((await ask("/metrics", { headers: { authorization: "Bearer wrong" } })).status).toBe(401);
  });

  it("lets a viewer look and the operator act, with the token of the page alone", async () => {
    await begin(["serve", "--allow-actions"], withPasswords);
    const looking = await signIn(viewer);
    expect(await csrfOf(looking)).toBeNull();
    expect((await post("/api/syncs/default/actions/start", {}, { cookie: looking })).status).toBe(403);
    const cookie = await signIn(operator);
    const csrf = (await csrfOf(cookie)) ?? "";
    const act = (headers: Record<string, string>): Promise<Answer> =>
      post("/api/syncs/default/actions/preflight", {}, { cookie, ...headers });
    expect((await act({})).status).toBe(403);
    expect((await act({ "x-csrf-token": `${csrf}x` })).status).toBe(403);
    expect((await act({ "x-csrf-token": csrf, origin: "http://evil.example" })).status).toBe(403);
    expect((await act({ "x-csrf-token": csrf, origin: base })).status).toBe(202);
    expect((await post("/api/logout", {}, { cookie })).status).toBe(200);
    expect((await act({ "x-csrf-token": csrf })).status).toBe(401);
  });

  it("lets nobody try passwords for long", async () => {
    await begin(["serve"], withPasswords);
    const answers: number[] = [];
    for (let n = 0; n < 7; n++) answers.push((await post("/api/login", { password: `guess ${n}` })).status);
    expect(answers).toEqual([401, 401, 401, 401, 401, 429, 429]);
    const late = await post("/api/login", { password: operator });
    expect(late.status).toBe(429);
    expect(Number(late.headers.get("retry-after"))).toBeGreaterThan(0);
  });

  it("only shows without --allow-actions", async () => {
    await begin(["serve"]);
    const { text } = await ask("/api/state");
    expect(JSON.parse(text)).toMatchObject({ role: "viewer", csrf: null });
    expect((await post("/api/syncs/default/actions/start")).status).toBe(403);
  });

  it.each(["0.0.0.0:0", "[::]:0"])("does not listen on %s without a password", async (address) => {
    const finished = await replicate(["serve", "--listen", address], { env });
    expect(finished.code).toBe(2);
    expect(finished.stderr).toContain("REPLICATE_CONSOLE_PASSWORD");
  });

  it("says what is wrong with an address", async () => {
    const finished = await replicate(["serve", "--listen", "nonsense"], { env });
    expect(finished.code).toBe(2);
    expect(finished.stderr).toContain("is no address");
  });

  it("begins one of two actions that are asked for at once", async () => {
    await begin(["serve", "--allow-actions"]);
    const csrf = (await csrfOf("")) ?? "";
    const act = (): Promise<Answer> =>
      post("/api/syncs/default/actions/preflight", {}, { "x-csrf-token": csrf });
    const answers = await Promise.all([act(), act(), act()]);
    expect(answers.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([202, 409, 409]);
  });

  it("does nothing that does not fit", async () => {
    await begin(["serve", "--allow-actions"]);
    const csrf = (await csrfOf("")) ?? "";
    const act = (action: string): Promise<Answer> =>
      post(`/api/syncs/default/actions/${action}`, {}, { "x-csrf-token": csrf });
    for (const action of ["cutover", "rollback", "finish", "pause", "constructor", "nonsense"])
      expect([action, (await act(action)).status]).toEqual([action, 409]);
    expect((await post("/api/syncs/other/actions/start", {}, { "x-csrf-token": csrf })).status).toBe(404);
  });
});

describe("follow --listen", () => {
  beforeEach(async () => {
    for (const verb of ["init", "copy"]) expect(await replicate([verb], { env })).toMatchObject({ code: 0 });
  });

  it("shows what goes on, in numbers for Prometheus too", async () => {
    await begin(["follow"]);
    await pair.source.sql("update item set v = 'new' where id <= 10");
    let text = "";
    const isThere = (): boolean => /phase="following"\} 1/.test(text) && /rows_total\{.*\} 10/.test(text);
    for (let n = 0; n < 100 && !isThere(); n++) {
      await sleep(200);
      ({ text } = await ask("/metrics"));
    }
    expect(text).toMatch(/^replicate_batch_rows_total\{sync="default"\} 10$/m);
    expect(text).toMatch(/^replicate_batch_seconds_count\{sync="default"\} [1-9]/m);
    expect(text).toMatch(/^replicate_phase\{sync="default",phase="following"\} 1$/m);
    // Each line is one that Prometheus understands.
    for (const line of text.split("\n"))
      expect(line).toMatch(
        /^$|^# (HELP|TYPE) replicate_\w+ .+$|^replicate_\w+(\{(\w+="[^"]*",?)*\})? [-+\d.e]+$/,
      );
    // The documentation lists them all, and no others.
    const documented = readFileSync(new URL("../../../docs/console.md", import.meta.url), "utf8");
    const [, table = ""] = /<!-- metrics -->(.*)<!-- \/metrics -->/s.exec(documented) ?? [];
    const named = (from: string, pattern: RegExp): string[] =>
      [...from.matchAll(pattern)].map(([, name = ""]) => name).toSorted();
    expect(named(table, /^\| `(replicate_\w+)` /gm)).toEqual(named(text, /^# TYPE (replicate_\w+) /gm));
    expect((await ask("/readyz")).status).toBe(200);
    expect((await post("/api/syncs/default/actions/pause")).status).toBe(403);
  });

  it("says nothing that is secret, whatever is asked", async () => {
    await begin(["follow"], withPasswords);
    const authorization = `Bearer ${operator}`;
    const paths = ["/", "/page/main.js", "/page/main.css", "/healthz", "/readyz", "/metrics", "/api/state", "/api/syncs/default/diagnostics", "/api/syncs/x'/diagnostics", "/..%2f..%2fetc/passwd", "/api/%00", "/page/../../package.json", "//evil.example/"]; // prettier-ignore
    for (const path of paths) {
      const { text, headers } = await ask(path, { headers: { authorization } });
      const whole = `${text}${JSON.stringify([...headers])}`;
      expect(whole).not.toContain("s3cret-of-the-database");
      expect(whole).not.toContain(operator);
      expect(whole).not.toContain("root:");
    }
  });

  it("is not there for pages that somebody else's name server leads here", async () => {
    await begin(["follow"]);
    const { port } = new URL(base);
    const { request } = await import("node:http");
    const status = await new Promise((resolve, reject) => {
      request(
        { host: "127.0.0.1", port, path: "/api/state", headers: { host: "evil.example" } },
        (response) => {
          response.resume();
          resolve(response.statusCode);
        },
      )
        .on("error", reject)
        .end();
    });
    expect(status).toBe(421);
  });

  it("tells all who watch, each from the beginning", async () => {
    await begin(["follow"]);
    const controller = new AbortController();
    const watch = async (): Promise<string> => {
      const response = await fetch(`${base}/api/stream`, { signal: controller.signal });
      expect(response.headers.get("content-type")).toContain("text/event-stream");
      let text = "";
      const decoder = new TextDecoder();
      for await (const chunk of response.body as AsyncIterable<Uint8Array>) {
        text += decoder.decode(chunk, { stream: true });
        if (text.includes("event: patch") && text.includes('"phase":"following"')) break;
      }
      return text;
    };
    const [one, two] = await Promise.all([watch(), watch()]);
    for (const text of [one, two]) expect(text.startsWith("event: snapshot\n")).toBe(true);
    controller.abort();
  });
});
