/** Partitions of the source that the target lacks. */
import { missingPartitions } from "../catalog/missing-partitions.ts";
import type { ResolvedConfig } from "../config/options.ts";
import { tableSettings } from "../config/overrides.ts";
import { run, type Finding } from "./finding.ts";
import type { TablePair } from "./pairs.ts";

/** Blocking where there are rows that would be rejected, and that nobody wants to be parked. */
export function checkPartitions({ source, target }: TablePair, config: ResolvedConfig): Finding[] {
  const parks = (tableSettings(source, config).onRefusal ?? config.onRefusal) === "park";
  return missingPartitions(source, target).map(({ subject, message, remedy, leaf }) => ({
    severity: leaf.heapBytes > 0 && !parks ? "blocking" : "warning",
    subject,
    message,
    ...run("target", target.owner, remedy),
  }));
}
