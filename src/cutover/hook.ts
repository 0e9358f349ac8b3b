/** The command that switches the application: run once the new side is open, with the way to it in its environment. */
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { ReplicateError } from "../errors.ts";
import type { ConnectionSettings } from "../postgres/conninfo.ts";
import type { SyncContext } from "../state/context.ts";

/** libpq's variables and a URL for the server. Secrets are in the environment alone, which other users cannot see. */
export function hookEnvironment(settings: ConnectionSettings): Record<string, string> {
  const { host, port, user, database, password } = settings;
  const sslmode =
    settings.ssl === false
      ? "disable"
      : settings.sslFallback === true
        ? "prefer"
        : settings.ssl.rejectUnauthorized === false
          ? "require"
          : "verify-full";
  const secret = password === undefined ? "" : `:${encodeURIComponent(password)}`;
  const query = new URLSearchParams({ sslmode, ...(host.startsWith("/") ? { host } : {}) });
  const where = host.startsWith("/") ? `:${port}` : `${host.includes(":") ? `[${host}]` : host}:${port}`;
  return {
    PGHOST: host,
    PGPORT: String(port),
    PGUSER: user,
    PGDATABASE: database,
    PGSSLMODE: sslmode,
    ...(password === undefined ? {} : { PGPASSWORD: password }),
    REPLICATE_TARGET: `postgresql://${encodeURIComponent(user)}${secret}@${where}/${encodeURIComponent(database)}?${query.toString()}`,
  };
}

/** Runs the command by the shell; what it says becomes events. Throws HOOK_FAILED, ABORTED. */
export async function runHook(
  context: SyncContext,
  command: string,
  settings: ConnectionSettings,
): Promise<void> {
  const child = spawn(command, {
    shell: true,
    env: { ...process.env, ...hookEnvironment(settings) },
    stdio: ["ignore", "pipe", "pipe"],
    signal: context.signal,
  });
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on("line", (line) => context.emit({ type: "hook-said", line }));
  }
  const failure = await new Promise<string | undefined>((resolve) => {
    child.on("error", (error) => resolve(error.message));
    child.on("close", (code, signal) =>
      resolve(code === 0 ? undefined : `it ended with ${signal ?? `code ${code}`}`),
    );
  });
  if (failure !== undefined)
    throw new ReplicateError("HOOK_FAILED", `the command given with --on-open failed: ${failure}`);
}
