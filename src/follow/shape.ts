/** The shape of a followed table: what it is on both sides, and how its columns go together. */
import { columnPlan, type ColumnPlan } from "../catalog/columns.ts";
import { mapEntries, targetColumn } from "../catalog/mapping.ts";
import { loadCaptures, type Capture } from "../catalog/delta.ts";
import { isFitting, refit, type Fitting } from "../catalog/refit.ts";
import { ownColumns } from "../catalog/rows.ts";
import {
  describeTables,
  tableLabel,
  tableSql,
  type Column,
  type KeyColumn,
  type Table,
} from "../catalog/table.ts";
import { ReplicateError, type Problem } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { columnsBefore } from "../state/fitting.ts";
import type { SyncTable } from "../state/sync-table.ts";
import { futureTable, type TableChange } from "./schema/table-change.ts";

export interface Shape {
  readonly entry: SyncTable;
  readonly capture: Capture;
  readonly source: Table;
  readonly target: Table;
  readonly plan: ColumnPlan;
  readonly label: string;
  /** Key columns as the target has them, in the capture's order. */
  readonly targetKey: readonly { readonly column: Column; readonly equals: string }[];
  /** False where ON CONFLICT cannot be used: rows are deleted and inserted instead. */
  readonly canUpsert: boolean;
  /**
   * Where conflicts are to be found: how the table's changes on the target are captured, and where its delta tables hold
   * the columns of the key, in the order of `targetKey`.
   */
  readonly reverse: { readonly capture: Capture; readonly key: readonly number[] } | undefined;
  /** What the next batch has to change of the target's table, which is described as it will be then. */
  readonly change?: TableChange;
}

/**
 * Describes tables on both sides. `reverse`: name of the sync that reads the target's changes, where there is one. `changes`:
 * what the next batch makes of the target's tables. Throws TABLE_SHAPE_CHANGED with the exact statements where the target does
 * not fit.
 */
export async function loadShapes(
  source: Connection,
  target: Connection,
  entries: readonly SyncTable[],
  reverseSync?: string,
  changes: ReadonlyMap<number, TableChange> = new Map(),
): Promise<Shape[]> {
  const [captures, sources, targets] = await Promise.all([
    loadCaptures(source, entries.map((entry) => entry.captureId)).then((all) => new Map(all.map((each) => [each.id, each]))),
    byOid(source, entries.map((entry) => entry.sourceRelid)),
    byOid(target, entries.map((entry) => entry.targetRelid)),
  ]); // prettier-ignore
  const reverseCaptures =
    reverseSync === undefined ? undefined : await readReverseCaptures(target, reverseSync);
  const mapped = await mapEntries(source, entries, sources, targets);
  const strangers = await sameNamed(
    source,
    entries.filter((entry) => {
      const table = sources.get(entry.sourceRelid);
      return table !== undefined && (table.schema !== entry.sourceSchema || table.name !== entry.sourceName);
    }),
  );
  const shapes: Shape[] = [];
  const problems: Problem[] = [];
  const unfit: Fitting[] = [];
  for (const entry of entries) {
    const label = tableLabel({ schema: entry.sourceSchema, name: entry.sourceName });
    const capture = captures.get(entry.captureId);
    const sourceTable = mapped.get(entry.captureId)?.source ?? sources.get(entry.sourceRelid);
    const change = changes.get(entry.captureId);
    const described = mapped.get(entry.captureId)?.target;
    const targetTable =
      change === undefined || described === undefined || sourceTable === undefined
        ? described
        : futureTable(change, sourceTable, described);
    if (capture === undefined || sourceTable === undefined) {
      problems.push({
        subject: label,
        message: capture === undefined ? "its capture is gone from the source" : "was dropped on the source",
        remedy:
          "run `replicate init` again: a table that is gone leaves the sync, a new one of the same name joins it",
      });
      continue;
    }
    if (strangers.has(entry.captureId)) {
      problems.push({
        subject: label,
        message: `was renamed to ${tableLabel(sourceTable)} on the source, and another table has its name`,
        remedy:
          "run `replicate drop`, then `replicate init` and `replicate copy --overwrite`, to replicate the table that has the name now",
      });
      continue;
    }
    if (targetTable === undefined) {
      problems.push({
        subject: label,
        message: "its table on the target was dropped",
        remedy: "run `replicate drop`, then `replicate init`",
      });
      continue;
    }
    const pair = {
      label,
      source: sourceTable,
      target: targetTable,
      before: columnsBefore(change === undefined ? entry : { fingerprint: change.form.text }),
      mapping: entry.mapping,
    };
    if (!isFitting(pair)) {
      unfit.push(pair);
      continue;
    }
    const pairing = pairTables(entry, capture, sourceTable, targetTable, target.version);
    const { targetKey } = pairing;
    if (targetKey.some(({ column }) => column === undefined)) {
      problems.push({
        subject: label,
        message: `its key columns (${capture.keyColumns.map((column) => column.name).join(", ")}) are not all there any more`,
        remedy:
          "run `replicate drop`, then `replicate init` and `replicate copy --overwrite`: its rows have another key now",
      });
      continue;
    }
    const there = reverseCaptures?.get(targetTable.oid);
    const key = targetKey.map(({ column }) => there?.keyColumns.findIndex(({ attnum }) => attnum === column.attnum) ?? -1); // prettier-ignore
    if (
      reverseCaptures !== undefined &&
      (there === undefined || key.includes(-1) || key.length !== there.keyColumns.length)
    ) {
      problems.push({
        subject: label,
        message:
          there === undefined
            ? "its changes on the target are not captured"
            : "it has another key on the target",
        remedy:
          there === undefined
            ? "run `replicate init` again"
            : "give both tables the same key, then run `replicate drop` and start again",
      });
      continue;
    }
    shapes.push({
      entry,
      capture,
      source: sourceTable,
      label,
      ...pairing,
      reverse: there === undefined ? undefined : { capture: there, key },
      ...(change === undefined ? {} : { change }),
    });
  }
  problems.push(...(await refit(source, target, unfit)));
  if (problems.length > 0) {
    throw new ReplicateError("TABLE_SHAPE_CHANGED", `the target does not fit the source any more: ${[...new Set(problems.map((problem) => problem.subject))].join(", ")}`, { problems }); // prettier-ignore
  }
  return shapes;
}

