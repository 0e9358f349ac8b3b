/**
 * Takes one new table in: makes it on the target, captures it on the source, and enters it into the ledger, from where on it is
 * copied like any other. Whoever dies in between leaves what the next try finds and goes on with.
 */
import { attachCapture } from "../capture/capture.ts";
import { makeTable, owedForeignKeys, readNewTable, whyNotMade, type NewTable } from "../catalog/new-table.ts";
import { refit } from "../catalog/refit.ts";
import { ownRowsSql } from "../catalog/rows.ts";
import { applicationPathSql, OWN_PATH } from "../catalog/search-path.ts";
import { describeTables, tableBytes, tableLabel, tableSql, type Table } from "../catalog/table.ts";
import { unqualified } from "../catalog/types.ts";
import { mappingOf, targetName } from "../config/mapping.ts";
import { tableSettings } from "../config/overrides.ts";
import type { ResolvedConfig } from "../config/options.ts";
import { smallBytes } from "../copy/plan.ts";
import { registerTable } from "../init/register.ts";
import type { Connection } from "../postgres/connect.ts";
import { failpoint } from "../postgres/failpoint.ts";
import { withBriefLocks } from "../postgres/lock.ts";
import { examineTable, type TablePair } from "../preflight/preflight.ts";
import type { SyncContext } from "../state/context.ts";
import { saveAndDropSql } from "../state/deferred.ts";
import type { Lease } from "../state/lease.ts";
import type { Newcomer } from "../state/newcomers.ts";
import { keepLease, noteFound, targetMadeFor } from "../state/joining.ts";

/** Why a table is not taken in. */
export class NotTaken extends Error {}

/** The table is gone from the source: there is nothing to take in any more. */
export class Vanished extends Error {}

/** How often a table is begun with anew because it is being changed. */
const MOST_CHANGES = 3;
/** How long to wait for locks on the target before the other tables have their turn. */
const LOCK_BUDGET_MS = 30_000;

export interface Taken {
  readonly captureId: number;
  readonly label: string;
  readonly bytes: number;
}

export interface Sides {
  readonly context: SyncContext;
  /** What the target is written to under. */
  readonly lease: Lease;
  readonly source: Connection;
  readonly target: Connection;
}

/** Throws NotTaken, Vanished, and what the servers say. */
export async function takeIn(sides: Sides, newcomer: Newcomer): Promise<Taken> {
  const { context, lease, source, target } = sides;
  const { name } = context.config;
  const known = await inLedger(target, name, newcomer);
  if (known !== undefined) return known;
  let made = await read(source, newcomer, context.config, target);
  for (let changes = 0; ; changes += 1) {
    const { pair, isOurs } = await make(sides, made);
    await failpoint("join.created");
    const { table } = made;
    const label = tableLabel(table);
    const capture = await attachCapture(context, source, table, pair.override.capture ?? "row", pair.keyless);
    await failpoint("join.captured");
    // From here on every change has its delta. What was made is what the table was a moment before.
    const now = await read(source, newcomer, context.config, target);
    if (signature(now) !== signature(made)) {
      if (changes === MOST_CHANGES) throw new NotTaken("its definition keeps changing");
      made = now;
      continue;
    }
    await target.transaction(async () => {
      await keepLease(target, lease);
      const isNew = await registerTable(source, target, name, capture, pair);
      const keys = isNew && isOurs ? owedForeignKeys(made, target) : [];
      const { save } = saveAndDropSql(name, capture.id, keys, () => tableBytes(table));
      await target.script(save.join(";\n"));
    });
    context.emit({ type: "capture-installed", table: label });
    await failpoint("join.registered");
    return { captureId: capture.id, label, bytes: tableBytes(table) };
  }
}

/** Somebody else may have been faster. */
async function inLedger(
  target: Connection,
  sync: string,
  newcomer: Pick<Newcomer, "oid" | "schema" | "name">,
): Promise<Taken | undefined> {
  const [entry] = await target.rows<{ captureId: number }>(
    `select capture_id as "captureId" from replicate.sync_table where sync = $1 and source_relid = $2`,
    [sync, newcomer.oid],
  );
  return entry === undefined ? undefined : { ...entry, label: tableLabel(newcomer), bytes: smallBytes };
}

async function read(
  source: Connection,
  newcomer: Newcomer,
  config: ResolvedConfig,
  target: Connection,
): Promise<NewTable> {
  if (newcomer.kind === "f") throw new NotTaken("it is a foreign table");
  if (newcomer.persistence === "u")
    throw new NotTaken("it is unlogged: a crash of the source would empty it without a trace");
  if (newcomer.inherits)
    throw new NotTaken("it is part of an inheritance: create it on the target, and it is taken in"); // prettier-ignore
  if (newcomer.isTyped)
    throw new NotTaken("it is made of a type: create it on the target, and it is taken in");
  const found = await source.transaction(async () => {
    const [table] = await describeTables(source, [newcomer.oid]);
    return table === undefined ? undefined : await readNewTable(source, table);
  }, "begin isolation level repeatable read read only");
  if (found === undefined) throw new Vanished();
  const { table } = found;
  if ((tableSettings(table, config).schemaChanges ?? config.schemaChanges) === "stop")
    throw new NotTaken("schemaChanges is stop: create it on the target, then run `replicate init` and `replicate copy`"); // prettier-ignore
  const isMapped = mappingOf(table, config) !== null || tableLabel(targetName(table, config)) !== tableLabel(table); // prettier-ignore
  if (isMapped)
    throw new NotTaken("it is mapped: create its table on the target, then run `replicate init` and `replicate copy`"); // prettier-ignore
  if (table.leaves.some(({ kind }) => kind === "f"))
    throw new NotTaken("it has foreign partitions, which cannot be captured");
  const why = whyNotMade(found, target);
  if (why !== undefined) throw new NotTaken(why);
  return found;
}

