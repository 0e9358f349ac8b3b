/** The command that switches the application: run once the new side is open, with the way to it in its environment. */
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { ReplicateError } from "../errors.ts";
import { parameters } from "../postgres/conninfo-text.ts";
import type { ConnectionSettings } from "../postgres/conninfo.ts";
import type { SyncContext } from "../state/context.ts";

/**
 * Variables of libpq that would lead the command's programs elsewhere, or log them in otherwise, than to the new side. Those
 * that only say how much to trust (PGREQUIREAUTH, PGREQUIREPEER, PGSSLCRL …) or how values look stay.
 */
const leading: ReadonlySet<string> = new Set([
  ...Object.values(parameters).flatMap(({ variable }) => variable ?? []),
  "PGSYSCONFDIR", "PGTARGETSESSIONATTRS", "PGLOADBALANCEHOSTS", "PGREQUIRESSL", "PGSSLNEGOTIATION", "PGSSLCERTMODE", "PGSSLSNI",
  "PGGSSENCMODE", "PGKRBSRVNAME", "PGGSSLIB", "PGGSSDELEGATION", "PGMINPROTOCOLVERSION", "PGMAXPROTOCOLVERSION",
  // Of ours, for a connection without a password; it would be the other side's after a rollback.
  "REPLICATE_TARGET_PASSWORD",
]); // prettier-ignore

/**
 * The environment of the command: ours, with libpq's variables and a URL for the server in the place of what would lead
 * elsewhere. Secrets are in the environment alone, which other users cannot see.
 */
export function hookEnvironment(
  settings: ConnectionSettings,
  ours: NodeJS.ProcessEnv,
): Record<string, string> {
  const { host, name, port, user, database, password } = settings;
  const variables: Readonly<Record<string, string>> = { PGSSLMODE: "prefer", ...settings.variables };
  const kept = Object.entries(ours).filter(
    ([variable, value]) => value !== undefined && !leading.has(variable),
  );
  const query = new URLSearchParams();
  for (const [key, { variable }] of Object.entries(parameters)) {
    const value = variable === undefined ? undefined : variables[variable];
    if (value !== undefined && !["host", "port", "user", "password", "dbname"].includes(key))
      query.set(key, value);
  }
  const isSocket = host.startsWith("/");
  if (isSocket) query.set("host", host);
  const named = name ?? host;
  const where = isSocket ? `:${port}` : `${named.includes(":") ? `[${named}]` : named}:${port}`;
  const secret = password === undefined ? "" : `:${encodeURIComponent(password)}`;
  return {
    ...(Object.fromEntries(kept) as Record<string, string>),
    ...variables,
    // Spaces as %20: libpq does not read a + as one.
    REPLICATE_TARGET: `postgresql://${encodeURIComponent(user)}${secret}@${where}/${encodeURIComponent(database)}?${query.toString().replaceAll("+", "%20")}`,
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
    env: hookEnvironment(settings, process.env),
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
