/** Tables without a key are compared as what they are: rows in any number, in no order. */
import type { Side } from "../events.ts";
import { recordReload } from "../capture/record-changes.ts";
import { relayCopy } from "../postgres/copy-relay.ts";
import type { DrillRequest, PartDifferences } from "./difference.ts";
import { rowsFrom } from "./ranges.ts";
import { RepairError } from "./repair.ts";
import type { SessionPair } from "./session-pair.ts";

/** `conditions`: those of the request, and what narrows them down to rows that may differ. */
export async function countUnpaired(
  pair: SessionPair,
  request: DrillRequest,
  conditions: DrillRequest["conditions"],
): Promise<PartDifferences> {
  const { plan, checksum, signal } = request;
  const grouped = (side: Side): string =>
    `select r.hash, pg_catalog.count(*) as n
     from (select ${checksum.hashRow(plan[side].fields)} as hash from ${rowsFrom(plan[side], conditions[side])} offset 0) as r
     group by r.hash`;
  await pair.target.script(
    `create temporary table replicate_source_row (hash bigint, n bigint) on commit drop`,
  );
  await relayCopy(pair.source, pair.target, {
    read: `copy (${grouped("source")}) to stdout`,
    write: `copy pg_temp.replicate_source_row from stdin`,
    signal,
  });
  const { missing, extra } = await pair.target.row<{ missing: number; extra: number }>(
    `select coalesce(pg_catalog.sum(greatest(d.n, 0)), 0)::float8 as missing,
            coalesce(pg_catalog.sum(greatest(-d.n, 0)), 0)::float8 as extra
     from (select coalesce(s.n, 0) - coalesce(t.n, 0) as n
           from pg_temp.replicate_source_row as s full join (${grouped("target")}) as t on s.hash = t.hash) as d`,
  );
  return {
    total: missing + extra,
    parked: 0,
    listed: [],
    unpaired: { missing, extra },
    repaired: request.repair ? await askReload(pair, plan.capture.id, missing + extra) : 0,
  };
}

/** The whole table comes again with the next batch. */
async function askReload(pair: SessionPair, captureId: number, rows: number): Promise<number> {
  try {
    await Promise.all([pair.source.script("commit"), pair.target.script("commit")]);
    await recordReload(pair.source, captureId);
    return rows;
  } catch (error) {
    throw new RepairError(error);
  }
}
