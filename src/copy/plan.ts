/** How a table is cut into parts. Pure: sizes and key bounds come from the caller. */
import { twinOf, type LeafMembership } from "../catalog/memberships.ts";
import type { Table } from "../catalog/table.ts";

/** A range of one relation that is copied in one transaction. Bounds: low inclusive, high exclusive, null open. */
export interface PlannedPart {
  readonly sourceRelid: number;
  readonly targetRelid: number;
  readonly split: "whole" | "pages" | "keys";
  /** A heap page, or the texts of the key's columns. */
  readonly low: number | readonly string[] | null;
  readonly high: number | readonly string[] | null;
  /** Estimate of heap and TOAST on the source. */
  readonly bytes: number;
}

/** One relation that holds rows: the table itself, or a leaf of a partitioned one. */
export interface Storage {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  readonly file: string;
  readonly heapBytes: number;
  readonly toastBytes: number;
}

/** Pages are 8 KiB in every build that a provider offers; another size only makes parts larger or smaller. */
const pageBytes = 8192;
/** More parts than this only make the ledger longer. */
const maxParts = 10_000;

/** Below this a table is copied with its indexes in place, together with the preparation, in one transaction. */
export const smallBytes = 1024 * 1024;

/** The relations that hold the table's rows, in oid order. */
export function storages(table: Table): readonly Storage[] {
  return table.kind === "p" ? table.leaves : [table];
}

export function storageBytes(storage: Storage): number {
  return storage.heapBytes + storage.toastBytes;
}

/** How many parts a relation is worth. */
export function partCount(storage: Storage, partBytes: number): number {
  return Math.max(1, Math.min(maxParts, Math.ceil(storageBytes(storage) / partBytes)));
}

/**
 * Cuts relations into parts of about `partBytes`. By pages, each part has an equal share of the heap, and the last one is
 * open, for rows that are added meanwhile; where the source cannot scan a range of pages, by the bounds given, which lie
 * between two parts. `targetOf` says where a relation's rows are written.
 */
export function planParts(
  relations: readonly Storage[],
  partBytes: number,
  targetOf: (relid: number) => number,
  bounds: ReadonlyMap<number, readonly (readonly string[])[]> | "pages",
): PlannedPart[] {
  return relations.flatMap((storage): PlannedPart[] => {
    const bytes = storageBytes(storage);
    const common = { sourceRelid: storage.oid, targetRelid: targetOf(storage.oid) };
    const edges: (number | readonly string[])[] =
      bounds === "pages"
        ? pageEdges(storage, partCount(storage, partBytes))
        : [...(bounds.get(storage.oid) ?? [])];
    if (edges.length === 0) return [{ ...common, split: "whole", low: null, high: null, bytes }];
    const split = bounds === "pages" ? "pages" : "keys";
    return [...edges, null].map((high, index) => ({
      ...common,
      split,
      low: edges[index - 1] ?? null,
      high,
      bytes: Math.round(bytes / (edges.length + 1)),
    }));
  });
}

/** Page numbers between the parts. */
function pageEdges(storage: Storage, parts: number): number[] {
  const pages = Math.ceil(storage.heapBytes / pageBytes);
  const count = Math.min(parts, pages);
  return Array.from({ length: Math.max(0, count - 1) }, (_, index) =>
    Math.floor((pages * (index + 1)) / count),
  );
}

/**
 * Which relation of the target takes the rows of a relation of the source: its twin among the leaves, or the table itself,
 * whose server then finds the leaf for each row.
 */
export function targetLeaves(
  target: Table,
  sourceLeaves: readonly LeafMembership[],
  targetLeaves: readonly LeafMembership[],
): (relid: number) => number {
  return (relid) => {
    const leaf = sourceLeaves.find((each) => each.oid === relid);
    return twinOf(leaf?.membership, targetLeaves)?.oid ?? target.oid;
  };
}
