/**
 * Makes the changes of the source's schema on the target, in the transaction of the batch behind which they happened: some
 * statements before the rows are written, some after. Locks are waited for but briefly, and given back before they are tried
 * again, so that readers of the target's tables do not queue behind us.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { parseFingerprint, readFormsHere } from "../../catalog/fingerprint.ts";
import { describeTables } from "../../catalog/table.ts";
import type { Connection } from "../../postgres/connect.ts";
import { failpoint } from "../../postgres/failpoint.ts";
import { isConnectionFailure } from "../../postgres/sqlstate.ts";
import { recordChangesSql, type MadeChange } from "../../state/schema-changes.ts";
import type { BatchTable } from "../apply/batch-table.ts";
import { stageForm } from "../apply/staging.ts";
import { compareOldRows } from "../read/old-rows.ts";
import { pairTables, type Shape } from "../shape.ts";
import { RefusedChange } from "./refused-change.ts";
import { inOrder, type Step } from "./steps.ts";
import type { TableChange } from "./table-change.ts";

/** Milliseconds that each attempt may wait for a lock; the last one repeats. Below the server's deadlock_timeout of a second. */
const WAITS = [50, 150, 400];
const MOST_ATTEMPTS = 8;
/** Pause after an attempt, as a multiple of its wait. */
const PAUSE_FACTOR = 3;

/** Thrown when the change has come out otherwise than the batch was read for: it is read again. */
export class UnforeseenChange extends Error {
  override readonly name = "UnforeseenChange";
  readonly shape: Shape;
  /** Why the table has to be read as a whole; undefined: its columns are others. */
  readonly reason: string | undefined;

  constructor(shape: Shape, reason: string | undefined) {
    super(reason ?? `${shape.label} is not what it was going to be`);
    this.shape = shape;
    this.reason = reason;
  }
}

export interface Made {
  readonly label: string;
  readonly statement: string;
  readonly seconds: number;
}

type ChangedTable = BatchTable & { readonly shape: Shape & { readonly change: TableChange } };

interface ChangeStep extends Step {
  readonly change: TableChange;
}

export class BatchChanges {
  readonly #target: Connection;
  readonly #sync: string;
  readonly #tables: readonly ChangedTable[];
  readonly #steps: readonly ChangeStep[];
  readonly #made: (Made & { readonly captureId: number })[] = [];
  #isBegun = false;

