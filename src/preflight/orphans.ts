/**
 * Rows whose foreign key leads nowhere: what was disabled once, or never validated, lets them in. On the target the key
 * could then only come back as NOT VALID. Reads whole tables, so it is done when asked for.
 */
import { applicationPathSql } from "../catalog/search-path.ts";
import { tableLabel, tableSql } from "../catalog/table.ts";
import { LockWatch } from "../postgres/lock-watch.ts";
import { sleep } from "../postgres/sleep.ts";
import { ident, load } from "../postgres/sql.ts";
import { isRetryableConflict, QUERY_CANCELED, sqlstateOf } from "../postgres/sqlstate.ts";
import { withLeaves, type Examination } from "./examination.ts";
import { run, type Finding } from "./finding.ts";

interface Reference {
  readonly name: string;
  readonly relid: number;
  readonly schema: string;
  readonly table: string;
  readonly kind: string;
  readonly parentSchema: string;
  readonly parentTable: string;
  readonly parentKind: string;
  readonly isFull: boolean;
  readonly isPeriod: boolean;
  readonly columns: readonly string[];
  readonly parentColumns: readonly string[];
  readonly operators: readonly string[];
}

/** How often a key is tried whose tables somebody wants for himself. */
const MOST_TRIES = 5;
const PAUSE_MS = 1000;

export async function checkForeignKeys(examination: Examination): Promise<Finding[]> {
  const { context, source, servers, tables } = examination;
  await using watch = new LockWatch(() => context.source("preflight watch"));
  const references = await source.rows<Reference>(load("preflight/references"), [withLeaves(tables)]);
  const findings: Finding[] = [];
  for (const reference of references) {
    const subject = `foreign key ${reference.name} on ${tableLabel({ schema: reference.schema, name: reference.table })}`;
    if (reference.isPeriod) {
      findings.push({ severity: "note", subject, message: "is of periods, and is not checked here" });
      continue;
    }
    const from = orphansSql(reference);
    const [path] = await source.rows<{ path: string }>(load("catalog/search-path"), [[reference.relid]]);
    const own = applicationPathSql({ searchPath: path?.path ?? "pg_catalog" });
    const count = await countRows(examination, watch, `${own}; select pg_catalog.count(*) as count ${from}`);
    if (count === undefined) {
      const message = "was not checked: its tables are wanted by others all the time";
      findings.push({ severity: "warning", subject, message });
      continue;
    }
    if (count === "0") continue;
    const parent = tableLabel({ schema: reference.parentSchema, name: reference.parentTable });
    findings.push({
      severity: "warning",
      subject,
      message: `${count} row${count === "1" ? "" : "s"} of the source have no row in ${parent}: the key cannot be validated on the target`,
      ...run("source", servers.source.role, `select c.* ${from};  -- these; then repair or delete them`),
    });
  }
  return findings;
}

/** Gives way to whoever waits for the tables, and tries again. Undefined: too often. */
async function countRows(
  { context, source }: Examination,
  watch: LockWatch,
  script: string,
): Promise<string | undefined> {
  for (let tries = 1; tries <= MOST_TRIES; tries += 1) {
    watch.watch(source);
    try {
      const results = await source.script(script);
      return String((results[1]?.rows[0] as { count: string } | undefined)?.count ?? "0");
    } catch (error) {
      if (sqlstateOf(error) !== QUERY_CANCELED && !isRetryableConflict(error)) throw error;
    } finally {
      watch.unwatch(source);
    }
    await sleep(PAUSE_MS * tries, context.signal);
  }
  return undefined;
}

/** As the key itself sees it: its own operators, and MATCH SIMPLE lets a row be that has any NULL. */
function orphansSql(reference: Reference): string {
  const { columns, parentColumns, operators, isFull, kind, parentKind } = reference;
  const only = (relkind: string): string => (relkind === "p" ? "" : "only ");
  const child = `${only(kind)}${tableSql({ schema: reference.schema, name: reference.table })}`;
  const parent = `${only(parentKind)}${tableSql({ schema: reference.parentSchema, name: reference.parentTable })}`;
  const isSet = columns.map((each) => `c.${ident(each)} is not null`).join(isFull ? " or " : " and ");
  const isEqual = columns.map(
    (each, n) => `p.${ident(parentColumns[n] ?? "")} ${operators[n]} c.${ident(each)}`,
  );
  return `from ${child} c where (${isSet}) and not exists (select 1 from ${parent} p where ${isEqual.join(" and ")})`;
}
