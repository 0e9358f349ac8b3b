/**
 * Tables that the sync is meant to replicate and does not: an application has created them since `init`. What is meant is
 * what `init` was told, which the target remembers.
 */
import { baseName } from "../catalog/delta.ts";
import { isSelected, type TableSelection } from "../catalog/patterns.ts";
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
  if ((await stateVersion(connection)) === 0) return [];
  const [found] = await connection.rows<{ selections: readonly TableSelection[] | null }>(
    `select settings -> 'selections' as selections from replicate.sync where name = $1`,
    [sync],
  );
  return found?.selections ?? [];
}

/**
 * Labels of the tables on the side that this way of the sync reads from which it is meant to replicate and does not, by
 * name. Throws SYNC_UNKNOWN.
 */
export async function findNewcomers(
  { name, exclude }: Pick<ResolvedConfig, "name" | "exclude">,
  source: Connection,
  target: Connection,
): Promise<string[]> {
  const entries = await loadTables(target, name);
  const isReverse = name !== baseName(name);
  const selections = await loadSelections(isReverse ? source : target, baseName(name));
  const known = [
    ...entries.map(({ sourceRelid }) => sourceRelid),
    ...(await takenByOthers(name, source, target)),
  ];
  const strangers = await source.rows<InSchema & { name: string }>(load("catalog/newcomers"), [known]);
  const schemaOf = isReverse ? formerSchemas(entries) : new Map<string, string>();
  return strangers
    .filter(
      (table) =>
        providersSchema(
          table,
          selections.flatMap(({ tables }) => tables),
        ) === undefined,
    )
    .filter((table) =>
      isSelected({ ...table, schema: schemaOf.get(table.schema) ?? table.schema }, selections, exclude),
    )
    .map(tableLabel);
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
function formerSchemas(entries: readonly SyncTable[]): Map<string, string> {
  return new Map(entries.map(({ sourceSchema, targetSchema }) => [sourceSchema, targetSchema]));
}

/** What would stop a switch. */
export function newcomerProblem(subject: string, isReverse: boolean): Problem {
  return {
    subject,
    message: "is not replicated: it was created after `replicate init`, and the new side would lack its rows",
    remedy: isReverse
      ? "create it on the old side and carry its rows over by hand, then go on with --accept-unreplicated"
      : "replicate init, then replicate copy  -- or leave it out: --exclude-tables at `replicate init`, or --accept-unreplicated",
  };
}

/** Throws TABLE_NOT_REPLICATED where the new side of a switch would lack tables. */
export async function assertNoNewcomers(
  config: ResolvedConfig,
  source: Connection,
  target: Connection,
): Promise<void> {
  const labels = await findNewcomers(config, source, target);
  if (labels.length === 0) return;
  const isReverse = config.name !== baseName(config.name);
  throw new ReplicateError("TABLE_NOT_REPLICATED", `the new side would lack ${labels.join(", ")}`, {
    problems: labels.map((label) => newcomerProblem(label, isReverse)),
  });
}
