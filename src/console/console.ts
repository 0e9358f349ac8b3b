/** The console: a page that shows where syncs stand, metrics and health, over HTTP. */
import type { AddressInfo } from "node:net";
import { serve, type ServerType } from "@hono/node-server";
import { ReplicateError } from "../index.ts";
import { Access, isLoopback, type Passwords } from "./access.ts";
import type { Feed } from "./feed.ts";
import { Metrics } from "./metrics.ts";
import { routes, type Deed } from "./routes.ts";

export interface ConsoleOptions {
  /** `HOST:PORT`, `:PORT` or `PORT`; without a host, 127.0.0.1. */
  readonly listen: string;
  readonly feeds: readonly Feed[];
  readonly version: string;
  /** Where the passwords are: REPLICATE_CONSOLE_PASSWORD, REPLICATE_CONSOLE_VIEWER_PASSWORD. */
  readonly env: NodeJS.ProcessEnv;
  /** What can be done in the page; nothing without it. */
  readonly act?: Deed;
}

export interface Console extends AsyncDisposable {
  /** With the port that was chosen where 0 was asked for. */
  readonly url: string;
  /** What whoever started it should know. */
  readonly warnings: readonly string[];
}

/** Starts to listen. Throws CONFIG_INVALID for an address that cannot be used, or that would let everybody in. */
export async function openConsole({ listen, feeds, version, env, act }: ConsoleOptions): Promise<Console> {
  const { host, port } = parseListen(listen);
  const passwords: Passwords = {
    operator: env["REPLICATE_CONSOLE_PASSWORD"] || undefined,
    viewer: env["REPLICATE_CONSOLE_VIEWER_PASSWORD"] || undefined,
  };
  const isLocal = isLoopback(host);
  if (!isLocal && passwords.operator === undefined)
    throw new ReplicateError("CONFIG_INVALID", `--listen ${listen} can be reached from other machines, and no password is set`, {
      hint: "Set REPLICATE_CONSOLE_PASSWORD, or listen on 127.0.0.1.",
    }); // prettier-ignore
  const access = new Access(passwords, act === undefined ? "viewer" : "operator");
  const metrics = new Metrics(feeds, version);
  const ending = new AbortController();
  const app = routes({
    access,
    feeds,
    metrics,
    version,
    isLocal,
    act,
    signal: ending.signal,
  });
  const server = await listenOn(app.fetch, host, port, listen);
  for (const feed of feeds) feed.start();
  const { port: chosen } = server.address() as AddressInfo;
  const shown = host.includes(":") ? `[${host}]` : host === "0.0.0.0" ? "localhost" : host;
  return {
    url: `http://${shown}:${chosen}/`,
    warnings: isLocal
      ? []
      : [
          `the console is reached over plain HTTP on ${listen}: put something in front of it that speaks TLS, or passwords can be read on the way`,
        ],
    [Symbol.asyncDispose]: async () => {
      ending.abort();
      await Promise.all(feeds.map((feed) => feed.close()));
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
        if ("closeAllConnections" in server) server.closeAllConnections();
      });
    },
  };
}

async function listenOn(
  fetch: Parameters<typeof serve>[0]["fetch"],
  hostname: string,
  port: number,
  listen: string,
): Promise<ServerType> {
  return await new Promise((resolve, reject) => {
    const server = serve({ fetch, hostname, port }, () => resolve(server));
    server.once("error", (error: NodeJS.ErrnoException) =>
      reject(
        new ReplicateError("CONFIG_INVALID", `cannot listen on ${listen}: ${error.code ?? error.message}`, {
          hint: "Another program may have the port; choose another one with --listen.",
          cause: error,
        }),
      ),
    );
  });
}

/** Throws CONFIG_INVALID. */
export function parseListen(listen: string): { readonly host: string; readonly port: number } {
  const [, bracketed, plain, text = ""] = /^(?:(?:\[([^\]]+)\]|([^:[\]]*)):)?(\d{1,5})$/.exec(listen) ?? [];
  const port = Number(text);
  if (text === "" || port > 65_535)
    throw new ReplicateError("CONFIG_INVALID", `--listen ${JSON.stringify(listen)} is no address`, {
      hint: "Give HOST:PORT, such as 127.0.0.1:8080 or 0.0.0.0:8080.",
    });
  return { host: bracketed ?? (plain || "127.0.0.1"), port };
}
