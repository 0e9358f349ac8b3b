/**
 * Rows that the target rejects: found in the batch that brings them, parked by policy, tried again when they change on
 * the source, when the target's table has changed, and from time to time.
 */
import { recordKeys } from "../../capture/record-changes.ts";
import { asApplication } from "../../catalog/search-path.ts";
import { fromText, toText } from "../../catalog/text-form.ts";
import type { Hooks } from "../../config/hooks.ts";
import type { Connection } from "../../postgres/connect.ts";
import { failpoint } from "../../postgres/failpoint.ts";
import type { StatementResult } from "../../postgres/script.ts";
import { literal } from "../../postgres/sql.ts";
import {
  EXCLUSION_VIOLATION,
  FOREIGN_KEY_VIOLATION,
  UNIQUE_VIOLATION,
  isRejection,
  sqlstateOf,
} from "../../postgres/sqlstate.ts";
import type { FoundRow } from "../../parked/find-rejected.ts";
import { decide, MOST_PER_SYNC, parks, rowsToPark, tooMany } from "../../parked/policy.ts";
import type { SyncContext } from "../../state/context.ts";
import {
  countParked,
  forgetParkedSql,
  park,
  takeDue,
  wakeDependents,
  type RejectedRow,
} from "../../state/parked.ts";
import type { BatchTable } from "./batch-table.ts";
import type { BlockingRows } from "./blocking-rows.ts";
import { applySql } from "../read/carry-rows.ts";
import { findRejected, stageTexts } from "./find-rejected.ts";
import type { FollowedTables } from "../followed-tables.ts";
import { isAbout, stagingOf } from "./rejection.ts";
import type { Shape } from "../shape.ts";
import { stageName } from "./staging.ts";
import { isStaged, type TableMode } from "../read/table-mode.ts";
import { RestageSignal, TextStaging } from "./text-staging.ts";

/** Rows of one batch that are parked at most. */
const MOST_PER_BATCH = 1000;
/** What was rejected is tried again after so long even if nothing seems to have changed, and so many rows at a time. */
const RETRY_SECONDS = 600;
const RETRY_ROWS = 500;

const collisions = [UNIQUE_VIOLATION, EXCLUSION_VIOLATION];

/** A session's dealings with them. */
export class ParkedRows {
  readonly #context: SyncContext;
  readonly #target: Connection;
  readonly #hooks: Hooks;
  /** Rows that cannot be staged as they are. */
  readonly texts = new TextStaging();
  /** Parked rows by capture. */
  #counts: ReadonlyMap<number, number>;
  /** What the open transaction has parked. */
  #parked: RejectedRow[] = [];

  /** How often the batch at hand was tried. */
  #attempt = 1;

  private constructor(
    context: SyncContext,
    target: Connection,
    hooks: Hooks,
    counts: ReadonlyMap<number, number>,
  ) {
    this.#context = context;
    this.#target = target;
    this.#hooks = hooks;
    this.#counts = counts;
  }

  static async open(context: SyncContext, target: Connection, hooks: Hooks): Promise<ParkedRows> {
    return new ParkedRows(context, target, hooks, await countParked(target, context.config.name));
  }

