/** What sslmode and the certificates mean, as in libpq. */
import { existsSync, readFileSync } from "node:fs";
import { isIP } from "node:net";
import { join } from "node:path";
import { checkServerIdentity, type ConnectionOptions as TlsOptions, type SecureVersion } from "node:tls";

export interface TlsSettings {
  readonly ssl: false | TlsOptions;
  /** Whether to try again without encryption where the server refuses or cannot do it. */
  readonly sslFallback: boolean;
  readonly problems: readonly string[];
}

const modes = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] as const;
type SslMode = (typeof modes)[number];
const versions: readonly string[] = ["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"];

/**
 * `allow` is treated as `prefer`: encryption first, then without. A root certificate, named or lying in
 * ~/.postgresql/root.crt, is checked against in every mode that encrypts, as libpq does; without one `require`
 * encrypts and verifies nothing. `no-verify`, a word of node-postgres that stands in many URLs, never verifies.
 */
export function tlsSettings(
  values: Readonly<Record<string, string>>,
  server: { readonly name: string; readonly isSocket: boolean },
  home: string,
): TlsSettings {
  const problems: string[] = [];
  const isSystemRoot = values["sslrootcert"] === "system";
  const written = values["sslmode"] ?? (isSystemRoot ? "verify-full" : "prefer");
  const isNeverVerifying = written === "no-verify";
  const mode = isNeverVerifying ? "require" : written;
  if (!isMode(mode)) {
    problems.push(`sslmode has to be one of ${modes.join(", ")}`);
    return { ssl: false, sslFallback: false, problems };
  }
  if (isSystemRoot && mode !== "verify-full") problems.push("sslrootcert=system needs sslmode=verify-full");
  for (const key of ["ssl_min_protocol_version", "ssl_max_protocol_version"]) {
    const version = values[key];
    if (version !== undefined && !versions.includes(version))
      problems.push(`${key} has to be one of ${versions.join(", ")}`);
  }
  if (mode === "disable" || server.isSocket) return { ssl: false, sslFallback: false, problems };

  const read = (key: string, fallback: string): Buffer | undefined => {
    const path = values[key] ?? join(home, ".postgresql", fallback);
    if (values[key] === undefined && !existsSync(path)) return undefined;
    try {
      return readFileSync(path);
    } catch (error) {
      problems.push(`${key} ${path} cannot be read: ${(error as NodeJS.ErrnoException).code}`);
      return undefined;
    }
  };
  const root = isSystemRoot ? undefined : read("sslrootcert", "root.crt");
  const certificate = read("sslcert", "postgresql.crt");
  const key = certificate === undefined ? undefined : read("sslkey", "postgresql.key");
  const isVerifying = !isNeverVerifying && (root !== undefined || isSystemRoot);
  if (mode.startsWith("verify") && !isVerifying && values["sslrootcert"] === undefined) {
    problems.push(
      `sslmode=${mode} needs a root certificate: sslrootcert=FILE, or sslrootcert=system for public authorities`,
    );
  }
  const ssl: TlsOptions = {
    rejectUnauthorized: isVerifying,
    checkServerIdentity: (_, peer) =>
      mode === "verify-full" ? checkServerIdentity(server.name, peer) : undefined,
    // With hostaddr the driver would only know the address.
    ...(isIP(server.name) === 0 ? { servername: server.name } : {}),
    ...(root === undefined ? {} : { ca: root }),
    ...(certificate === undefined ? {} : { cert: certificate }),
    ...(key === undefined ? {} : { key }),
    ...optional("passphrase", values["sslpassword"]),
    ...optional("minVersion", values["ssl_min_protocol_version"] as SecureVersion | undefined),
    ...optional("maxVersion", values["ssl_max_protocol_version"] as SecureVersion | undefined),
  };
  return { ssl, sslFallback: mode === "prefer" || mode === "allow", problems };
}

function isMode(text: string): text is SslMode {
  return (modes as readonly string[]).includes(text);
}

function optional<K extends string, V>(key: K, value: V | undefined): { [P in K]?: V } {
  return value === undefined ? {} : ({ [key]: value } as { [P in K]: V });
}
