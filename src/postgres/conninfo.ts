/** Where a server is and how to log in, as libpq would understand it. */
import { existsSync } from "node:fs";
import { homedir, userInfo } from "node:os";
import { join } from "node:path";
import type { ConnectionOptions as TlsOptions } from "node:tls";
import { inspect } from "node:util";
import { ReplicateError } from "../errors.ts";
import { parameters, parseConninfo, severalHosts } from "./conninfo-text.ts";
import { passwordFromFile } from "./password-file.ts";
import { readService, serviceFiles } from "./service-file.ts";
import { tlsSettings } from "./tls.ts";

/** A connection with everything that libpq would look up filled in. Holds a secret: never log it; log `label`. */
export interface ConnectionSettings {
  /** A name, an address, or the folder of a Unix socket. */
  readonly host: string;
  /** What the host is called, where `host` is the address that was given with the name. */
  readonly name?: string;
  readonly port: number;
  readonly user: string;
  readonly database: string;
  readonly password: string | undefined;
  readonly ssl: false | TlsOptions;
  /** sslmode=prefer: try again without encryption where the server cannot or will not do it. */
  readonly sslFallback?: boolean;
  /** channel_binding=require: no login that is not tied to the encrypted channel. */
  readonly channelBinding?: boolean;
  /** Command-line options for the server's session: `-c name=value`. */
  readonly options?: string;
  /** 0 waits as long as the system does. */
  readonly connectTimeoutMs: number;
  /** host:port/database, for people. */
  readonly label: string;
  /** libpq's variables with which its programs connect as we do. Holds a secret. */
  readonly variables?: Readonly<Record<string, string>>;
  /** What was passed over on the way, such as a password file that others may read; shown when the login fails. */
  readonly warnings?: readonly string[];
}

/** libpq waits for ever; a command that hangs without a word helps nobody. */
const defaultConnectTimeoutMs = 15_000;

/** Where servers put their socket: Debian's packages, and everybody else. */
const socketFolders = ["/var/run/postgresql", "/tmp"];

/**
 * Resolves a URL (`postgresql://user:password@host:port/database?sslmode=require`) or a libpq keyword string
 * (`host=… dbname=…`). What it leaves out comes, in this order, from its service (`service=`, PGSERVICE), from libpq's
 * variables in `env`, from ~/.pgpass, and from defaults: a local socket if a server listens there or else localhost,
 * port 5432, the user's own name, the database named like the user.
 * Throws CONFIG_INVALID with all problems. No message holds a part of the input that may be a secret.
 */
