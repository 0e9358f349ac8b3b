/** How a batch treats a table, by what has happened to it. */
import type { Shape } from "../shape.ts";

/**
 * How a batch treats one table. keys: the changed keys. truncate: empty the target first. reread: every row, and
 * what the source does not have is deleted. leaf: empty some of the target's partitions first.
 */
export type TableMode =
  | { readonly kind: "keys" | "truncate" }
  // `keepsReverse`: what the other side has changed and this one has not is left to its way.
  | { readonly kind: "reread"; readonly keepsReverse?: boolean }
  | { readonly kind: "leaf"; readonly leaves: readonly EmptiedLeaf[] }
  | KeylessMode;

/** A partition of the target to be emptied, as long as it takes these rows. */
export interface EmptiedLeaf {
  readonly oid: number;
  /** As SQL. */
  readonly table: string;
  /** See sql/catalog/memberships. */
  readonly membership: string;
}

/**
 * The same for a table without a key. unchanged: nothing to do. held: a reload is deferred from now on, or still. reload: the
 * rows are replaced by those of the source; `isLarge`: by TRUNCATE, which readers of the target have to wait for.
 */
export type KeylessMode =
  | { readonly kind: "unchanged" }
  | { readonly kind: "deferred"; readonly bytes: number }
  | {
      readonly kind: "reload";
      readonly bytes: number;
      readonly isChanged: boolean;
      readonly isLarge: boolean;
    };

/** Whether a batch reads rows of the table. */
export function isRead(mode: TableMode): boolean {
  return mode.kind !== "unchanged" && mode.kind !== "deferred";
}

/**
 * Whether every row of the table is read. Where the target has changes of its own, a table that was emptied is read as a
 * whole as well: they do not go with the rows that were there.
 */
export function isReread({ reverse }: Pick<Shape, "reverse">, { kind }: TableMode): boolean {
  return kind === "reread" || (reverse !== undefined && (kind === "truncate" || kind === "leaf"));
}

/** Whether a batch writes the rows into the table as they come, and not by way of staging. */
export function isDirect(mode: TableMode): mode is Extract<TableMode, { kind: "reload" }> {
  return mode.kind === "reload";
}

/** Whether the rows that a batch reads of the table are staged. */
export function isStaged(mode: TableMode): boolean {
  return isRead(mode) && !isDirect(mode);
}
