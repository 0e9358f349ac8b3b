/** What becomes of rows that the target rejects: the sync stops, or they are parked. */
import type { TableName } from "../catalog/patterns.ts";
import { isKeyless } from "../catalog/delta.ts";
import type { ResolvedConfig } from "../config/options.ts";
import { tableSettings } from "../config/overrides.ts";
import { ReplicateError } from "../errors.ts";
import { askOnError, type Hooks } from "../config/hooks.ts";
import { sleep } from "../postgres/sleep.ts";
import type { RejectedRow } from "../state/parked.ts";
import type { FoundRow } from "./find-rejected.ts";

/** Rows of a sync that are parked at most; beyond, something is wrong with more than a row. */
export const MOST_PER_SYNC = 10_000;
/** Before the rows are tried again because a hook says so. */
const RETRY_PAUSE_MS = 1000;

/** Whether the settings want rejected rows of this table of the source to be parked. */
export function wantsPark(
  config: Pick<ResolvedConfig, "overrides" | "onRefusal">,
  { onError }: Pick<Hooks, "onError">,
  table: TableName,
): boolean {
  if (onError !== undefined) return true;
  return (tableSettings(table, config).onRefusal ?? config.onRefusal) === "park";
}

/** Whether they are: a row without a key cannot be found again. */
export function parks(
  config: Pick<ResolvedConfig, "overrides" | "onRefusal">,
  hooks: Pick<Hooks, "onError">,
  {
    capture,
    source,
  }: { readonly capture: { readonly keyColumns: readonly unknown[] }; readonly source: TableName },
): boolean {
  return !isKeyless(capture) && wantsPark(config, hooks, source);
}

/**
 * What becomes of rows that were found: by the policy, which parks them, or as the hook says; "retry" comes after a pause. `attempt`: how often they
 * were tried. Throws ROW_REFUSED, HOOK_FAILED.
 */
export async function decide(
  { onError }: Pick<Hooks, "onError">,
  label: string,
  found: readonly FoundRow[],
  attempt: number,
  signal: AbortSignal,
): Promise<"park" | "retry"> {
  if (onError === undefined) return "park";
  let isRetry = false;
  for (const { key, sqlstate, message } of found) {
    const error = new ReplicateError("ROW_REFUSED", `the target rejected a row of ${label}: ${message}`, {
      side: "target",
      sqlstate,
    });
    const answer = await askOnError(onError, error, { table: label, key, attempt });
    if (answer === "stop") throw error;
    if (answer === "retry") isRetry = true;
  }
  if (!isRetry) return "park";
  await sleep(RETRY_PAUSE_MS, signal);
  return "retry";
}

/** The rows as they are remembered. `relid`: the table on the target. */
export function rowsToPark(
  table: { readonly captureId: number; readonly relid: number; readonly label: string },
  found: readonly FoundRow[],
): RejectedRow[] {
  return found.map(({ key, keyTexts, isKeyTyped, sqlstate, message, constraint, isParked }) => ({
    captureId: table.captureId,
    relid: table.relid,
    table: table.label,
    key,
    keyTexts,
    isKeyTyped,
    sqlstate,
    message,
    constraint: constraint === "" ? null : constraint,
    isNew: !isParked,
  }));
}

/** `limits`: what was exceeded, in words. */
export function tooMany(limits: string, { table, message }: RejectedRow): ReplicateError {
  return new ReplicateError(
    "ROW_REFUSED",
    `the target rejects more rows than may be parked (${limits}), one of them in ${table}: ${message}`,
    {
      side: "target",
      hint: "Something is wrong with more than a row: repair the target's table, then start again.",
    },
  );
}
