/**
 * Tables that the sync is meant to replicate and does not: an application has created them since `init`. What is meant is
 * what `init` was told, which the target remembers.
 */
import { baseName } from "../catalog/delta.ts";
import { isSelected, type TableName, type TableSelection } from "../catalog/patterns.ts";
import { providersSchema, type InSchema } from "../catalog/providers.ts";
import { tableLabel } from "../catalog/table.ts";
import type { ResolvedConfig } from "../config/options.ts";
import { ReplicateError, type Problem } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { load } from "../postgres/sql.ts";
import { stateVersion } from "./migrate.ts";
import { loadTables, type SyncTable } from "./sync-table.ts";

/** Remembers which tables `init` was told to take. */
export async function rememberSelection(
  target: Connection,
  { name, tables, exclude }: Pick<ResolvedConfig, "name" | "tables" | "exclude">,
): Promise<void> {
  await target.rows(
    `update replicate.sync
     set settings = settings || pg_catalog.jsonb_build_object('selections',
       coalesce(settings -> 'selections', '[]') || pg_catalog.jsonb_build_array($2::jsonb))
     where name = $1 and (settings -> 'selections' -> -1) is distinct from $2::jsonb`,
    [name, JSON.stringify({ tables, exclude })],
  );
}

/** What each `init` of a sync was told, in turn; nothing where there is no such sync. */
export async function loadSelections(
  connection: Connection,
  sync: string,
): Promise<readonly TableSelection[]> {
  return (await stateVersion(connection)) === 0 ? [] : (await loadSettings(connection, sync)).selections;
}

async function loadSettings(
  connection: Connection,
  sync: string,
): Promise<{ readonly selections: readonly TableSelection[]; readonly foreign: readonly number[] | null }> {
  const [found] = await connection.rows<{
    selections: readonly TableSelection[] | null;
    foreign: readonly number[] | null;
  }>(
    `select settings -> 'selections' as selections, settings -> 'foreign' as foreign from replicate.sync where name = $1`,
    [sync],
  );
  return { selections: found?.selections ?? [], foreign: found?.foreign ?? null };
}

/** Remembers which foreign tables the source has: those that come later are told of. */
export async function rememberForeign(source: Connection, target: Connection, sync: string): Promise<void> {
  const found = await source.rows<{ oid: number }>(
    `select oid::bigint::float8 as oid from pg_catalog.pg_class where relkind = 'f' order by 1`,
  );
  await target.rows(
    `update replicate.sync set settings = settings || pg_catalog.jsonb_build_object('foreign', $2::jsonb)
     where name = $1 and settings -> 'foreign' is distinct from $2::jsonb`,
    [sync, JSON.stringify(found.map(({ oid }) => oid))],
  );
}

/** A table that the sync is meant to replicate and does not have. */
export interface Newcomer extends TableName {
  readonly oid: number;
  /** r table, p partitioned, f foreign. */
  readonly kind: string;
  readonly persistence: string;
  readonly isTyped: boolean;
  readonly inherits: boolean;
  /** Changes with its name, its columns and its first index. */
  readonly stamp: string;
}

/**
 * The tables on the side that this way of the sync reads from which it is meant to replicate and does not, by name.
 * `entries`: the tables that it has.
 */
export async function lookForNewcomers(
  { name, exclude }: Pick<ResolvedConfig, "name" | "exclude">,
  source: Connection,
  target: Connection,
  entries: readonly Pick<SyncTable, "sourceRelid" | "sourceSchema" | "targetSchema">[],
): Promise<Newcomer[]> {
  const isReverse = name !== baseName(name);
  const { selections, foreign } = await loadSettings(isReverse ? source : target, baseName(name));
  const known = entries.map(({ sourceRelid }) => sourceRelid);
  const strangers = await source.rows<InSchema & Newcomer>(load("catalog/newcomers"), [
    [...known, ...(foreign ?? [])],
    foreign !== null && !isReverse,
  ]);
  if (strangers.length === 0) return [];
  const schemaOf = isReverse ? formerSchemas(entries) : new Map<string, string>();
  const meant = strangers
    .filter(
      (table) =>
        providersSchema(
          table,
          selections.flatMap(({ tables }) => tables),
        ) === undefined,
    )
    .filter((table) =>
      isSelected({ ...table, schema: schemaOf.get(table.schema) ?? table.schema }, selections, exclude),
    );
  if (meant.length === 0) return [];
  const others = await takenByOthers(name, source, target);
  return meant.filter(({ oid }) => !others.includes(oid));
}

