/** Whether as many sessions can be had as the copy opens, and whether they are encrypted. */
import type { Side } from "../events.ts";
import type { ResolvedConfig } from "../config/options.ts";
import type { Connection } from "../postgres/connect.ts";
import { ident, load } from "../postgres/sql.ts";
import type { Examination } from "./examination.ts";
import { administrator, run, type Finding } from "./finding.ts";
import type { Server } from "./server.ts";

/** As sql/preflight/connections returns it. */
export interface Limits {
  readonly limit: number;
  readonly reserved: number;
  readonly used: number;
  readonly databaseLimit: number;
  readonly databaseUsed: number;
  readonly roleLimit: number;
  readonly roleUsed: number;
}

export async function checkConnections({
  context,
  source,
  target,
  servers,
}: Examination): Promise<Finding[]> {
  const limits = await Promise.all(
    [source, target].map((side) => side.row<Limits>(load("preflight/connections"))),
  );
  const sides = ["source", "target"] as const;
  return sides.flatMap((side, n) => [
    ...limitFindings(side, limits[n] as Limits, servers[side], context.config),
    ...encryptionFindings(side, servers[side].isEncrypted, context.config[side].host),
  ]);
}

/**
 * Sessions of a copy with a follow beside it. Source: each worker, and the watch over locks. Target: each worker, each
 * builder of indexes, the progress. A follow has one on either side, and now and then a second one.
 */
function sessionsNeeded(
  side: Connection["side"],
  { jobs, indexJobs }: Pick<ResolvedConfig["copy"], "jobs" | "indexJobs">,
): number {
  return side === "source" ? jobs + 1 + 2 : jobs + indexJobs + 1 + 2;
}

/** With so many on either side, copy, follow and verify do their work one after another, only slower. */
const fewest = 2;

export function limitFindings(
  side: Side,
  limits: Limits,
  { database, role, isSuperuser }: Pick<Server, "database" | "role" | "isSuperuser">,
  { copy }: Pick<ResolvedConfig, "copy">,
): Finding[] {
  const needed = sessionsNeeded(side, copy);
  // This session is one of those used, and will be gone.
  const free = (limit: number, used: number): number => Math.max(0, limit - used + 1);
  const check = (
    subject: string,
    available: number,
    remedy: (missing: number) => readonly string[],
  ): Finding[] => {
    if (available >= needed) return [];
    const fits = Math.max(1, copy.jobs - (needed - available));
    const ours = `copy with ${copy.jobs} jobs and follow open ${needed} sessions on the ${side}`;
    return [
      {
        severity: available < fewest ? "blocking" : "warning",
        subject,
        message: `${ours}, and ${available} are free${available < fewest ? `; the fewest are ${fewest}` : ""}`,
        ...run(
          side,
          administrator,
          ...remedy(needed - available),
          ...(available < fewest ? [] : [`-- or: --jobs ${fits}`]),
        ),
      },
    ];
  };
  return [
    ...check(`connections of the ${side}`, free(limits.limit - limits.reserved, limits.used), (missing) => [
      `alter system set max_connections = ${limits.limit + missing};  -- then restart it; at a provider: its parameter group, or a larger plan`,
    ]),
    ...(limits.databaseLimit < 0 || isSuperuser
      ? []
      : check(`database ${database}`, free(limits.databaseLimit, limits.databaseUsed), (missing) => [
          `alter database ${ident(database)} connection limit ${limits.databaseLimit + missing};`,
        ])),
    ...(limits.roleLimit < 0 || isSuperuser
      ? []
      : check(`role ${role} on the ${side}`, free(limits.roleLimit, limits.roleUsed), (missing) => [
          `alter role ${ident(role)} connection limit ${limits.roleLimit + missing};`,
        ])),
  ];
}

export function encryptionFindings(side: Side, isEncrypted: boolean, host: string): Finding[] {
  const isLocal = host.startsWith("/") || /^(localhost|127\.[\d.]+|::1)$/.test(host);
  if (isEncrypted || isLocal) return [];
  return [
    {
      severity: "note",
      subject: side,
      message: `the connection to ${host} is not encrypted: rows travel as they are`,
      remedy: `sslmode=require  -- in the connection's URL or keywords, where the server offers it`,
    },
  ];
}

/** What an older server may not know. */
export async function checkVersions({ source, target }: Examination): Promise<Finding[]> {
  const [from, to] = [source, target].map(({ version }) => Math.floor(version / 10_000)) as [number, number];
  if (to >= from) return [];
  return [
    {
      severity: "note",
      subject: "versions",
      message: `the target (${to}) is older than the source (${from}): what ${to} does not know yet can be neither created nor copied there`,
    },
  ];
}
