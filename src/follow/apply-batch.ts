/**
 * Applies one batch: one transaction on the target that compares and moves the position, stages the rows and makes the
 * tables equal. Small batches go out in one round trip; large ones stream into staging while they are read.
 */
import { isKeyless } from "../catalog/delta.ts";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { failpoint } from "../postgres/failpoint.ts";
import {
  CopyFrames,
  FeedingScript,
  runScript,
  setFlow,
  tagCount,
  type StatementResult,
} from "../postgres/script.ts";
import { fromSql } from "../catalog/table.ts";
import { ident, literal, qualified } from "../postgres/sql.ts";
import { EXCLUSION_VIOLATION, UNIQUE_VIOLATION, sqlstateOf } from "../postgres/sqlstate.ts";
import {
  applySql, copyInSql, createStageSql, isDirect, isRead, stageName, type Shape, type TableMode,
} from "./shape.ts"; // prettier-ignore

export interface Position {
  /** Null before the first batch. */
  readonly snapshot: string | null;
  readonly token: string;
}

export interface BatchTable {
  readonly shape: Shape;
  readonly mode: TableMode;
  /** The fingerprint that was checked in the batch's snapshot. */
  readonly fingerprint: string;
}

/** A target row, outside of the batch, that keeps a batch's row out by a unique constraint. */
export interface Drift {
  readonly shape: Shape;
  /** Keys as text, one array per row, in the capture's order. */
  readonly keys: readonly (readonly (string | null)[])[];
}

/** Thrown when the target has rows of its own making that block the batch; they have to be read again. */
export class DriftSignal extends Error {
  override readonly name = "DriftSignal";
  readonly drift: Drift;
  constructor(drift: Drift) {
    super(`the target's ${drift.shape.label} has rows that block the batch`);
    this.drift = drift;
  }
}

/** Staging tables that a session may have; beyond, all are dropped, because each commit visits each of them. */
const MOST_STAGES = 40;
const staged = new WeakMap<Connection, Map<number, string>>();

async function ensureStages(target: Connection, shapes: readonly Shape[]): Promise<void> {
  const known = staged.get(target) ?? new Map<number, string>();
  staged.set(target, known);
  const wanted = shapes.map((shape) => ({ shape, sql: createStageSql(shape) }));
  const missing = wanted.filter(({ shape, sql }) => known.get(shape.capture.id) !== sql);
  if (missing.length === 0) return;
  const stale =
    known.size + missing.length > MOST_STAGES
      ? [...known.keys()]
      : missing.map(({ shape }) => shape.capture.id);
  const drops = stale.filter((id) => known.has(id)).map((id) => `drop table if exists pg_temp.stage_${id}`);
  for (const id of stale) known.delete(id);
  const creates = wanted.filter(({ shape }) => !known.has(shape.capture.id));
  await target.script([...drops, ...creates.map(({ sql }) => sql)].join(";\n"));
  for (const { shape, sql } of creates) known.set(shape.capture.id, sql);
}

/** For a session whose temporary tables were dropped. */
export function forgetStages(target: Connection): void {
  staged.delete(target);
}

/** Rows of a small batch that are kept in memory until the source is done, so that the target needs one round trip. */
const SMALL_BATCH_BYTES = 1024 * 1024;

/** Collects the rows of a batch and writes it to the target. One use. */
export class BatchWriter {
  readonly #source: Connection;
  readonly #target: Connection;
  readonly #sync: string;
  readonly #expected: Position;
  readonly #tables: readonly BatchTable[];
  /** Those that rows come for, in the order of their coming. */
  readonly #reads: readonly BatchTable[];
  #next: Position | undefined;
  /** Rows that came, one number per read; known once all are staged. */
  #copied: readonly number[] = [];
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

