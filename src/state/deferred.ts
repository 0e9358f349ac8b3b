/**
 * The ledger of what was taken away from the target's tables and has to come back. An object is written down in the
 * transaction that drops it and crossed out in the one that restores it, so after any crash the ledger is right.
 */
import { stages, type DeferredKind, type Removal } from "../catalog/definitions.ts";
import { OWN_PATH } from "../catalog/search-path.ts";
import { ReplicateError } from "../errors.ts";
import type { Connection, Results } from "../postgres/connect.ts";
import { failpoint, inSteps } from "../postgres/failpoint.ts";
import { literal, withArgument } from "../postgres/sql.ts";
import { asReplicateError } from "../postgres/sqlstate.ts";

/** Indexes, keys and exclusion constraints, and the statistics over them: what a table needs to be ready for deltas. */
export const loadKinds: readonly DeferredKind[] = ["key", "index", "attach", "constraint", "analyze"];
export const allKinds: readonly DeferredKind[] = [...loadKinds, "foreign-key", "check", "trigger", "rule"];

export interface DeferredFilter {
  readonly kinds: readonly DeferredKind[];
  /** Default: all tables of the sync. */
  readonly captureIds?: readonly number[];
  /** Only tables in this state. */
  readonly state?: "loaded";
}

export interface Deferred {
  readonly id: number;
  readonly captureId: number;
  readonly kind: DeferredKind;
  readonly objectName: string;
  readonly tableName: string;
  readonly statements: readonly string[];
}

/**
 * Statements that write the removals down, and those that carry them out: for one transaction, in this order. `bytes`
 * estimates what a relation will hold when the object is restored, for the order of restoring.
 */
export function saveAndDropSql(
  sync: string,
  captureId: number,
  removals: readonly Removal[],
  bytes: (relid: number) => number,
): { readonly save: readonly string[]; readonly drop: readonly string[] } {
  const array = (statements: readonly string[]): string =>
    `array[${statements.map((each) => literal(each)).join(", ")}]::text[]`;
  const rows = removals.map(
    (each) =>
      `(${[
        literal(sync), captureId, literal(each.kind), literal(each.objectName), literal(each.tableName), each.stage,
        array(each.restore), literal(each.validate),
        literal(each.validateGently ?? null), Math.round(bytes(each.relid)),
      ].join(", ")})`, // prettier-ignore
  );
  return {
    save: [
      // Of an earlier load: they would count once more. What that load had to leave NOT VALID stays known.
      `delete from replicate.deferred
       where sync = ${literal(sync)} and capture_id = ${captureId} and restored_at is not null
         and left_invalid is null and kind in (${loadKinds.map((kind) => literal(kind)).join(", ")})`,
      ...(rows.length === 0
        ? []
        : [
            `insert into replicate.deferred
               (sync, capture_id, kind, object_name, table_name, stage, statements, validate, validate_gently, bytes)
             values ${rows.join(",\n")}`,
            // What was given back and not validated yet is still to be validated when it comes back again.
            `update replicate.deferred o set validate = e.validate, validate_gently = e.validate_gently
             from replicate.deferred e
             where o.sync = ${literal(sync)} and o.restored_at is null and o.kind = 'foreign-key' and o.validate is null
               and e.sync = o.sync and e.kind = o.kind and e.table_name = o.table_name and e.object_name = o.object_name
               and e.restored_at is not null and e.validate is not null and e.validated_at is null and e.left_invalid is null`,
            // What comes back tells for itself.
            `delete from replicate.deferred e using replicate.deferred o
             where o.sync = ${literal(sync)} and o.restored_at is null and o.kind = 'foreign-key'
               and e.sync = o.sync and e.kind = o.kind and e.table_name = o.table_name and e.object_name = o.object_name
               and e.restored_at is not null and e.left_invalid is null`,
          ]),
    ],
    drop: removals.flatMap((each) => (each.drop === null ? [] : [each.drop])),
  };
}

/** Rows of the ledger that the filter selects and that are still open, as SQL over the alias `o`. */
function openSql(sync: string, filter: DeferredFilter, without: readonly number[]): string {
  const list = (values: readonly (string | number)[]): string =>
    values.map((each) => literal(each)).join(", ");
  return [
    `o.sync = ${literal(sync)} and o.restored_at is null`,
    `o.kind in (${list(filter.kinds)})`,
    ...(filter.captureIds === undefined
      ? []
      : [`o.capture_id = any ('{${filter.captureIds.join(",")}}'::int[])`]),
    ...(without.length === 0 ? [] : [`o.id not in (${list(without)})`]),
    ...(filter.state === undefined
      ? []
      : [
          `exists (select 1 from replicate.sync_table t
             where t.sync = o.sync and t.capture_id = o.capture_id and t.state = ${literal(filter.state)})`,
        ]),
  ].join(" and ");
}