/** What was made of it is right as long as this is the same. */
function signature({ table, types, parts, foreignKeys }: NewTable): string {
  const { schema, name, columns, key, partitionKey, leaves } = table;
  const partitions = leaves.map(({ oid, bound }) => [oid, bound]);
  return JSON.stringify([schema, name, columns, key, partitionKey, partitions, types, parts, foreignKeys]);
}

/** Makes the table on the target, or finds it there; and checks both as `init` does. All of it or nothing. */
async function make(
  { context, lease, source, target }: Sides,
  made: NewTable,
): Promise<{ readonly pair: TablePair; readonly isOurs: boolean }> {
  const { table } = made;
  const { name } = context.config;
  const label = tableLabel(table);
  const startedAt = Date.now();
  const limits = { what: label, signal: context.signal, budgetMs: LOCK_BUDGET_MS };
  const { statements, ...result } = await withBriefLocks(target, limits, async () => {
    await keepLease(target, lease);
    if ((await inLedger(target, name, table)) !== undefined) throw new Vanished();
    const ours = await targetMadeFor(target, name, table.oid);
    let there = await namesake(target, table);
    if (there !== undefined && there.oid === ours && !(await isAlike(source, target, table, there))) {
      await assertEmpty(target, there);
      await target.script(`drop table ${tableSql(there)}`);
      there = undefined;
    }
    const statements = there === undefined ? await makeTable(target, made) : [];
    if (there !== undefined && there.oid !== ours) await assertTakeable(source, target, table, there);
    const { findings, pair } = await examineTable(context, source, target, table);
    const blocking = findings.filter(({ severity }) => severity === "blocking");
    if (blocking.length > 0 || pair === undefined)
      throw new NotTaken(blocking.map(({ message }) => message).join("; ") || "it has no counterpart");
    const isOurs = there === undefined || there.oid === ours;
    await noteFound(target, name, table.oid, isOurs ? pair.target.oid : null);
    return { statements, pair, isOurs };
  });
  if (statements.length > 0) {
    const seconds = (Date.now() - startedAt) / 1000;
    context.emit({ type: "table-created", table: label, statements, seconds });
  }
  return result;
}

/** What has the table's name on the target. */
async function namesake(target: Connection, table: Table): Promise<Table | undefined> {
  const [found] = await target.rows<{ oid: number; kind: string; parent: string | null }>(
    `select c.oid::bigint::float8 as oid, c.relkind::text as kind,
            (select min(i.inhparent::pg_catalog.regclass::text) from pg_catalog.pg_inherits i where i.inhrelid = c.oid) as parent
     from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where n.nspname = $1 and c.relname = $2`,
    [table.schema, table.name],
  );
  if (found === undefined) return undefined;
  if (found.kind !== "r" && found.kind !== "p")
    throw new NotTaken("its name is taken on the target by something that is not a table");
  // As of a partition that was detached on the source alone: its rows there are the parent's.
  if (found.parent !== null)
    throw new NotTaken(
      `its name is taken on the target by a partition or child of ${found.parent}: detach it there`,
    );
  return (await describeTables(target, [found.oid]))[0];
}

async function isAlike(source: Connection, target: Connection, table: Table, there: Table): Promise<boolean> {
  return (await differences(source, target, table, there)).length === 0;
}

async function differences(
  source: Connection,
  target: Connection,
  table: Table,
  there: Table,
): Promise<string[]> {
  if (table.partitionKey !== there.partitionKey)
    return [`it is partitioned by ${table.partitionKey ?? "nothing"} on the source and by ${there.partitionKey ?? "nothing"} on the target`]; // prettier-ignore
  const extra = there.columns.filter(({ name }) => !table.columns.some((column) => column.name === name));
  const fitting = { label: tableLabel(table), source: table, target: there, before: [], mapping: null };
  return [
    ...table.columns.flatMap(({ name, type }) => {
      const other = there.columns.find((column) => column.name === name);
      // Text takes everything; a table that is to be the same has the same types.
      if (other === undefined || unqualified(other.type) === unqualified(type)) return [];
      return [`column ${name} is ${type} on the source and ${other.type} on the target`];
    }),
    ...extra.map(({ name }) => `column ${name} exists on the target alone`),
    ...(await refit(source, target, [fitting])).map(({ message }) => message),
  ];
}

/** A table that somebody else has made is taken where it is the same, holds nothing, and nobody else replicates to it. */
async function assertTakeable(
  source: Connection,
  target: Connection,
  table: Table,
  there: Table,
): Promise<void> {
  const unlike = await differences(source, target, table, there);
  if (unlike.length > 0)
    throw new NotTaken(`its name is taken on the target by another table: ${unlike.join("; ")}`);
  const [other] = await target.rows<{ sync: string }>(
    `select sync from replicate.sync_table where target_relid = $1 limit 1`,
    [there.oid],
  );
  if (other !== undefined)
    throw new NotTaken(`its name is taken on the target by a table of sync ${other.sync}`);
  await assertEmpty(target, there);
}

async function assertEmpty(target: Connection, there: Table): Promise<void> {
  const results = await target.script(
    `${applicationPathSql(there)}; select exists (select 1 from ${ownRowsSql(there)}) as full; ${OWN_PATH}`,
  );
  if ((results[1]?.rows[0] as { full: boolean } | undefined)?.full === true)
    throw new NotTaken("its name is taken on the target by a table that holds rows");
}