/** How the rows of the source go into the target's table. A column of the key that it lacks is undefined in `targetKey`. */
export function pairTables(
  entry: SyncTable,
  capture: Capture,
  source: Table,
  target: Table,
  version: number,
): Pick<Shape, "target" | "plan" | "targetKey" | "canUpsert"> {
  const plan = columnPlan(source, target);
  const targetKey = capture.keyColumns.map((keyColumn) => {
    const pair = plan.columns.find((each) => each.source.attnum === keyColumn.attnum);
    const column =
      pair?.target ??
      target.columns.find((each) => each.name === targetColumn(entry.mapping, keyColumn.name));
    const key: KeyColumn | undefined = target.key?.columns.find((each) => each.name === column?.name);
    return { column: column as Column, equals: key?.equals ?? keyColumn.equals };
  });
  const isComplete = targetKey.every(({ column }) => column !== undefined);
  const wanted = isComplete ? uniqueNames({ targetKey, target }).sort().join("\0") : undefined;
  const found = target.key?.columns.map((column) => column.name).sort().join("\0"); // prettier-ignore
  const isKey = (column: Column): boolean => targetKey.some((key) => key.column.attnum === column.attnum);
  return {
    target,
    plan,
    targetKey,
    canUpsert:
      wanted !== undefined &&
      wanted === found &&
      target.key?.isDeferrable === false &&
      !target.hasRules &&
      !(target.kind === "p" && version < 110_000) &&
      plan.columns.every((pair) => pair.target.identity !== "a" || isKey(pair.target)),
  };
}

/** The captures on the target that a sync reads, by table. */
async function readReverseCaptures(target: Connection, sync: string): Promise<Map<number, Capture>> {
  const subscribed = await target.rows<{ id: number }>(
    `select capture_id as id from replicate.subscription where sync = $1`,
    [sync],
  );
  const captures = await loadCaptures(target, subscribed.map(({ id }) => id)); // prettier-ignore
  return new Map(captures.map((capture) => [capture.relid, capture]));
}

/** Those of these renamed tables whose former name another table has. */
async function sameNamed(source: Connection, renamed: readonly SyncTable[]): Promise<Set<number>> {
  if (renamed.length === 0) return new Set();
  const rows = await source.rows<{ id: number }>(
    `select x.id from pg_catalog.jsonb_to_recordset($1::jsonb) as x (id int, name text)
     where pg_catalog.to_regclass(x.name) is not null`,
    [
      JSON.stringify(
        renamed.map((entry) => ({
          id: entry.captureId,
          name: tableSql({ schema: entry.sourceSchema, name: entry.sourceName }),
        })),
      ),
    ],
  );
  return new Set(rows.map(({ id }) => id));
}

async function byOid(connection: Connection, oids: readonly number[]): Promise<Map<number, Table>> {
  return new Map((await describeTables(connection, oids)).map((table) => [table.oid, table]));
}

/** The columns that are unique on the target: of the key, and in a shared table what tells whose a row is. */
export function uniqueNames({ targetKey, target }: Pick<Shape, "targetKey" | "target">): string[] {
  return [...targetKey.map(({ column }) => column.name), ...ownColumns(target)];
}

/** Columns besides the key that are carried over. */
export function otherColumns(shape: Shape): ColumnPlan["columns"] {
  return shape.plan.columns.filter(
    (pair) => !shape.capture.keyColumns.some((key) => key.attnum === pair.source.attnum),
  );
}
