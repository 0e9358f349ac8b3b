/** What has to be done to the target's constraints and indexes so that they follow those of the source. Pure. */
import { normalise } from "../../catalog/expression-text.ts";
import type { ConstraintDefinition, PlainIndexDefinition } from "../../catalog/table-definition.ts";
import { stages } from "../../catalog/definitions.ts";
import { tableLabel } from "../../catalog/table.ts";
import { ident, literal, qualified } from "../../postgres/sql.ts";
import { rank, type Step, type Travel } from "./steps.ts";

interface Found {
  readonly steps: Step[];
  /** Changes that are not made, because what they would change is another one on the target. */
  readonly left: string[];
}

/** Foreign keys of partitioned tables may be NOT VALID since this version. */
const NOT_VALID_SINCE = 180_000;

/** As the ledger of what was taken away has it. */
const awayName = ({ type, name }: ConstraintDefinition): string =>
  `${type === "f" ? "foreign-key" : "check"} ${name}`;

/** Those that come from a parent come and go with the parent's. */
const own = (all: readonly ConstraintDefinition[]): ConstraintDefinition[] =>
  all.filter(({ isInherited }) => !isInherited);

export function constraintSteps({ before, now, target, version, ledger, lacking }: Travel): Found {
  const table = qualified(target.schema, target.name);
  const found: Found = { steps: [], left: [] };
  const add = (when: Step["when"], order: number, sql: string): void =>
    void found.steps.push({ when, rank: order, sql });
  const [was, is] = [own(before.constraints), own(now.constraints)];
  const away = new Set(ledger.away);
  /** Whether it is the same constraint, also where it was dropped and made again just as it was. */
  const isOne = (former: ConstraintDefinition, constraint: ConstraintDefinition): boolean =>
    former.oid === constraint.oid ||
    (former.name === constraint.name &&
      former.type === constraint.type &&
      former.definition === constraint.definition &&
      !is.some(({ oid }) => oid === former.oid) &&
      !was.some(({ oid }) => oid === constraint.oid));
  /** By their names here, as far as these are known to change. */
  const there = new Map(target.constraints.map((constraint) => [constraint.name, constraint]));

  for (const constraint of was) {
    if (is.some((each) => isOne(constraint, each))) continue;
    if (away.has(awayName(constraint))) {
      strike(constraint);
      continue;
    }
    const twin = there.get(constraint.name);
    if (twin?.type !== constraint.type) continue;
    const order = constraint.type === "f" ? rank.dropForeignKey : rank.dropConstraint;
    add("before", order, `alter table ${table} drop constraint if exists ${ident(constraint.name)}`);
    there.delete(constraint.name);
  }
  for (const constraint of is) {
    const former = was.find((each) => isOne(each, constraint));
    const name = ident(constraint.name);
    if (former !== undefined && away.has(awayName(former))) {
      const isSame = former.definition === constraint.definition && former.name === constraint.name;
      if (isSame && former.isValidated === constraint.isValidated) continue;
      strike(former);
      if (isAway(constraint)) defer(constraint);
      else addNow(constraint);
      continue;
    }
    if (former === undefined) {
      if (away.has(awayName(constraint))) continue;
      const twin = there.get(constraint.name);
      if (twin !== undefined) {
        if (normalise(twin.definition) !== normalise(constraint.definition))
          found.left.push(`constraint ${name}, as the target has another one of that name`);
        continue;
      }
      const partner =
        constraint.references === null ? undefined : lacking.get(tableLabel(constraint.references));
      if (partner === "foreign")
        found.left.push(
          `foreign key ${name}, as the target has no table ${tableLabel(constraint.references ?? target)}`,
        );
      else if (isAway(constraint) || partner === "joining") defer(constraint);
      else addNow(constraint);
      continue;
    }
    const twin = there.get(former.name);
    if (former.name !== constraint.name && twin?.type === former.type) {
      add(
        "before",
        rank.renameConstraint,
        `alter table ${table} rename constraint ${ident(former.name)} to ${name}`,
      );
      there.delete(former.name);
      there.set(constraint.name, twin);
    }
    const here = there.get(constraint.name);
    if (here === undefined) continue;
    if (constraint.isValidated && !former.isValidated && !here.isValidated)
      add("after", rank.validate, `alter table ${table} validate constraint ${name}`);
    const timing = (each: ConstraintDefinition): string =>
      `${each.isDeferrable ? "" : "not "}deferrable initially ${each.isDeferred ? "deferred" : "immediate"}`;
    if (
      constraint.type === "f" &&
      timing(constraint) !== timing(former) &&
      timing(here) !== timing(constraint)
    )
      add(
        "before",
        rank.renameConstraint,
        `alter table ${table} alter constraint ${name} ${timing(constraint)}`,
      );
    comment(constraint, former.comment);
  }
  return found;

  /** Whether rows that are replicated must not meet it yet. */
  function isAway({ type, isValidated }: ConstraintDefinition): boolean {
    return (type === "f" && ledger.keepsForeignKeys) || (type === "c" && !isValidated);
  }

  function addNow(constraint: ConstraintDefinition): void {
    const order = { f: rank.foreignKey, c: rank.check, p: rank.key, u: rank.key, x: rank.key }[
      constraint.type
    ];
    add(
      "after",
      order,
      `alter table ${table} add constraint ${ident(constraint.name)} ${constraint.definition}`,
    );
    comment(constraint, null);
  }

  function note(sql: string): void {
    found.steps.push({ when: "before", rank: rank.ledger, sql, isLedger: true });
  }

  function strike(constraint: ConstraintDefinition): void {
    away.delete(awayName(constraint));
    note(`delete from replicate.deferred where sync = ${literal(ledger.sync)} and table_name = ${literal(tableLabel(target))}
      and restored_at is null and kind || ' ' || object_name = ${literal(awayName(constraint))}`);
  }

  /** It comes at the end, as those do that were taken away by the copy. */
  function defer(constraint: ConstraintDefinition): void {
    const name = ident(constraint.name);
    const isForeign = constraint.type === "f";
    const isChecked =
      isForeign && constraint.isValidated && (target.kind !== "p" || version >= NOT_VALID_SINCE);
    const restore = [
      `alter table ${table} add constraint ${name} ${constraint.definition}${isChecked ? " not valid" : ""}`,
      ...(constraint.comment === null
        ? []
        : [`comment on constraint ${name} on ${table} is ${literal(constraint.comment)}`]),
    ];
    const values = [
      literal(ledger.sync),
      ledger.captureId,
      literal(isForeign ? "foreign-key" : "check"),
      literal(constraint.name),
      literal(tableLabel(target)),
      isForeign ? stages.foreignKey : stages.reaction,
      `array[${restore.map((each) => literal(each)).join(", ")}]::text[]`,
      isChecked ? literal(`alter table ${table} validate constraint ${name}`) : "null",
    ];
    note(`insert into replicate.deferred (sync, capture_id, kind, object_name, table_name, stage, statements, validate)
      values (${values.join(", ")})`);
  }

  function comment({ name, comment: text }: ConstraintDefinition, former: string | null): void {
    if (text === former) return;
    add(
      "after",
      rank.comment,
      `comment on constraint ${ident(name)} on ${table} is ${text === null ? "null" : literal(text)}`,
    );
  }
}

