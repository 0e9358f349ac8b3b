/** What one sends to somebody who helps: where a sync stands and what happened, without secrets and without rows. */
import { arch, platform, release } from "node:os";
import type { SyncView } from "./protocol.ts";

/** Keys of rows are left out: they are data. */
export function diagnostics(view: SyncView, version: string): object {
  const { verified, ...rest } = view;
  return {
    madeAt: new Date().toISOString(),
    program: { version, node: process.version, system: `${platform()} ${release()} ${arch()}` },
    memoryBytes: process.memoryUsage().rss,
    uptimeSeconds: Math.round(process.uptime()),
    sync: {
      ...rest,
      verified:
        verified === null
          ? null
          : {
              at: verified.at,
              equal: verified.report.equal,
              tables: verified.report.tables.map(({ table, rows, differences }) => ({
                table,
                rows,
                differences: differences.length,
              })),
            },
    },
  };
}
