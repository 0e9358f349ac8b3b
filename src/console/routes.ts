/** What the console answers to which request. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { getConnInfo } from "@hono/node-server/conninfo";
import { Hono, type Context, type MiddlewareHandler } from "hono";
import { deleteCookie, getCookie, setCookie } from "hono/cookie";
import { streamSSE } from "hono/streaming";
import { ReplicateError } from "../index.ts";
import { cookieName, isHostFit, isOriginFit, type Access } from "./access.ts";
import { diagnostics } from "./diagnostics.ts";
import type { Feed } from "./feed.ts";
import type { Metrics } from "./metrics.ts";
import type { Role, Snapshot, SyncPatch } from "./protocol.ts";

/** Does what was asked for in the page. Returns once it has begun. Throws ReplicateError. */
export type Deed = (
  sync: string,
  action: string,
  options: Readonly<Record<string, unknown>>,
  by: string,
) => Promise<void>;

export interface RoutesOptions {
  readonly access: Access;
  readonly feeds: readonly Feed[];
  readonly metrics: Metrics;
  readonly version: string;
  /** Only this machine can reach it. */
  readonly isLocal: boolean;
  readonly act: Deed | undefined;
  /** Ends the streams. */
  readonly signal: AbortSignal;
}

interface Env {
  Variables: { session: { role: Role; csrf: string } };
}

/** What a browser may do with the page: nothing that does not come from here. */
const securityHeaders = {
  "Content-Security-Policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
  "X-Content-Type-Options": "nosniff",
  "X-Frame-Options": "DENY",
  "Referrer-Policy": "no-referrer",
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Cache-Control": "no-store",
};

const mostBodyBytes = 64 * 1024;
/** A watcher that takes nothing is let go; its page begins anew. */
const mostWaiting = 1000;
const keepAliveMs = 15_000;

export function routes(options: RoutesOptions): Hono<Env> {
  const { access, feeds, metrics, version, isLocal, act } = options;
  const app = new Hono<Env>();

  app.use(async (c, next) => {
    for (const [name, value] of Object.entries(securityHeaders)) c.header(name, value);
    if (!isHostFit(c.req.header("host"), isLocal && !access.isPasswordSet))
      return c.text("this console does not answer to that name\n", 421);
    return await next();
  });
  app.onError((error, c) => {
    const known = error instanceof ReplicateError ? error : undefined;
    // Whatever an unexpected error says may hold anything.
    const { code, message, hint } = known ?? {
      code: "INTERNAL",
      message: "the console failed; see its log",
      hint: "",
    };
    return c.json({ code, message, hint }, known === undefined ? 500 : 409);
  });

  app.get("/healthz", (c) => c.json({ status: "ok" }));
  const refresh = async (): Promise<unknown> => await Promise.all(feeds.map((feed) => feed.refresh()));
  app.get("/readyz", async (c) => {
    await refresh();
    const reasons = feeds.flatMap(({ view }) => notReady(view));
    return c.json({ ready: reasons.length === 0, reasons }, reasons.length === 0 ? 200 : 503);
  });

  app.get("/", (c) => c.html(documentText));
  for (const [path, asset] of Object.entries(assets()))
    app.get(path, (c) => {
      c.header("Cache-Control", "no-cache");
      c.header("ETag", asset.tag);
      if (c.req.header("if-none-match") === asset.tag) return c.body(null, 304);
      return c.body(asset.body, 200, { "Content-Type": asset.type });
    });

  app.post("/api/login", fromOwnPage, async (c) => {
    const { password } = await jsonOf(c);
    const begun = access.logIn(typeof password === "string" ? password : "", addressOf(c));
    if (begun === null) return c.json({ message: "that is not the password" }, 401);
    if (typeof begun === "number") {
      c.header("Retry-After", String(begun));
      return c.json({ message: `too many attempts; try again in ${begun} s` }, 429);
    }
    const secure = c.req.header("x-forwarded-proto") === "https";
    setCookie(c, cookieName, begun.cookie, { httpOnly: true, sameSite: "Strict", path: "/", secure });
    return c.json({ role: begun.role });
  });
  app.post("/api/logout", fromOwnPage, (c) => {
    access.logOut(getCookie(c, cookieName));
    deleteCookie(c, cookieName, { path: "/" });
    return c.json({});
  });

  const signedIn: MiddlewareHandler<Env> = async (c, next) => {
    const session = access.sessionOf(getCookie(c, cookieName));
    if (session === undefined) return c.json({ message: "the password is needed" }, 401);
    c.set("session", session);
    return await next();
  };
  /** For programs, which have no session: the password as `Authorization: Bearer` or `Basic`. */
  const signedInOrKnown: MiddlewareHandler<Env> = async (c, next) => {
    const given = passwordOf(c.req.header("authorization"));
    if (given === undefined) return await signedIn(c, next);
    const begun = access.logIn(given, addressOf(c));
    if (begun === null || typeof begun === "number")
      return c.json({ message: "the password is needed" }, 401);
    access.logOut(begun.cookie);
    return await next();
  };

  app.get("/metrics", signedInOrKnown, async (c) => {
    await refresh();
    const { type, body } = await metrics.text();
    return c.body(body, 200, { "Content-Type": type });
  });

  const snapshot = ({ role, csrf }: { role: Role; csrf: string }): Snapshot => ({
    version,
    role,
    csrf: act !== undefined && role === "operator" ? csrf : null,
    isPasswordSet: access.isPasswordSet,
    syncs: feeds.map((feed) => feed.view),
  });
  app.get("/api/state", signedInOrKnown, async (c) => {
    await refresh();
    return c.json(snapshot(c.get("session") ?? { role: "viewer", csrf: "" }));
  });
  app.get("/api/stream", signedIn, (c) =>
    streamSSE(c, async (stream) => {
      const queue: SyncPatch[] = [];
      let wake: (() => void) | undefined;
      let isOver = false;
      const end = (): void => {
        isOver = true;
        wake?.();
      };
      const leave = feeds.map((feed) =>
        feed.subscribe((patch) => {
          queue.push(patch);
          if (queue.length > mostWaiting) end();
          wake?.();
        }),
      );
      stream.onAbort(end);
      options.signal.addEventListener("abort", end, { once: true });
      const beat = setInterval(() => wake?.(), keepAliveMs);
      try {
        await stream.writeSSE({ event: "snapshot", data: JSON.stringify(snapshot(c.get("session"))) });
        while (!isOver) {
          const patches = queue.splice(0);
          if (patches.length > 0)
            for (const patch of patches)
              await stream.writeSSE({ event: "patch", data: JSON.stringify(patch) });
          else {
            await new Promise<void>((resolve) => (wake = resolve));
            wake = undefined;
            // Says that the line is alive, to both ends and to what is in between.
            if (queue.length === 0 && !isOver) await stream.write(": \n\n");
          }
        }
      } finally {
        clearInterval(beat);
        options.signal.removeEventListener("abort", end);
        for (const each of leave) each();
      }
    }),
  );

  app.get("/api/syncs/:name/diagnostics", signedInOrKnown, (c) => {
    const feed = feeds.find(({ name }) => name === c.req.param("name"));
    if (feed === undefined) return c.json({ message: "there is no such sync here" }, 404);
    c.header("Content-Disposition", `attachment; filename="replicate-diagnostics.json"`);
    return c.json(diagnostics(feed.view, version));
  });

  app.post("/api/syncs/:name/actions/:action", signedIn, fromOwnPage, async (c) => {
    const session = c.get("session");
    if (act === undefined || session.role !== "operator")
      return c.json({ message: "this console only shows; actions need --allow-actions and the operator's password" }, 403); // prettier-ignore
    if (!access.isCsrf(session, c.req.header("x-csrf-token")))
      return c.json({ message: "the request does not come from this page; load it again" }, 403);
    const name = c.req.param("name");
    if (!feeds.some((feed) => feed.name === name))
      return c.json({ message: "there is no such sync here" }, 404);
    await act(name, c.req.param("action"), await jsonOf(c), `${session.role} at ${addressOf(c)}`);
    return c.json({}, 202);
  });
  app.notFound((c) => c.json({ message: "there is nothing here" }, 404));
  return app;
}

