/** The shape of a followed table: both sides' columns and the statements made of them. */
import { columnPlan, type ColumnPlan } from "../catalog/columns.ts";
import { mapEntries, targetColumn } from "../catalog/mapping.ts";
import { ownColumns, ownConditions, ownRowsSql, rowsSql } from "../catalog/rows.ts";
import {
  changedKeysSql, keyMatchSql, loadCaptures, toldChangesSql, windowSql, type Capture,
} from "../catalog/delta.ts"; // prettier-ignore
import {
  describeTables,
  fromSql,
  tableLabel,
  tableSql,
  type Column,
  type KeyColumn,
  type Table,
} from "../catalog/table.ts";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { ident } from "../postgres/sql.ts";
import type { SyncTable } from "../state/sync-table.ts";
import type { RowLayout } from "../transform-rows.ts";
import { renamedAndDropped } from "./renames.ts";

/** The part of it that is needed here, see catalog/fingerprint. */
interface Fingerprint {
  readonly columns: readonly (readonly (string | number)[])[];
}

/**
 * How a batch treats one table. keys: the changed keys. truncate: empty the target first. reread: every row, and
 * what the source does not have is deleted. leaf: empty some of the target's partitions first.
 */
export type TableMode =
  | { readonly kind: "keys" | "truncate" | "reread" }
  | { readonly kind: "leaf"; readonly leaves: readonly string[] }
  | KeylessMode;

/**
 * The same for a table without a key. unchanged: nothing to do. held: a reload is owed from now on, or still. reload: the
 * rows are replaced by those of the source; `isLarge`: by TRUNCATE, which readers of the target have to wait for.
 */
export type KeylessMode =
  | { readonly kind: "unchanged" }
  | { readonly kind: "held"; readonly bytes: number }
  | {
      readonly kind: "reload";
      readonly bytes: number;
      readonly isChanged: boolean;
      readonly isLarge: boolean;
    };

/** Whether a batch reads rows of the table. */
export function isRead(mode: TableMode): boolean {
  return mode.kind !== "unchanged" && mode.kind !== "held";
}

/**
 * Whether every row of the table is read. Where the target has changes of its own, a table that was emptied is read as a
 * whole as well: they do not go with the rows that were there.
 */
export function isReread({ opposite }: Pick<Shape, "opposite">, { kind }: TableMode): boolean {
  return kind === "reread" || (opposite !== undefined && (kind === "truncate" || kind === "leaf"));
}

/** Whether a batch writes the rows into the table as they come, and not by way of staging. */
export function isDirect(mode: TableMode): mode is Extract<TableMode, { kind: "reload" }> {
  return mode.kind === "reload";
}

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
  readonly opposite: { readonly capture: Capture; readonly key: readonly number[] } | undefined;
}

/**
 * Describes tables on both sides. `opposite`: name of the sync that reads the target's changes, where there is one. Throws
 * TABLE_SHAPE_CHANGED with the exact statements where the target does not fit.
 */
