/**
 * Which tables have changed on the source in a way that has to be made on the target too, and how. Nothing is changed here; the
 * statements are run in the transaction of a batch, see make-changes.ts.
 */
import {
  parseFingerprint,
  readForms,
  type FingerprintColumn,
  type TableForm,
} from "../../catalog/fingerprint.ts";
import { commonValues } from "../../catalog/refit.ts";
import { readTableDefinitions, type TableDefinition } from "../../catalog/table-definition.ts";
import { tableLabel, type Column, type Table } from "../../catalog/table.ts";
import type { ResolvedConfig } from "../../config/options.ts";
import { tableSettings } from "../../config/overrides.ts";
import type { Connection } from "../../postgres/connect.ts";
import { load } from "../../postgres/sql.ts";
import { lookForNewcomers } from "../../state/newcomers.ts";
import { loadTables, type SyncTable } from "../../state/sync-table.ts";
import { deferredStatements, storeDefinitions, takenAway } from "../../state/schema-changes.ts";
import { compareOldRows } from "../read/old-rows.ts";
import type { FutureColumn } from "./columns-travel.ts";
import type { Ledger, Step, Travel } from "./steps.ts";
import { travel, type Travelled } from "./travel.ts";

/** What has to be done on the target because a table changed on the source. */
export interface TableChange {
  readonly captureId: number;
  /** For messages. */
  readonly label: string;
  /** The fingerprint of the source's table when the rows here were its rows. */
  readonly before: string;
  /** What the source's table is now. */
  readonly form: TableForm;
  readonly definition: TableDefinition;
  readonly steps: readonly Step[];
  /** Changes that are not made, because what they would change is another one on the target. */
  readonly left: readonly string[];
  /** The target's columns once all is done, for the rows that are staged before. */
  readonly columns: readonly FutureColumn[];
  /** Why the table has to be read again, if it has to. */
  readonly reread: string | undefined;
}

/** Whether changes of the table's schema are made on the target. `isForced`: although the tables differ, as the settings say. */
function policyOf(
  entry: SyncTable,
  config: ResolvedConfig,
): { readonly applies: boolean; readonly isForced: boolean } {
  const table = { schema: entry.sourceSchema, name: entry.sourceName };
  const said = tableSettings(table, config).schemaChanges;
  const isMapped =
    entry.mapping !== null ||
    entry.sourceSchema !== entry.targetSchema ||
    entry.sourceName !== entry.targetName;
  const applies = (said ?? config.schemaChanges) === "apply" && !config.tracksTarget && !isMapped;
  return { applies, isForced: said === "apply" };
}

/** Whether changes of the table on the source are made on the target. */
export function appliesChanges(entry: SyncTable, config: ResolvedConfig): boolean {
  return policyOf(entry, config).applies;
}

/** Before this version a column with a default has the table rewritten. */
const MISSING_SINCE = 110_000;

/**
 * By capture id. Of tables that are as they were, what they are in full is remembered where that has not been done yet. Those
 * that stop the sync, by setting or because the target's table differs on purpose, have none.
 */
export async function findTableChanges(
  source: Connection,
  target: Connection,
  config: ResolvedConfig,
  entries: readonly SyncTable[],
): Promise<Map<number, TableChange>> {
  const applying = entries.filter((entry) => policyOf(entry, config).applies && entry.fingerprint !== null);
  if (applying.length === 0) return new Map();
  const found = await fingerprints(source, applying);
  const isChanged = (entry: SyncTable): boolean => {
    const now = found.get(entry.sourceRelid);
    return now !== undefined && entry.fingerprint !== null && !isSameDefinition(entry.fingerprint, now);
  };
  await rememberDefinitions(
    source,
    target,
    config.name,
    applying.filter(
      (entry) => entry.definition === null && found.has(entry.sourceRelid) && !isChanged(entry),
    ),
    found,
  );
  const changed = applying.filter((entry) => entry.definition !== null && isChanged(entry));
  if (changed.length === 0) return new Map();
  const sources = await readBoth(source, changed.map(({ sourceRelid }) => sourceRelid)); // prettier-ignore
  const targets = await readBoth(target, changed.map(({ targetRelid }) => targetRelid)); // prettier-ignore
  const deferred = await deferredStatements(target, config.name);
  const away = await takenAway(target, config.name);
  const lacking = await lackingTables(source, target, config, [...sources.values()]);
  return new Map(
    changed.flatMap((entry): [number, TableChange][] => {
      const from = sources.get(entry.sourceRelid);
      const to = targets.get(entry.targetRelid);
      if (from === undefined || to === undefined) return [];
      const ledger = {
        sync: config.name,
        captureId: entry.captureId,
        away:
          away.get(tableLabel({ schema: entry.targetSchema, name: entry.targetName })) ?? new Set<string>(),
        keepsForeignKeys: !target.isReplicaRole,
      };
      const change = changeOf(
        entry,
        from,
        to,
        target.version,
        deferred,
        ledger,
        lacking,
        policyOf(entry, config).isForced,
      );
      return change === undefined ? [] : [[entry.captureId, change]];
    }),
  );
}

