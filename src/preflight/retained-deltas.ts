/** Other syncs of the same source that take nothing, and make it keep changes. */
import { readRetainedDeltas } from "../state/retained-deltas.ts";
import type { Examination } from "./examination.ts";
import type { Finding } from "./finding.ts";

export async function checkRetainedDeltas({ context, source }: Examination): Promise<Finding[]> {
  const { deltaLimitBytes } = context.config;
  const retained = await readRetainedDeltas(source);
  return retained
    .filter(({ bytes }) => bytes > deltaLimitBytes)
    .map(({ sync, since, bytes, giveUp }): Finding => ({
      severity: "warning",
      subject: `sync ${sync}`,
      message: `has not taken anything since ${since.toISOString()}: it makes the source keep ${Math.round(bytes / 1024 ** 2)} MB of changes, more than deltaLimit`,
      remedy: `bring its target or its runner back, or give it up: ${giveUp}`,
    }));
}
