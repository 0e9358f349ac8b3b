/**
 * The ledger of what was taken away from the target's tables and has to come back. An object is written down in the
 * transaction that drops it and crossed out in the one that restores it, so after any crash the ledger is right.
 */
import type { OwedKind, Removal } from "../catalog/definitions.ts";
import { ReplicateError, type Problem } from "../errors.ts";
import type { Connection, Results } from "../postgres/connect.ts";
import { failpoint, inSteps } from "../postgres/failpoint.ts";
import { sleep } from "../postgres/sleep.ts";
import { literal } from "../postgres/sql.ts";
import {
  asReplicateError,
  isConnectionFailure,
  isRetryableConflict,
  sqlstateOf,
} from "../postgres/sqlstate.ts";
import type { SyncContext } from "./context.ts";

/** Indexes, keys and exclusion constraints, and the statistics over them: what a table needs to be ready for deltas. */
export const loadKinds: readonly OwedKind[] = ["key", "index", "attach", "constraint", "analyze"];
export const allKinds: readonly OwedKind[] = [...loadKinds, "foreign-key", "trigger", "rule"];

export interface OwedFilter {
  readonly kinds: readonly OwedKind[];
  /** Default: all tables of the sync. */
  readonly captureIds?: readonly number[];
  /** Only tables in this state. */
  readonly state?: "loaded";
}

export interface Owed {
  readonly id: number;
  readonly captureId: number;
  readonly kind: OwedKind;
  readonly objectName: string;
  readonly tableName: string;
  readonly statements: readonly string[];
}

/**
 * Statements that write the removals down, and those that carry them out: for one transaction, in this order. `bytes`
 * estimates what a relation will hold when the object is restored, for the order of restoring.
 */
