/**
 * Our sessions see pg_catalog alone, so that nothing of ours can be captured. But some statements have PostgreSQL evaluate
 * what an application has written about a table, whose functions may name things without a schema: those statements run
 * under the application's search path. They name and cast everything with its schema, operators included wherever the types
 * are not the operator's own: pg_catalog comes first, but an operator that fits better would win.
 */

interface HasPath {
  /** See sql/catalog/search-path. */
  readonly searchPath: string;
}

/** Has what follows in the transaction run as in the application's sessions. */
export function applicationPathSql(...tables: readonly HasPath[]): string {
  const paths = [...new Set(tables.map(({ searchPath }) => searchPath))];
  return `set local search_path = ${paths.join(", ")}`;
}

export const OWN_PATH = "set local search_path = pg_catalog";

/** These statements as in the application's sessions, in a transaction. */
export function asApplication(table: HasPath, statements: readonly string[]): string[] {
  return statements.length === 0 ? [] : [applicationPathSql(table), ...statements, OWN_PATH];
}