export function indexSteps({ before, now, target, deferred }: Travel): Found {
  const found: Found = { steps: [], left: [] };
  const sqlOf = (name: string): string => qualified(target.schema, name);
  const there = new Map(target.indexes.map((index) => [index.name, index]));
  for (const index of before.indexes) {
    if (now.indexes.some(({ oid }) => oid === index.oid) || !there.has(index.name)) continue;
    found.steps.push({
      when: "before",
      rank: rank.dropIndex,
      sql: `drop index if exists ${sqlOf(index.name)}`,
    });
    there.delete(index.name);
  }
  for (const index of now.indexes) {
    const former = before.indexes.find(({ oid }) => oid === index.oid);
    if (former !== undefined && former.isValid) {
      if (former.name !== index.name && there.has(former.name) && !there.has(index.name))
        found.steps.push({
          when: "before",
          rank: rank.dropIndex,
          sql: `alter index ${sqlOf(former.name)} rename to ${ident(index.name)}`,
        });
      // Not built yet, and it has another name by now.
      if (deferred.has(former.definition) && former.definition !== index.definition && !there.has(index.name))
        found.steps.push({ when: "later", rank: rank.index, sql: index.definition });
      if (former.comment !== index.comment)
        found.steps.push({ when: "later", rank: rank.index + 1, sql: commentSql(index) });
      continue;
    }
    // One that is not valid is being built, or nobody has cleared it away.
    if (!index.isValid && target.kind !== "p") continue;
    const twin = there.get(index.name);
    if (twin === undefined) {
      found.steps.push({ when: "later", rank: rank.index, sql: index.definition });
      if (index.comment !== null)
        found.steps.push({ when: "later", rank: rank.index + 1, sql: commentSql(index) });
    } else if (normalise(twin.definition) !== normalise(index.definition))
      found.left.push(`index ${ident(index.name)}, as the target has another one of that name`);
  }
  return found;

  function commentSql({ name, comment }: PlainIndexDefinition): string {
    return `comment on index ${sqlOf(name)} is ${comment === null ? "null" : literal(comment)}`;
  }
}