interface Read {
  readonly form: TableForm;
  readonly definition: TableDefinition;
}

function changeOf(
  entry: SyncTable,
  from: Read,
  to: Read,
  version: number,
  deferred: ReadonlySet<string>,
  ledger: Ledger,
  lacking: Travel["lacking"],
  isForced: boolean,
): TableChange | undefined {
  if (entry.definition === null || entry.fingerprint === null) return undefined;
  // The table itself has another name: not ours to follow yet.
  if (from.definition.schema !== entry.sourceSchema || from.definition.name !== entry.sourceName)
    return undefined;
  const thereBefore = parseFingerprint(entry.targetFingerprint ?? to.form.text).columns;
  const missing = commonValues(from.form);
  const travelled = travel({
    before: entry.definition,
    now: from.definition,
    target: to.definition,
    version,
    targetNumbers: new Map(thereBefore.map(([attnum, name]) => [name, attnum])),
    missing,
    deferred,
    ledger,
    lacking,
    keyColumns: keysOf(from.definition, to.definition),
  });
  if (travelled.steps.length === 0 && travelled.left.length === 0) return undefined;
  if (travelled.differences.length > 0 && !isForced) return undefined;
  return {
    captureId: entry.captureId,
    label: tableLabel({ schema: entry.sourceSchema, name: entry.sourceName }),
    before: entry.fingerprint,
    form: from.form,
    definition: from.definition,
    steps: travelled.steps,
    left: travelled.left,
    columns: travelled.columns,
    reread: rereadOf(entry, from, to, travelled, version),
  };
}

/** Tables that foreign keys of these lead to and that the target does not have: new ones are about to join. */
async function lackingTables(
  source: Connection,
  target: Connection,
  config: ResolvedConfig,
  tables: readonly Read[],
): Promise<Travel["lacking"]> {
  const partners = tables.flatMap(({ definition }) =>
    definition.constraints.flatMap(({ references }) => (references === null ? [] : [references])),
  );
  if (partners.length === 0) return new Map();
  const lacking = await target.rows<{ schema: string; name: string }>(
    `select distinct x.schema, x.name from pg_catalog.jsonb_to_recordset($1::jsonb) as x (schema text, name text)
     where not exists (
       select 1 from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       where n.nspname = x.schema and c.relname = x.name)`,
    [JSON.stringify(partners)],
  );
  if (lacking.length === 0) return new Map();
  const entries = await loadTables(target, config.name);
  const joining = new Set((await lookForNewcomers(config, source, target, entries)).map(tableLabel));
  return new Map(
    lacking.map((table) => [tableLabel(table), joining.has(tableLabel(table)) ? "joining" : "foreign"]),
  );
}

/** Columns of primary keys and unique constraints: they hold no null meanwhile. */
function keysOf(...definitions: readonly TableDefinition[]): string[] {
  return definitions.flatMap(({ columns, constraints }) =>
    columns.flatMap(({ name }) =>
      constraints.some(({ type, definition }) => type === "p" && namesIn(definition).includes(name))
        ? [name]
        : [],
    ),
  );
}

function namesIn(definition: string): string[] {
  return [...definition.matchAll(/"((?:[^"]|"")+)"|[\p{L}_][\p{L}\d_$]*/gu)].map(([word, quoted]) =>
    quoted === undefined ? word : quoted.replaceAll('""', '"'),
  );
}

