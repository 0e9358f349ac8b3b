/**
 * What is to be left out where changes also go from the target to the source: those that the source does not have yet,
 * and rows of skipped conflicts. While both snapshots are taken, the way back is kept from committing on the source, so
 * that what the source has of the target's changes is known exactly: those up to its position.
 */
import {
  changedKeysSql,
  deltaTables,
  foreignSql,
  loadCaptures,
  windowSql,
  type Capture,
} from "../catalog/delta.ts";
import { fromText } from "../catalog/text-form.ts";
import type { ResolvedConfig } from "../config/options.ts";
import type { Connection } from "../postgres/connect.ts";
import { relayCopy } from "../postgres/copy-relay.ts";
import { literal } from "../postgres/sql.ts";
import { reverseName } from "../state/switch.ts";
import { keyColumnsSql } from "./key-sql.ts";
import type { TablePlan } from "./plan.ts";
import type { SessionPair } from "./session-pair.ts";

/** How the target's changes of one table are captured. */
export interface BackCapture {
  /** The sync's own name. */
  readonly base: string;
  readonly capture: Capture;
  /** Where the capture has the columns of the key, in the order of the plan's. */
  readonly order: readonly number[];
}

/** Temporary table on both sides with the keys to leave out. */
export const BACK = "replicate_back";

/** The captures of the way back, by table of the target. None for a sync that goes one way. */
export async function backCaptures(
  target: Connection,
  config: ResolvedConfig,
): Promise<Map<number, Capture>> {
  if (config.direction === "one-way") return new Map();
  const subscribed = await target.rows<{ id: number }>(
    `select capture_id as id from replicate.subscription where sync = $1`,
    [reverseName(config.name)],
  );
  const captures = await loadCaptures(target, subscribed.map(({ id }) => id)); // prettier-ignore
  return new Map(captures.map((capture) => [capture.relid, capture]));
}

export function backCapture(config: ResolvedConfig, plan: TablePlan, capture: Capture): BackCapture {
  const order = plan.key.map((key) =>
    capture.keyColumns.findIndex(({ attnum }) => attnum === key.target.attnum),
  );
  return { base: config.name, capture, order };
}

/** Keeps the way back from committing until `rollback` of the session. Returns its position. */
export async function pinReverse(session: Connection, { base }: BackCapture): Promise<string | null> {
  await session.script("begin; set local lock_timeout = '2s'");
  const [way] = await session.rows<{ position: string | null }>(
    `select position from replicate.sync where name = $1 for share`,
    [reverseName(base)],
  );
  return way?.position ?? null;
}

/**
 * Puts the keys to leave out into a table on either side, in both snapshots. Returns how many there are; `isTruncated`: the
 * table was emptied on the target, and the source does not have that yet.
 */
export async function stageBack(
  pair: SessionPair,
  plan: TablePlan,
  back: BackCapture,
  position: string | null,
  signal: AbortSignal,
): Promise<{ readonly keys: number; readonly isTruncated: boolean }> {
  const { base, capture, order } = back;
  const window = `${windowSql(position)}${foreignSql(capture, base)}`;
  const markers = deltaTables(capture.id)
    .map((delta) => `exists (select from ${delta} where truncated is not null and ${window})`)
    .join(" or ");
  const types = plan.target.key.map(({ type }) => type);
  const asKey = (texts: string, at: (n: number) => number): string =>
    types.map((type, n) => fromText(`${texts}[${at(n) + 1}]`, type)).join(", ");
  const kept = (relid: number | string): string =>
    `from replicate.conflict as c cross join lateral (values (c.key_texts), (c.other_key_texts)) as k (key)
     where c.sync = ${literal(base)} and c.relid = ${relid} and c.resolved_at is null and k.key is not null`;
  // The source's log has keys in the order of the capture that the way back reads.
  const onSource = await pair.source.rows<{ key: string[] }>(`select k.key ${kept(plan.source.relid)}`);
  const texts = onSource.map(({ key }) => `array[${key.map(literal).join(", ")}]::text[]`);
  const result = await pair.target.script(
    `create temporary table ${BACK} (${keyColumnsSql(plan.target.key, "k")}) on commit drop;
     insert into pg_temp.${BACK}
       select ${order.map((k) => `d.k${k + 1}`).join(", ")} from (${changedKeysSql(capture, window)}) as d
       union select ${asKey("k.key", (n) => n)} ${kept(plan.target.relid)}
       ${texts.map((key) => `union select ${asKey(`(${key})`, (n) => order[n] as number)}`).join(" ")};
     select ${markers} as "isTruncated"`,
  );
  const keys = result[1]?.rowCount ?? 0;
  const [marked] = (result[2]?.rows ?? []) as { isTruncated: boolean }[];
  await pair.source.script(
    `create temporary table ${BACK} (${keyColumnsSql(plan.source.key, "k")}) on commit drop`,
  );
  if (keys > 0) {
    await relayCopy(pair.target, pair.source, {
      read: `copy pg_temp.${BACK} to stdout`,
      write: `copy pg_temp.${BACK} from stdin`,
      signal,
    });
  }
  return { keys, isTruncated: marked?.isTruncated === true };
}
