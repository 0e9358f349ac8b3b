/** What a sync has changed in the schema of the target's tables, as the target remembers it. */
import type { TableDefinition } from "../catalog/table-definition.ts";
import type { Connection } from "../postgres/connect.ts";
import { literal } from "../postgres/sql.ts";
import { INVALID_SCHEMA, UNDEFINED_TABLE, sqlstateOf } from "../postgres/sqlstate.ts";

/** A change of the source's schema. */
export interface SchemaChange {
  /** On the source, quoted where it has to be. */
  readonly table: string;
  /** As it was run on the target, or is to be run. */
  readonly statement: string;
  /**
   * applied: done. waiting: the target rejects it at the time, and nothing is applied until it does. deferred: it is done after the
   * batch, outside of its transaction.
   */
  readonly state: "applied" | "waiting" | "deferred";
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

/** Remembers what tables of the source were in full when the rows here were their rows. */
export async function storeDefinitions(
  target: Connection,
  sync: string,
  all: readonly { readonly captureId: number; readonly definition: TableDefinition }[],
): Promise<void> {
  if (all.length === 0) return;
  await target.rows(
    `update replicate.sync_table as t set definition = d.definition
     from pg_catalog.jsonb_to_recordset($2::jsonb) as d ("captureId" int, definition jsonb)
     where t.sync = $1 and t.capture_id = d."captureId"`,
    [sync, JSON.stringify(all)],
  );
}

/** A change of one table, as it was made in a batch. */
export interface MadeChange {
  readonly captureId: number;
  readonly label: string;
  readonly fingerprint: string;
  readonly targetFingerprint: string;
  readonly definition: TableDefinition;
  readonly made: readonly { readonly statement: string; readonly seconds: number }[];
  /** Statements for later. */
  readonly deferred: readonly string[];
}

/** Writes down what a batch has changed, in its transaction. What waited is over with it. */
export function recordChangesSql(sync: string, changes: readonly MadeChange[]): string[] {
  return changes.flatMap(
    ({ captureId, label, fingerprint, targetFingerprint, definition, made, deferred }) => {
      const ofTable = `sync = ${literal(sync)} and capture_id = ${captureId}`;
      const rows = [
        ...made.map(
          ({ statement, seconds }) =>
            `(${literal(statement)}, 'applied', pg_catalog.clock_timestamp(), ${seconds})`,
        ),
        ...deferred.map((statement) => `(${literal(statement)}, 'deferred', null, null)`),
      ];
      return [
        `update replicate.sync_table set fingerprint = ${literal(fingerprint)},
         target_fingerprint = ${literal(targetFingerprint)}, definition = ${literal(JSON.stringify(definition))}
       where ${ofTable}`,
        `delete from replicate.schema_change where ${ofTable} and state = 'waiting'`,
        ...(rows.length === 0
          ? []
          : [
              `insert into replicate.schema_change (sync, capture_id, table_name, statement, state, applied_at, seconds)
             select ${literal(sync)}, ${captureId}, ${literal(label)}, r.statement, r.state, r.applied_at::timestamptz, r.seconds::float8
             from (values ${rows.join(", ")}) as r (statement, state, applied_at, seconds)`,
            ]),
      ];
    },
  );
}

/** Remembers the change that the target does not take; undefined: none is waited for any more. */
export async function storeWaiting(
  target: Connection,
  sync: string,
  waiting: { captureId: number; label: string; statement: string; error: string } | undefined,
): Promise<void> {
  await target.transaction(async () => {
    await target.rows(
      `delete from replicate.schema_change
       where sync = $1 and state = 'waiting' and (capture_id, statement) is distinct from ($2::int, $3::text)`,
      [sync, waiting?.captureId ?? null, waiting?.statement ?? null],
    );
    if (waiting === undefined) return;
    const known = await target.rows(
      `update replicate.schema_change set error = $3 where sync = $1 and state = 'waiting' and capture_id = $2 returning 1`,
      [sync, waiting.captureId, waiting.error],
    );
    if (known.length > 0) return;
    await target.rows(
      `insert into replicate.schema_change (sync, capture_id, table_name, statement, state, error)
       values ($1, $2, $3, $4, 'waiting', $5)`,
      [sync, waiting.captureId, waiting.label, waiting.statement, waiting.error],
    );
  });
}

/** A change that is to be made outside of a batch. */
export interface DeferredChange {
  readonly id: number;
  readonly table: string;
  readonly statement: string;
  /** What the source's table was in full when the rows here were its rows. */
  readonly definition: TableDefinition | null;
}

/** The first one that is open, but for these. */
export async function nextDeferred(
  target: Connection,
  sync: string,
  without: readonly number[],
): Promise<DeferredChange | undefined> {
  const [next] = await target.rows<DeferredChange>(
    `select c.id::float8 as id, c.table_name as table, c.statement, t.definition
     from replicate.schema_change c
     join replicate.sync_table t on t.sync = c.sync and t.capture_id = c.capture_id
     where c.sync = $1 and c.state = 'deferred' and c.id <> all ($2::bigint[])
     order by c.id limit 1`,
    [sync, without],
  );
  return next;
}

/** Statements that are to be run outside of a batch. */
export async function deferredStatements(target: Connection, sync: string): Promise<Set<string>> {
  const rows = await target.rows<{ statement: string }>(
    `select statement from replicate.schema_change where sync = $1 and state = 'deferred'`,
    [sync],
  );
  return new Set(rows.map(({ statement }) => statement));
}

export async function endDeferred(target: Connection, id: number, seconds: number): Promise<void> {
  await target.rows(
    `update replicate.schema_change
     set state = 'applied', applied_at = pg_catalog.clock_timestamp(), seconds = $2, error = null
     where id = $1 and state = 'deferred'`,
    [id, seconds],
  );
}

export async function noteDeferredFailure(target: Connection, id: number, error: string): Promise<void> {
  await target.rows(`update replicate.schema_change set error = $2 where id = $1`, [id, error]);
}

/** The source has no such thing any more. */
export async function forgetDeferred(target: Connection, id: number): Promise<void> {
  await target.rows(`delete from replicate.schema_change where id = $1 and state = 'deferred'`, [id]);
}

/** Constraints that the copy has taken away and that are to come back, by table: `foreign-key name`, `check name`. */
export async function takenAway(target: Connection, sync: string): Promise<Map<string, Set<string>>> {
  const rows = await target.rows<{ table: string; names: string[] }>(
    // Not by capture: a foreign key may have gone for the sake of the table that it leads to.
    `select table_name as table, pg_catalog.array_agg(kind || ' ' || object_name) as names from replicate.deferred
     where sync = $1 and restored_at is null and kind in ('foreign-key', 'check') group by 1`,
    [sync],
  );
  return new Map(rows.map(({ table, names }) => [table, new Set(names)]));
}
