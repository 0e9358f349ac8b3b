/** Statements that carry the rows of a table over: out of the source, into staging, and from there into the target's table. */
import { sentSql } from "../../catalog/columns.ts";
import {
  changedImagesSql,
  changedKeysSql,
  isFolding,
  keyMatchSql,
  sameImageSql,
  changesWithOriginSql,
  windowSql,
} from "../../catalog/delta.ts";
import { ownColumns, ownConditions, ownRowsSql, rowsSql } from "../../catalog/rows.ts";
import { asApplication } from "../../catalog/search-path.ts";
import { fromSql, tableSql, type Table } from "../../catalog/table.ts";
import { isSystemType } from "../../catalog/text-form.ts";
import { ReplicateError } from "../../errors.ts";
import { ident } from "../../postgres/sql.ts";
import type { RowLayout } from "../../transform/transform-rows.ts";
import { uniqueNames, type Shape } from "../shape.ts";
import { readStagedSql, stagedColumns, stagedFields, stagedValue, stageName } from "../apply/staging.ts";
import { isDirect, isReread, type TableMode } from "./table-mode.ts";

/** What is in which field of a batch's rows. */
export function layoutOf(shape: Shape, mode: TableMode): RowLayout {
  const keys = shape.capture.keyColumns.map(({ name }) => name);
  const fields = isDirect(mode)
    ? shape.plan.columns.map((pair) => pair.source.name)
    : [...keys, null, ...stagedNames(shape)];
  return { table: shape.label, fields, keys: [...keys, ...ownColumns(shape.target)] };
}

/** Throws CONFIG_INVALID where a hook cannot be given each column by itself. */
function stagedNames(shape: Shape): string[] {
  return stagedColumns(shape).map(({ at, source }) => {
    if ("column" in at) return source.name;
    throw new ReplicateError(
      "CONFIG_INVALID",
      `${shape.label} has too many columns for its rows to be transformed`,
    );
  });
}

const copyOptions = (shape: Shape): string => (shape.plan.binary ? " with (format binary)" : "");

export function copyInSql(shape: Shape, mode: TableMode): string {
  if (!isDirect(mode)) {
    const stage = `copy ${stageName(shape)} from stdin${copyOptions(shape)}`;
    // Staging is in base types, but what is within an array, a range or a composite may be a domain.
    const isPlain = shape.plan.columns.every((pair) => pair.target.isBuiltin);
    return isPlain ? stage : asApplication(shape.target, [stage]).join(";\n");
  }
  const names = shape.plan.columns.map((pair) => ident(pair.target.name)).join(", ");
  const list = names === "" ? "" : ` (${names})`;
  // A large table is reloaded when somebody waits for it: deleting would take as long again and leave as much behind.
  const empty = mode.isLarge ? emptySql(shape.target) : `delete from ${ownRowsSql(shape.target)}`;
  const copy = `copy ${tableSql(shape.target)}${list} from stdin${copyOptions(shape)}`;
  return asApplication(shape.target, [empty, copy]).join(";\n");
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
  const others = readStagedSql(shape);
  const keys = shape.capture.keyColumns;
  const sent = ({ attnum }: { readonly attnum: number }, value: string): string =>
    sentSql(shape.plan, attnum, value);
  const hasOrigin = shape.reverse !== undefined;
  const window = `${windowSql(position)}${condition}`;
  const originColumns = hasOrigin ? ", d.op, d.changed_at, d.origin" : "";
  if (isDirect(mode)) {
    const columns = shape.plan.columns
      .map(({ source }) => sentSql(shape.plan, source.attnum, `t.${ident(source.name)}`))
      .join(", ");
    return `copy (select ${columns} from ${rowsSql(shape.source)} as t) to stdout${copyOptions(shape)}`;
  }
  if (isReread(shape, mode)) {
    const own = keys.map((key) => sent(key, `t.${ident(key.name)}::${key.readType}`)).join(", ");
    const changes = hasOrigin
      ? ` left join (${changesWithOriginSql(shape.capture, window)}) as d on ${keyMatchSql(shape.capture, "t", "d")}`
      : "";
    return `copy (select ${own}, true${others}${originColumns} from ${rowsSql(shape.source)} as t${changes}) to stdout${copyOptions(shape)}`;
  }
  if (tellsKeysApart(shape)) {
    const columns = keys.map((key, index) => sent(key, `d.k${index + 1}`)).join(", ");
    const absent = ", null".repeat(stagedFields(shape));
    const [equal, images] = hasOrigin
      ? [changesWithOriginSql(shape.capture, window), changesWithOriginSql(shape.capture, window, true)]
      : [
          `select distinct * from (${changedKeysSql(shape.capture, window)}) as k`,
          changedImagesSql(shape.capture, window),
        ];
    const match = keyMatchSql(shape.capture, "t", "d");
    const more = except === "" ? "" : ` and ${except}`;
    // What the source takes for one key may be several there, of which all but the present one go.
    return `copy (
      select ${keys.map((key) => sent(key, `t.${ident(key.name)}::${key.readType}`)).join(", ")}, true${others}${originColumns}
      from (${equal}) as d join ${rowsSql(shape.source)} as t on ${match}${more}
      union all
      select ${columns}, false${absent}${originColumns} from (${images}) as d
      where not exists (select 1 from ${rowsSql(shape.source)} as t where ${match}${sameImageSql(shape.capture, "t", "d")})${more}
    ) to stdout${copyOptions(shape)}`;
  }
  const own = keys
    .map((key, index) => sent(key, `coalesce(t.${ident(key.name)}::${key.readType}, d.k${index + 1})`))
    .join(", ");
  // Not by a key column: a composite with an empty field "is not null" no more than it "is null".
  return `copy (
    select ${own}, t.tableoid is not null${others}${originColumns}
    from (${hasOrigin ? changesWithOriginSql(shape.capture, window) : `select distinct * from (${changedKeysSql(shape.capture, window)}) as k`}) as d
    left join ${rowsSql(shape.source)} as t on ${keyMatchSql(shape.capture, "t", "d")}${except === "" ? "" : ` where ${except}`}
  ) to stdout${copyOptions(shape)}`;
}