  constructor(
    source: Connection,
    target: Connection,
    sync: string,
    expected: Position,
    tables: readonly BatchTable[],
  ) {
    this.#source = source;
    this.#target = target;
    this.#sync = sync;
    this.#expected = expected;
    this.#tables = tables;
    this.#reads = tables.filter(({ mode }) => isRead(mode));
    this.#frames = new CopyFrames((frame) => {
      if (this.#feeding !== undefined) return this.#feeding.send(frame);
      this.#buffered.push(frame);
      return true;
    });
  }

  /** Creates what the session lacks, so that nothing has to be asked while rows arrive. */
  async prepare(): Promise<void> {
    const staging = this.#tables.filter(({ mode }) => isRead(mode) && !isDirect(mode));
    await ensureStages(this.#target, staging.map(({ shape }) => shape)); // prettier-ignore
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
    if (this.#failure !== undefined || this.#isOverflown) return;
    this.#rows += 1;
    for (; this.#openCopy < read; this.#openCopy += 1) this.#frames.end();
    const isFlowing = this.#frames.add(payload);
    if (this.#feeding !== undefined) {
      if (!isFlowing) this.#pause(this.#feeding);
      return;
    }
    this.#bytes += payload.length;
    if (this.#bytes <= SMALL_BATCH_BYTES) return;
    if (next === undefined) {
      this.#isOverflown = true;
      this.#buffered = [];
    } else {
      this.#next = next;
      this.#startFeeding([]);
    }
  }

  /** What the target has refused while rows were still coming in, which ends the reading. */
  get failure(): unknown {
    return this.#failure;
  }

  /** The batch was too large to be held in memory and has to be read again, streaming. */
  get isOverflown(): boolean {
    return this.#isOverflown;
  }

  /** `rest`: what follows the rows in the same script; empty while rows are still being read. */
  #startFeeding(rest: readonly string[]): FeedingScript {
    const script = [
      "begin",
      this.#advanceSql(),
      ...this.#reads.map(({ shape, mode }) => copyInSql(shape, mode)),
      "savepoint apply",
      ...rest,
    ];
    const feeding = new FeedingScript(this.#target, script.join(";\n"));
    this.#feeding = feeding;
    feeding.done.catch((error: unknown) => {
      this.#failure ??= error;
      // Nobody reads the rest of the rows.
      if (rest.length === 0) this.#source.destroy();
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

  #advanceSql(): string {
    const next = this.#next as Position;
    const { snapshot, token } = this.#expected;
    const values = [this.#sync, snapshot, token, next.snapshot, next.token].map(literal);
    const captures = this.#tables.map(({ shape }) => shape.capture.id);
    return `select replicate.advance(${values.join(", ")}, '{${captures.join(",")}}')`;
  }

  /**
   * Applies the rows and commits. Returns rows applied per table. Throws DriftSignal, ROW_REFUSED, and the driver's
   * errors; the transaction is rolled back then.
   */
  async apply(next: Position): Promise<Map<number, number>> {
    this.#next = next;
    const replaced = new Set<number>();
    try {
      return await this.#tryApply(replaced);
    } catch (error) {
      if (!this.#target.isBroken) await this.#target.script("rollback").catch(() => this.#target.destroy());
      throw error;
    }
  }

  async #tryApply(replaced: Set<number>): Promise<Map<number, number>> {
    let results: StatementResult[];
    try {
      if (this.#feeding === undefined) {
        this.#endCopies();
        results = await this.#startFeeding(this.#applyScript(replaced, false)).done;
        this.#noteCopied(results);
      } else {
        this.#endCopies();
        this.#noteCopied(await this.#feeding.done);
        await failpoint("batch.staged");
        results = await runScript(this.#target, this.#applyScript(replaced, true).join(";\n"));
      }
    } catch (error) {
      results = await this.#retryReplacing(error, replaced);
    }
    await failpoint("batch.committed");
    const counts = countRows(this.#tables, results, replaced);
    for (const [index, { shape, mode }] of this.#reads.entries())
      if (isDirect(mode)) counts.set(shape.capture.id, this.#copied[index] ?? 0);
    return counts;
  }

  #noteCopied(results: readonly StatementResult[]): void {
    this.#copied = results.filter(({ tag }) => tag.startsWith("COPY ")).map((result) => tagCount(result));
  }

  #endCopies(): void {
    for (; this.#openCopy < this.#reads.length; this.#openCopy += 1) this.#frames.end();
  }

  #applyScript(replaced: ReadonlySet<number>, analyze: boolean): string[] {
    const perTable = this.#tables.flatMap((table): string[] => {
      const { shape, mode, fingerprint } = table;
      if (isKeyless(shape.capture)) return [this.#keylessSql(table)];
      return [
        ...(analyze ? [`analyze ${stageName(shape)}`] : []),
        ...applySql(shape, mode, replaced.has(shape.capture.id)),
        `update replicate.sync_table set state = 'following', last_change_at = pg_catalog.clock_timestamp(),
         rows_applied = rows_applied + (select count(*) from ${stageName(shape)}), fingerprint = ${literal(fingerprint)}${shape.entry.reloadSince === null ? "" : ", reload_since = null"}
       where sync = ${literal(this.#sync)} and capture_id = ${shape.capture.id}`,
      ];
    });
    // What a deferred constraint objects to, it has to say while the batch can still be applied in another way.
    return [...perTable, "set constraints all immediate", "commit"];
  }

  /** What becomes of a keyless table, whose rows are in it by now if they were read. */
  #keylessSql({ shape, mode, fingerprint }: BatchTable): string {
    const sets = [`state = 'following'`, `fingerprint = ${literal(fingerprint)}`];
    if (mode.kind === "held" || (isDirect(mode) && mode.isChanged))
      sets.push(`last_change_at = pg_catalog.clock_timestamp()`);
    if (mode.kind === "held")
      sets.push(
        `reload_since = coalesce(reload_since, pg_catalog.clock_timestamp())`,
        `reload_bytes = ${mode.bytes}`,
      );
    if (isDirect(mode)) {
      // Few rows came in this very script; many have been counted by their COPY.
      const copied = this.#copied[this.#reads.findIndex((each) => each.shape === shape)];
      sets.push(
        `reload_since = null`,
        `reload_bytes = ${mode.bytes}`,
        `reload_seconds = extract(epoch from pg_catalog.clock_timestamp() - pg_catalog.now())`,
        `rows_applied = rows_applied + ${copied ?? `(select count(*) from ${fromSql(shape.target)})`}`,
      );
    }
    return `update replicate.sync_table set ${sets.join(", ")}
      where sync = ${literal(this.#sync)} and capture_id = ${shape.capture.id}`;
  }

  /** Rows that swapped a unique value collide in an upsert; deleting all of them first cannot. */
  async #retryReplacing(error: unknown, replaced: Set<number>): Promise<StatementResult[]> {
    let failure = error;
    for (;;) {
      const table = this.#tables.find(({ shape }) => isAbout(failure, shape));
      const state = sqlstateOf(failure);
      // A keyless table was emptied before its rows came.
      if (
        table === undefined ||
        isKeyless(table.shape.capture) ||
        (state !== UNIQUE_VIOLATION && state !== EXCLUSION_VIOLATION)
      )
        throw refused(failure);
      const { shape } = table;
      if (replaced.has(shape.capture.id)) throw await this.#drift(failure, shape);
      replaced.add(shape.capture.id);
      try {
        const script = ["rollback to savepoint apply", ...this.#applyScript(replaced, false)];
        return await runScript(this.#target, script.join(";\n"));
      } catch (again) {
        failure = again;
      }
    }
  }

  /** Finds the target's rows that hold the batch's unique values under other keys. */
  async #drift(error: unknown, shape: Shape): Promise<unknown> {
    const constraint = (error as { constraint?: string }).constraint;
    await this.#target.script("rollback to savepoint apply");
    const [index] = await this.#target.rows<{ expressions: string[]; predicate: string | null }>(
      `select (select pg_catalog.array_agg(pg_catalog.pg_get_indexdef(i.indexrelid, n, true) order by n)
               from pg_catalog.generate_series(1, coalesce((pg_catalog.to_jsonb(i) ->> 'indnkeyatts')::int, i.indnatts)) as n) as expressions,
              pg_catalog.pg_get_expr(i.indpred, i.indrelid) as predicate
       from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = i.indexrelid
       where c.relname = $1 and i.indisunique
         and i.indrelid in (select $2::oid union all select inhrelid from pg_catalog.pg_inherits where inhparent = $2::oid)`,
      [constraint ?? "", shape.target.oid],
    );
    if (index === undefined) return refused(error);
    // The index's expressions name columns without a table, so each side is wrapped to have just those names.
    const others = shape.plan.columns.filter(
      (pair) => !shape.targetKey.some((key) => key.column.attnum === pair.target.attnum),
    );
    const asTarget = [
      ...shape.targetKey.map(({ column }, n) => `k${n + 1} as ${ident(column.name)}`),
      ...others.map((pair, n) => `c${n + 1}::${pair.target.type} as ${ident(pair.target.name)}`),
    ].join(", ");
    const values = index.expressions.map((expression, n) => `(${expression}) as e${n + 1}`).join(", ");
    const where = index.predicate === null ? "" : ` where ${index.predicate}`;
    const keys = shape.targetKey.map(({ column }) => ident(column.name));
    const rows = await this.#target.rows<{ key: (string | null)[] }>(
      `select array[${keys.map((key) => `t.${key}::text`).join(", ")}] as key
       from (select ${values}, ${keys.join(", ")} from ${qualified(shape.target.schema, shape.target.name)}${where}) as t
       join (select ${values} from (select ${asTarget} from ${stageName(shape)} where present) as r${where}) as s
         on ${index.expressions.map((_, n) => `t.e${n + 1} = s.e${n + 1}`).join(" and ")}
       where not exists (
         select 1 from ${stageName(shape)} as k
         where ${shape.targetKey.map(({ column, equals }, n) => `(t.${ident(column.name)})::${column.baseType} ${equals} k.k${n + 1}`).join(" and ")})`,
    );
    return rows.length === 0 ? refused(error) : new DriftSignal({ shape, keys: rows.map((row) => row.key) });
  }
}

function isAbout(error: unknown, shape: Shape): boolean {
  const { schema, table } = error as { schema?: string; table?: string };
  return (
    (schema === shape.target.schema && table === shape.target.name) ||
    shape.target.leaves.some((leaf) => leaf.schema === schema && leaf.name === table)
  );
}

/** Errors that a row's data cause, and not the state of a server. */
function refused(error: unknown): unknown {
  const state = sqlstateOf(error);
  if (state === undefined || !/^(22|23)/.test(state)) return error;
  const { message, detail, schema, table } = error as Error & {
    detail?: string;
    schema?: string;
    table?: string;
  };
  const where = table === undefined ? "" : ` in ${schema}.${table}`;
  return new ReplicateError(
    "ROW_REFUSED",
    `the target refused a row${where}: ${message}${detail ? ` (${detail})` : ""}`,
    {
      cause: error,
      sqlstate: state,
      ...(/invalid input value for enum/.test(message)
        ? { hint: "Add the new value to the type on the target: alter type … add value …; then start again." }
        : {}),
    },
  );
}

/** Keys applied per capture: the counts of its delete and its insert. */
function countRows(
  tables: readonly BatchTable[],
  results: readonly StatementResult[],
  replaced: ReadonlySet<number>,
): Map<number, number> {
  const tags = results.map((result) => result.tag);
  const counts = new Map<number, number>();
  let at = tags.findLastIndex((tag) => /^(SAVEPOINT|ROLLBACK)$/.test(tag)) + 1;
  for (const { shape } of tables) {
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
    const isReplaced = !shape.canUpsert || replaced.has(shape.capture.id);
    counts.set(shape.capture.id, isReplaced ? Math.max(rows, deleted) : rows + deleted);
  }
  return counts;
}
