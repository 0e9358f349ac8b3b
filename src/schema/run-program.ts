/** Runs one of PostgreSQL's client programs. Secrets travel in its environment, never in its arguments. */
import { spawn } from "node:child_process";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import type { ConnectionSettings } from "../postgres/conninfo.ts";

export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs to the end and returns what was said, whatever the exit code. Its words are bytes of the archive's encoding,
 * read as UTF-8. Throws ABORTED, and CLIENT_MISSING where the program does not start.
 */
export async function runProgram(
  program: string,
  args: readonly string[],
  signal: AbortSignal,
  server?: ConnectionSettings,
): Promise<Outcome> {
  return await new Promise((resolve, reject) => {
    const child = spawn(program, args, { env: childEnv(server), stdio: ["ignore", "pipe", "pipe"], signal });
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    child.stdout.on("data", (chunk: Buffer) => out.push(chunk));
    child.stderr.on("data", (chunk: Buffer) => err.push(chunk));
    child.on("error", (cause) => {
      reject(
        signal.aborted
          ? new ReplicateError("ABORTED", "schema was stopped", { cause })
          : new ReplicateError("CLIENT_MISSING", `${program} does not start: ${cause.message}`, { cause }),
      );
    });
    child.on("close", (code) => {
      const [stdout, stderr] = [out, err].map((chunks) => Buffer.concat(chunks).toString("utf8"));
      resolve({ code: code ?? 1, stdout: stdout ?? "", stderr: stderr ?? "" });
    });
  });
}

/**
 * This process's environment, with no libpq variable but those of this server. What the program says is read, so it says it in
 * English; and so does the server, where the role may choose that (`inEnglish`).
 */
function childEnv(server: ConnectionSettings | undefined): NodeJS.ProcessEnv {
  const own = Object.entries(process.env).filter(([name]) => !/^(PG|LANG$|LC_|LANGUAGE$)/.test(name));
  return {
    ...Object.fromEntries(own),
    LC_ALL: "C",
    PGAPPNAME: "replicate schema",
    ...server?.variables,
  };
}

/** The same server, with its own messages in English where the role may choose their language, as superusers may. */
export async function inEnglish(
  settings: ConnectionSettings,
  session: Connection,
): Promise<ConnectionSettings> {
  const { is } = await session.row<{ is: string }>("select pg_catalog.current_setting('is_superuser') as is");
  if (is !== "on") return settings;
  const options = [settings.variables?.["PGOPTIONS"], "-c lc_messages=C"].filter(
    (each) => each !== undefined,
  );
  return { ...settings, variables: { ...settings.variables, PGOPTIONS: options.join(" ") } };
}
