/**
 * What is done when a staged batch cannot be applied: again after a pause, in another way, without the rows that are rejected,
 * or with its conflicts settled.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { isKeyless } from "../../catalog/delta.ts";
import { tableSql } from "../../catalog/table.ts";
import type { Connection } from "../../postgres/connect.ts";
import { failpoint } from "../../postgres/failpoint.ts";
import { runScript, type StatementResult } from "../../postgres/script.ts";
import {
  CONFLICTS_MET, DEADLOCK, EXCLUSION_VIOLATION, LOCK_NOT_AVAILABLE, UNIQUE_VIOLATION, sqlstateOf,
} from "../../postgres/sqlstate.ts"; // prettier-ignore
import type { BatchScript } from "./batch-script.ts";
import { blockingRows, BlockingRowsSignal, uniqueIndex } from "./blocking-rows.ts";
import type { ParkedRows } from "./parked-rows.ts";
import { isAbout, rejected } from "./rejection.ts";
import type { Settlement } from "../conflicts/settle-conflicts.ts";
import { tracksTarget } from "../conflicts/sides.ts";

/** How often conflicts are settled anew, because applications here go on changing the batch's rows. */
const MOST_SETTLEMENTS = 20;
/** From this time on they have to wait until the batch is committed. */
const FIRST_ALONE = 3;
/** Where others hold a lock, the batch is applied again after a pause of at most so many milliseconds, so often. */
const WAIT_MS = 200;
const MOST_WAITS = 500;

export class BatchRetry {
  readonly #target: Connection;
  readonly #script: BatchScript;
  readonly #parked: ParkedRows;
  readonly #settlement: Settlement | undefined;

  constructor(
    target: Connection,
    script: BatchScript,
    parked: ParkedRows,
    settlement: Settlement | undefined,
  ) {
    this.#target = target;
    this.#script = script;
    this.#parked = parked;
    this.#settlement = settlement;
  }

  /**
   * Tries again, until the batch is committed. Rows that swapped a unique value collide in an upsert; deleting all of them
   * first cannot. Where keys were changed on both sides, that is settled first. Throws where nothing is left to try.
   */
  async after(error: unknown): Promise<StatementResult[]> {
    let failure = error;
    let waits = 0;
    for (let settlements = 0; ;) {
      const state = sqlstateOf(failure);
      if (this.#settlement !== undefined && (state === LOCK_NOT_AVAILABLE || state === DEADLOCK)) {
        waits += 1;
        if (waits > MOST_WAITS) throw failure;
        // Our locks go first, so that nobody waits for us meanwhile.
        await this.#target.script("rollback to savepoint apply").catch(() => {
          throw failure;
        });
        await sleep(WAIT_MS * Math.random());
      } else {
        const isMet = state === CONFLICTS_MET || (await this.#adapt(failure)) === "collided";
        if (isMet) settlements += 1;
        if (settlements > MOST_SETTLEMENTS) throw rejected(failure);
      }
      try {
        await this.#target.script("rollback to savepoint apply");
        if (settlements > 0) await this.#settle(settlements >= FIRST_ALONE);
        if (settlements > 0) await failpoint("conflict.settled");
        const script = this.#script.apply({ isSettled: settlements > 0 });
        return await runScript(this.#target, script.join(";\n"));
      } catch (again) {
        failure = again;
      }
    }
  }

  /** Records how the next try has to differ, or parks what keeps all tries from success. */
  async #adapt(failure: unknown): Promise<"replaced" | "collided" | "parked"> {
    try {
      return await this.#replace(failure);
    } catch (error) {
      const { tables, replaced } = this.#script;
      const isBlocked = error instanceof BlockingRowsSignal && !this.#parked.areParked(error.blocking);
      if (isBlocked || !(await this.#parked.park(failure, tables, replaced))) throw error;
      return "parked";
    }
  }

  /**
   * Notes how the next try has to differ after a unique violation: rows are replaced, or have collided with rows of the
   * other side. Throws where nothing is left to try.
   */
  async #replace(failure: unknown): Promise<"replaced" | "collided"> {
    const { tables, replaced } = this.#script;
    const about = tables.filter(({ shape }) => isAbout(failure, shape));
    // Several may write to one table of the target.
    const table = about.find(({ shape }) => !replaced.has(shape.capture.id)) ?? about[0];
    const state = sqlstateOf(failure);
    // A keyless table was emptied before its rows came.
    if (
      table === undefined ||
      isKeyless(table.shape.capture) ||
      (state !== UNIQUE_VIOLATION && state !== EXCLUSION_VIOLATION)
    )
      throw rejected(failure);
    const { shape } = table;
    if (!replaced.has(shape.capture.id)) {
      replaced.add(shape.capture.id);
      return "replaced";
    }
    await this.#target.script("rollback to savepoint apply");
    const index = await uniqueIndex(this.#target, shape, (failure as { constraint?: string }).constraint);
    if (index === undefined) throw rejected(failure);
    if (this.#settlement !== undefined && tracksTarget(shape)) {
      // Known or not: an application may have made another such row since it was settled, until the table is locked.
      this.#settlement.addCollision(shape, index);
      return "collided";
    }
    throw (await blockingRows(this.#target, shape, index)) ?? rejected(failure);
  }

  async #settle(isAlone: boolean): Promise<void> {
    const settlement = this.#settlement as Settlement;
    const { tracked } = this.#script;
    const locks = tracked.map(
      ({ shape }) => `lock table ${tableSql(shape.target)} in share row exclusive mode`,
    );
    if (isAlone) await this.#target.script(locks.join(";\n"));
    await settlement.begin();
    await this.#target.script(this.#script.completeStages().join(";\n"));
    for (const { shape } of tracked) await settlement.settle(shape);
  }
}