const fromOwnPage: MiddlewareHandler = async (c, next) => {
  if (!isOriginFit(c.req.header("origin"), c.req.header("host")))
    return c.json({ message: "the request comes from another page" }, 403);
  return await next();
};

/** The body, which has to be a JSON object of a reasonable size. */
async function jsonOf(c: Context): Promise<Readonly<Record<string, unknown>>> {
  if (Number(c.req.header("content-length") ?? 0) > mostBodyBytes) return {};
  const text = await c.req.text();
  if (text.length > mostBodyBytes || text === "") return {};
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? { ...value } : {};
  } catch {
    return {};
  }
}

function addressOf(c: Context): string {
  try {
    return getConnInfo(c).remote.address ?? "unknown";
  } catch {
    return "unknown";
  }
}

/** `Bearer PASSWORD`, or the password of `Basic USER:PASSWORD`. */
function passwordOf(authorization: string | undefined): string | undefined {
  const [, kind, value = ""] = /^(Bearer|Basic) (.+)$/i.exec(authorization ?? "") ?? [];
  if (kind === undefined) return undefined;
  if (kind.toLowerCase() === "bearer") return value;
  const text = Buffer.from(value, "base64").toString();
  return text.slice(text.indexOf(":") + 1);
}

/** Why a sync is not ready: nobody can say where it stands, or it has failed. One that is not set up yet is ready for that. */
function notReady({ name, status, statusError }: Feed["view"]): string[] {
  if (statusError?.code === "SYNC_UNKNOWN") return [];
  if (statusError !== null) return [`${name}: ${statusError.code}`];
  if (status === null) return [`${name}: not asked yet`];
  if (status.phase === "failed") return [`${name}: failed: ${status.lastError?.code ?? "?"}`];
  return [];
}

const documentText = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>replicate</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/page/main.css">
</head>
<body><div id="app"><noscript>The console needs JavaScript. \`replicate status\` says the same in a terminal.</noscript></div>
<script type="module" src="/page/main.js"></script></body>
</html>
`;

interface Asset {
  readonly body: string;
  readonly type: string;
  readonly tag: string;
}

/** The page, as it was built beside this file. */
function assets(): Readonly<Record<string, Asset>> {
  const asset = (name: string, type: string): Asset => {
    // When this file runs from its source, as in tests, the page is where it was built.
    const folder = import.meta.url.includes("/src/") ? "../../dist/console/page" : "./page";
    const body = readFileSync(new URL(`${folder}/${name}`, import.meta.url), "utf8");
    return { body, type, tag: `"${createHash("sha256").update(body).digest("base64url").slice(0, 16)}"` };
  };
  return {
    "/page/main.js": asset("main.js", "text/javascript; charset=utf-8"),
    "/page/main.css": asset("main.css", "text/css; charset=utf-8"),
  };
}
