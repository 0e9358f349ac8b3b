/**
 * How a change of a table of the source comes to the target: from what the table was when both sides were the same, what it is
 * now, and what the target's table is. Only what has changed on the source is changed here, and only where the target had it
 * as the source did; whatever differs for a reason of the target's own stays. Pure.
 */
import { ident, literal, qualified } from "../../postgres/sql.ts";
import { ColumnsTravel, type FutureColumn } from "./columns-travel.ts";
import { constraintSteps, indexSteps } from "./constraints-travel.ts";
import { inOrder, rank, type Step, type Travel } from "./steps.ts";

export interface Travelled {
  /** In the order in which they are to be run. */
  readonly steps: readonly Step[];
  /** The target's columns then. */
  readonly columns: readonly FutureColumn[];
  /** In what these will not be as on the source: on purpose, as it seems. */
  readonly differences: readonly string[];
  /** Changes that are not made, because what they would change is another one on the target. */
  readonly left: readonly string[];
}

export function travel(given: Travel): Travelled {
  const columns = new ColumnsTravel(given).make();
  const constraints = constraintSteps(given);
  const indexes = indexSteps(given);
  const steps = [...columns.steps, ...constraints.steps, ...indexes.steps, ...commentSteps(given)];
  return {
    steps: inOrder(steps),
    columns: columns.columns,
    differences: differencesIn(given, columns.columns),
    left: [...columns.left, ...constraints.left, ...indexes.left],
  };
}

function commentSteps({ before, now, target }: Travel): Step[] {
  if (before.comment === now.comment || target.comment === now.comment) return [];
  const comment = now.comment === null ? "null" : literal(now.comment);
  const sql = `comment on table ${qualified(target.schema, target.name)} is ${comment}`;
  return [{ when: "before", rank: rank.mark, sql }];
}

const GENERATED_SINCE = 120_000;

function differencesIn({ now, version }: Travel, columns: readonly FutureColumn[]): string[] {
  const missing = now.columns.flatMap((column): string[] => {
    const there = columns.find(({ name }) => name === column.name);
    const name = ident(column.name);
    if (there === undefined)
      return column.generated !== "" && version < GENERATED_SINCE ? [] : [`column ${name} is missing`];
    if (there.type !== column.type || there.collation !== column.collation)
      return [`column ${name} is ${there.type}, and not ${column.type}`];
    if ((there.generated === "") !== (column.generated === ""))
      return [`column ${name} is generated on one side`];
    return there.notNull === column.notNull ? [] : [`column ${name} is NOT NULL on one side`];
  });
  const extra = columns.filter(({ name }) => !now.columns.some((column) => column.name === name));
  return [...missing, ...extra.map(({ name }) => `column ${ident(name)} is there alone`)];
}