export function resolveConnection(input: string, env: NodeJS.ProcessEnv): ConnectionSettings {
  const home = env["HOME"] || homedir();
  const parsed = parseConninfo(input.trim());
  const problems = [...parsed.problems];
  const values: Record<string, string> = { ...parsed.values };

  const service = values["service"] ?? (env["PGSERVICE"] || undefined);
  if (service !== undefined) {
    const file = values["servicefile"] ?? (env["PGSERVICEFILE"] || undefined);
    const found = readService(service, serviceFiles(file, home, env));
    problems.push(...found.problems);
    for (const [key, value] of Object.entries(found.values)) values[key] ??= value;
  }
  for (const [key, { variable }] of Object.entries(parameters)) {
    const value = variable === undefined ? undefined : env[variable];
    if (value !== undefined && value !== "") values[key] ??= value;
  }

  const port = integer(values, "port", 1, 65_535, problems) ?? 5432;
  const timeoutSeconds = integer(values, "connect_timeout", 0, 86_400, problems);
  const channelBinding = values["channel_binding"];
  if (channelBinding !== undefined && !["disable", "prefer", "require"].includes(channelBinding)) {
    problems.push("channel_binding has to be one of disable, prefer, require");
  }
  const name = values["host"] ?? values["hostaddr"] ?? defaultHost(port);
  if ([name, values["hostaddr"] ?? "", values["port"] ?? ""].some((each) => each.includes(","))) {
    problems.push(severalHosts);
  }
  for (const key of ["host", "hostaddr", "user", "dbname"] as const) {
    // Shown to people, so a connection that came into the wrong place, password and all, must not go on from here.
    if (/:\/\/|\bpassword\s*=/i.test(values[key] ?? ""))
      problems.push(`${key} is a connection as a whole: give it as the source or target itself`);
  }
  if (/[@/?#\s]/.test(name.replace(/^\/.*/, ""))) problems.push("host is no name of a server");
  const host = values["hostaddr"] ?? name;
  const isSocket = host.startsWith("/");
  const tls = tlsSettings(values, { name, isSocket }, home);
  problems.push(...tls.problems);
  const user = values["user"] ?? systemUser();
  if (user === undefined)
    problems.push("the user is missing, and this process runs under a user id without a name");
  if (problems.length > 0 || user === undefined) throw invalid(problems);

  const database = values["dbname"] ?? user;
  const found =
    values["password"] === undefined
      ? passwordFromFile(values["passfile"] ?? join(home, ".pgpass"), {
          host: socketFolders.includes(name) ? "localhost" : name,
          port,
          database,
          user,
        })
      : { password: values["password"], warning: undefined };
  return sealed({
    host,
    ...(name === host ? {} : { name }),
    port,
    user,
    database,
    password: found.password,
    ssl: tls.ssl,
    ...(tls.sslFallback ? { sslFallback: true } : {}),
    ...(channelBinding === "require" ? { channelBinding: true } : {}),
    ...(values["options"] === undefined ? {} : { options: values["options"] }),
    connectTimeoutMs: timeoutSeconds === undefined ? defaultConnectTimeoutMs : timeoutMs(timeoutSeconds),
    label: `${name.includes(":") ? `[${name}]` : name}:${port}/${database}`,
    variables: libpqVariables(
      {
        ...values,
        host: name,
        port: String(port),
        user,
        dbname: database,
        connect_timeout: String(timeoutSeconds ?? defaultConnectTimeoutMs / 1000),
        ...(found.password === undefined ? {} : { password: found.password }),
      },
      home,
    ),
    ...(found.warning === undefined ? {} : { warnings: [found.warning] }),
  });
}

/** What was looked up here is not to be looked up again, and files are where this process's HOME has them. */
function libpqVariables(
  values: Readonly<Record<string, string>>,
  home: string,
): Readonly<Record<string, string>> {
  const variables: Record<string, string> = {};
  for (const [key, { variable }] of Object.entries(parameters)) {
    const value = values[key];
    if (variable === undefined || value === undefined) continue;
    if (!["service", "servicefile", "passfile"].includes(key)) variables[variable] = value;
  }
  const files = { PGSSLROOTCERT: "root.crt", PGSSLCERT: "postgresql.crt", PGSSLKEY: "postgresql.key" };
  for (const [variable, file] of Object.entries(files)) {
    const path = join(home, ".postgresql", file);
    if (existsSync(path)) variables[variable] ??= path;
  }
  if (values["sslmode"] === "no-verify") {
    variables["PGSSLMODE"] = "require";
    // A file that does not exist verifies nothing.
    variables["PGSSLROOTCERT"] = join(home, ".postgresql", "no-root.crt");
  }
  if (values["sslrootcert"] === "system") variables["PGSSLMODE"] ??= "verify-full";
  return variables;
}

/** Frozen, and shown as its label alone wherever somebody prints it or turns it into JSON. */
function sealed(settings: ConnectionSettings): ConnectionSettings {
  const show = { value: () => settings.label };
  return Object.freeze(Object.defineProperties({ ...settings }, { toJSON: show, [inspect.custom]: show }));
}

/** libpq's own rule: less than two seconds may pass before the first answer, so one means two. */
function timeoutMs(seconds: number): number {
  return seconds === 0 ? 0 : Math.max(2, seconds) * 1000;
}

function integer(
  values: Readonly<Record<string, string>>,
  key: string,
  least: number,
  most: number,
  problems: string[],
): number | undefined {
  const text = values[key]?.trim();
  if (text === undefined || text.includes(",")) return undefined;
  const value = Number(text);
  if (/^-?\d+$/.test(text) && key === "connect_timeout" && value < 0) return 0;
  if (/^\d+$/.test(text) && value >= least && value <= most) return value;
  problems.push(`${key} has to be a whole number from ${least} to ${most}`);
  return undefined;
}

function defaultHost(port: number): string {
  return socketFolders.find((folder) => existsSync(join(folder, `.s.PGSQL.${port}`))) ?? "localhost";
}

function systemUser(): string | undefined {
  try {
    return userInfo().username;
  } catch {
    return undefined;
  }
}

function invalid(problems: readonly string[]): ReplicateError {
  return new ReplicateError("CONFIG_INVALID", `the connection cannot be understood: ${problems.join("; ")}`, {
    problems: problems.map((message) => ({ subject: "connection", message })),
  });
}