export async function loadShapes(
  source: Connection,
  target: Connection,
  entries: readonly SyncTable[],
  opposite?: string,
): Promise<Shape[]> {
  const [captures, sources, targets] = await Promise.all([
    loadCaptures(source, entries.map((entry) => entry.captureId)).then((all) => new Map(all.map((each) => [each.id, each]))),
    byOid(source, entries.map((entry) => entry.sourceRelid)),
    byOid(target, entries.map((entry) => entry.targetRelid)),
  ]); // prettier-ignore
  const opposites = opposite === undefined ? undefined : await oppositeCaptures(target, opposite);
  const mapped = await mapEntries(source, entries, sources, targets);
  const strangers = await sameNamed(
    source,
    entries.filter((entry) => {
      const table = sources.get(entry.sourceRelid);
      return table !== undefined && (table.schema !== entry.sourceSchema || table.name !== entry.sourceName);
    }),
  );
  const shapes: Shape[] = [];
  const problems: { subject: string; message: string; remedy?: string }[] = [];
  for (const entry of entries) {
    const label = tableLabel({ schema: entry.sourceSchema, name: entry.sourceName });
    const capture = captures.get(entry.captureId);
    const sourceTable = mapped.get(entry.captureId)?.source ?? sources.get(entry.sourceRelid);
    const targetTable = mapped.get(entry.captureId)?.target;
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
    const known = entry.fingerprint === null ? [] : (JSON.parse(entry.fingerprint) as Fingerprint).columns;
    const moved = renamedAndDropped(label, known, sourceTable, targetTable, entry.mapping);
    if (moved.length > 0) {
      // What else there is to say is seen when these are done.
      problems.push(...moved);
      continue;
    }
    const plan = columnPlan(sourceTable, targetTable);
    problems.push(...plan.problems.map((problem) => ({ ...problem, subject: label })));
    const targetKey = capture.keyColumns.map((keyColumn) => {
      const pair = plan.columns.find((each) => each.source.attnum === keyColumn.attnum);
      const column =
        pair?.target ??
        targetTable.columns.find((each) => each.name === targetColumn(entry.mapping, keyColumn.name));
      const key: KeyColumn | undefined = targetTable.key?.columns.find((each) => each.name === column?.name);
      return { column: column as Column, equals: key?.equals ?? keyColumn.equals };
    });
    if (targetKey.some(({ column }) => column === undefined)) {
      problems.push({
        subject: label,
        message: `its key columns (${capture.keyColumns.map((column) => column.name).join(", ")}) are not all there any more`,
        remedy:
          "run `replicate drop`, then `replicate init` and `replicate copy --overwrite`: its rows have another key now",
      });
      continue;
    }
    const there = opposites?.get(targetTable.oid);
    const key = targetKey.map(({ column }) => there?.keyColumns.findIndex(({ attnum }) => attnum === column.attnum) ?? -1); // prettier-ignore
    if (
      opposites !== undefined &&
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
    const wanted = uniqueNames({ targetKey, target: targetTable }).sort().join("\0");
    const found = targetTable.key?.columns.map((column) => column.name).sort().join("\0"); // prettier-ignore
    const isKey = (column: Column): boolean => targetKey.some((key) => key.column.attnum === column.attnum);
    shapes.push({
      entry,
      capture,
      source: sourceTable,
      target: targetTable,
      plan,
      label,
      targetKey,
      opposite: there === undefined ? undefined : { capture: there, key },
      canUpsert:
        wanted === found &&
        targetTable.key?.isDeferrable === false &&
        !targetTable.hasRules &&
        !(targetTable.kind === "p" && target.version < 110_000) &&
        plan.columns.every((pair) => pair.target.identity !== "a" || isKey(pair.target)),
    });
  }
  if (problems.length > 0) {
    throw new ReplicateError("TABLE_SHAPE_CHANGED", `the target does not fit the source any more: ${[...new Set(problems.map((problem) => problem.subject))].join(", ")}`, { problems }); // prettier-ignore
  }
  return shapes;
}

/** The captures on the target that a sync reads, by table. */
async function oppositeCaptures(target: Connection, sync: string): Promise<Map<number, Capture>> {
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
function uniqueNames({ targetKey, target }: Pick<Shape, "targetKey" | "target">): string[] {
  return [...targetKey.map(({ column }) => column.name), ...ownColumns(target)];
}

export function stageName(shape: Shape): string {
  return `pg_temp.stage_${shape.capture.id}`;
}

/** Columns besides the key that are carried over. */
export function otherColumns(shape: Shape): ColumnPlan["columns"] {
  return shape.plan.columns.filter(
    (pair) => !shape.capture.keyColumns.some((key) => key.attnum === pair.source.attnum),
  );
}

/** What is in which field of a batch's rows. */
export function layoutOf(shape: Shape, mode: TableMode): RowLayout {
  const keys = shape.capture.keyColumns.map(({ name }) => name);
  const fields = isDirect(mode)
    ? shape.plan.columns.map((pair) => pair.source.name)
    : [...keys, null, ...otherColumns(shape).map((pair) => pair.source.name)];
  return { table: shape.label, fields, keys: [...keys, ...ownColumns(shape.target)] };
}

/**
 * Staging: key columns k1…, whether the row exists on the source, and its other columns c1…; in base types. Where conflicts
 * are to be found also what was done, when and where, see `toldChangesSql`.
 */
export function createStageSql(shape: Shape): string {
  const keys = shape.targetKey.map(({ column }, index) => {
    const collation = column.collation === null ? "" : ` collate ${column.collation}`;
    return `k${index + 1} ${column.baseType}${collation}`;
  });
  const others = otherColumns(shape).map((pair, index) => `c${index + 1} ${pair.target.baseType}`);
  const told = shape.opposite === undefined ? [] : [`did "char"`, "changed_at timestamptz", "origin text"];
  const columns = [...keys, "present boolean", ...others, ...told].join(", ");
  return `create temporary table if not exists ${stageName(shape).slice("pg_temp.".length)} (${columns}) on commit delete rows`;
}

const copyOptions = (shape: Shape): string => (shape.plan.binary ? " with (format binary)" : "");

export function copyInSql(shape: Shape, mode: TableMode): string {
  if (!isDirect(mode)) return `copy ${stageName(shape)} from stdin${copyOptions(shape)}`;
  const names = shape.plan.columns.map((pair) => ident(pair.target.name)).join(", ");
  const list = names === "" ? "" : ` (${names})`;
  // A large table is reloaded when somebody waits for it: deleting would take as long again and leave as much behind.
  const empty = mode.isLarge ? emptySql(shape.target) : `delete from ${ownRowsSql(shape.target)}`;
  return `${empty};\ncopy ${tableSql(shape.target)}${list} from stdin${copyOptions(shape)}`;
}

/**
 * Empties the target's table, or a partition of it. TRUNCATE is refused where a foreign key points to the table, and takes
 * no account of whose the rows are.
 */
function emptySql(target: Table, partition?: string): string {
  const from = partition === undefined ? fromSql(target) : `only ${partition}`;
  if (target.isReferenced || target.own !== undefined) return `delete from ${ownRowsSql(target, from)}`;
  return `truncate ${from}`;
}

/**
 * Reads the current rows of the keys that changed since `position`; a key without a row comes as absent. `condition`
 * continues the one on deltas; `except` is one on the keys `d`, unless all rows are read.
 */
export function copyOutSql(
  shape: Shape,
  position: string | null,
  condition: string,
  mode: TableMode,
  except = "",
): string {
  const others = otherColumns(shape).map((pair) => `, t.${ident(pair.source.name)}`).join(""); // prettier-ignore
  const keys = shape.capture.keyColumns;
  const isTold = shape.opposite !== undefined;
  const window = `${windowSql(position)}${condition}`;
  const told = isTold ? ", d.did, d.changed_at, d.origin" : "";
  if (isDirect(mode)) {
    const columns = shape.plan.columns.map((pair) => `t.${ident(pair.source.name)}`).join(", ");
    return `copy (select ${columns} from ${rowsSql(shape.source)} as t) to stdout${copyOptions(shape)}`;
  }
  if (isReread(shape, mode)) {
    const own = keys.map((key) => `t.${ident(key.name)}::${key.readType}`).join(", ");
    const changes = isTold
      ? ` left join (${toldChangesSql(shape.capture, window)}) as d on ${keyMatchSql(shape.capture, "t", "d")}`
      : "";
    return `copy (select ${own}, true${others}${told} from ${rowsSql(shape.source)} as t${changes}) to stdout${copyOptions(shape)}`;
  }
  const own = keys
    .map((key, index) => `coalesce(t.${ident(key.name)}::${key.readType}, d.k${index + 1})`)
    .join(", ");
  // Not by a key column: a composite with an empty field "is not null" no more than it "is null".
  return `copy (
    select ${own}, t.tableoid is not null${others}${told}
    from (${isTold ? toldChangesSql(shape.capture, window) : `select distinct * from (${changedKeysSql(shape.capture, window)}) as k`}) as d
    left join ${rowsSql(shape.source)} as t on ${keyMatchSql(shape.capture, "t", "d")}${except === "" ? "" : ` where ${except}`}
  ) to stdout${copyOptions(shape)}`;
}

/**
 * Makes the target's rows equal the staged ones. `replace` deletes and inserts all instead of upserting. Where conflicts are
 * to be found, also the rows that a re-read deletes are staged.
 */
export function applySql(shape: Shape, mode: TableMode, replace: boolean): string[] {
  const table = tableSql(shape.target);
  const rows = fromSql(shape.target);
  const stage = stageName(shape);
  const own = ownConditions(shape.target, "t");
  const match = shape.targetKey
    .map(
      ({ column, equals }, index) =>
        `(t.${ident(column.name)})::${column.baseType} ${equals} s.k${index + 1}`,
    )
    .join(" and ");
  const isReplacing = replace || !shape.canUpsert;

  const statements: string[] = [];
  if (isReread(shape, mode)) {
    const gone = [...own, `not exists (select 1 from ${stage} as s where ${match})`].join(" and ");
    if (shape.opposite === undefined) statements.push(`delete from ${rows} as t where ${gone}`);
  } else if (mode.kind === "truncate") statements.push(emptySql(shape.target));
  else if (mode.kind === "leaf") statements.push(...mode.leaves.map((leaf) => emptySql(shape.target, leaf)));
  statements.push(
    `delete from ${rows} as t using ${stage} as s where ${[...own, match].join(" and ")}${isReplacing ? "" : " and not s.present"}`,
  );

  const others = otherColumns(shape);
  const keyNames = uniqueNames(shape).map(ident);
  const ownKeys = shape.targetKey.flatMap(({ column }, index) =>
    column.generated === ""
      ? [{ name: ident(column.name), value: `s.k${index + 1}`, identity: column.identity }]
      : [],
  );
  const columns = [
    ...ownKeys,
    ...others.map((pair, index) => ({
      name: ident(pair.target.name),
      value: `s.c${index + 1}`,
      identity: pair.target.identity,
    })),
  ];
  const updates = columns.filter((column) => column.identity !== "a");
  const conflict = isReplacing
    ? ""
    : updates.length === 0
      ? ` on conflict (${keyNames.join(", ")}) do nothing`
      : ` on conflict (${keyNames.join(", ")}) do update set ${updates.map(({ name }) => `${name} = excluded.${name}`).join(", ")}`;
  statements.push(
    `insert into ${table} (${columns.map(({ name }) => name).join(", ")}) overriding system value
     select ${columns.map(({ value }) => value).join(", ")} from ${stage} as s where s.present${conflict}`,
  );
  return statements;
}
