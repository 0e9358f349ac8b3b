/** A batch as statements: those that begin its transaction on the target, and those that apply what was staged. */
import { isKeyless } from "../../catalog/delta.ts";
import { parseFingerprint } from "../../catalog/fingerprint.ts";
import { ownRowsSql } from "../../catalog/rows.ts";
import { applicationPathSql, asApplication, OWN_PATH } from "../../catalog/search-path.ts";
import { tagCount, type StatementResult } from "../../postgres/script.ts";
import { literal } from "../../postgres/sql.ts";
import { keepLeaseSql, type Lease } from "../../state/lease.ts";
import { applySql } from "../read/carry-rows.ts";
import { completeRereadSql } from "../read/complete-reread.ts";
import type { ParkedRows } from "./parked-rows.ts";
import { disputeUnknownSql } from "../conflicts/dispute-unknown.ts";
import type { BatchTable } from "./batch-table.ts";
import { expectTwinsSql } from "./emptied-leaves.ts";
import { meetSql, takeTurnsSql } from "../conflicts/find-conflicts.ts";
import { leavePendingSql } from "../conflicts/pending-keys.ts";
import type { Settlement } from "../conflicts/settle-conflicts.ts";
import { stageName } from "./staging.ts";
import { isDirect, isRead } from "../read/table-mode.ts";
import { recordDisputedSql, recordEmptiedSql, travelOnSql } from "../conflicts/other-deltas.ts";
import { tracksTarget, type Met } from "../conflicts/sides.ts";

export interface Position {
  /** Null before the first batch. */
  readonly snapshot: string | null;
  readonly token: string;
}

/**
 * Where applications write here too, a lock is waited for so long only, in milliseconds: well below the second after which
 * a server looks for deadlocks, so that it is us who give way. Then the batch is applied again, see `BatchRetry`.
 */
const LOCK_TIMEOUT_MS = 250;

export class BatchScript {
  #tables: readonly BatchTable[];
  /** The transaction stays open when the rows are applied, for what comes after them. */
  staysOpen = false;
  /** Captures whose keys are all deleted before any is inserted, whatever their tables allow. */
  readonly replaced = new Set<number>();
  readonly #sync: string;
  readonly #lease: Lease;
  readonly #parked: ParkedRows;
  readonly #settlement: Settlement | undefined;
  /** Rows that came, one number per read; known once all are staged. */
  #copied: readonly number[] = [];

  /** `settlement`: where conflicts are to be found. */
  constructor(
    sync: string,
    lease: Lease,
    tables: readonly BatchTable[],
    parked: ParkedRows,
    settlement: Settlement | undefined,
  ) {
    this.#sync = sync;
    this.#lease = lease;
    this.#tables = tables;
    this.#parked = parked;
    this.#settlement = settlement;
  }

  get tables(): readonly BatchTable[] {
    return this.#tables;
  }

  /** Those that rows come for, in the order of their coming. */
  get reads(): readonly BatchTable[] {
    return this.#tables.filter(({ mode }) => isRead(mode));
  }

  /** The tables as they are once the target's have been changed: the same in the same order. */
  retarget(tables: readonly BatchTable[]): void {
    this.#tables = tables;
  }

  /** Begins the transaction, moves the position and takes the rows in. */
  begin(expected: Position, next: Position): string[] {
    return [...this.open(expected, next), ...this.takeIn()];
  }

