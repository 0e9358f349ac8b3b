/** Which sequences a sync carries, and where each goes. */
import { targetColumn } from "../catalog/mapping.ts";
import { selectTables } from "../catalog/patterns.ts";
import { tableLabel } from "../catalog/table.ts";
import type { Connection } from "../postgres/connect.ts";
import { load } from "../postgres/sql.ts";
import type { SyncContext } from "../state/context.ts";
import { loadTables, type SyncTable } from "../state/sync-table.ts";
import { readInterleaved, type Interleaved } from "./interleaved.ts";

export interface Sequence {
  readonly relid: number;
  readonly schema: string;
  readonly name: string;
  readonly increment: string;
  readonly min: string;
  readonly max: string;
  readonly cycle: boolean;
  readonly ownerRelid: number | null;
  readonly ownerColumn: string | null;
  /** Tables whose columns take their default from it. */
  readonly usedBy: readonly number[];
}

export interface SequencePair {
  readonly from: Sequence;
  readonly to: Sequence;
  /** A table of the sync owns it or takes defaults from it. */
  readonly isDrawn: boolean;
  /** Its numbers are shared out on one side at least: each side goes on by itself. */
  readonly isInterleaved: boolean;
}

/**
 * The sequences that the sync's tables own or take defaults from, and those without an owner that the table patterns
 * select; `missing` are those that the target lacks. Throws SYNC_UNKNOWN.
 */
export async function pairSequences(
  context: SyncContext,
  source: Connection,
  target: Connection,
): Promise<{ readonly pairs: readonly SequencePair[]; readonly missing: readonly string[] }> {
  const tables = await loadTables(target, context.config.name);
  const [[sources, shared], [targets, sharedThere]] = await Promise.all([
    readSequences(source),
    readSequences(target),
  ]);
  const pairs: SequencePair[] = [];
  const missing: string[] = [];
  for (const from of selectSequences(context, sources, tables)) {
    const to = counterpart(from, targets, tables, context.config.schemas);
    if (to === undefined) missing.push(tableLabel(from));
    else {
      const isInterleaved =
        shared.some(({ relid }) => relid === from.relid) ||
        sharedThere.some(({ relid }) => relid === to.relid);
      pairs.push({ from, to, isDrawn: isDrawnBy(tables, from), isInterleaved });
    }
  }
  return { pairs, missing };
}

async function readSequences(connection: Connection): Promise<[Sequence[], Interleaved[]]> {
  return [await connection.rows<Sequence>(load("catalog/sequences")), await readInterleaved(connection)];
}

function selectSequences(
  context: SyncContext,
  all: readonly Sequence[],
  tables: readonly SyncTable[],
): Sequence[] {
  const isOurs = (sequence: Sequence): boolean => isDrawnBy(tables, sequence);
  const free = all.filter((sequence) => sequence.ownerRelid === null && !isOurs(sequence));
  const { tables: patterns, exclude } = context.config;
  return [...all.filter(isOurs), ...selectTables(free, patterns, exclude).selected];
}

function isDrawnBy(tables: readonly SyncTable[], { ownerRelid, usedBy }: Sequence): boolean {
  return tables.some(({ sourceRelid }) => sourceRelid === ownerRelid || usedBy.includes(sourceRelid));
}

/**
 * An owned sequence by its column, so that its name may differ; another one by its name, where its schema is called so, or
 * where the tables of its schema have gone.
 */
function counterpart(
  from: Sequence,
  targets: readonly Sequence[],
  tables: readonly SyncTable[],
  schemas: Readonly<Record<string, string>>,
): Sequence | undefined {
  const table = tables.find((each) => each.sourceRelid === from.ownerRelid);
  const owned = targets.find(
    (each) =>
      table !== undefined &&
      each.ownerRelid === table.targetRelid &&
      each.ownerColumn === targetColumn(table.mapping, from.ownerColumn ?? ""),
  );
  if (owned !== undefined) return owned;
  const others = tables.filter(({ sourceSchema }) => sourceSchema === from.schema);
  const places = [schemas[from.schema] ?? from.schema, ...others.map(({ targetSchema }) => targetSchema)];
  return places
    .flatMap((schema) => targets.filter((each) => each.schema === schema && each.name === from.name))
    .at(0);
}
