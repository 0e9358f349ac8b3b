/** Partitions that the target lacks: rows that belong to them are rejected there, because no other takes them. */
import type { Problem } from "../errors.ts";
import { qualified } from "../postgres/sql.ts";
import { tableLabel, tableSql, type Leaf, type PartitionLevel, type Table } from "./table.ts";

export interface MissingPartition extends Problem {
  readonly leaf: Leaf;
  readonly remedy: string;
}

/**
 * Leaves of the source whose rows no partition of the target can take. Told only where the target is divided as the source
 * is, so far as it goes, and has no default partition: otherwise its partitions may be wider. `gone`: bounds that the source
 * had earlier, which the target may still have.
 */
export function missingPartitions(
  source: Table,
  target: Table,
  gone: readonly string[] = [],
): MissingPartition[] {
  // Where columns are mapped, rows may belong elsewhere.
  if (source.columns.some(({ mapped }) => mapped !== undefined)) return [];
  if (source.partitionKey === null || source.partitionKey !== target.partitionKey) return [];
  const missing: MissingPartition[] = [];
  const told = new Set<string>();
  for (const leaf of source.leaves) {
    const depth = lackedAt(leaf.path, source, target, gone);
    if (depth === null) continue;
    const own = (level: Pick<PartitionLevel, "schema" | "name">): string =>
      qualified(level.schema === source.schema ? target.schema : level.schema, level.name);
    const statements = leaf.path.flatMap(({ bound, key, ...level }, n) => {
      const above = leaf.path[n - 1];
      const parent =
        above === undefined ? tableSql(target) : own(twinOf(leaf.path.slice(0, n), target) ?? above);
      const divided = key === null ? "" : ` partition by ${key}`;
      const statement = `create table ${own(level)} partition of ${parent} ${bound}${divided};`;
      if (n < depth || told.has(statement)) return [];
      told.add(statement);
      return [statement];
    });
    missing.push({
      subject: tableLabel(source),
      message: `the target has no partition for the rows of ${tableLabel(leaf)}`,
      remedy: statements.join("\n"),
      leaf,
    });
  }
  return missing;
}

/** The bounds of partitions that the source had while its table was followed. */
export function goneBounds({
  partitions,
}: {
  readonly partitions: Readonly<Record<string, { readonly bound: string; readonly isGone?: boolean }>>;
}): string[] {
  return Object.values(partitions).flatMap(({ bound, isGone }) => (isGone === true ? [bound] : []));
}

/** Where a leaf of the source leaves the target's tree; null: the target takes its rows, or may. */
function lackedAt(
  path: readonly PartitionLevel[],
  source: Table,
  target: Table,
  gone: readonly string[],
): number | null {
  for (const [depth, level] of path.entries()) {
    const above = path.slice(0, depth);
    const there = boundsBelow(target, above);
    if (there.has("DEFAULT")) return null;
    if (!there.has(level.bound)) {
      const own = boundsBelow(source, above);
      return [...there].every((bound) => own.has(bound) || gone.includes(bound)) ? depth : null;
    }
    const twin = twinOf(path.slice(0, depth + 1), target);
    if (twin === undefined || twin.key === null || twin.key !== level.key) return null;
  }
  return null;
}

/** The bounds of what is directly below the partitions with these bounds. */
function boundsBelow(table: Table, above: readonly PartitionLevel[]): Set<string> {
  return new Set(
    table.leaves
      .filter(({ path }) => isBelow(path, above))
      .flatMap(({ path }) => path[above.length]?.bound ?? []),
  );
}

/** The target's partition with the same bounds all the way. */
function twinOf(path: readonly PartitionLevel[], target: Table): PartitionLevel | undefined {
  return target.leaves.find((leaf) => isBelow(leaf.path, path))?.path[path.length - 1];
}

function isBelow(path: readonly PartitionLevel[], above: readonly PartitionLevel[]): boolean {
  return above.every(({ bound }, n) => path[n]?.bound === bound);
}
