/** Whether a database is the source that the target of a sync knows, and has not lost what was applied. */
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { sqlstateOf } from "../postgres/sqlstate.ts";
import type { Position } from "./apply-batch.ts";

/** Source and target must know each other's token, and the source's transaction ids must not have gone back. Throws SOURCE_LOST. */
export async function checkSource(source: Connection, sync: string, position: Position): Promise<void> {
  let known: { token: string; previous: string; xmax: string } | undefined;
  try {
    [known] = await source.rows<{ token: string; previous: string; xmax: string }>(
      `select token, previous_token as previous,
              pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot())::text as xmax
       from replicate.source_sync where name = $1`,
      [sync],
    );
  } catch (error) {
    if (!["42P01", "3F000"].includes(sqlstateOf(error) ?? "")) throw error;
  }
  const lost = (why: string): ReplicateError =>
    new ReplicateError("SOURCE_LOST", `this is not the source that sync ${sync} knows: ${why}`);
  if (known === undefined) throw lost("it has no state of this sync");
  if (known.token !== position.token && known.previous !== position.token) {
    throw lost(
      "it lacks what was already applied, so it was restored from an older copy or failed over with loss",
    );
  }
  const xmax = position.snapshot?.split(":")[1];
  if (xmax !== undefined && BigInt(xmax) > BigInt(known.xmax)) throw lost("its transaction ids went back");
}