/** Continues the condition on keys `s` that are to be deleted: not where a present one is the same to the target. */
function absentSql(shape: Shape): string {
  if (!tellsKeysApart(shape)) return " and not s.present";
  const same = shape.targetKey.map(({ equals }, n) => `p.k${n + 1} ${equals} s.k${n + 1}`).join(" and ");
  return ` and not s.present and not exists (select 1 from ${stageName(shape)} as p where p.present and ${same})`;
}

/** Whether the target may tell keys apart that the source takes for one. */
function tellsKeysApart({ capture, targetKey }: Shape): boolean {
  return capture.keyColumns.some((column, n) => {
    const there = targetKey[n]?.column;
    // What a type of the system's own takes for equal is the same everywhere.
    const isSame =
      isSystemType(column.readType) &&
      column.readType === there?.baseType &&
      [column.collation, there.collation].every((name) => name === null || name.startsWith("pg_catalog."));
    return isFolding(column) && !isSame;
  });
}

/**
 * Makes the target's rows equal the staged ones, under the application's search path. `replace` deletes and inserts all instead of upserting. Where conflicts are
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
    if (shape.reverse === undefined) statements.push(`delete from ${rows} as t where ${gone}`);
  } else if (mode.kind === "truncate") statements.push(emptySql(shape.target));
  else if (mode.kind === "leaf")
    statements.push(...mode.leaves.map((leaf) => emptySql(shape.target, leaf.table)));
  statements.push(
    `delete from ${rows} as t using ${stage} as s where ${[...own, match].join(" and ")}${isReplacing ? "" : absentSql(shape)}`,
  );

  const keyNames = uniqueNames(shape).map(ident);
  const ownKeys = shape.targetKey.flatMap(({ column }, index) =>
    column.generated === ""
      ? [{ name: ident(column.name), value: `s.k${index + 1}`, identity: column.identity }]
      : [],
  );
  const columns = [
    ...ownKeys,
    ...stagedColumns(shape).map((column) => ({
      name: ident(column.target.name),
      value: stagedValue(column, "s"),
      identity: column.target.identity,
    })),
  ];
  const updates = columns.filter((column) => column.identity !== "a");
  const conflict = isReplacing
    ? ""
    : updates.length === 0
      ? ` on conflict (${keyNames.join(", ")}) do nothing`
      : ` on conflict (${keyNames.join(", ")}) do update set ${updates.map(({ name }) => `${name} = excluded.${name}`).join(", ")}`;
  // By an alias: a table may be called "excluded".
  statements.push(
    `insert into ${table} as t (${columns.map(({ name }) => name).join(", ")}) overriding system value
     select ${columns.map(({ value }) => value).join(", ")} from ${stage} as s where s.present${conflict}`,
  );
  return statements;
}
