/** Rows of a batch that the target rejects, among those that are staged. In the batch's transaction. */
import { asApplication } from "../../catalog/search-path.ts";
import { fromText } from "../../catalog/text-form.ts";
import type { Connection } from "../../postgres/connect.ts";
import { literal } from "../../postgres/sql.ts";
import { finderSql, findRows, type FoundRow } from "../../parked/find-rejected.ts";
import { applySql } from "../read/carry-rows.ts";
import type { Shape } from "../shape.ts";
import { stageName } from "./staging.ts";
import type { TableMode } from "../read/table-mode.ts";

export interface Search {
  readonly sync: string;
  readonly shape: Shape;
  /** Rows to be found at most. */
  readonly most: number;
}

/**
 * Rows in staging that cannot be applied. `first`: statements that are run before, such as those of other tables.
 * `passed`: SQLSTATEs that do not count. Nothing of it stays done.
 */
export async function findRejected(
  target: Connection,
  search: Search & {
    readonly mode: TableMode;
    readonly isReplacing: boolean;
    readonly first: readonly string[];
    readonly passed: readonly string[];
  },
): Promise<FoundRow[]> {
  const { sync, shape, most, mode, isReplacing, passed } = search;
  const numbered = `pg_temp.refused_${shape.capture.id}`;
  const stage = stageName(shape);
  await target.script(
    [
      `drop table if exists ${numbered}`,
      `create temporary table refused_${shape.capture.id} on commit drop as
         select pg_catalog.row_number() over () as n, s.ctid as at, s.* from ${stage} as s`,
      `create unique index on ${numbered} (n)`,
      `analyze ${numbered}`,
      finderSql(),
    ].join(";\n"),
  );
  const whole = applySql(shape, mode, isReplacing);
  const range = `(select * from ${numbered} where n between $1 and $2)`;
  const attempt = asApplication(
    shape.target,
    applySql(shape, mode, isReplacing)
      .slice(-2)
      .map((statement) => statement.replaceAll(`${stage} as s`, `${range} as s`)),
  );
  // Where all keys are deleted first, single rows must not collide with what the others leave behind.
  const prepare = [
    ...search.first,
    ...asApplication(shape.target, whole.slice(0, isReplacing || !shape.canUpsert ? -1 : -2)),
  ];
  return await findRows(target, sync, shape.capture, {
    from: numbered,
    prepare,
    attempt,
    most,
    keeps: false,
    passed,
    at: "r.at::text",
  });
}

/** Fills staging from the same rows as text. Returns those that cannot be read as the target's types. */
export async function stageTexts(
  target: Connection,
  search: Search & { readonly texts: string; readonly columns: readonly StageColumn[] },
): Promise<FoundRow[]> {
  const { sync, shape, texts, columns, most } = search;
  const names = columns.map(({ name }) => name).join(", ");
  const values = columns.map(({ name, type }) => fromText(`t.${name}`, type)).join(", ");
  const attempt = asApplication(shape.target, [
    `insert into ${stageName(shape)} (${names}) select ${values} from ${texts} as t where t.n between $1 and $2`,
  ]);
  await target.script([`create unique index on ${texts} (n)`, `analyze ${texts}`, finderSql()].join(";\n"));
  const keyTypes = shape.targetKey.map(({ column }) => column.baseType);
  return await findRows(target, sync, shape.capture, { from: texts, keyTypes, attempt, most, keeps: true });
}

export interface StageColumn {
  readonly name: string;
  readonly type: string;
}

/** The columns of a table's staging. */
export async function stageColumns(target: Connection, shape: Shape): Promise<StageColumn[]> {
  return await target.rows<StageColumn>(
    `select pg_catalog.quote_ident(attname) as name, pg_catalog.format_type(atttypid, atttypmod) as type
     from pg_catalog.pg_attribute where attrelid = ${literal(stageName(shape))}::regclass and attnum > 0 order by attnum`,
  );
}
