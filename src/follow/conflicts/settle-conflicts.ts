/**
 * Settles the conflicts of a batch, in the transaction that applies it: writes each into the log, has it decided, and
 * makes staging what was decided.
 */
import type { Side } from "../../events.ts";
import { recordKeys } from "../../capture/record-changes.ts";
import { conflictError, decide } from "../../conflict/decide.ts";
import {
  policyLabel,
  type Conflict,
  type ConflictPolicy,
  type ConflictSide,
} from "../../config/conflict-policy.ts";
import { asApplication } from "../../catalog/search-path.ts";
import { tableLabel } from "../../catalog/table.ts";
import { ReplicateError } from "../../errors.ts";
import type { Connection } from "../../postgres/connect.ts";
import { failpoint } from "../../postgres/failpoint.ts";
import { ident, literal } from "../../postgres/sql.ts";
import type { UniqueIndex } from "../apply/blocking-rows.ts";
import { agreeSql, effectSql } from "./effects.ts";
import { lockRowsSql, recordCollisionsSql, recordConflictsSql, recordDeletedSql } from "./find-conflicts.ts";
import type { OtherSide } from "./other-side.ts";
import { References } from "../apply/references.ts";
import type { Met, Sides, TrackedPair } from "./sides.ts";

/** Entries that are decided at a time: memory is bounded by their images. */
const CHUNK = 200;

/** A row of replicate.conflict as it is decided. */
interface Entry {
  readonly id: string;
  readonly key: Record<string, unknown>;
  readonly otherKey: Record<string, unknown> | null;
  readonly keyTexts: string[];
  readonly otherTexts: string[] | null;
  readonly constraint: string | null;
  readonly kind: Conflict["kind"];
  readonly source: ConflictSide;
  readonly target: ConflictSide;
  readonly comparison: Conflict["comparison"];
}

interface Verdict {
  readonly id: string;
  readonly winner: Side | "merged" | "skip";
  /** Values of the merged row that are not the batch's own. */
  readonly merged: Record<string, unknown> | null;
}

export class Settlement {
  readonly #source: Connection;
  readonly #target: Connection;
  readonly #otherSide: OtherSide;
  readonly sides: Sides;
  /** Until it is known, no entry is ours. */
  #after = "9223372036854775807";
  readonly #references = new References();
  /** Unique indexes that rows of the batch have met, by capture. */
  readonly #collisions = new Map<number, UniqueIndex[]>();

  constructor(source: Connection, target: Connection, otherSide: OtherSide) {
    this.#source = source;
    this.#target = target;
    this.#otherSide = otherSide;
    const { base, way, node, reverseNode, isLone } = otherSide;
    this.sides = { base, way, node, reverseNode, isLone, delivered: otherSide.delivered() };
  }

  /** From now on, rows here that hold a unique value of the batch under another key are conflicts. */
  addCollision(shape: TrackedPair, index: UniqueIndex): void {
    const known = this.#indexesOf(shape);
    if (known.some(({ name }) => name === index.name)) return;
    this.#collisions.set(shape.capture.id, [...known, index]);
  }

