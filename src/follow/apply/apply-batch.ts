/**
 * Applies one batch: one transaction on the target that compares and moves the position, stages the rows and makes the
 * tables equal. Small batches go out in one round trip; large ones stream into staging while they are read.
 */
import type { Connection } from "../../postgres/connect.ts";
import { failpoint } from "../../postgres/failpoint.ts";
import {
  CopyFrames,
  FeedingScript,
  runScript,
  setFlow,
  type StatementResult,
} from "../../postgres/script.ts";
import { RowTransformer } from "../../transform/transform-rows.ts";
import { BatchScript, type Position } from "./batch-script.ts";
import type { BatchTable } from "./batch-table.ts";
import { layoutOf } from "../read/carry-rows.ts";
import type { ParkedRows } from "./parked-rows.ts";
import { BatchRetry } from "./retry-batch.ts";
import { assertLockBudget } from "./lock-budget.ts";
import type { SessionParts } from "../session-parts.ts";
import { Settlement } from "../conflicts/settle-conflicts.ts";
import { isAboutKey } from "../read/unreadable-keys.ts";
import { ensureStages } from "./staging.ts";
import { BatchChanges, UnforeseenChange, type Made } from "../schema/make-changes.ts";
import { RefusedChange } from "../schema/refused-change.ts";
import { isDirect, isStaged } from "../read/table-mode.ts";

/** Rows of a small batch that are kept in memory until the source is done, so that the target needs one round trip. */
const SMALL_BATCH_BYTES = 1024 * 1024;

/** Collects the rows of a batch and writes it to the target. One use. */
export class BatchWriter {
  readonly #source: Connection;
  readonly #target: Connection;
  readonly #expected: Position;
  readonly #parked: ParkedRows;
  readonly #settlement: Settlement | undefined;
  readonly #script: BatchScript;
  readonly #transformers: readonly (RowTransformer | undefined)[];
  /** What a hook has thrown while rows came. */
  #hookFailure: unknown;
  #next: Position | undefined;
  /** Frames that are kept until the target's script starts. */
  #buffered: Buffer[] = [];
  #bytes = 0;
  readonly #frames: CopyFrames;
  #feeding: FeedingScript | undefined;
  #openCopy = 0;
  #pausing: Promise<void> | undefined;
  #failure: unknown;
  #isOverflown = false;
  #rows = 0;
  readonly #changes: BatchChanges;
  /** The transaction was begun before rows came. */
  #isOpen = false;