  constructor(target: Connection, sync: string, tables: readonly BatchTable[]) {
    this.#target = target;
    this.#sync = sync;
    this.#tables = tables.filter((table): table is ChangedTable => table.shape.change !== undefined);
    this.#steps = inOrder(
      this.#tables.flatMap(({ shape: { change } }) => change.steps.map((step) => ({ ...step, change }))),
    );
  }

  get isEmpty(): boolean {
    return this.#tables.length === 0;
  }

  /** The statements before the rows have been run. */
  get isBegun(): boolean {
    return this.#isBegun;
  }

  /** What was made, once the batch is committed. */
  get made(): readonly Made[] {
    return this.#made;
  }

  /**
   * Runs what comes before the rows. Returns the tables as they are then, for the rest of the batch. Throws RefusedChange and
   * UnforeseenChange.
   */
  async before(tables: readonly BatchTable[]): Promise<BatchTable[]> {
    this.#isBegun = true;
    await this.#run("before");
    await failpoint("schema.changed");
    const target = this.#target;
    const oids = this.#tables.map(({ shape }) => shape.target.oid);
    const described = new Map((await describeTables(target, oids)).map((table) => [table.oid, table]));
    const forms = await readFormsHere(target, oids);
    return tables.map((table) => {
      const { shape, mode } = table;
      const { change, entry } = shape;
      if (change === undefined) return table;
      const [now, form] = [described.get(shape.target.oid), forms.get(shape.target.oid)];
      if (now === undefined || form === undefined) throw new UnforeseenChange(shape, undefined);
      const pairing = pairTables(entry, shape.capture, shape.source, now, target.version);
      const isText = shape.plan.binary !== pairing.plan.binary && !shape.plan.binary;
      const plan = isText ? { ...pairing.plan, binary: false } : pairing.plan;
      const changed: Shape = {
        ...shape,
        ...pairing,
        plan,
        entry: { ...entry, targetFingerprint: form.text },
      };
      if (!isAsForeseen(shape, changed)) throw new UnforeseenChange(shape, undefined);
      const rows = compareOldRows(
        { before: parseFingerprint(change.before), now: change.form },
        { before: parseFingerprint(entry.targetFingerprint ?? form.text), now: form },
        null,
      );
      if (rows.kind === "unproven" && mode.kind !== "reread" && mode.kind !== "reload")
        throw new UnforeseenChange(shape, rows.reason);
      return { ...table, shape: changed };
    });
  }

  /** Runs what comes after the rows, and writes down what was done. Throws RefusedChange. */
  async after(): Promise<void> {
    await this.#run("after");
    const target = this.#target;
    const forms = await readFormsHere(
      target,
      this.#tables.map(({ shape }) => shape.target.oid),
    );
    const changes = this.#tables.flatMap(({ shape }): MadeChange[] => {
      const { change, target: table } = shape;
      const targetFingerprint = forms.get(table.oid)?.text;
      if (targetFingerprint === undefined) throw new UnforeseenChange(shape, undefined);
      const { captureId, label, form, definition } = change;
      return [
        {
          captureId,
          label,
          fingerprint: form.text,
          targetFingerprint,
          definition,
          made: this.#made.filter((each) => each.captureId === captureId),
          deferred: change.steps.filter(({ when }) => when === "later").map(({ sql }) => sql),
        },
      ];
    });
    await target.script(recordChangesSql(this.#sync, changes).join(";\n"));
    await failpoint("schema.recorded");
  }

  async #run(when: Step["when"]): Promise<void> {
    const steps = this.#steps.filter((step) => step.when === when);
    if (steps.length === 0) return;
    const target = this.#target;
    const { timeout } = await target.row<{ timeout: string }>(
      `select pg_catalog.current_setting('lock_timeout') as timeout`,
    );
    await target.script("savepoint schema");
    const done = this.#made.length;
    for (let attempt = 0; ; attempt += 1) {
      const waitMs = WAITS[Math.min(attempt, WAITS.length - 1)] as number;
      try {
        await target.script(`set local lock_timeout = ${waitMs}`);
        for (const step of steps) await this.#step(step);
        await target.script(`set local lock_timeout = '${timeout}'`);
        return;
      } catch (error) {
        if (!(error instanceof RefusedChange) || !error.isLock || attempt + 1 >= MOST_ATTEMPTS) throw error;
        // All locks go, so that nobody waits for us meanwhile.
        await target.script("rollback to savepoint schema");
        this.#made.length = done;
        await sleep(waitMs * PAUSE_FACTOR);
      }
    }
  }

  async #step({ change, sql, isLedger }: ChangeStep): Promise<void> {
    const { captureId, label } = change;
    const startedAt = performance.now();
    try {
      await this.#target.script(sql);
    } catch (error) {
      if (this.#target.isBroken || isConnectionFailure(error)) throw error;
      throw new RefusedChange({ captureId, label }, sql, error);
    }
    if (isLedger === true) return;
    this.#made.push({ captureId, label, statement: sql, seconds: (performance.now() - startedAt) / 1000 });
  }
}

/** Rows that were staged for the one are staged as for the other. */
function isAsForeseen(foreseen: Shape, found: Shape): boolean {
  const form = ({ plan, ...shape }: Shape): string =>
    JSON.stringify([
      plan.binary,
      plan.columns.map(({ source, target }) => [source.name, target.name]),
      shape.targetKey.map(({ column }) => column?.name),
    ]);
  return (
    found.plan.problems.length === 0 &&
    found.targetKey.every(({ column }) => column !== undefined) &&
    form(foreseen) === form(found) &&
    stageForm(foreseen) === stageForm(found)
  );
}
