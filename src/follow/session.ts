/** One life of the runner between two reconnects: its sessions, its tables, and the next batch. */
import { recordKeys, recordOldRows, recordReload } from "../capture/record-changes.ts";
import { renewFunctions } from "../capture/trigger-function.ts";
import { ReplicateError } from "../errors.ts";
import type { Batch } from "../events.ts";
import { callHook, loadHooks } from "../config/hooks.ts";
import type { Connection } from "../postgres/connect.ts";
import {
  POSITION_MOVED, TABLE_BEING_COPIED, TARGET_CHANGED, TWINS_CHANGED, UNDEFINED_TABLE, sqlstateOf,
} from "../postgres/sqlstate.ts"; // prettier-ignore
import type { SyncContext } from "../state/context.ts";
import { leaseLost, type Lease } from "../state/lease.ts";
import { migrateOlder } from "../state/migrate.ts";
import { declareApplying } from "../state/applying.ts";
import { checkSource } from "../state/source-identity.ts";
import { unknownSync, type SyncTable } from "../state/sync-table.ts";
import { isKeyless } from "../catalog/delta.ts";
import { storeWaiting } from "../state/schema-changes.ts";
import { UnforeseenChange } from "./schema/make-changes.ts";
import { reasonOf, type RefusedChange } from "./schema/refused-change.ts";
import { BatchFinder, type ReadBatch } from "./read/batch-finder.ts";
import type { Position } from "./apply/batch-script.ts";
import { BlockingRowsSignal } from "./apply/blocking-rows.ts";
import { ParkedRows } from "./apply/parked-rows.ts";
import { SchemaWatch } from "./read/schema-watch.ts";
import { FollowedTables } from "./followed-tables.ts";
import { namePartitions } from "./apply/missing-partitions.ts";
import type { OtherSide } from "./conflicts/other-side.ts";
import { PutOff } from "./postponed.ts";
import { partitionRejection } from "./apply/partition-rejections.ts";
import { prepareReader, type Dirty } from "./read/read-batch.ts";
import { Reloads } from "./read/reload.ts";
import { Rotation } from "./rotation.ts";
import type { SessionParts } from "./session-parts.ts";
import { RestageSignal } from "./apply/text-staging.ts";
import { UnreadableKeys } from "./read/unreadable-keys.ts";
import { skipNoops, tendConflicts, vacuumReloaded } from "./maintenance.ts";

/** How often a batch is begun anew because rows of the target keep it out. */
const MOST_REFETCHES = 20;
/** The same because the target's tables have come out otherwise than was foreseen. */
const MOST_UNFORESEEN = 5;

export interface SessionPosition extends Position {
  readonly batches: number;
}

/** By a constraint of the target. */
function isRejected(error: unknown): boolean {
  const state = error instanceof ReplicateError ? error.sqlstate : sqlstateOf(error);
  return state?.startsWith("23") === true;
}

export class FollowSession {
  readonly context: SyncContext;
  readonly source: Connection;
  readonly target: Connection;
  position: SessionPosition;
  /** Set from outside when the tables have to be described anew before the next batch. */
  isStale = false;
  /** The side whose answer was an error, where that was the target's. */
  failedSide: "target" | undefined;
  readonly #parts: SessionParts;
  readonly #finder: BatchFinder;
  readonly #putOff: PutOff;
  readonly #rotation: Rotation;
  readonly #unreadable: UnreadableKeys;
  #refetches = 0;
  #unforeseen = 0;
  /** A row was rejected, and all tables were looked at since. */
  #isSwept = false;
  /** A change of the schema may be recorded as waiting. */
  #mayWait = true;
  #toldRefusal = "";

  private constructor(parts: SessionParts, position: SessionPosition) {
    this.#parts = parts;
    this.context = parts.context;
    this.source = parts.source;
    this.target = parts.target;
    this.position = position;
    this.#finder = new BatchFinder(parts);
    this.#putOff = new PutOff(parts.context, parts.target);
    this.#rotation = new Rotation(this.#putOff);
    this.#unreadable = new UnreadableKeys(parts);
  }

