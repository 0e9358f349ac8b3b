/**
 * What a batch does with a table whose partitions were emptied on the source. Only twins of the target are emptied, those
 * that take exactly the same rows; where there is none, the whole table is read again.
 */
import { REREAD, REREAD_OLD } from "../../catalog/delta.ts";
import { keepsColumns } from "../../catalog/mapping.ts";
import { readMemberships, twinOf } from "../../catalog/memberships.ts";
import { tableSql } from "../../catalog/table.ts";
import type { Connection } from "../../postgres/connect.ts";
import { fill, literal, load } from "../../postgres/sql.ts";
import type { BatchTable } from "./batch-table.ts";
import type { Shape } from "../shape.ts";
import { isReread, type EmptiedLeaf, type TableMode } from "../read/table-mode.ts";

/**
 * How a table is treated, from the markers in its window. In the batch's snapshot on the source, with the target's session
 * idle. A partition is one that takes the same rows as when it was last looked at, that is before the window, and now.
 */
export async function modeOf(
  source: Connection,
  target: Connection,
  { shape, isTransformed = false }: Pick<BatchTable, "shape" | "isTransformed">,
  markers: readonly number[],
): Promise<TableMode> {
  // Of what was emptied meanwhile nothing is known any more.
  const isOld = markers.every((marker) => marker === REREAD_OLD);
  if (markers.length > 0 && isOld) return { kind: "reread", keepsReverse: true };
  if (markers.includes(REREAD) || markers.includes(REREAD_OLD)) return { kind: "reread" };
  if (markers.includes(shape.source.oid)) return { kind: "truncate" };
  if (markers.length === 0) return { kind: "keys" };
  // Its rows may be in other partitions there.
  if (!keepsColumns(shape.entry.mapping) || isTransformed) return { kind: "reread" };
  const own = await readMemberships(source, [shape.source.oid]);
  const others = await readMemberships(target, [shape.target.oid]);
  const leaves: EmptiedLeaf[] = [];
  for (const oid of markers) {
    const known = shape.entry.partitions[oid];
    const now = own.find((leaf) => leaf.oid === oid);
    const isSame = now === undefined || now.membership === known?.membership;
    const twin = isSame ? twinOf(known?.membership, others) : undefined;
    if (twin?.membership == null) return { kind: "reread" };
    leaves.push({ oid: twin.oid, table: tableSql(twin), membership: twin.membership });
  }
  return { kind: "leaf", leaves };
}

/** Fails with TWINS_CHANGED where a leaf that is to be emptied is not what it was. Under our own search path. */
export function expectTwinsSql(shape: Shape, mode: TableMode): string[] {
  if (mode.kind !== "leaf" || isReread(shape, mode)) return [];
  const { target } = shape;
  const expected = mode.leaves.map(({ oid, membership }) => ({ oid, membership }));
  const body = fill("follow/expect-twins", {
    root: tableSql(target),
    memberships: load("catalog/memberships").replaceAll("$1", () => literal(`{${target.oid}}`)),
    expected: literal(JSON.stringify(expected)),
  });
  return [`do ${literal(body)}`];
}