/** How many rows of the ledger are open. */
export async function countDeferred(
  target: Connection,
  sync: string,
  filter: DeferredFilter,
): Promise<number> {
  const { open } = await target.row<{ open: number }>(
    `select count(*)::int as open from replicate.deferred o where ${openSql(sync, filter, [])}`,
  );
  return open;
}

export interface RestoreOptions {
  /** Session settings for the transaction that restores, such as maintenance_work_mem. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Settings added when no more than this many rows are open, for the last builds of all. */
  readonly lastSettings?: { readonly rows: number; readonly settings: Readonly<Record<string, string>> };
  /** Ids that were tried before and failed: passed over, and nobody waits for them. */
  readonly without?: readonly number[];
  /** Told before the object is built; of several the first. */
  readonly onTaken?: (deferred: Deferred) => void;
  /** Statements that run in a transaction of their own after the commit. */
  readonly afterwards?: (deferred: Deferred) => readonly string[];
}

export interface Restored {
  /** All of one table. */
  readonly deferred: readonly Deferred[];
  /** Of `afterwards`, one per statement. */
  readonly results: Results;
}

/** Small objects of one table are restored together: so many at most, each of no more bytes than this. */
const MOST_AT_ONCE = 50;
const SMALL_BYTES = 1024 * 1024;

const ownColumns = `o.id, o.capture_id as "captureId", o.kind, o.object_name as "objectName", o.table_name as "tableName", o.statements`;

/**
 * Restores one object, or several small ones of a table: takes rows that nobody else works on and that nothing has to go
 * before, runs their statements, and crosses them out, in one transaction. Returns the rows; "busy" when there are open
 * rows but none can be taken now; "none" when nothing is open. Throws RestoreError.
 */
export async function restoreNext(
  target: Connection,
  sync: string,
  filter: DeferredFilter,
  options: RestoreOptions = {},
): Promise<Restored | "busy" | "none"> {
  const without = options.without ?? [];
  const open = openSql(sync, filter, without);
  const passed = without.length === 0 ? "" : `and e.id not in (${without.join(", ")})`;
  const ahead = `replicate.deferred e where e.sync = ${literal(sync)} and e.restored_at is null ${passed}`;
  // Foreign keys reach into other tables, so they wait for the keys of all; the rest waits within its table.
  const results = await target.script(
    `begin;
     select ${ownColumns}, o.stage, o.kind <> 'foreign-key' and o.bytes <= ${SMALL_BYTES} as "isSmall"
     from replicate.deferred o
     where ${open}
       and o.stage <= case when o.stage >= ${stages.foreignKey}
         then (select min(e.stage) from ${ahead})
         -- A value that is computed once: joined, it is for each row where the ledger has no statistics.
         else ((select pg_catalog.jsonb_object_agg(f.capture_id::text, f.stage)
                from (select e.capture_id, min(e.stage) as stage from ${ahead} group by e.capture_id) as f)
               ->> o.capture_id::text)::int end
     order by o.kind = 'key' desc, o.bytes desc, o.id
     limit 1 for update of o skip locked;
     select count(*)::int as open from replicate.deferred o where ${open}`,
  );
  const [taken] = (results.at(-2)?.rows ?? []) as Taken[];
  const [counted] = (results.at(-1)?.rows ?? []) as { open: number }[];
  if (taken === undefined) {
    await target.script("rollback");
    return counted?.open === 0 ? "none" : "busy";
  }
  const { settings = {}, lastSettings } = options;
  const isLast = lastSettings !== undefined && (counted?.open ?? 0) <= lastSettings.rows;
  const set = Object.entries({ ...settings, ...(isLast ? lastSettings.settings : {}) }).map(
    ([name, value]) => `set local ${name} = ${literal(value)}`,
  );
  const all = taken.isSmall ? [taken, ...(await takeAlike(target, open, taken))] : [taken];
  await failpoint("deferred.taken");
  options.onTaken?.(taken);
  try {
    if (all.length === 1) return await restore(target, all, set, options);
    await target.script("savepoint taken");
    return await restore(target, all, set, options).catch(async (error: unknown) => {
      if (target.isBroken) throw error;
      // Which of them it was, each tells by itself.
      await target.script("rollback to savepoint taken");
      return await restore(target, [taken], set, options);
    });
  } catch (error) {
    if (!target.isBroken) await target.script("rollback").catch(() => target.destroy());
    throw new RestoreError(taken, error);
  }
}

/**
 * Takes everything that the filter selects in the order of restoring, in a transaction that stays open; nothing where
 * another process has some of it in hand, or something else has to go before.
 */