export function takeAwaySql(
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
        array(each.restore), literal(each.validate), Math.round(bytes(each.relid)),
      ].join(", ")})`, // prettier-ignore
  );
  return {
    save: [
      // Of an earlier load: they would count once more. What that load had to leave NOT VALID stays known.
      `delete from replicate.owed
       where sync = ${literal(sync)} and capture_id = ${captureId} and restored_at is not null
         and left_invalid is null and kind in (${loadKinds.map((kind) => literal(kind)).join(", ")})`,
      ...(rows.length === 0
        ? []
        : [
            `insert into replicate.owed
               (sync, capture_id, kind, object_name, table_name, stage, statements, validate, bytes)
             values ${rows.join(",\n")}`,
          ]),
    ],
    drop: removals.flatMap((each) => (each.drop === null ? [] : [each.drop])),
  };
}

/** Rows of the ledger that the filter selects and that are still open, as SQL over the alias `o`. */
function openSql(sync: string, filter: OwedFilter, without: readonly number[]): string {
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
export async function countOwed(target: Connection, sync: string, filter: OwedFilter): Promise<number> {
  const { open } = await target.row<{ open: number }>(
    `select count(*)::int as open from replicate.owed o where ${openSql(sync, filter, [])}`,
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
  /** Told before the object is built. */
  readonly onTaken?: (owed: Owed) => void;
  /** Statements that run in a transaction of their own after the commit. */
  readonly afterwards?: (owed: Owed) => readonly string[];
}

export interface Restored {
  readonly owed: Owed;
  /** Of `afterwards`, one per statement. */
  readonly results: Results;
}

/**
 * Restores one object: takes a row that nobody else works on and that nothing has to go before, runs its statements, and
 * crosses it out, in one transaction. Returns the row; "busy" when there are open rows but none can be taken now; "none"
 * when nothing is open. Throws RestoreError.
 */
export async function restoreNext(
  target: Connection,
  sync: string,
  filter: OwedFilter,
  options: RestoreOptions = {},
): Promise<Restored | "busy" | "none"> {
  const without = options.without ?? [];
  const open = openSql(sync, filter, without);
  // Foreign keys reach into other tables, so they wait for the keys of all; the rest waits within its table.
  const results = await target.script(
    `begin;
     select o.id, o.capture_id as "captureId", o.kind, o.object_name as "objectName", o.table_name as "tableName", o.statements
     from replicate.owed o
     where ${open}
       and not exists (
         select 1 from replicate.owed e
         where e.sync = o.sync and e.restored_at is null and e.stage < o.stage
           and (e.capture_id = o.capture_id or o.stage >= 50)
           ${without.length === 0 ? "" : `and e.id not in (${without.join(", ")})`})
     order by o.kind = 'key' desc, o.bytes desc, o.id
     limit 1 for update of o skip locked;
     select count(*)::int as open from replicate.owed o where ${open}`,
  );
  const [taken] = (results.at(-2)?.rows ?? []) as Owed[];
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
  await failpoint("owed.taken");
  options.onTaken?.(taken);
  try {
    const after = options.afterwards?.(taken) ?? [];
    const all = await inSteps(target, [
      ["owed.restored", [...set, ...taken.statements]],
      [
        "owed.marked",
        [
          `update replicate.owed set restored_at = pg_catalog.clock_timestamp(), left_invalid = null where id = ${taken.id}`,
        ],
      ],
      ["owed.committed", ["commit"]],
      ["owed.moved", after],
    ]);
    return { owed: taken, results: after.length === 0 ? [] : all.slice(-after.length) };
  } catch (error) {
    if (!target.isBroken) await target.script("rollback").catch(() => target.destroy());
    throw new RestoreError(taken, error);
  }
}

/**
 * Whether a row that could not be restored has been overtaken: somebody began its table anew meanwhile, so that something
 * has to go before it again, or restored it.
 */
export async function isOvertaken(
  target: Connection,
  sync: string,
  { id, captureId }: Owed,
): Promise<boolean> {
  const { overtaken } = await target.row<{ overtaken: boolean }>(
    `select not exists (select 1 from replicate.owed where id = $3 and restored_at is null)
         or exists (
           select 1 from replicate.owed e
           where e.sync = $1 and e.capture_id = $2 and e.restored_at is null
             and e.stage < (select stage from replicate.owed where id = $3)) as overtaken`,
    [sync, captureId, id],
  );
  return overtaken;
}

/** A row of the ledger could not be restored; it stays open. */
export class RestoreError extends Error {
  override readonly name = "RestoreError";
  readonly owed: Owed;

  constructor(owed: Owed, cause: unknown) {
    super(`cannot restore ${describe(owed)}`, { cause });
    this.owed = owed;
  }
}

function describe(owed: Owed): string {
  return owed.kind === "analyze"
    ? `the statistics of ${owed.tableName}`
    : `${owed.objectName} on ${owed.tableName}`;
}

/** The error that a caller shows for it. */
export function restoreFailure(failure: RestoreError): ReplicateError {
  const error = asReplicateError(failure.cause, failure.message);
  if (error.code !== "STATEMENT_FAILED") return error;
  return new ReplicateError("STATEMENT_FAILED", error.message, {
    cause: failure.cause,
    hint: `Repair what the message says and run the command again. The statement is: ${failure.owed.statements.join("; ")}`,
    ...(error.sqlstate === undefined ? {} : { sqlstate: error.sqlstate }),
  });
}

export interface PayOptions {
  /** Default: everything. */
  readonly kinds?: readonly OwedKind[];
  /** Default: all tables of the sync. */
  readonly captureIds?: readonly number[];
}

export interface PayReport {
  /** Objects restored by this call. */
  readonly restored: number;
  /** Constraints that hold rows they would not accept, by this or an earlier call: they are NOT VALID now. */
  readonly leftInvalid: readonly LeftInvalid[];
  /** What could not be restored and stays in the ledger, each with the statement that would do it. */
  readonly failed: readonly Problem[];
}

export interface LeftInvalid {
  readonly table: string;
  readonly constraint: string;
  readonly reason: string;
}

/**
 * Restores everything in the ledger that the options select, then validates the foreign keys among it. Goes on after
 * an object that cannot be restored, and reports it. A key whose rows have no partner stays NOT VALID and is
 * reported. Throws CONNECTION_LOST and ABORTED; what is restored by then stays restored.
 */
export async function payOwed(context: SyncContext, options: PayOptions = {}): Promise<PayReport> {
  const sync = context.config.name;
  const kinds = options.kinds ?? allKinds;
  const filter: OwedFilter = {
    kinds,
    ...(options.captureIds === undefined ? {} : { captureIds: options.captureIds }),
  };
  const failed = new Map<number, Problem>();
  let restored = 0;
  await using target = await context.target("restore");
  for (let busy = 0, conflicts = 0; ;) {
    const startedAt = Date.now();
    try {
      const done = await restoreNext(target, sync, filter, { without: [...failed.keys()] });
      if (done === "none") break;
      if (done === "busy") {
        // Another process has the rest in hand.
        busy += 1;
        await sleep(Math.min(50 * busy, 1000), context.signal);
        continue;
      }
      busy = 0;
      conflicts = 0;
      restored += 1;
      emitRestored(context, done.owed, (Date.now() - startedAt) / 1000);
    } catch (error) {
      if (!(error instanceof RestoreError)) throw asReplicateError(error, "cannot read what is owed");
      if (target.isBroken || isConnectionFailure(error.cause)) throw restoreFailure(error);
      if (isRetryableConflict(error.cause) && conflicts < 100) {
        conflicts += 1;
        await sleep(Math.min(100 * conflicts, 3000), context.signal);
        continue;
      }
      failed.set(error.owed.id, {
        subject: error.owed.tableName,
        message: restoreFailure(error).message,
        remedy: `${error.owed.statements.join("; ")};`,
      });
      if (error.owed.kind === "foreign-key") {
        await target.rows(`update replicate.owed set left_invalid = $2 where id = $1`, [
          error.owed.id,
          error.cause instanceof Error ? error.cause.message : String(error.cause),
        ]);
      }
      context.emit({ type: "warning", message: restoreFailure(error).message });
    }
  }
  if (kinds.includes("foreign-key")) await validateAll(context, target, filter);
  return { restored, failed: [...failed.values()], leftInvalid: await loadLeftInvalid(target, sync) };
}

function emitRestored(context: SyncContext, owed: Owed, seconds: number): void {
  if (["key", "index", "constraint"].includes(owed.kind)) {
    context.emit({ type: "index-built", table: owed.tableName, index: owed.objectName, seconds });
  }
}

/** Constraints of this sync that could not be made valid, or not be added at all. */
export async function loadLeftInvalid(target: Connection, sync: string): Promise<LeftInvalid[]> {
  return await target.rows<LeftInvalid>(
    `select table_name as "table", object_name as "constraint", left_invalid as "reason"
     from replicate.owed where sync = $1 and left_invalid is not null order by table_name, object_name`,
    [sync],
  );
}

/** Validates restored foreign keys one by one: each reads its table once, without keeping anybody from writing. */
async function validateAll(context: SyncContext, target: Connection, filter: OwedFilter): Promise<void> {
  const sync = context.config.name;
  for (let conflicts = 0; ;) {
    await target.script("begin");
    const [next] = await target.rows<{ id: number; table: string; constraint: string; validate: string }>(
      `select id, table_name as "table", object_name as "constraint", validate from replicate.owed
       where sync = $1 and kind = any ($2::text[]) and ($3::int[] is null or capture_id = any ($3::int[]))
         and restored_at is not null and validate is not null and validated_at is null and left_invalid is null
       order by bytes, id limit 1 for update skip locked`,
      [sync, filter.kinds, filter.captureIds ?? null],
    );
    if (next === undefined) {
      await target.script("rollback");
      return;
    }
    const { id, table, constraint, validate } = next;
    try {
      await target.script(`savepoint validation; ${validate}`);
      await target.script(
        `update replicate.owed set validated_at = pg_catalog.clock_timestamp() where id = ${id}; commit`,
      );
      await failpoint("owed.validated");
      conflicts = 0;
      context.emit({ type: "constraint-validated", table, constraint });
    } catch (error) {
      if (target.isBroken) throw asReplicateError(error, `cannot validate ${constraint} on ${table}`);
      if (isRetryableConflict(error) && conflicts < 100) {
        conflicts += 1;
        await target.script("rollback");
        await sleep(Math.min(100 * conflicts, 3000), context.signal);
        continue;
      }
      await target.script("rollback to savepoint validation");
      const said = error instanceof Error ? error.message : String(error);
      const detail = (error as { detail?: string }).detail;
      const reason = `${said}${detail === undefined ? "" : ` (${detail})`}${sqlstateOf(error) === "23503" ? "" : ` [${sqlstateOf(error)}]`}`;
      await target.rows(`update replicate.owed set left_invalid = $2 where id = $1`, [id, reason]);
      await target.script("commit");
      context.emit({ type: "constraint-left-invalid", table, constraint, reason });
    }
  }
}
