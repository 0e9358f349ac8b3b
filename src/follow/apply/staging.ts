/** The staging tables of a session on the target: made when a batch first needs them, and kept for those that follow. */
import { sentSql, type ColumnPair } from "../../catalog/columns.ts";
import type { Connection } from "../../postgres/connect.ts";
import { ident } from "../../postgres/sql.ts";
import { otherColumns, type Shape } from "../shape.ts";

export function stageName(shape: Shape): string {
  return `pg_temp.stage_${shape.capture.id}`;
}

/** A table has 1,600 columns at most, and searches for rejected rows add some to those of staging. */
const MOST_COLUMNS = 1590;

/** Types whose text reads as the same value on every version, and which nobody but a superuser can give a cast. */
const packable = new Set([
  "smallint", "integer", "bigint", "numeric", "real", "double precision", "text", "character varying", "boolean", "uuid",
  "date", "timestamp without time zone", "timestamp with time zone", "bytea", "json", "jsonb",
]); // prettier-ignore

export type StagedColumn = ColumnPair & {
  /** Where staging has it: a column of its own, or the n-th of those that are packed into an array of texts. */
  readonly at: { readonly column: string } | { readonly packed: number };
};

/** The columns besides the key as staging has them, which has one more than the table: of very wide tables some are packed. */
export function stagedColumns(shape: Shape): StagedColumn[] {
  const others = otherColumns(shape);
  const originColumns = shape.reverse === undefined ? 1 : 4;
  const excess = shape.targetKey.length + originColumns + others.length - MOST_COLUMNS;
  // The array is a column as well.
  const packed = new Set(
    excess <= 0
      ? []
      : others
          .filter((pair) =>
            [pair.source, pair.target].every(
              ({ isBuiltin, baseType }) => isBuiltin && packable.has(baseType),
            ),
          )
          .slice(-(excess + 1)),
  );
  let own = 0;
  let inArray = 0;
  return others.map((pair) => {
    const at = packed.has(pair) ? { packed: (inArray += 1) } : { column: `c${(own += 1)}` };
    return { ...pair, at };
  });
}

/** Its value in a row of staging. */
export function stagedValue({ at, target }: StagedColumn, alias: string): string {
  return "column" in at ? `${alias}.${at.column}` : `(${alias}.packed[${at.packed}])::${target.baseType}`;
}

/** What to assign it with. */
export function assignStaged({ at }: StagedColumn, value: string): string {
  return "column" in at ? `${at.column} = ${value}` : `packed[${at.packed}] = (${value})::pg_catalog.text`;
}

/** How many columns of staging they take. */
export function stagedFields(shape: Shape): number {
  const columns = stagedColumns(shape);
  const own = columns.filter(({ at }) => "column" in at).length;
  return own + (own < columns.length ? 1 : 0);
}

/** The columns of the source's rows `t` in the order in which staging takes them, each with a comma before it. */
export function readStagedSql(shape: Shape): string {
  const columns = stagedColumns(shape);
  const own = columns.flatMap(({ at, source }) =>
    "column" in at ? [`, ${sentSql(shape.plan, source.attnum, `t.${ident(source.name)}`)}`] : [],
  );
  const packed = columns.flatMap(({ at, source }) =>
    "packed" in at ? [`(t.${ident(source.name)})::pg_catalog.text`] : [],
  );
  return `${own.join("")}${packed.length === 0 ? "" : `, array[${packed.join(", ")}]`}`;
}

/**
 * Staging: key columns k1…, whether the row exists on the source, and its other columns c1…; in base types. Where conflicts
 * are to be found also what was done, when and where, see `changesWithOriginSql`.
 */
function createStageSql(shape: Shape): string {
  const keys = shape.targetKey.map(({ column }, index) => {
    const collation = column.collation === null ? "" : ` collate ${column.collation}`;
    return `k${index + 1} ${column.baseType}${collation}`;
  });
  const staged = stagedColumns(shape);
  const others = [
    ...staged.flatMap(({ at, target }) => ("column" in at ? [`${at.column} ${target.baseType}`] : [])),
    ...(staged.some(({ at }) => "packed" in at) ? ["packed text[]"] : []),
  ];
  const originColumns =
    shape.reverse === undefined ? [] : [`op "char"`, "changed_at timestamptz", "origin text"];
  const columns = [...keys, "present boolean", ...others, ...originColumns].join(", ");
  return `create temporary table if not exists ${stageName(shape).slice("pg_temp.".length)} (${columns}) on commit delete rows`;
}

/** What staging is like for the table: rows that were staged for one such shape are staged for all. */
export function stageForm(shape: Shape): string {
  return createStageSql(shape);
}

/** Staging tables that a session keeps; of more, only those of the batch, because each commit visits each of them. */
const MOST_STAGES = 40;
/** Created or dropped in one transaction, which locks all of them and what belongs to them. */
const AT_ONCE = 20;
const staged = new WeakMap<Connection, Map<number, string>>();

/** Creates those that the session lacks. */
export async function ensureStages(target: Connection, shapes: readonly Shape[]): Promise<void> {
  const known = staged.get(target) ?? new Map<number, string>();
  staged.set(target, known);
  const wanted = new Map(shapes.map((shape) => [shape.capture.id, createStageSql(shape)]));
  const missing = [...wanted].filter(([id, sql]) => known.get(id) !== sql);
  const isFull = known.size + missing.length > MOST_STAGES;
  const stale = [...known].filter(([id, sql]) => (wanted.has(id) ? wanted.get(id) !== sql : isFull));
  await inTurns(target, stale, ([id]) => `drop table if exists pg_temp.stage_${id}`, ([id]) => known.delete(id)); // prettier-ignore
  await inTurns(target, missing, ([, sql]) => sql, ([id, sql]) => known.set(id, sql)); // prettier-ignore
}

async function inTurns<T>(
  target: Connection,
  all: readonly T[],
  toSql: (each: T) => string,
  note: (each: T) => unknown,
): Promise<void> {
  for (let at = 0; at < all.length; at += AT_ONCE) {
    const some = all.slice(at, at + AT_ONCE);
    await target.script(some.map(toSql).join(";\n"));
    some.forEach(note);
  }
}

/** For a session whose temporary tables were dropped. */
export function forgetStages(target: Connection): void {
  staged.delete(target);
}