  #indexesOf({ capture }: TrackedPair): readonly UniqueIndex[] {
    return this.#collisions.get(capture.id) ?? [];
  }

  /** Entries of the log with higher ids are of this try to settle. */
  get after(): string {
    return this.#after;
  }

  /** Begins to settle, after a rollback of what was tried before. */
  async begin(): Promise<void> {
    ({ after: this.#after } = await this.#newest());
  }

  async #newest(): Promise<Pick<Met, "after" | "seen">> {
    return await this.#target.row<Pick<Met, "after" | "seen">>(
      `select coalesce(pg_catalog.max(id), 0)::text as after, pg_catalog.txid_current_snapshot()::text as seen from replicate.conflict`,
    );
  }

  /** Lets nobody change rows that are to be settled, until the batch is committed. */
  async #lockRows(shape: TrackedPair): Promise<void> {
    await this.#target.script(
      asApplication(shape.target, lockRowsSql(shape, this.sides, this.#indexesOf(shape))).join(";\n"),
    );
  }

  /**
   * Settles the conflicts of one table. Throws CONFLICT where the policy is `error`, and CONFLICT_RESOLVER_FAILED; the
   * caller rolls back.
   */
  async settle(shape: TrackedPair): Promise<void> {
    const policy = this.#otherSide.policyOf(shape);
    const label = policyLabel(policy);
    const isTimed = policy.kind === "latest" || policy.kind === "latest-column";
    await this.#lockRows(shape);
    const deleted = recordDeletedSql({ shape, sides: this.sides }, label);
    await this.#target.script(asApplication(shape.target, [deleted]).join(";\n"));
    await this.#settle(shape, (met) => [...agreeSql(met, isTimed), recordConflictsSql(met, label)]);
    // One by one: a row that lost by one index does not meet others by the next. And again, until none has lost: one that
    // stays out leaves the row here with the value that it had, which another of the batch may want.
    for (let isAny = true; isAny;) {
      isAny = false;
      for (const index of this.#indexesOf(shape))
        isAny = (await this.#settle(shape, (met) => [recordCollisionsSql(met, label, index)])) || isAny;
    }
  }

  /** Returns whether there was anything to settle. */
  async #settle(shape: TrackedPair, record: (met: Met) => string[]): Promise<boolean> {
    const met: Met = { shape, sides: this.sides, ...(await this.#newest()) };
    await this.#target.script(asApplication(shape.target, record(met)).join(";\n"));
    await failpoint("conflict.recorded");
    const policy = this.#otherSide.policyOf(shape);
    let isAny = false;
    for (let last = met.after; ;) {
      const entries = await this.#entries(met, policy, last);
      if (entries.length === 0) break;
      isAny = true;
      last = (entries.at(-1) as Entry).id;
      const verdicts: Verdict[] = [];
      for (const entry of entries) verdicts.push(await this.#decide(shape, policy, entry));
      await this.#write(verdicts);
    }
    if (!isAny) return false;
    await failpoint("conflict.decided");
    await this.#target.script(
      asApplication(shape.target, effectSql(met, this.#indexesOf(shape))).join(";\n"),
    );
    await this.#returnKeys(met);
    return true;
  }

  async #entries({ shape, sides }: Met, policy: ConflictPolicy, last: string): Promise<Entry[]> {
    const side = (name: Side): string =>
      `pg_catalog.jsonb_build_object('node', ${name}_node, 'change', ${name}_change, 'image', ${exactSql(`${name}_image`)},
        'at', pg_catalog.to_char(${name}_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')) as ${name}`;
    return await this.#target.rows<Entry>(
      `select id::text as id, ${exactSql("key")} as key, ${exactSql("other_key")} as "otherKey", key_texts as "keyTexts", other_key_texts as "otherTexts",
              constraint_name as "constraint", kind,
              ${side("source")}, ${side("target")}, ${comparisonSql(shape, sides, policy)} as comparison
       from replicate.conflict as c where sync = $1 and relid = $2 and id > $3
       order by c.id limit ${CHUNK}`, // not by the text of the same name
      [sides.base, shape.target.oid, last],
    );
  }

  async #decide(shape: TrackedPair, policy: ConflictPolicy, entry: Entry): Promise<Verdict> {
    const table = this.sides.way === "forward" ? shape.label : tableLabel(shape.target);
    const { id, key, otherKey, constraint, kind, source, target, comparison } = entry;
    const conflict: Conflict = {
      table, key, kind, source, target, comparison,
      ...(otherKey === null ? {} : { otherKey }),
      ...(constraint === null ? {} : { constraint }),
    }; // prettier-ignore
    const decision = await decide(policy, conflict);
    if (decision.winner === "error") throw conflictError(policy, conflict);
    if (decision.winner !== "merged") {
      const isKept = (decision.winner === "source" || decision.winner === "target") && (await this.#isKept(shape, entry, decision.winner)); // prettier-ignore
      return { id, winner: isKept ? "skip" : decision.winner, merged: null };
    }
    // What the function left as it was keeps its exact value, which JavaScript may not be able to hold.
    const own = (this.sides.way === "forward" ? source : target).image ?? {};
    const changed = Object.entries(decision.image).filter(
      ([name, value]) => JSON.stringify(value) !== JSON.stringify(own[name]),
    );
    return { id, winner: "merged", merged: Object.fromEntries(changed) };
  }

  /** Whether a row that lost by a unique value cannot go, because others point to it. Then somebody has to move these first. */
  async #isKept(shape: TrackedPair, { keyTexts, otherTexts }: Entry, winner: Side): Promise<boolean> {
    if (otherTexts === null) return false;
    const isOurs = (winner === "source") === (this.sides.way === "forward");
    const sessions = { source: this.#source, target: this.#target };
    return isOurs
      ? await this.#references.wouldBreak(shape, sessions, "target", otherTexts)
      : await this.#references.wouldBreak(shape, sessions, "source", keyTexts);
  }

  async #write(verdicts: readonly Verdict[]): Promise<void> {
    const own = this.sides.way === "forward" ? "source_image" : "target_image";
    await this.#target.rows(
      `update replicate.conflict as c
       set winner = v.winner,
           merged_image = case when v.winner = 'merged' then coalesce(c.${own}, '{}') || v.merged end,
           resolved_at = case when v.winner <> 'skip' then pg_catalog.clock_timestamp() end
       from pg_catalog.jsonb_to_recordset($1::jsonb) as v (id bigint, winner text, merged jsonb)
       where c.id = v.id`,
      [JSON.stringify(verdicts)],
    );
  }

  /**
   * Where a row here gave way to one of ours with the same unique value, our side may have an older version of it: its key
   * is read again with the next batch. Noted before the batch commits, so that it cannot be forgotten.
   */
  async #returnKeys({ shape, sides, after }: Met): Promise<void> {
    const winner = sides.way === "forward" ? "source" : "target";
    const keys = await this.#target.rows<{ key: string[] }>(
      `select other_key_texts as key from replicate.conflict
       where sync = $1 and relid = $2 and id > $3 and other_key is not null and winner = $4`,
      [sides.base, shape.target.oid, after, winner],
    );
    if (keys.length === 0) return;
    await recordKeys(this.#source, shape.capture, keys.map(({ key }) => key)); // prettier-ignore
    await failpoint("conflict.returned");
  }
}

