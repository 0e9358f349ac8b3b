/** Finds the rows of a batch that the target refuses, by halving on the server. In the batch's transaction. */
import type { Connection } from "../postgres/connect.ts";
import { literal, load } from "../postgres/sql.ts";
import { applySql } from "./carry-rows.ts";
import type { Shape } from "./shape.ts";
import { stageName } from "./staging.ts";
import type { TableMode } from "./table-mode.ts";

export interface FoundRow {
  readonly key: Readonly<Record<string, unknown>>;
  /** As text, in the capture's order. */
  readonly keyTexts: readonly (string | null)[];
  readonly sqlstate: string;
  readonly message: string;
  readonly constraint: string | null;
  /** It was parked before. */
  readonly isParked: boolean;
  /** Its place in staging. */
  readonly at: string;
}

export interface Search {
  readonly sync: string;
  readonly shape: Shape;
  /** Rows to be found at most. */
  readonly most: number;
}

/** For these, the detail names other rows' keys; elsewhere it holds the row's own values, which are not kept. */
const TELLING_DETAILS = ["23503", "23505", "23P01"];

/**
 * Rows in staging that cannot be applied. `first`: statements that are run before, such as those of other tables.
 * `passed`: SQLSTATEs that do not count. Nothing of it stays done.
 */
export async function findRefused(
  target: Connection,
  search: Search & {
    readonly mode: TableMode;
    readonly isReplacing: boolean;
    readonly first: readonly string[];
    readonly passed: readonly string[];
  },
): Promise<FoundRow[]> {
  const { shape, mode, isReplacing } = search;
  const numbered = `pg_temp.refused_${shape.capture.id}`;
  const stage = stageName(shape);
  await target.script(
    [
      `drop table if exists ${numbered}`,
      `create temporary table refused_${shape.capture.id} on commit drop as
         select pg_catalog.row_number() over () as n, s.ctid as at, s.* from ${stage} as s`,
      `create unique index on ${numbered} (n)`,
      `analyze ${numbered}`,
      load("follow/find-refused"),
    ].join(";\n"),
  );
  const whole = applySql(shape, mode, isReplacing);
  const range = `(select * from ${numbered} where n between $1 and $2)`;
  const attempt = applySql(shape, mode, isReplacing)
    .slice(-2)
    .map((statement) => statement.replaceAll(`${stage} as s`, `${range} as s`));
  // Where all keys are deleted first, single rows must not collide with what the others leave behind.
  const prepare = [...search.first, ...whole.slice(0, isReplacing || !shape.canUpsert ? -1 : -2)];
  return await find(target, search, { from: numbered, prepare, attempt, keeps: false, at: "r.at::text" });
}

/** Fills staging from the same rows as text. Returns those that cannot be read as the target's types. */
export async function stageTexts(
  target: Connection,
  search: Search & { readonly texts: string; readonly columns: readonly StageColumn[] },
): Promise<FoundRow[]> {
  const { shape, texts, columns } = search;
  const names = columns.map(({ name }) => name).join(", ");
  const values = columns.map(({ name, type }) => `t.${name}::${type}`).join(", ");
  const attempt = [
    `insert into ${stageName(shape)} (${names}) select ${values} from ${texts} as t where t.n between $1 and $2`,
  ];
  await target.script(
    [`create unique index on ${texts} (n)`, `analyze ${texts}`, load("follow/find-refused")].join(";\n"),
  );
  return await find(
    target,
    { ...search, passed: [] },
    { from: texts, prepare: [], attempt, keeps: true, at: "''" },
  );
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

async function find(
  target: Connection,
  { sync, shape, most, passed }: Search & { readonly passed: readonly string[] },
  how: {
    readonly from: string;
    readonly prepare: readonly string[];
    readonly attempt: readonly string[];
    readonly keeps: boolean;
    readonly at: string;
  },
): Promise<FoundRow[]> {
  const { keyColumns, id } = shape.capture;
  const texts = `array[${keyColumns.map((_, n) => `r.k${n + 1}::text`).join(", ")}]`;
  const key = keyColumns.map(({ name }, n) => `${literal(name)}, r.k${n + 1}`).join(", ");
  return await target.rows<FoundRow>(
    `select pg_catalog.jsonb_build_object(${key}) as key, ${texts} as "keyTexts", ${how.at} as at,
            f.code as sqlstate, f.broken as constraint,
            f.message || case when f.code = any ($5::text[]) and f.detail <> '' then ' (' || f.detail || ')' else '' end as message,
            exists (select 1 from replicate.parked as p
                    where p.sync = $6 and p.capture_id = ${id} and p.key_texts = ${texts}) as "isParked"
     from pg_temp.find_refused($1::text[], $2::text[], (select count(*) from ${how.from}), $3, $4, $7) as f
     join ${how.from} as r on r.n = f.n
     order by f.n`,
    [how.prepare, how.attempt, most, how.keeps, TELLING_DETAILS, sync, passed],
  );
}
