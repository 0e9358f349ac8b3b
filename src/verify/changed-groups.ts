/** Which changed tables are compared by one statement, and which alone, slice by slice. */
import { isKeyless } from "../catalog/delta.ts";
import {
  compareTogether,
  goesTogether,
  pathsOf,
  type ChangedTable,
  type ComparedTable,
} from "./changed-together.ts";
import type { TablePlan } from "./plan.ts";
import type { SessionPair } from "./session-pair.ts";

/** Tables with at most so many changes are compared together: so many relations and keys. */
const FEW_KEYS = 1000;
export const RELATIONS_TOGETHER = 50;
const KEYS_AT_ONCE = 100_000;

export interface Change {
  readonly deltas: number;
  readonly isWhole: boolean;
}

export interface Group {
  readonly tables: readonly ChangedTable[];
  readonly keys: number;
  readonly slices: number;
}

export function groupsOf(
  plans: readonly TablePlan[],
  changes: ReadonlyMap<number, Change>,
  since: ReadonlyMap<number, string>,
  keysAtOnce: number = KEYS_AT_ONCE,
): Group[] {
  const groups: Group[] = [];
  const open = new Map<string, { tables: ChangedTable[]; keys: number; relations: number }>();
  for (const plan of plans) {
    const { deltas, isWhole } = changes.get(plan.capture.id) as Change;
    const table = { plan, since: since.get(plan.capture.id) ?? null };
    const relations = plan.relations;
    if (
      isWhole ||
      isKeyless(plan.capture) ||
      deltas > FEW_KEYS ||
      relations > RELATIONS_TOGETHER ||
      !goesTogether(plan)
    ) {
      const slices =
        isWhole || isKeyless(plan.capture) ? 1 : 2 ** Math.ceil(Math.log2(Math.max(1, deltas / keysAtOnce)));
      groups.push({ tables: [table], keys: deltas, slices });
      continue;
    }
    const paths = pathsOf(plan);
    const last = open.get(paths);
    if (
      last !== undefined &&
      last.relations + relations <= RELATIONS_TOGETHER &&
      last.keys + deltas <= keysAtOnce
    ) {
      last.tables.push(table);
      last.keys += deltas;
      last.relations += relations;
      continue;
    }
    if (last !== undefined) groups.push({ ...last, slices: 1 });
    open.set(paths, { tables: [table], keys: deltas, relations });
  }
  for (const last of open.values()) groups.push({ ...last, slices: 1 });
  return groups;
}

export function halves({ tables, keys, slices }: Group): Group[] {
  if (tables.length === 1) return [];
  const middle = Math.ceil(tables.length / 2);
  return [tables.slice(0, middle), tables.slice(middle)].map((some) => ({
    tables: some,
    keys: keys / 2,
    slices,
  }));
}

type GroupOptions = Omit<Parameters<typeof compareTogether>[2], "slice">;

/** All slices of a group: a table is as far as the first of them, whose P is the earliest. */
export async function compareGroup(
  pair: SessionPair,
  group: Group,
  options: GroupOptions,
): Promise<ComparedTable[]> {
  let results: ComparedTable[] = [];
  for (let number = 0; number < group.slices; number += 1) {
    const slice = { number, of: group.slices };
    const some = await compareTogether(pair, group.tables, { ...options, slice });
    results = number === 0 ? some : results.map((each, n) => joined(each, some[n] as ComparedTable));
    if (results.every(({ outcome }) => outcome === "stale" || outcome === "later")) break;
  }
  return results;
}

/** Of the same table. */
function joined(one: ComparedTable, other: ComparedTable): ComparedTable {
  const worst = (["stale", "later", "different"] as const).find((each) =>
    [one.outcome, other.outcome].includes(each),
  );
  return {
    plan: one.plan,
    upTo: one.upTo,
    outcome: worst ?? "equal",
    rows: one.rows + other.rows,
    total: one.total + other.total,
    parked: one.parked + other.parked,
    listed: [...one.listed, ...other.listed].slice(0, 20),
  };
}