/** An image as JavaScript can hold it: numbers of many digits become texts. */
function exactSql(image: string): string {
  return `(select pg_catalog.jsonb_object_agg(e.key,
      case when pg_catalog.jsonb_typeof(e.value) = 'number' and pg_catalog.length(e.value #>> '{}') > 15
        then pg_catalog.to_jsonb(e.value #>> '{}') else e.value end)
    from pg_catalog.jsonb_each(${image}) as e)`;
}

/** Which side's value of the policy's column is greater; null where a side has none. */
function comparisonSql(shape: TrackedPair, sides: Sides, policy: ConflictPolicy): string {
  if (policy.kind !== "latest-column") return "null";
  const { column } = policy;
  const pair = shape.plan.columns.find(
    (each) => (sides.way === "forward" ? each.source : each.target).name === column,
  );
  if (pair === undefined)
    throw new ReplicateError(
      "CONFIG_INVALID",
      `${shape.label} has no column ${ident(column)} to decide conflicts by`,
    );
  const value = (image: string): string => `(${image} ->> ${literal(column)})::${pair.target.baseType}`;
  return `case when ${value("source_image")} > ${value("target_image")} then 'source'
    when ${value("source_image")} < ${value("target_image")} then 'target'
    when ${value("source_image")} = ${value("target_image")} then 'equal' end`;
}
