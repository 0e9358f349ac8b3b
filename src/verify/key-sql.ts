/** Keys of one side as SQL. */

export interface KeyColumnSql {
  /** `t."id"`. */
  readonly value: string;
  /** Base type, for casts. */
  readonly type: string;
  /** Quoted and qualified, or null. */
  readonly collation: string | null;
  /** `operator(schema.=)`. */
  readonly equals: string;
}

/** `k1 integer, k2 text collate "C"`: columns that hold keys. */
export function keyColumnsSql(key: readonly KeyColumnSql[], prefix: string): string {
  return key
    .map(({ type, collation }, index) => {
      const suffix = collation === null ? "" : ` collate ${collation}`;
      return `${prefix}${index + 1} ${type}${suffix}`;
    })
    .join(", ");
}

/** `t."id" operator(pg_catalog.=) x.k1 and …`: `other` gives what the n-th key column is compared with. */
export function keyMatchesSql(
  key: readonly KeyColumnSql[],
  other: (n: number, column: KeyColumnSql) => string,
): string {
  return key
    .map((column, index) => `${column.value} ${column.equals} ${other(index + 1, column)}`)
    .join(" and ");
}

/** `a1, a2, …` with one entry per key column, numbered from 1. */
export function eachKeySql(
  key: readonly KeyColumnSql[],
  show: (n: number, column: KeyColumnSql) => string,
): string {
  return key.map((column, index) => show(index + 1, column)).join(", ");
}

/** `rows from (…) with ordinality as x (k1, …, n)`: key texts given as array parameters $1 …, one per key column. */
export function keyParametersSql(key: readonly KeyColumnSql[]): string {
  // unnest() takes several arrays only where its name is not qualified.
  const arrays = eachKeySql(key, (n) => `pg_catalog.unnest($${n}::text[])`);
  return `rows from (${arrays}) with ordinality as x (${eachKeySql(key, (n) => `k${n}`)}, n)`;
}
