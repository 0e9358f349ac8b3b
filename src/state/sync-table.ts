/** The tables of a sync as the target remembers them. */
import type { TableMapping } from "../catalog/mapping.ts";
import type { TableDefinition } from "../catalog/table-definition.ts";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { INVALID_SCHEMA, UNDEFINED_TABLE, sqlstateOf } from "../postgres/sqlstate.ts";
import { stateVersion } from "./migrate.ts";

/**
 * new: nothing copied (set by init). copying: indexes saved and dropped, parts in the ledger (copy). loaded: all
 * parts are in, indexes deferred (copy). copied: ready for deltas (copy). following: its position is the sync's
 * (follow). All survive a restart.
 */
export type TableState = "new" | "copying" | "loaded" | "copied" | "following";

export interface KnownPartition {
  readonly name: string;
  readonly bound: string;
  /** Our triggers on it, see catalog/partitions; absent until they have been looked at. */
  readonly triggers?: string;
  /** Which rows it takes, see sql/catalog/memberships; null: not to be compared; absent until it has been looked at. */
  readonly membership?: string | null;
  /** Detached or dropped since; kept so that its rows can be taken from the target. */
  readonly isGone?: boolean;
}

export interface SyncTable {
  readonly captureId: number;
  readonly sourceRelid: number;
  readonly sourceSchema: string;
  readonly sourceName: string;
  readonly targetRelid: number;
  readonly targetSchema: string;
  readonly targetName: string;
  readonly state: TableState;
  /** What the source's table was when the rows here were its rows, see catalog/fingerprint. */
  readonly fingerprint: string | null;
  /** The same of the table here; null: not known yet. */
  readonly targetFingerprint: string | null;
  /** What the source's table was in full then; null: not remembered, as in earlier versions. */
  readonly definition: TableDefinition | null;
  /** Leaf partitions of the source known to us, by oid. */
  readonly partitions: Readonly<Record<string, KnownPartition>>;
  /** The physical files that were copied; null: nothing was, the rows were there already. */
  readonly sourceFile: string | null;
  readonly rowsCopied: number;
  readonly bytesCopied: number;
  readonly bytesPlanned: number;
  readonly rowsApplied: number;
  readonly lastChangeAt: Date | null;
  /** The table has no key: it is read again as a whole when it has changed. */
  readonly isKeyless: boolean;
  /** Since when the target lacks changes of a keyless table that the position covers; null: it has them all. */
  readonly reloadSince: Date | null;
  /** Bytes on the source when the table was last reloaded, or put off. */
  readonly reloadBytes: number | null;
  /** How long the last reload took. */
  readonly reloadSeconds: number | null;
  /** What the rows on the target correspond to; null: the rows as they are. */
  readonly mapping: TableMapping | null;
}

/** All tables of a sync, by source name. Throws SYNC_UNKNOWN when the target knows no such sync. */
export async function loadTables(target: Connection, sync: string): Promise<SyncTable[]> {
  try {
    const found = await target.rows(`select 1 from replicate.sync where name = $1`, [sync]);
    if (found.length === 0) throw await unknownSync(target, sync);
    return await target.rows<SyncTable>(
      `select capture_id as "captureId", source_relid::bigint::float8 as "sourceRelid",
              source_schema as "sourceSchema", source_name as "sourceName",
              target_relid::bigint::float8 as "targetRelid",
              target_schema as "targetSchema", target_name as "targetName",
              state, fingerprint, partitions, source_file as "sourceFile",
              rows_copied::float8 as "rowsCopied", bytes_copied::float8 as "bytesCopied",
              bytes_planned::float8 as "bytesPlanned", rows_applied::float8 as "rowsApplied",
              last_change_at as "lastChangeAt", keyless as "isKeyless", reload_since as "reloadSince",
              reload_bytes::float8 as "reloadBytes", reload_seconds as "reloadSeconds", mapping,
              target_fingerprint as "targetFingerprint", definition
       from replicate.sync_table where sync = $1
       order by source_schema, source_name`,
      [sync],
    );
  } catch (error) {
    if ([UNDEFINED_TABLE, INVALID_SCHEMA].includes(sqlstateOf(error) ?? ""))
      throw await unknownSync(target, sync);
    throw error;
  }
}

/** The same; none where there is no such sync yet. Throws SYNC_MISMATCH where schema `replicate` is somebody else's. */
export async function loadKnownTables(target: Connection, sync: string): Promise<SyncTable[]> {
  if ((await stateVersion(target)) === 0) return [];
  return await loadTables(target, sync).catch((error: unknown) => {
    if (error instanceof ReplicateError && error.code === "SYNC_UNKNOWN") return [];
    throw error;
  });
}

/** Says where it was looked for, and what is there instead: another name, or the two sides exchanged. */
export async function unknownSync(target: Connection, sync: string): Promise<ReplicateError> {
  const names = async (table: "sync" | "source_sync"): Promise<string[]> => {
    const rows = await target
      .rows<{ name: string }>(
        `select name from replicate.${table} where name not like '%.%' order by 1 limit 10`,
      )
      // The name is of no sync, so there may be no state either.
      .catch(() => []);
    return rows.map(({ name }) => name);
  };
  const [here, fromHere] = [await names("sync"), await names("source_sync")];
  const hint = fromHere.includes(sync)
    ? `That database is the source of sync ${sync}: are source and target exchanged?`
    : here.length > 0
      ? `Is it the right target, and the right --name? It has: ${here.join(", ")}. A new sync begins with \`replicate init\`.`
      : "Is it the right target? A new sync begins with `replicate init`, with the same --name.";
  return new ReplicateError("SYNC_UNKNOWN", `the target ${target.place} knows no sync named ${sync}`, {
    side: "target",
    hint,
  });
}