export async function takeAll(target: Connection, sync: string, filter: DeferredFilter): Promise<Deferred[]> {
  await target.script("begin");
  const { open } = await target.row<{ open: number }>(
    `select count(*)::int as open from replicate.deferred where sync = $1 and restored_at is null`,
    [sync],
  );
  const taken = await target.rows<Deferred>(
    `select ${ownColumns} from replicate.deferred o where ${openSql(sync, filter, [])}
     order by o.stage, o.id for update of o skip locked`,
  );
  return taken.length === open ? taken : [];
}

interface Taken extends Deferred {
  readonly stage: number;
  readonly isSmall: boolean;
}

/** Takes further small ones that may be restored at the same time, being alike. */
async function takeAlike(target: Connection, open: string, taken: Taken): Promise<Deferred[]> {
  return await target.rows<Deferred>(
    `select ${ownColumns} from replicate.deferred o
     where ${open} and o.capture_id = $1 and o.stage = $2 and o.kind = $3 and o.id <> $4 and o.bytes <= ${SMALL_BYTES}
     order by o.bytes desc, o.id limit ${MOST_AT_ONCE - 1} for update of o skip locked`,
    [taken.captureId, taken.stage, taken.kind, taken.id],
  );
}

async function restore(
  target: Connection,
  deferred: readonly Deferred[],
  set: readonly string[],
  { afterwards }: RestoreOptions,
): Promise<Restored> {
  const after = afterwards?.(deferred[0] as Deferred) ?? [];
  const ids = deferred.map(({ id }) => id).join(", ");
  const all = await inSteps(target, [
    ["deferred.restored", [...set, ...deferred.flatMap((each) => underPath(each, each.statements))]],
    [
      "deferred.marked",
      [
        `update replicate.deferred set restored_at = pg_catalog.clock_timestamp(), left_invalid = null where id in (${ids})`,
      ],
    ],
    ["deferred.committed", ["commit"]],
    ["deferred.moved", after],
  ]);
  return { deferred, results: after.length === 0 ? [] : all.slice(-after.length) };
}

/**
 * Statistics are taken, and rows of other tables looked for, by what the application has written: under its search path. A
 * definition that is parsed anew means what it says under our own path only.
 */
export function underPath(
  { id, kind }: Pick<Deferred, "id" | "kind">,
  statements: readonly string[],
): readonly string[] {
  if (kind !== "analyze" && kind !== "foreign-key") return statements;
  const relids = `array(select t.target_relid from replicate.deferred o
    join replicate.sync_table t on t.sync = o.sync and t.capture_id = o.capture_id where o.id = ${id})`;
  const path = `select p.path from (${withArgument("catalog/search-path", relids)}) as p limit 1`;
  return [
    `select pg_catalog.set_config('search_path', coalesce((${path}), 'pg_catalog'), true)`,
    ...statements,
    OWN_PATH,
  ];
}

/**
 * Whether a row that could not be restored has been overtaken: somebody began its table anew meanwhile, so that something
 * has to go before it again, or restored it.
 */
export async function isOvertaken(
  target: Connection,
  sync: string,
  { id, captureId }: Deferred,
): Promise<boolean> {
  const { overtaken } = await target.row<{ overtaken: boolean }>(
    `select not exists (select 1 from replicate.deferred where id = $3 and restored_at is null)
         or exists (
           select 1 from replicate.deferred e
           where e.sync = $1 and e.capture_id = $2 and e.restored_at is null
             and e.stage < (select stage from replicate.deferred where id = $3)) as overtaken`,
    [sync, captureId, id],
  );
  return overtaken;
}

/** A row of the ledger could not be restored; it stays open. */
export class RestoreError extends Error {
  override readonly name = "RestoreError";
  readonly deferred: Deferred;

  constructor(deferred: Deferred, cause: unknown) {
    super(`cannot restore ${describe(deferred)}`, { cause });
    this.deferred = deferred;
  }
}

function describe(deferred: Deferred): string {
  return deferred.kind === "analyze"
    ? `the statistics of ${deferred.tableName}`
    : `${deferred.objectName} on ${deferred.tableName}`;
}

/** The error that a caller shows for it. */
export function restoreFailure(failure: RestoreError): ReplicateError {
  const error = asReplicateError(failure.cause, failure.message);
  if (error.code !== "STATEMENT_FAILED") return error;
  return new ReplicateError("STATEMENT_FAILED", error.message, {
    cause: error.cause,
    hint: `Repair what the message says and run the command again. The statement is: ${failure.deferred.statements.join("; ")}`,
    ...(error.sqlstate === undefined ? {} : { sqlstate: error.sqlstate }),
  });
}
