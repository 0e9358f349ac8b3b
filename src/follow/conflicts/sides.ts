/**
 * What statements about conflicts are made of. The batch brings the changes of one side; the reverse changes are those that applications have made on
 * the side that it is applied to, and that the other way has not brought over yet. A key that both have changed is a conflict.
 */
import type { Side } from "../../events.ts";
import { changedKeysSql, foreignSql, changesWithOriginSql, windowSql } from "../../catalog/delta.ts";
import { fromSql } from "../../catalog/table.ts";
import { toText } from "../../catalog/text-form.ts";
import { ident, literal } from "../../postgres/sql.ts";
import type { Way } from "../../state/switch.ts";
import type { Shape } from "../shape.ts";
import { stageName } from "../apply/staging.ts";

/** A shape whose changes on the applying side are captured. */
export type TrackedPair = Shape & { readonly reverse: NonNullable<Shape["reverse"]> };

export function tracksTarget(shape: Shape): shape is TrackedPair {
  return shape.reverse !== undefined;
}

export interface Sides {
  /** The sync's own name. */
  readonly base: string;
  readonly way: Way;
  /** Names of the databases. */
  readonly node: string;
  readonly reverseNode: string;
  /** Nothing ever brings the reverse changes over: the sync goes one way. */
  readonly isLone: boolean;
  /** How far the other way has brought the reverse changes over; null: not at all. */
  readonly delivered: string | null;
}

export const batchSide = ({ way }: Sides): Side => (way === "forward" ? "source" : "target");

export const reverseSide = ({ way }: Sides): Side => (way === "forward" ? "target" : "source");

/** Entries of the log that this batch has made for a table. */
export interface Met {
  readonly shape: TrackedPair;
  readonly sides: Sides;
  /** Id of the newest entry before. */
  readonly after: string;
  /** The reverse changes that the entries tell of: those of this snapshot. What is committed later has to be met again. */
  readonly seen: string;
}

/** The entries `c`; `winners` chooses by who won. */
export function entries({ shape, sides, after }: Met, ...winners: string[]): string {
  const chosen = winners.length === 0 ? "" : ` and c.winner in (${winners.map(literal).join(", ")})`;
  return `c.sync = ${literal(sides.base)} and c.relid = ${shape.target.oid}::pg_catalog.oid and c.id > ${after}${chosen}`;
}

/** Condition on the deltas of the reverse changes. */
export const reverseWindow = (shape: TrackedPair, sides: Sides): string =>
  `${windowSql(sides.delivered)}${foreignSql(shape.reverse.capture, sides.base)}`;

/** The keys of the reverse changes, duplicates included. */
export const reverseKeys = (shape: TrackedPair, sides: Sides): string =>
  changedKeysSql(shape.reverse.capture, reverseWindow(shape, sides));

/** The reverse changes, each key once, with what was done to it. */
export const reverseChanges = (shape: TrackedPair, sides: Sides): string =>
  changesWithOriginSql(shape.reverse.capture, reverseWindow(shape, sides));

/** Matches staging `s` with the reverse changes `d`. */
export function match(shape: TrackedPair): string {
  return shape.targetKey.map(({ equals }, n) => `s.k${n + 1} ${equals} d.k${(shape.reverse.key[n] as number) + 1}`).join(" and "); // prettier-ignore
}

/** Matches the table's rows `t` with staging or the reverse changes. */
export function matchRow(shape: TrackedPair, alias: "s" | "d"): string {
  return shape.targetKey
    .map(({ column, equals }, n) => {
      const k = alias === "s" ? n : (shape.reverse.key[n] as number);
      return `(t.${ident(column.name)})::${column.baseType} ${equals} ${alias}.k${k + 1}`;
    })
    .join(" and ");
}

/** Staging `s`, the reverse changes `d`, and the row `t` here. */
export function meeting(shape: TrackedPair, sides: Sides): string {
  return `${stageName(shape)} as s
    join (${reverseChanges(shape, sides)}) as d on ${match(shape)}
    left join ${fromSql(shape.target)} as t on ${matchRow(shape, "s")}`;
}

/** A key as the log holds it: that of staging, and that of the row here. */
const keyTexts = (shape: TrackedPair, value: (n: number) => string): string =>
  `array[${shape.targetKey.map(({ column }, n) => toText(value(n), column.baseType)).join(", ")}]`;

export const stagedTexts = (shape: TrackedPair): string => keyTexts(shape, (n) => `s.k${n + 1}`);

export const rowTexts = (shape: TrackedPair): string =>
  keyTexts(shape, (n) => {
    const { column } = shape.targetKey[n] as Shape["targetKey"][number];
    return `(t.${ident(column.name)})::${column.baseType}`;
  });
