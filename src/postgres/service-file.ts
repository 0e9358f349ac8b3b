/** Service files: named sets of connection parameters, as libpq reads them. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parameters, type ConninfoText } from "./conninfo-text.ts";

export interface ServiceFiles {
  /** The user's own: PGSERVICEFILE, or ~/.pg_service.conf. */
  readonly own: string;
  /** Whether it was asked for by name, so that its absence is a mistake. */
  readonly isOwnNamed: boolean;
  /** The machine's: PGSYSCONFDIR/pg_service.conf, looked at when the user's has no such service. */
  readonly shared: string | undefined;
}

export function serviceFiles(named: string | undefined, home: string, env: NodeJS.ProcessEnv): ServiceFiles {
  const folder = env["PGSYSCONFDIR"];
  return {
    own: named ?? join(home, ".pg_service.conf"),
    isOwnNamed: named !== undefined,
    shared: folder === undefined || folder === "" ? undefined : join(folder, "pg_service.conf"),
  };
}

/** The parameters of a service. A service that is nowhere defined is a problem; so is a line that is not understood. */
export function readService(service: string, files: ServiceFiles): ConninfoText {
  if (files.isOwnNamed && !existsSync(files.own)) {
    return { values: {}, problems: [`there is no service file ${files.own}`] };
  }
  for (const path of [files.own, files.shared]) {
    if (path === undefined || !existsSync(path)) continue;
    const found = section(service, path);
    if (found !== undefined) return found;
  }
  return { values: {}, problems: [`no service file defines the service "${service}"`] };
}

function section(service: string, path: string): ConninfoText | undefined {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    return {
      values: {},
      problems: [`the service file ${path} cannot be read: ${(error as NodeJS.ErrnoException).code}`],
    };
  }
  const values: Record<string, string> = {};
  const problems: string[] = [];
  let isFound = false;
  let isInside = false;
  for (const [index, raw] of text.split(/\r?\n/).entries()) {
    const line = raw.trim();
    if (line === "" || line.startsWith("#")) continue;
    if (line.startsWith("[")) {
      // The first section of a name is the one that counts.
      if (isFound) break;
      isInside = line === `[${service}]`;
      isFound = isInside;
      continue;
    }
    if (!isInside) continue;
    const equals = line.indexOf("=");
    const key = equals < 0 ? "" : line.slice(0, equals);
    const use = Object.hasOwn(parameters, key) ? parameters[key]?.use : undefined;
    if (use === undefined || use === "refused" || key === "service" || key === "servicefile") {
      problems.push(`line ${index + 1} of the service file ${path} is not understood`);
    } else if (use === "honoured" && equals + 1 < line.length) {
      values[key] ??= line.slice(equals + 1);
    }
  }
  return isFound ? { values, problems } : undefined;
}