  /** `expected`: where the target stands. */
  constructor(parts: SessionParts, expected: Position, tables: readonly BatchTable[]) {
    const { context, source, target, lease, otherSide, parked, hooks } = parts;
    const { transformRow } = hooks;
    this.#source = source;
    this.#parked = parked;
    this.#settlement = otherSide === undefined ? undefined : new Settlement(source, target, otherSide);
    this.#target = target;
    this.#expected = expected;
    this.#script = new BatchScript(context.config.name, lease, tables, parked, this.#settlement);
    this.#changes = new BatchChanges(target, context.config.name, tables);
    this.#script.staysOpen = !this.#changes.isEmpty;
    this.#transformers = this.#script.reads.map(({ shape, mode, isTransformed }) =>
      transformRow !== undefined && isTransformed === true
        ? new RowTransformer(layoutOf(shape, mode), transformRow)
        : undefined,
    );
    this.#frames = new CopyFrames((frame) => {
      if (this.#feeding !== undefined) return this.#feeding.send(frame);
      this.#buffered.push(frame);
      return true;
    });
  }

  /**
   * Creates what the session lacks, so that nothing has to be asked while rows arrive. `next`: where it is known. Throws
   * OUT_OF_LOCKS, RefusedChange and UnforeseenChange.
   */
  async prepare(next?: Position): Promise<void> {
    await assertLockBudget(this.#target, this.#script.reads);
    const staging = this.#script.reads.filter(({ mode }) => isStaged(mode));
    await ensureStages(this.#target, staging.map(({ shape }) => shape)); // prettier-ignore
    const isDirectly = this.#script.reads.some(
      ({ shape, mode }) => shape.change !== undefined && isDirect(mode),
    );
    if (!isDirectly || next === undefined) return;
    // Rows go into the table as they come, so it has to be what it will be by then.
    this.#isOpen = true;
    try {
      await this.#target.script(this.#script.open(this.#expected, next).join(";\n"));
      this.#script.retarget(await this.#changes.before(this.#script.tables));
    } catch (error) {
      await this.#rollback();
      throw error;
    }
  }

  async #rollback(): Promise<void> {
    this.#parked.rolledBack();
    if (!this.#target.isBroken) await this.#target.script("rollback").catch(() => this.#target.destroy());
  }

  /** Changes of the schema that were made with the batch, once it is committed. */
  get changes(): readonly Made[] {
    return this.#changes.made;
  }

  /** Rows taken so far. */
  get rows(): number {
    return this.#rows;
  }

  /**
   * Takes a row. Starts streaming once the batch is not small. Where the next position is not known yet it cannot:
   * such a batch is given up, see `isOverflown`.
   */
  add(read: number, payload: Buffer, next: Position | undefined): void {
    if (this.#failure !== undefined || this.#hookFailure !== undefined || this.#isOverflown) return;
    this.#rows += 1;
    for (; this.#openCopy < read; this.#openCopy += 1) this.#frames.end();
    const data = this.#transformed(read, payload);
    if (data.length === 0) return;
    const isFlowing = this.#frames.add(data);
    if (this.#feeding !== undefined) {
      if (!isFlowing) this.#pause(this.#feeding);
      return;
    }
    this.#bytes += data.length;
    if (this.#bytes <= SMALL_BATCH_BYTES) return;
    if (next === undefined) {
      this.#isOverflown = true;
      this.#buffered = [];
    } else {
      this.#next = next;
      this.#startFeeding([]);
    }
  }

  /** The rows that go on: none where the hook has failed, which is told when they are to be applied. */
  #transformed(read: number, payload: Buffer): Buffer {
    try {
      return this.#transformers[read]?.add(payload).data ?? payload;
    } catch (error) {
      this.#hookFailure = error;
      return Buffer.alloc(0);
    }
  }

  /** What the target has rejected while rows were still coming in, which ends the reading. */
  get failure(): unknown {
    return this.#failure;
  }

  /** The batch was too large to be held in memory and has to be read again, streaming. */
  get isOverflown(): boolean {
    return this.#isOverflown;
  }

  /** `rest`: what follows the rows in the same script; empty while rows are still being read. */
  #startFeeding(rest: readonly string[]): FeedingScript {
    const begin = this.#isOpen
      ? this.#script.takeIn()
      : this.#script.begin(this.#expected, this.#next as Position);
    const script = [...begin, ...rest];
    const feeding = new FeedingScript(this.#target, script.join(";\n"));
    this.#feeding = feeding;
    feeding.done.catch((error: unknown) => {
      this.#failure ??= error;
      // Nobody reads the rest of the rows; unless all will be read again at once, which needs the session.
      const isReadAgain =
        this.#isOverflown || this.#parked.restages(error, this.#script.tables) || isAboutKey(error);
      if (rest.length === 0 && !isReadAgain) this.#source.destroy();
    });
    for (const frame of this.#buffered.splice(0)) feeding.send(frame);
    return feeding;
  }

  #pause(feeding: FeedingScript): void {
    if (this.#pausing !== undefined) return;
    setFlow(this.#source, false);
    this.#pausing = feeding.drained().then(() => {
      this.#pausing = undefined;
      setFlow(this.#source, true);
    });
  }

  /**
   * Applies the rows and commits. Returns rows applied per table. Throws BlockingRowsSignal, ROW_REFUSED, and the driver's
   * errors; the transaction is rolled back then.
   */
  async apply(next: Position): Promise<Map<number, number>> {
    this.#next = next;
    try {
      if (this.#hookFailure !== undefined) {
        // The target waits for rows.
        this.#endCopies();
        await this.#feeding?.done;
        throw this.#hookFailure;
      }
      return await this.#tryApply();
    } catch (error) {
      await this.#rollback();
      throw error;
    }
  }

  async #tryApply(): Promise<Map<number, number>> {
    const script = this.#script;
    const hasTexts = this.#parked.texts.isIn(script.tables);
    const changes = this.#changes;
    let results: StatementResult[];
    try {
      this.#endCopies();
      if (this.#feeding === undefined && !hasTexts && changes.isEmpty) {
        results = await this.#startFeeding(script.apply()).done;
        script.recordCopied(results);
      } else {
        script.recordCopied(await (this.#feeding ?? this.#startFeeding([])).done);
        await failpoint("batch.staged");
        if (hasTexts) await this.#parked.stageTexts(script.tables);
        if (!changes.isEmpty && !changes.isBegun) {
          script.retarget(await changes.before(script.tables));
          await this.#target.script("savepoint apply");
        }
        results = await runScript(this.#target, script.apply({ isAnalyzed: true }).join(";\n"));
      }
    } catch (error) {
      if (error instanceof RefusedChange || error instanceof UnforeseenChange) throw error;
      results = await new BatchRetry(this.#target, script, this.#parked, this.#settlement).after(error);
    }
    if (!changes.isEmpty) {
      await changes.after();
      await this.#target.script("commit");
    }
    await failpoint("batch.committed");
    await this.#parked.committed(results, script.tables);
    return script.countRows(results);
  }

  /** The rows are of no use: what was begun on the target is undone, and both sessions can be used again. */
  async abandon(): Promise<void> {
    this.#isOverflown = true;
    this.#buffered = [];
    const feeding = this.#feeding;
    if (feeding === undefined) return this.#isOpen ? await this.#rollback() : undefined;
    feeding.fail("the batch is read again");
    await feeding.done.catch(() => undefined);
    await this.#rollback();
  }

  #endCopies(): void {
    for (; this.#openCopy < this.#script.reads.length; this.#openCopy += 1) this.#frames.end();
  }
}