/** As far as it can be told beforehand; it is looked at again when the target's table has been changed. */
function rereadOf(
  entry: SyncTable,
  from: Read,
  to: Read,
  { columns, steps }: Travelled,
  version: number,
): string | undefined {
  const there = parseFingerprint(to.form.text);
  const files = Object.keys(there.rows?.files ?? {});
  const missing = new Map(files.map((oid) => [Number(oid), new Map(to.form.missing.get(Number(oid)))]));
  for (const { name, filled } of columns)
    if (filled !== undefined) for (const of of missing.values()) of.set(name, filled);
  const future = {
    ...there,
    columns: columns.map((column): FingerprintColumn => [
      column.attnum,
      column.name,
      column.typeOid,
      -1,
      0,
      column.generated,
    ]),
  };
  const rows = compareOldRows(
    { before: parseFingerprint(entry.fingerprint ?? from.form.text), now: from.form },
    {
      before: parseFingerprint(entry.targetFingerprint ?? to.form.text),
      now: { text: JSON.stringify(future), missing },
    },
    null,
  );
  if (rows.kind === "unproven") return rows.reason;
  const isRewritten = version < MISSING_SINCE && steps.some(({ sql }) => / add column .* default /.test(sql));
  return isRewritten ? "it was rewritten on the target" : undefined;
}

/** The target's table once all is done, as far as rows that are staged depend on it. */
export function futureTable({ columns }: TableChange, source: Table, target: Table): Table {
  const future = columns.flatMap((column): Column[] => {
    if (column.isMade) {
      const made = source.columns.find(({ name }) => name === column.name);
      return made === undefined ? [] : [{ ...made, attnum: column.attnum }];
    }
    const kept = target.columns.find(({ attnum }) => attnum === column.attnum);
    return kept === undefined
      ? []
      : [{ ...kept, name: column.name, generated: column.generated, notNull: column.notNull }];
  });
  const key =
    target.key === null
      ? null
      : {
          ...target.key,
          columns: target.key.columns.map((each) => ({
            ...each,
            name: columns.find(({ attnum }) => attnum === each.attnum)?.name ?? each.name,
          })),
        };
  return { ...target, columns: future, key };
}

/** Both of one moment; null values of the catalogue's functions, which are of this moment, are found out by the next look. */
async function readBoth(connection: Connection, oids: readonly number[]): Promise<Map<number, Read>> {
  const definitions = await readTableDefinitions(connection, oids);
  const forms = await readForms(connection, oids);
  const again = await readTableDefinitions(connection, oids);
  return new Map(
    [...forms].flatMap(([oid, form]): [number, Read][] => {
      const definition = definitions.get(oid);
      const isStill = JSON.stringify(definition) === JSON.stringify(again.get(oid));
      return definition === undefined || !isStill ? [] : [[oid, { form, definition }]];
    }),
  );
}

async function fingerprints(source: Connection, entries: readonly SyncTable[]): Promise<Map<number, string>> {
  const rows = await source.rows<{ relid: string; fingerprint: string }>(load("catalog/fingerprint"), [
    entries.map(({ sourceRelid }) => sourceRelid),
  ]);
  return new Map(rows.map(({ relid, fingerprint }) => [Number(relid), fingerprint]));
}

/** Whether nothing has happened to what a table is; what an earlier version has remembered tells less. */
function isSameDefinition(before: string, now: string): boolean {
  const [was, is] = [parseFingerprint(before), parseFingerprint(now)];
  return (
    JSON.stringify(was.columns) === JSON.stringify(is.columns) &&
    (was.rows === undefined || was.rows.versions === is.rows?.versions) &&
    (was.definition === undefined || was.definition === is.definition)
  );
}

async function rememberDefinitions(
  source: Connection,
  target: Connection,
  sync: string,
  entries: readonly SyncTable[],
  found: ReadonlyMap<number, string>,
): Promise<void> {
  if (entries.length === 0) return;
  const definitions = await readTableDefinitions(source, entries.map(({ sourceRelid }) => sourceRelid)); // prettier-ignore
  const again = await fingerprints(source, entries);
  const still = entries.filter(({ sourceRelid }) => found.get(sourceRelid) === again.get(sourceRelid));
  await storeDefinitions(
    target,
    sync,
    still.flatMap(({ captureId, sourceRelid }) => {
      const definition = definitions.get(sourceRelid);
      return definition === undefined ? [] : [{ captureId, definition }];
    }),
  );
}

/** Whether the next batch has to change the target's table, what is known of the source's having been settled. */
export function isChanging({ entry, change }: { entry: SyncTable; change?: TableChange }): boolean {
  return change !== undefined && entry.fingerprint === change.form.text;
}
