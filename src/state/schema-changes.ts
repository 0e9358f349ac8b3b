/** What a sync has changed in the schema of the target's tables, as the target remembers it. */
import type { Connection } from "../postgres/connect.ts";
import { INVALID_SCHEMA, UNDEFINED_TABLE, sqlstateOf } from "../postgres/sqlstate.ts";

/** A change of the source's schema. */
export interface SchemaChange {
  /** On the source, quoted where it has to be. */
  readonly table: string;
  /** As it was run on the target, or is to be run. */
  readonly statement: string;
  /**
   * applied: done. waiting: the target rejects it at the time, and nothing is applied until it does. owed: it is done after the
   * batch, outside of its transaction.
   */
  readonly state: "applied" | "waiting" | "owed";
  readonly noticedAt: string;
  readonly appliedAt: string | null;
  readonly seconds: number | null;
  /** Why it waits, and for whom. */
  readonly error: string | null;
}

/** How many are shown of those that are done. */
const MOST_APPLIED = 10;

/** All that are open, and the last ones of those that are done; the latest first. None where there is no state. */
export async function readSchemaChanges(target: Connection, sync: string): Promise<SchemaChange[]> {
  try {
    const rows = await target.rows<
      Omit<SchemaChange, "noticedAt" | "appliedAt"> & { noticedAt: Date; appliedAt: Date | null }
    >(
      `(select table_name as table, statement, state, noticed_at as "noticedAt", applied_at as "appliedAt", seconds, error
        from replicate.schema_change where sync = $1 and state <> 'applied' order by id desc)
       union all
       (select table_name, statement, state, noticed_at, applied_at, seconds, error
        from replicate.schema_change where sync = $1 and state = 'applied' order by id desc limit ${MOST_APPLIED})`,
      [sync],
    );
    return rows.map((row) => ({
      ...row,
      noticedAt: row.noticedAt.toISOString(),
      appliedAt: row.appliedAt?.toISOString() ?? null,
    }));
  } catch (error) {
    if ([UNDEFINED_TABLE, INVALID_SCHEMA].includes(sqlstateOf(error) ?? "")) return [];
    throw error;
  }
}
