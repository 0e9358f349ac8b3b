/** Which partitions of two servers are twins: those that take exactly the same rows. Names prove nothing, nor do bounds alone. */
import type { Connection } from "../postgres/connect.ts";
import { load } from "../postgres/sql.ts";

/** A leaf partition, as sql/catalog/memberships tells of it. */
export interface LeafMembership {
  readonly root: number;
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  /** r table, f foreign table. */
  readonly kind: string;
  /** Equal only where the same rows are meant; null: not to be compared. */
  readonly membership: string | null;
}

/** The leaf partitions of these roots. */
export async function readMemberships(
  connection: Connection,
  roots: readonly number[],
): Promise<LeafMembership[]> {
  return await connection.rows<LeafMembership>(load("catalog/memberships"), [roots]);
}

/** The leaf among those of a table of the target that takes the same rows, if there is one to write to. */
export function twinOf<Leaf extends Pick<LeafMembership, "kind" | "membership">>(
  membership: string | null | undefined,
  leaves: readonly Leaf[],
): Leaf | undefined {
  if (membership == null) return undefined;
  return leaves.find((leaf) => leaf.kind === "r" && leaf.membership === membership);
}