  /** Begins the transaction and moves the position. */
  open(expected: Position, next: Position): string[] {
    return [
      "begin",
      ...(this.#settlement === undefined ? [] : [`set local lock_timeout = ${LOCK_TIMEOUT_MS}`]),
      keepLeaseSql(this.#lease),
      this.#advanceSql(expected, next),
      ...this.#expectSql(),
    ];
  }

  /** Takes the rows in. */
  takeIn(): string[] {
    return [
      ...this.reads.map(({ shape, mode }) => this.#parked.texts.copyInSql(shape, mode)),
      "savepoint apply",
    ];
  }

  #advanceSql({ snapshot, token }: Position, next: Position): string {
    const values = [this.#sync, snapshot, token, next.snapshot, next.token].map(literal);
    const captures = this.tables.map(({ shape }) => shape.capture.id);
    return `select replicate.advance(${values.join(", ")}, '{${captures.join(",")}}')`;
  }

  /**
   * Stops a batch that was made for other columns here. What is known of the target's tables is so of all rows that batches
   * have written: rows from before a new column have no value of it but what the catalogue keeps.
   */
  #expectSql(): string[] {
    const known = this.tables.flatMap(({ shape: { entry, target } }) => {
      if (entry.targetFingerprint === null) return [];
      const { rows } = parseFingerprint(entry.targetFingerprint);
      return rows === undefined ? [] : [{ oid: target.oid, versions: rows.versions }];
    });
    if (known.length === 0) return [];
    const versions = known.map((each) => literal(each.versions)).join(", ");
    return [
      `select replicate.expect_columns('{${known.map(({ oid }) => oid).join(",")}}', array[${versions}])`,
    ];
  }

  /** `results`: of the script that took the rows in. */
  recordCopied(results: readonly StatementResult[]): void {
    this.#copied = results.filter(({ tag }) => tag.startsWith("COPY ")).map((result) => tagCount(result));
  }

  /**
   * Applies the rows and commits. `isAnalyzed`: with statistics of the staging tables. `isSettled`: staging is as it has to
   * be, and what it met was decided.
   */
  apply({ isAnalyzed = false, isSettled = false } = {}): string[] {
    const perTable = this.tables.flatMap((table): string[] => {
      const { shape, mode } = table;
      if (isKeyless(shape.capture)) return asApplication(shape.target, [this.#keylessSql(table)]);
      return [
        ...(isAnalyzed ? [`analyze ${stageName(shape)}`] : []),
        ...expectTwinsSql(shape, mode),
        ...asApplication(shape.target, applySql(shape, mode, this.replaced.has(shape.capture.id))),
        `update replicate.sync_table set state = 'following', last_change_at = pg_catalog.clock_timestamp(),
         rows_applied = rows_applied + (select count(*) from ${stageName(shape)})${recordedSql(table)}${shape.entry.reloadSince === null ? "" : ", reload_since = null"}
       where sync = ${literal(this.#sync)} and capture_id = ${shape.capture.id}`,
      ];
    });
    const parked = this.tables.flatMap(({ shape, mode }) =>
      isKeyless(shape.capture) ? [] : this.#parked.settleSql(shape, mode),
    );
    const meetings = this.tracked.map(({ shape, sides }) => meetSql(shape, sides));
    return [
      ...(meetings.length === 0 || isSettled ? [] : [...this.completeStages(), ...meetings]),
      ...(meetings.length === 0 ? [] : ["savepoint rows"]),
      ...perTable,
      // What an application has committed here meanwhile; from now on our locks keep it out.
      ...meetings,
      ...this.tracked.flatMap((met) => travelOnSql(met)),
      ...parked,
      // With a lock on all of them.
      ...this.#expectSql(),
      // What a deferred constraint objects to, it has to say while the batch can still be applied in another way.
      ...(this.tables.length === 0
        ? []
        : [applicationPathSql(...this.tables.map(({ shape }) => shape.target))]),
      "set constraints all immediate",
      OWN_PATH,
      ...(this.staysOpen ? [] : ["commit"]),
    ];
  }

  /** The tables whose changes here may be in conflict with the batch. */
  get tracked(): readonly (Met & Required<Pick<BatchTable, "mode" | "kept" | "emptiedAt">>)[] {
    const settlement = this.#settlement;
    if (settlement === undefined) return [];
    const { sides, after } = settlement;
    return this.tables.flatMap(({ shape, mode, kept = [], emptiedAt = null }) =>
      tracksTarget(shape) ? [{ shape, sides, after, seen: "", mode, kept, emptiedAt }] : [],
    );
  }

  /** What staging needs before it can be seen what the batch meets. */
  completeStages(): string[] {
    const met = this.tracked;
    const stages = met.flatMap(({ shape, sides, mode, kept, emptiedAt }) => [
      ...asApplication(shape.target, completeRereadSql(shape, sides, mode, emptiedAt)),
      ...leavePendingSql(shape, sides, kept),
      ...asApplication(shape.target, recordEmptiedSql(shape, sides)),
      ...asApplication(shape.target, disputeUnknownSql(shape, sides, mode)),
      ...recordDisputedSql(shape),
    ]);
    const [first] = met;
    return first === undefined ? [] : [takeTurnsSql(met.map(({ shape }) => shape), first.sides), ...stages]; // prettier-ignore
  }

  /** What becomes of a keyless table, whose rows are in it by now if they were read. */
  #keylessSql(table: BatchTable): string {
    const { shape, mode } = table;
    const sets = [`state = 'following'${recordedSql(table)}`];
    if (mode.kind === "deferred" || (isDirect(mode) && mode.isChanged))
      sets.push(`last_change_at = pg_catalog.clock_timestamp()`);
    if (mode.kind === "deferred")
      sets.push(
        `reload_since = coalesce(reload_since, pg_catalog.clock_timestamp())`,
        `reload_bytes = ${mode.bytes}`,
      );
    if (isDirect(mode)) {
      // Few rows came in this very script; many have been counted by their COPY.
      const copied = this.#copied[this.reads.findIndex((each) => each.shape === shape)];
      sets.push(
        `reload_since = null`,
        `reload_bytes = ${mode.bytes}`,
        `reload_seconds = extract(epoch from pg_catalog.clock_timestamp() - pg_catalog.now())`,
        `rows_applied = rows_applied + ${copied ?? `(select count(*) from ${ownRowsSql(shape.target)})`}`,
      );
    }
    return `update replicate.sync_table set ${sets.join(", ")}
      where sync = ${literal(this.#sync)} and capture_id = ${shape.capture.id}`;
  }

  /** Rows applied per capture: with a key, the counts of its delete and its insert. `results`: of the last script. */
  countRows(results: readonly StatementResult[]): Map<number, number> {
    const tags = results.map((result) => result.tag);
    const counts = new Map<number, number>();
    let at = tags.findLastIndex((tag) => /^(SAVEPOINT|ROLLBACK)$/.test(tag)) + 1;
    for (const { shape } of this.tables) {
      let rows = 0;
      let deleted = 0;
      for (; at < results.length; at += 1) {
        const tag = tags[at] as string;
        if (tag.startsWith("UPDATE")) break;
        if (tag.startsWith("DELETE")) deleted = tagCount(results[at]);
        if (tag.startsWith("INSERT")) rows = tagCount(results[at]);
      }
      at += 1;
      // Where all keys were deleted first, those that came back are counted twice.
      const isReplaced = !shape.canUpsert || this.replaced.has(shape.capture.id);
      counts.set(shape.capture.id, isReplaced ? Math.max(rows, deleted) : rows + deleted);
    }
    for (const [index, { shape, mode }] of this.reads.entries())
      if (isDirect(mode)) counts.set(shape.capture.id, this.#copied[index] ?? 0);
    return counts;
  }
}

/** Of a table with many partitions it is long. */
function recordedSql({ shape: { entry }, fingerprint }: BatchTable): string {
  return fingerprint === entry.fingerprint ? "" : `, fingerprint = ${literal(fingerprint)}`;
}
