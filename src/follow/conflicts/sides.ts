/**
 * What statements about conflicts are made of. "Ours" is what a batch brings; "theirs" is what applications have changed on
 * the side that it is applied to, and the other way has not brought over yet. A key that both have changed is a conflict.
 */
import { changedKeysSql, foreignSql, toldChangesSql, windowSql } from "../../catalog/delta.ts";
import { fromSql } from "../../catalog/table.ts";
import { toText } from "../../catalog/text-form.ts";
import { ident, literal } from "../../postgres/sql.ts";
import type { Shape } from "../shape.ts";
import { stageName } from "../apply/staging.ts";

/** A shape whose changes on the applying side are captured. */
export type TwoSided = Shape & { readonly opposite: NonNullable<Shape["opposite"]> };

export function isTwoSided(shape: Shape): shape is TwoSided {
  return shape.opposite !== undefined;
}

export interface Sides {
  /** The sync's own name. */
  readonly base: string;
  readonly way: "forward" | "reverse";
  /** Names of the databases. */
  readonly ours: string;
  readonly theirs: string;
  /** Nothing ever brings their changes back: the sync goes one way. */
  readonly isLone: boolean;
  /** How far the other way has brought their changes over; null: not at all. */
  readonly delivered: string | null;
}

export const ourSide = ({ way }: Sides): "source" | "target" => (way === "forward" ? "source" : "target");

export const theirSide = ({ way }: Sides): "source" | "target" => (way === "forward" ? "target" : "source");

/** Entries of the log that this batch has made for a table. */
export interface Met {
  readonly shape: TwoSided;
  readonly sides: Sides;
  /** Id of the newest entry before. */
  readonly after: string;
  /** Their changes that the entries tell of: those of this snapshot. What is committed later has to be met again. */
  readonly seen: string;
}

/** The entries `c`; `winners` chooses by who won. */
export function entries({ shape, sides, after }: Met, ...winners: string[]): string {
  const chosen = winners.length === 0 ? "" : ` and c.winner in (${winners.map(literal).join(", ")})`;
  return `c.sync = ${literal(sides.base)} and c.relid = ${shape.target.oid}::pg_catalog.oid and c.id > ${after}${chosen}`;
}

/** Condition on deltas of theirs. */
export const theirWindow = (shape: TwoSided, sides: Sides): string =>
  `${windowSql(sides.delivered)}${foreignSql(shape.opposite.capture, sides.base)}`;

/** The keys that they have changed, duplicates included. */
export const theirKeys = (shape: TwoSided, sides: Sides): string =>
  changedKeysSql(shape.opposite.capture, theirWindow(shape, sides));

/** Their changes, each key once, with what was done to it. */
export const theirChanges = (shape: TwoSided, sides: Sides): string =>
  toldChangesSql(shape.opposite.capture, theirWindow(shape, sides));

/** Matches staging `s` with their changes `d`. */
export function match(shape: TwoSided): string {
  return shape.targetKey.map(({ equals }, n) => `s.k${n + 1} ${equals} d.k${(shape.opposite.key[n] as number) + 1}`).join(" and "); // prettier-ignore
}

/** Matches the table's rows `t` with staging or their changes. */
export function matchRow(shape: TwoSided, alias: "s" | "d"): string {
  return shape.targetKey
    .map(({ column, equals }, n) => {
      const k = alias === "s" ? n : (shape.opposite.key[n] as number);
      return `(t.${ident(column.name)})::${column.baseType} ${equals} ${alias}.k${k + 1}`;
    })
    .join(" and ");
}

/** Staging `s`, their changes `d`, and the row `t` here. */
export function meeting(shape: TwoSided, sides: Sides): string {
  return `${stageName(shape)} as s
    join (${theirChanges(shape, sides)}) as d on ${match(shape)}
    left join ${fromSql(shape.target)} as t on ${matchRow(shape, "s")}`;
}

/** A key as the log holds it: that of staging, and that of the row here. */
const keyTexts = (shape: TwoSided, value: (n: number) => string): string =>
  `array[${shape.targetKey.map(({ column }, n) => toText(value(n), column.baseType)).join(", ")}]`;

export const stagedTexts = (shape: TwoSided): string => keyTexts(shape, (n) => `s.k${n + 1}`);

export const rowTexts = (shape: TwoSided): string =>
  keyTexts(shape, (n) => {
    const { column } = shape.targetKey[n] as Shape["targetKey"][number];
    return `(t.${ident(column.name)})::${column.baseType}`;
  });