  /**
   * Checks that source and target belong together and loads the tables. `isDraining`: no table is put off. `reverse`: where
   * conflicts are to be found. `lease`: what the batches are applied under. Throws SOURCE_LOST, COPY_UNFINISHED.
   */
  static async open(
    context: SyncContext,
    source: Connection,
    target: Connection,
    lease: Lease,
    isDraining: boolean,
    otherSide?: OtherSide,
  ): Promise<FollowSession> {
    const { name } = context.config;
    const [position] = await target.rows<{
      snapshot: string | null;
      token: string;
      isClosed: boolean;
      batches: number;
    }>(
      `select position as snapshot, token, is_closed as "isClosed", batches::float8 as batches from replicate.sync where name = $1`,
      [name],
    );
    if (position === undefined) throw await unknownSync(target, name);
    if (position.isClosed) throw leaseLost(`sync ${name} is being switched`);
    await checkSource(source, name, position);
    await migrateOlder(source);
    await migrateOlder(target);
    // The state may have had no place for it when the session was opened.
    if (context.config.tracksTarget) await declareApplying(target);
    const hooks = await loadHooks(context.config);
    const reader = await prepareReader(source, name, lease.token);
    const parked = await ParkedRows.open(context, target, hooks);
    const tables = new FollowedTables(source, target, context.config, otherSide?.sync);
    const schemaWatch = new SchemaWatch(context, reader, target, tables);
    const reloads = new Reloads(context.config.keylessLimitBytes, isDraining);
    const parts = {
      context,
      source,
      target,
      lease,
      reader,
      tables,
      schemaWatch,
      reloads,
      parked,
      hooks,
      otherSide,
    };
    const session = new FollowSession(parts, position);
    await tables.load();
    await session.#putOff.try("the functions of the capture cannot be renewed on the source", async () => {
      await renewFunctions(source, tables.shapes.map(({ capture }) => capture.id)); // prettier-ignore
    });
    return session;
  }

  get tables(): readonly SyncTable[] {
    return this.#parts.tables.entries;
  }

  /** Captures whose delta tables hold something, applied or not. */
  get dirty(): readonly Dirty[] {
    return this.#finder.dirty;
  }

  /** The batch that is being read or written; null: none, or a small one. */
  get batch(): { readonly changes: number; readonly rows: number } | null {
    return this.#finder.atHand;
  }

  /** Applies the next batch. Returns null when there is nothing to apply. */
  async next(): Promise<Batch | null> {
    const startedAt = Date.now();
    this.failedSide = undefined;
    if (this.isStale) {
      this.isStale = false;
      await this.#parts.tables.load();
    }
    try {
      const batch = await this.#finder.next(this.position);
      const applied = batch === null ? null : await this.#apply(batch, startedAt);
      if (this.#mayWait) await storeWaiting(this.target, this.context.config.name, undefined);
      this.#mayWait = false;
      return applied;
    } catch (error) {
      if (this.#finder.isRejected) this.failedSide = "target";
      this.#finder.gaveUp();
      if (error instanceof UnforeseenChange) return await this.#readAnew(error);
      if (!this.#isSwept && !this.source.isBroken && isRejected(error)) {
        this.#isSwept = true;
        await this.source.script("rollback");
        await this.#parts.schemaWatch.sweepAll();
        return await this.next();
      }
      if (error instanceof BlockingRowsSignal) return await this.#refetch(error);
      if (error instanceof RestageSignal) {
        const shape = this.#parts.tables.shape(error.captureId);
        if (shape !== undefined) await this.#parts.parked.texts.begin(this.target, error, shape);
        return await this.next();
      }
      const isOutdated = [UNDEFINED_TABLE, TABLE_BEING_COPIED, TWINS_CHANGED].includes(
        sqlstateOf(error) ?? "",
      );
      if (isOutdated && !this.source.isBroken) {
        // A table was renamed or dropped since we learned its name, which loading tells, or it left for a new copy, or its
        // partitions are others now.
        await this.source.script("rollback");
        await this.#parts.tables.load();
        // Not null, which would say that there is nothing to apply.
        return await this.next();
      }
      if (await this.#unreadable.mend(error)) {
        this.#finder.doubt();
        return await this.next();
      }
      if (sqlstateOf(error) === TARGET_CHANGED && !this.source.isBroken) {
        await this.source.script("rollback");
        await this.#parts.tables.load();
        await this.#parts.schemaWatch.sweep();
        return await this.next();
      }
      if (sqlstateOf(error) === POSITION_MOVED) {
        throw leaseLost("another runner has taken this sync over, or has moved its position", error);
      }
      throw await namePartitions(error, this.source, this.target, this.#parts.tables.shapes);
    }
  }

  async #apply(read: ReadBatch, startedAt: number): Promise<Batch> {
    const { writer, tables, found, token } = read;
    const { hooks, reloads } = this.#parts;
    const counts = await writer.apply({ snapshot: found.snapshot, token }).catch((error: unknown) => {
      this.failedSide = "target";
      throw partitionRejection(
        error,
        tables.map(({ shape }) => shape),
      );
    });
    const rows = [...counts.values()].reduce((sum, count) => sum + count, 0);
    this.#finder.applied(read, rows);
    this.position = { snapshot: found.snapshot, token, batches: this.position.batches + 1 };
    this.#refetches = 0;
    this.#unreadable.applied();
    this.#noteMade(read);
    await vacuumReloaded(this.context, this.target, tables);
    for (const { shape, mode, fingerprint } of tables) {
      this.#parts.tables.update(shape.entry.captureId, {
        state: "following",
        fingerprint,
        ...reloads.settle(this.context, shape, mode, startedAt),
      });
    }
    const now = Date.now();
    const batch: Batch = {
      number: this.position.batches,
      position: found.snapshot,
      rows,
      tables: [...counts.values()].filter((count) => count > 0).length,
      seconds: (now - startedAt) / 1000,
      lagSeconds: (now - found.takenAt) / 1000,
    };
    const { afterBatch } = hooks;
    if (afterBatch !== undefined) await callHook("afterBatch", () => afterBatch(batch));
    return batch;
  }

  /** Tells of changes of the schema that were made with the batch; the tables are others from now on. */
  #noteMade({ writer, tables }: ReadBatch): void {
    for (const { label, statement, seconds } of writer.changes)
      this.context.emit({ type: "schema-change-applied", table: label, statement, seconds });
    for (const { shape } of tables) {
      if (shape.change === undefined) continue;
      this.#parts.tables.forgetChange(shape.capture.id);
      this.isStale = true;
    }
    this.#unforeseen = 0;
    this.#isSwept = false;
  }

  /** The target's table has come out otherwise than was foreseen: the batch is read again, with the whole table if need be. */
  async #readAnew({ shape, reason, message }: UnforeseenChange): Promise<Batch | null> {
    if (!this.source.isBroken) await this.source.script("rollback");
    this.#unforeseen += 1;
    if (this.#unforeseen > MOST_UNFORESEEN)
      throw new ReplicateError("TABLE_SHAPE_CHANGED", `a schema change of ${shape.label} cannot be made on the target: ${message}`); // prettier-ignore
    if (reason !== undefined) {
      if (isKeyless(shape.capture)) await recordReload(this.source, shape.capture.id);
      else await recordOldRows(this.source, shape.capture);
      this.context.emit({ type: "table-reread", table: shape.label, reason });
    } else await this.#parts.tables.load();
    this.#finder.doubt();
    return await this.next();
  }

  /** The target does not take a change of the schema. Tells why, once for each reason, and has it looked at anew. */
  async noteRefused(rejected: RefusedChange): Promise<string> {
    if (!this.source.isBroken) await this.source.script("rollback");
    const { captureId, label, statement } = rejected;
    const relid = this.#parts.tables.entry(captureId)?.targetRelid ?? 0;
    const reason = await reasonOf(this.target, rejected, relid);
    await storeWaiting(this.target, this.context.config.name, { captureId, label, statement, error: reason });
    this.#mayWait = true;
    const told = `${label}\n${statement}\n${rejected.isLock ? "" : reason}`;
    if (told !== this.#toldRefusal)
      this.context.emit({ type: "schema-change-waiting", table: label, statement, reason });
    this.#toldRefusal = told;
    this.isStale = true;
    return reason;
  }

  /** Has the target's blocking rows read again with the next batch. */
  async #refetch(signal: BlockingRowsSignal): Promise<Batch | null> {
    const { shape, keys } = signal.blocking;
    if (!this.source.isBroken) await this.source.script("rollback");
    this.#refetches += 1;
    if (this.#refetches > MOST_REFETCHES) {
      throw new ReplicateError(
        "ROW_REFUSED",
        `the target's ${shape.label} has rows that the source does not have, with unique values that the batch brings: they come again and again`,
        {
          side: "target",
          hint: "Somebody writes to the target's table. Stop that, see the rows with `replicate verify`, bring the source's with `replicate verify --repair`, and start again.",
        },
      );
    }
    this.context.log.warn(
      { table: shape.label, rows: keys.length },
      "rows on the target that the source does not have block a batch: they are read again",
    );
    await recordKeys(this.source, shape.capture, keys);
    this.#finder.doubt();
    return await this.next();
  }

  /** Looks at every table, also those without changes. Throws as `SchemaWatch.sweep` does. */
  async sweep(): Promise<void> {
    await this.#parts.schemaWatch.sweep();
    // One of both ways does it for both sides.
    if (this.#parts.otherSide?.way === "forward")
      await this.#putOff.try("the log of conflicts cannot be tended", async () => {
        await tendConflicts(this.context, this.source, this.target);
      });
    await this.#parts.parked.retryDue(this.source, this.#parts.tables);
  }

  /** Throws applied deltas away where there are enough of them, or all when nothing else is to be done. */
  async rotate(isIdle: boolean): Promise<void> {
    await this.#rotation.turn(this.source, this.#parts.tables, this.dirty, isIdle);
  }

  /** Turns no-op suppression on for the tables whose settings ask for it, once they follow. */
  async skipNoops(): Promise<void> {
    await this.#putOff.try("updates that change nothing cannot be left out on the source", async () => {
      await skipNoops(this.context, this.source, this.#parts.tables);
    });
  }

  /** Tells the source how far the target is, outside of a batch. Throws SYNC_EXPELLED, SOURCE_LOST. */
  async acknowledge(): Promise<void> {
    await this.#finder.acknowledge(this.position);
  }
}