  get #sync(): string {
    return this.#context.config.name;
  }

  /** Whether rejected rows of the table are parked. */
  #parks(shape: Shape): boolean {
    return parks(this.#context.config, this.#hooks, shape);
  }

  /** Whether the batch is to be read again because of this error, see RestageSignal. */
  restages(error: unknown, tables: readonly BatchTable[]): boolean {
    const staging = isRejection(error) ? stagingOf(error) : undefined;
    if (staging === undefined || staging.isText) return false;
    return tables.some(({ shape }) => shape.capture.id === staging.captureId && this.#parks(shape));
  }

  /** Stages what has come as text, and parks what cannot be read as the target's types. */
  async stageTexts(tables: readonly BatchTable[]): Promise<void> {
    for (const table of tables) {
      const { shape } = table;
      const stage = this.texts.stageOf(table);
      if (stage === undefined) continue;
      const { name, columns } = stage;
      const found = await stageTexts(this.#target, {
        ...this.#search(shape),
        texts: `pg_temp.${name}`,
        columns,
      });
      if ((await this.#decide(shape, found)) === "retry") throw new RestageSignal(shape.capture.id);
      await this.#park(shape, found);
    }
    await this.#target.script("savepoint apply");
  }

  #search(shape: Shape): { sync: string; shape: Shape; most: number } {
    const most = MOST_PER_BATCH + 1 + (this.#counts.get(shape.capture.id) ?? 0);
    return { sync: this.#sync, shape, most };
  }

  /**
   * After a failure in the open transaction: finds the rows that it is about, and parks them. False where that is not
   * to be done, or none was found. Throws ROW_REFUSED where there are too many, and RestageSignal.
   */
  async park(
    failure: unknown,
    tables: readonly BatchTable[],
    replaced: ReadonlySet<number>,
  ): Promise<boolean> {
    const staging = stagingOf(failure);
    if (this.restages(failure, tables)) throw new RestageSignal(staging?.captureId ?? 0);
    if (!isRejection(failure) || staging !== undefined) return false;
    const state = sqlstateOf(failure) ?? "";
    const isReference = state === FOREIGN_KEY_VIOLATION;
    // First the table that it is about; but what a foreign key wants may be rejected by itself.
    const turn = ({ shape }: BatchTable): number => Number(isAbout(failure, shape) === isReference);
    const candidates = tables
      .filter(({ shape, mode }) => isStaged(mode) && this.#parks(shape))
      .toSorted((a, b) => turn(a) - turn(b));
    if (candidates.length === 0) return false;
    await this.#target.script("rollback to savepoint apply");
    // What it wants may also come with the same batch, before the row or after it.
    const searches = [
      ...candidates.map((table) => ({ ...table, isAlone: !isReference })),
      ...(isReference ? candidates.map((table) => ({ ...table, isAlone: true })) : []),
    ];
    for (const { shape, mode, isAlone } of searches) {
      const isReplacing = replaced.has(shape.capture.id);
      const found = await findRejected(this.#target, {
        ...this.#search(shape),
        mode,
        isReplacing,
        first: isAlone ? [] : othersSql(tables, shape, replaced),
        passed: [
          ...(isReference ? [] : [FOREIGN_KEY_VIOLATION]),
          ...(isReplacing && collisions.includes(state) ? [] : collisions),
        ],
      });
      if (found.length === 0) continue;
      if ((await this.#decide(shape, found)) === "retry") return true;
      await this.#park(shape, found);
      await this.#target.script(
        `delete from ${stageName(shape)} where ctid = any (${literal(`{${found.map(({ at }) => `"${at}"`).join(",")}}`)}::pg_catalog.tid[]);
         savepoint apply`,
      );
      return true;
    }
    return false;
  }

  /** Throws ROW_REFUSED, HOOK_FAILED. */
  async #decide({ label }: Shape, found: readonly FoundRow[]): Promise<"park" | "retry"> {
    const answer = await decide(this.#hooks, label, found, this.#attempt, this.#context.signal);
    if (answer === "retry") this.#attempt += 1;
    return answer;
  }

  async #park({ capture, target, label }: Shape, found: readonly FoundRow[]): Promise<void> {
    if (found.length === 0) return;
    const rows = rowsToPark({ captureId: capture.id, relid: target.oid, label }, found);
    this.#parked.push(...rows);
    const fresh = this.#parked.filter(({ isNew }) => isNew).length;
    const known = [...this.#counts.values()].reduce((sum, count) => sum + count, 0);
    if (fresh > MOST_PER_BATCH || known + fresh > MOST_PER_SYNC)
      throw tooMany(`${MOST_PER_BATCH} of one batch, ${MOST_PER_SYNC} of a sync`, rows[0] as RejectedRow);
    await park(this.#target, this.#sync, rows);
    await failpoint("parked.written");
  }

  /** Whether a batch is blocked by nothing but rows that it has parked itself. */
  areParked({ shape, keys }: BlockingRows): boolean {
    return keys.every((key) =>
      this.#parked.some(
        ({ captureId, keyTexts }) =>
          captureId === shape.capture.id && keyTexts.every((text, n) => text === key[n]),
      ),
    );
  }

  /** Forgets what was parked of the rows that the batch has applied. */
  settleSql({ entry, capture, targetKey, ...shape }: Shape, mode: TableMode): string[] {
    // What was parked of a table that joins is known once it has.
    if (!this.#counts.has(capture.id) && entry.state !== "copied") return [];
    const isWhole = mode.kind === "truncate" || mode.kind === "reread";
    const stage = stageName({ entry, capture, targetKey, ...shape });
    const typed = targetKey.map(
      ({ column, equals }, n) =>
        `${fromText(`p.key_texts[${n + 1}]`, column.baseType)} ${equals} s.k${n + 1}`,
    );
    const texts = targetKey.map(
      ({ column }, n) => `p.key_texts[${n + 1}] = ${toText(`s.k${n + 1}`, column.baseType)}`,
    );
    const isApplied = `exists (select 1 from ${stage} as s
      where case when p.is_key_typed then ${typed.join(" and ")} else ${texts.join(" and ")} end)`;
    return [forgetParkedSql(this.#sync, capture.id, isWhole ? "true" : isApplied)];
  }

  /** The batch is committed; `results`: of its last script. Tells what was parked, and what is settled. */
  async committed(results: readonly StatementResult[], tables: readonly BatchTable[]): Promise<void> {
    const parked = this.#parked.splice(0);
    this.texts.end();
    this.#attempt = 1;
    const settled = results.flatMap(({ rows: [row] }) => {
      const rows = Number(row?.["settled"] ?? 0);
      return rows === 0 ? [] : [{ captureId: Number(row?.["capture"]), rows }];
    });
    const joins = tables.some(({ shape }) => shape.entry.state === "copied");
    if (parked.length === 0 && settled.length === 0 && !joins) return;
    if (settled.length > 0) await wakeDependents(this.#target, this.#sync);
    this.#counts = await countParked(this.#target, this.#sync);
    for (const { shape } of tables) {
      const table = shape.label;
      const fresh = parked.filter((row) => row.captureId === shape.capture.id && row.isNew);
      const [first] = fresh;
      if (first !== undefined)
        this.#context.emit({
          type: "rows-parked",
          table,
          rows: fresh.length,
          key: first.key,
          message: first.message,
        });
      const { rows = 0 } = settled.find((each) => each.captureId === shape.capture.id) ?? {};
      if (rows > 0) this.#context.emit({ type: "parked-rows-settled", table, rows });
    }
  }

  rolledBack(): void {
    this.#parked = [];
  }

  /** Has rows read again that may be let in now. */
  async retryDue(source: Connection, tables: FollowedTables): Promise<void> {
    const shapes = tables.shapesOf(this.#counts.keys()).filter(({ entry }) => entry.state === "following");
    if (shapes.length === 0) return;
    const due = await takeDue(
      this.#target,
      this.#sync,
      shapes.map(({ capture }) => capture.id),
      { pauseSeconds: RETRY_SECONDS, most: RETRY_ROWS },
    );
    for (const { capture } of shapes) {
      const keys = due.filter(({ captureId }) => captureId === capture.id).map(({ keyTexts }) => keyTexts);
      if (keys.length > 0) await recordKeys(source, capture, keys);
    }
  }
}

/** What the batch does to the other tables. */
function othersSql(tables: readonly BatchTable[], own: Shape, replaced: ReadonlySet<number>): string[] {
  return tables
    .filter(({ shape, mode }) => isStaged(mode) && shape.capture.id !== own.capture.id)
    .flatMap(({ shape, mode }) =>
      asApplication(shape.target, applySql(shape, mode, replaced.has(shape.capture.id))),
    );
}
