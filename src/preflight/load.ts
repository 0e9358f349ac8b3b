/** What the load costs: disk on both sides, and settings of the servers that make it slow or let it fail. */
import type { ResolvedConfig } from "../config/options.ts";
import { ident, load } from "../postgres/sql.ts";
import { withLeaves, type Examination } from "./examination.ts";
import { administrator, run, type Finding } from "./finding.ts";

/** As sql/preflight/sizes returns it. */
export interface Sizes {
  readonly tableBytes: number;
  readonly indexBytes: number;
  readonly largestIndexBytes: number;
  readonly changes: number;
  readonly seconds: number;
}

/** As sql/preflight/settings returns it. */
export interface Settings {
  readonly maxWalBytes: number;
  readonly maintenanceBytes: number;
  readonly tempFileBytes: number;
  readonly vacuums: boolean;
  readonly standbys: string;
  readonly commit: string;
  readonly snapshotMinutes: number | null;
}

const gigabyte = 1024 ** 3;

export async function checkLoad({
  context,
  source,
  target,
  servers,
  tables,
}: Examination): Promise<Finding[]> {
  const sizes = await source.row<Sizes>(load("preflight/sizes"), [withLeaves(tables)]);
  const [own, other] = await Promise.all([source.row<Settings>(load("preflight/settings")), target.row<Settings>(load("preflight/settings"))]); // prettier-ignore
  return [
    ...diskFindings(sizes),
    ...targetSettings(other, sizes, context.config.copy, servers.target.role),
    ...snapshotFindings(own),
  ];
}

/** Bytes of a delta: a row with a short key. */
const deltaBytes = 64;

/** A copy that is neither slow nor fast. */
const copyBytesPerSecond = 50 * 1024 ** 2;

/** Nobody can ask a server for its free disk: what is needed is all that can be said. */
export function diskFindings({ tableBytes, indexBytes, changes, seconds }: Sizes): Finding[] {
  const perSecond = changes / seconds;
  const copySeconds = (tableBytes + indexBytes) / copyBytesPerSecond;
  const hours =
    copySeconds < 3600 ? `${Math.ceil(copySeconds / 60)} min` : `${(copySeconds / 3600).toFixed(1)} h`;
  return [
    {
      severity: "note",
      subject: "disk of the target",
      message: `the copy takes about ${size(tableBytes + indexBytes)}: ${size(tableBytes)} of tables and ${size(indexBytes)} of indexes, as large as they are on the source; its log and the sorting of indexes come on top. How much is free no query tells: look at the server or in the provider's console`,
    },
    {
      severity: "note",
      subject: "disk of the source",
      message: `at ${perSecond.toFixed(1)} changed rows per second, as the server's statistics have it on average, deltas take about ${size(perSecond * deltaBytes * 3600)} per hour until they are applied: ${size(perSecond * deltaBytes * copySeconds)} during a copy at ${size(copyBytesPerSecond)} per second, which lasts ${hours}`,
    },
  ];
}

export function targetSettings(
  settings: Settings,
  sizes: Sizes,
  copy: Pick<ResolvedConfig["copy"], "indexJobs" | "indexMemoryBytes">,
  role: string,
): Finding[] {
  const findings: Finding[] = [];
  const note = (subject: string, message: string, ...statements: readonly string[]): number =>
    findings.push({ severity: "note", subject, message, ...run("target", administrator, ...statements) });
  const reload = "select pg_catalog.pg_reload_conf();  -- at a provider: its parameter group instead";
  const loaded = sizes.tableBytes + sizes.indexBytes;
  const wanted = Math.min(16 * gigabyte, Math.max(gigabyte, loaded / 2));
  if (loaded > settings.maxWalBytes && settings.maxWalBytes < wanted) {
    note(
      "max_wal_size",
      `is ${size(settings.maxWalBytes)}: the load forces a checkpoint each time as much is written, and pages are written many times`,
      `alter system set max_wal_size = '${Math.ceil(wanted / gigabyte)}GB';`,
      reload,
    );
  }
  const perBuild = Math.min(gigabyte, copy.indexMemoryBytes / copy.indexJobs);
  if (settings.maintenanceBytes > perBuild && sizes.largestIndexBytes > perBuild) {
    findings.push({
      severity: "note",
      subject: "maintenance_work_mem",
      message: `is ${size(settings.maintenanceBytes)} on the target, and copy builds its indexes with ${size(perBuild)} each, less than the largest has (${size(sizes.largestIndexBytes)})`,
      remedy: `replicate copy --index-memory ${Math.floor((settings.maintenanceBytes * copy.indexJobs) / 1024 ** 2)}MB`,
    });
  }
  if (settings.tempFileBytes >= 0 && settings.tempFileBytes < sizes.largestIndexBytes * 1.2) {
    findings.push({
      severity: "warning",
      subject: "temp_file_limit",
      message: `is ${size(settings.tempFileBytes)} on the target: building the largest index (${size(sizes.largestIndexBytes)}) may need more, and fail`,
      ...run("target", administrator, `alter role ${ident(role)} set temp_file_limit = -1;`),
    });
  }
  if (!settings.vacuums) {
    findings.push({
      severity: "warning",
      subject: "autovacuum",
      message: "is off on the target: what follow replaces stays on disk for ever, and plans grow old",
      ...run(
        "target",
        administrator,
        "alter system set autovacuum = on;",
        "alter system set track_counts = on;",
        reload,
      ),
    });
  }
  if (settings.standbys !== "" && !["off", "local"].includes(settings.commit)) {
    findings.push({
      severity: "note",
      subject: "synchronous_commit",
      message: `is ${settings.commit} on the target with synchronous standbys (${settings.standbys}): each commit of the load waits for them, and all wait when they are away`,
      ...run(
        "target",
        role,
        `alter role ${ident(role)} set synchronous_commit = local;  -- reset it after the switch`,
      ),
    });
  }
  return findings;
}

/** Before 17, a server could be told to take old snapshots away from those who read in them. */
export function snapshotFindings({ snapshotMinutes }: Settings): Finding[] {
  if (snapshotMinutes === null || snapshotMinutes < 0 || snapshotMinutes >= 60) return [];
  return [
    {
      severity: "warning",
      subject: "old_snapshot_threshold",
      message: `is ${snapshotMinutes} min on the source: parts and batches that take longer fail with "snapshot too old"`,
      ...run(
        "source",
        administrator,
        "alter system set old_snapshot_threshold = -1;  -- then restart the server",
      ),
    },
  ];
}

function size(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value >= 10 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}