/** What keeps somebody from losing a table. */
export interface NotReplicated {
  readonly table: string;
  /** Why it is not taken in, where that was tried; null: it is too new, or nobody follows. */
  readonly reason: string | null;
}

/** The same with the reasons that the runner has found. Throws SYNC_UNKNOWN. */
export async function findNotReplicated(
  config: Pick<ResolvedConfig, "name" | "exclude">,
  source: Connection,
  target: Connection,
): Promise<NotReplicated[]> {
  const found = await lookForNewcomers(config, source, target, await loadTables(target, config.name));
  if (found.length === 0) return [];
  const reasons = await loadReasons(target, config.name);
  return found.map((table) => ({ table: tableLabel(table), reason: reasons.get(table.oid) ?? null }));
}

/** By label, why tables are not taken in; those that nobody has tried are missing. */
export function reasonsOf(tables: readonly NotReplicated[]): Record<string, string> {
  return Object.fromEntries(
    tables.flatMap(({ table, reason }) => (reason === null ? [] : [[table, reason]])),
  );
}

async function loadReasons(target: Connection, sync: string): Promise<Map<number, string>> {
  // The state may be of an earlier version.
  const { isThere } = await target.row<{ isThere: boolean }>(
    `select pg_catalog.to_regclass('replicate.newcomer') is not null as "isThere"`,
  );
  if (!isThere) return new Map();
  const rows = await target.rows<{ relid: number; reason: string }>(
    `select source_relid::bigint::float8 as relid, reason from replicate.newcomer where sync = $1 and reason is not null`,
    [sync],
  );
  return new Map(rows.map(({ relid, reason }) => [relid, reason]));
}

/** Tables of the source that other syncs bring to the same target. */
async function takenByOthers(sync: string, source: Connection, target: Connection): Promise<number[]> {
  const others = await source.rows<{ name: string }>(
    `select name from replicate.source_sync where name <> $1`,
    [sync],
  );
  if (others.length === 0) return [];
  const taken = await target.rows<{ relid: number }>(
    `select source_relid::bigint::float8 as relid from replicate.sync_table where sync = any ($1::text[])`,
    [others.map((each) => each.name)],
  );
  return taken.map(({ relid }) => relid);
}

/** What the source's schemas are called on the target, which is where patterns apply on the way back. */
function formerSchemas(
  entries: readonly Pick<SyncTable, "sourceSchema" | "targetSchema">[],
): Map<string, string> {
  return new Map(entries.map(({ sourceSchema, targetSchema }) => [sourceSchema, targetSchema]));
}

/** What would stop a switch. */
export function newcomerProblem({ table: subject, reason }: NotReplicated, isReverse: boolean): Problem {
  const why = reason === null ? "" : `, and is not taken in: ${reason}`;
  return {
    subject,
    message: `is not replicated: it was created after \`replicate init\`${why}; the new side would lack its rows`,
    remedy: isReverse
      ? "create it on the old side and carry its rows over by hand, then go on with --accept-unreplicated"
      : `${reason === null ? "replicate follow  -- takes it in where it can; or by hand: " : ""}replicate init, then replicate copy  -- or leave it out: --exclude-tables at \`replicate init\`, or --accept-unreplicated`,
  };
}

/**
 * Throws TABLE_NOT_REPLICATED where the new side of a switch would lack tables. `fenced`: the tables of the source that nobody can
 * write to any more; one that has joined since is none of them, and its rows would be lost as well.
 */
export async function assertNoNewcomers(
  config: ResolvedConfig,
  source: Connection,
  target: Connection,
  fenced?: readonly number[],
): Promise<void> {
  const found = await findNotReplicated(config, source, target);
  const late = (await loadTables(target, config.name))
    .filter(
      ({ state, sourceRelid }) =>
        !(state === "copied" || state === "following") || fenced?.includes(sourceRelid) === false,
    )
    .map((entry) => ({
      table: tableLabel({ schema: entry.sourceSchema, name: entry.sourceName }),
      reason: "its rows are only just being copied",
    }));
  const lost = [...found, ...late];
  if (lost.length === 0) return;
  const isReverse = config.name !== baseName(config.name);
  throw new ReplicateError(
    "TABLE_NOT_REPLICATED",
    `the new side would lack ${lost.map(({ table }) => table).join(", ")}`,
    { problems: lost.map((each) => newcomerProblem(each, isReverse)) },
  );
}
