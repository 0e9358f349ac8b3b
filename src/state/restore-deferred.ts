/** Pays what is deferred: restores everything in the ledger, and validates the foreign keys among it. */
import type { DeferredKind } from "../catalog/definitions.ts";
import type { Problem } from "../errors.ts";
import { saidBy } from "../postgres/server-words.ts";
import type { Connection } from "../postgres/connect.ts";
import { failpoint } from "../postgres/failpoint.ts";
import { sleep } from "../postgres/sleep.ts";
import {
  asReplicateError,
  isConnectionFailure,
  isRetryableConflict,
  sqlstateOf,
} from "../postgres/sqlstate.ts";
import type { SyncContext } from "./context.ts";
import {
  allKinds,
  RestoreError,
  restoreFailure,
  restoreNext,
  takeAll,
  type Deferred,
  type DeferredFilter,
  underPath,
} from "./deferred.ts";

export interface RestoreDeferredOptions {
  /** Default: everything. */
  readonly kinds?: readonly DeferredKind[];
  /** Default: all tables of the sync. */
  readonly captureIds?: readonly number[];
  /**
   * Everything in one transaction where that works, and foreign keys NOT VALID, which apply to all that is written from
   * then on: for a moment in which nobody may write. `validateDeferred` does the rest. Default false.
   */
  readonly isHurried?: boolean;
}

export interface RestoreDeferredReport {
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
export async function restoreDeferred(
  context: SyncContext,
  options: RestoreDeferredOptions = {},
): Promise<RestoreDeferredReport> {
  const sync = context.config.name;
  const kinds = options.kinds ?? allKinds;
  const filter: DeferredFilter = {
    kinds,
    ...(options.captureIds === undefined ? {} : { captureIds: options.captureIds }),
  };
  const failed = new Map<number, Problem>();
  let restored = 0;
  await using target = await context.target("restore");
  if (options.isHurried === true) restored += await restoreAtOnce(target, sync, filter);
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
      restored += done.deferred.length;
      const seconds = (Date.now() - startedAt) / 1000 / done.deferred.length;
      for (const deferred of done.deferred) emitRestored(context, deferred, seconds);
    } catch (error) {
      if (!(error instanceof RestoreError))
        throw asReplicateError(error, "cannot read the deferred definitions");
      if (target.isBroken || isConnectionFailure(error.cause)) throw restoreFailure(error);
      if (isRetryableConflict(error.cause) && conflicts < 100) {
        conflicts += 1;
        await sleep(Math.min(100 * conflicts, 3000), context.signal);
        continue;
      }
      failed.set(error.deferred.id, {
        subject: error.deferred.tableName,
        message: restoreFailure(error).message,
        remedy: `${error.deferred.statements.join("; ")};`,
      });
      if (error.deferred.kind === "foreign-key") {
        await target.rows(`update replicate.deferred set left_invalid = $2 where id = $1`, [
          error.deferred.id,
          saidBy(error.cause),
        ]);
      }
      context.emit({ type: "warning", message: restoreFailure(error).message });
    }
  }
  if (kinds.includes("foreign-key") && options.isHurried !== true) await validateAll(context, target, filter);
  return { restored, failed: [...failed.values()], leftInvalid: await loadLeftInvalid(target, sync) };
}

/**
 * Validates the foreign keys that were restored in a hurry. Keeps nobody from reading or writing. Returns the constraints
 * that hold rows they would not accept. Can be repeated.
 */
export async function validateDeferred(context: SyncContext): Promise<readonly LeftInvalid[]> {
  await using target = await context.target("restore");
  await validateAll(context, target, { kinds: allKinds }, true);
  return await loadLeftInvalid(target, context.config.name);
}

/** How many round trips a table costs is felt while nobody can write: this takes two for all of them. Returns how many. */
async function restoreAtOnce(target: Connection, sync: string, filter: DeferredFilter): Promise<number> {
  const deferred = await takeAll(target, sync, filter);
  if (deferred.length === 0) {
    await target.script("rollback");
    return 0;
  }
  try {
    await target.script(
      [
        ...deferred.flatMap((each) =>
          each.statements.some(readsNoRows) ? each.statements : underPath(each, each.statements),
        ),
        `update replicate.deferred set restored_at = pg_catalog.clock_timestamp(), left_invalid = null
         where id in (${deferred.map(({ id }) => id).join(", ")})`,
        "commit",
      ].join(";\n"),
    );
    return deferred.length;
  } catch (error) {
    if (target.isBroken) throw asReplicateError(error, "cannot restore the deferred definitions");
    // Which of them it was, each tells by itself.
    await target.script("rollback");
    return 0;
  }
}

/** A constraint that is added without a look at what there is. */
const readsNoRows = (statement: string): boolean => / not valid$/i.test(statement);

function emitRestored(context: SyncContext, deferred: Deferred, seconds: number): void {
  if (["key", "index", "constraint"].includes(deferred.kind)) {
    context.emit({ type: "index-built", table: deferred.tableName, index: deferred.objectName, seconds });
  }
}

/** Constraints of this sync that could not be made valid, or not be added at all. */
export async function loadLeftInvalid(target: Connection, sync: string): Promise<LeftInvalid[]> {
  return await target.rows<LeftInvalid>(
    `select table_name as "table", object_name as "constraint", left_invalid as "reason"
     from replicate.deferred where sync = $1 and left_invalid is not null order by table_name, object_name`,
    [sync],
  );
}

interface Validation extends Pick<Deferred, "id" | "kind"> {
  readonly table: string;
  readonly constraint: string;
  readonly validate: string;
}

/** Validates restored foreign keys one by one: each reads its table once, without keeping anybody from writing. */
async function validateAll(
  context: SyncContext,
  target: Connection,
  filter: DeferredFilter,
  isGentle = false,
): Promise<void> {
  const sync = context.config.name;
  for (let conflicts = 0; ;) {
    await target.script("begin");
    const [next] = await target.rows<Validation>(
      `select id, kind, table_name as "table", object_name as "constraint",
              ${isGentle ? "coalesce(validate_gently, validate)" : "validate"} as "validate" from replicate.deferred
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
      await target.script(["savepoint validation", ...underPath(next, [validate])].join("; "));
      await target.script(
        `update replicate.deferred set validated_at = pg_catalog.clock_timestamp() where id = ${id}; commit`,
      );
      await failpoint("deferred.validated");
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
      const reason = `${saidBy(error)}${sqlstateOf(error) === "23503" ? "" : ` [${sqlstateOf(error)}]`}`;
      await target.rows(`update replicate.deferred set left_invalid = $2 where id = $1`, [id, reason]);
      await target.script("commit");
      context.emit({ type: "constraint-left-invalid", table, constraint, reason });
    }
  }
}
