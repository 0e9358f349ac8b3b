/**
 * Resolving a conflict that was skipped: the key is noted as changed in the database of the winning row, so that the next
 * batch takes the row, as it is then, to the other side.
 *
 * While an entry is pending, the key is neither read from the database that holds the entry nor applied to it. Where the
 * winning row is in that database, one transaction ends this and notes the key. Where it is in the other one, there are three:
 *
 * 1. The entry gets its winner. From now on the key is applied again, so that nothing of it can be left out here any more.
 * 2. The key is noted in the other database.
 * 3. The entry is resolved, and the key is read again.
 *
 * Whoever dies in between leaves an entry with a winner that is not resolved: the same call again, or the runner
 * (`finishResolutions`), does the rest. To note a key twice does no harm.
 */
import { deltaColumns, deltaTables, loadCaptures } from "../catalog/delta.ts";
import { ReplicateError, type Problem } from "../errors.ts";
import type { Side } from "../events.ts";
import type { Connection } from "../postgres/connect.ts";
import { failpoint } from "../postgres/failpoint.ts";
import type { SyncContext } from "../state/context.ts";
import { loadTables, type SyncTable } from "../state/sync-table.ts";
import { hasLog, ownId, pendingIds, publicId, type ConflictFilter } from "./log.ts";

export interface ResolveReport {
  /** Ids, in the order in which they were resolved. */
  readonly resolved: readonly number[];
  /** Those that had been resolved like that before. */
  readonly unchanged: readonly number[];
}

/** Values as text: by the names of the sync's source, and in the order in which the batch had them. */
interface Key {
  readonly byName: Readonly<Record<string, string | null>>;
  readonly texts: readonly (string | null)[];
}

interface Entry {
  readonly id: number;
  /** The database that holds the entry. */
  readonly side: Side;
  readonly relid: number;
  readonly table: string;
  /** Key, and the other row's, where there is one. */
  readonly keys: readonly Key[];
  readonly winner: Side | "merged" | "skip";
  readonly isResolved: boolean;
}

interface Sides {
  readonly source: Connection;
  readonly target: Connection;
  readonly sync: string;
  readonly tables: readonly SyncTable[];
}

/**
 * Resolves skipped conflicts: by id, or all pending ones that a filter selects. Throws CONFLICT_UNKNOWN with every id that
 * does not exist or was resolved otherwise, before anything is changed.
 */
export async function resolveConflicts(
  context: SyncContext,
  which: readonly number[] | Omit<ConflictFilter, "state">,
  winner: Side,
): Promise<ResolveReport> {
  const sync = context.config.name;
  await using target = await context.target("conflicts");
  const tables = await loadTables(target, sync);
  await using source = await context.source("conflicts");
  const sides: Sides = { source, target, sync, tables };
  const ids = Array.isArray(which)
    ? [...new Set(which as readonly number[])]
    : await pendingIds([source, target], sync, which as ConflictFilter);
  const entries = await loadEntries(sides, ids);
  const problems = ids.flatMap((id) => problemOf(entries.get(id), id, winner));
  if (problems.length > 0) {
    const count = problems.length === 1 ? "a conflict" : `${problems.length} conflicts`;
    throw new ReplicateError("CONFLICT_UNKNOWN", `${count} cannot be resolved`, { problems });
  }
  const resolved: number[] = [];
  for (const [id, entry] of entries) {
    if (entry.isResolved) continue;
    await settle(sides, entry, winner);
    resolved.push(id);
  }
  return { resolved, unchanged: ids.filter((id) => !resolved.includes(id)) };
}

/** Completes what interrupted calls have begun. Returns the number of entries. For the runner, between two batches. */
export async function finishResolutions(
  source: Connection,
  target: Connection,
  sync: string,
): Promise<number> {
  let finished = 0;
  let tables: SyncTable[] | undefined;
  for (const connection of [source, target]) {
    const begun = await connection.rows<{ id: number }>(
      `select id::float8 as id from replicate.conflict where sync = $1 and resolved_at is null and winner <> 'skip'`,
      [sync],
    );
    if (begun.length === 0) continue;
    tables ??= await loadTables(target, sync);
    const sides: Sides = { source, target, sync, tables };
    const ids = begun.map(({ id }) => publicId(connection.side, id));
    for (const entry of (await loadEntries(sides, ids)).values()) {
      if (entry.winner !== "source" && entry.winner !== "target") continue;
      await settle(sides, entry, entry.winner);
      finished++;
    }
  }
  return finished;
}

/** By the ids that users see, in the order given; those that do not exist are left out. */
async function loadEntries(sides: Sides, ids: readonly number[]): Promise<Map<number, Entry>> {
  const found = new Map<number, Entry>();
  for (const side of ["source", "target"] as const) {
    const wanted = ids.map(ownId).flatMap((own) => (own.side === side ? [own.id] : []));
    if (wanted.length === 0 || !(await hasLog(sides[side]))) continue;
    const rows = await sides[side].rows<Omit<Entry, "side">>(
      `select c.id::float8 as id, c.relid::bigint::float8 as relid, c.table_name as "table", c.winner,
              c.resolved_at is not null as "isResolved",
              (select pg_catalog.json_agg(pg_catalog.json_build_object('texts', k.texts, 'byName',
                 (select pg_catalog.json_object_agg(e.key, e.value) from pg_catalog.jsonb_each_text(k.key) as e)))
               from (values (c.key, c.key_texts), (c.other_key, c.other_key_texts)) as k (key, texts)
               where k.key is not null) as keys
       from replicate.conflict c where c.sync = $1 and c.id = any ($2::bigint[])`,
      [sides.sync, wanted],
    );
    for (const row of rows) found.set(publicId(side, row.id), { ...row, side });
  }
  return new Map(
    ids.flatMap((id) => {
      const entry = found.get(id);
      return entry === undefined ? [] : [[id, entry] as const];
    }),
  );
}

function problemOf(entry: Entry | undefined, id: number, winner: Side): Problem[] {
  const subject = `conflict ${id}`;
  if (entry === undefined) return [{ subject, message: "there is none with this id" }];
  if (entry.winner === winner || entry.winner === "skip") return [];
  return [
    {
      subject,
      message: entry.isResolved
        ? `is resolved already, with the winner ${entry.winner}`
        : `is about to be resolved with ${entry.winner}: say that again to complete it`,
    },
  ];
}

/** See the head of this file. Throws CONFLICT_UNKNOWN where somebody else resolves it otherwise meanwhile. */
async function settle(sides: Sides, entry: Entry, winner: Side): Promise<void> {
  const keeper = sides[entry.side];
  const decideSql = `update replicate.conflict set winner = $2
    where id = $1 and winner in ('skip', $2) and resolved_at is null returning id`;
  const endSql = `update replicate.conflict set resolved_at = clock_timestamp() where id = $1`;
  const decideEntry = async (): Promise<void> => {
    const decided = await keeper.rows(decideSql, [entry.id, winner]);
    if (decided.length > 0) return;
    const id = publicId(entry.side, entry.id);
    throw new ReplicateError("CONFLICT_UNKNOWN", `conflict ${id} was resolved by somebody else meanwhile`);
  };
  if (entry.side === winner) {
    await keeper.transaction(async () => {
      await decideEntry();
      await noteEntry(sides, entry, winner);
      await keeper.rows(endSql, [entry.id]);
    });
    return;
  }
  await decideEntry();
  await failpoint("conflict.begun");
  await sides[winner].transaction(async () => await noteEntry(sides, entry, winner));
  await failpoint("conflict.noted");
  await keeper.rows(endSql, [entry.id]);
}

/** Notes the keys of an entry as changed just now, in the open transaction. */
async function noteEntry(sides: Sides, entry: Entry, winner: Side): Promise<void> {
  const connection = sides[winner];
  const relid = relidOf(sides, entry, winner);
  const [found] = await connection.rows<{ id: number; active: "a" | "b"; tells: boolean }>(
    `select id, active, coalesce((pg_catalog.to_jsonb(c) ->> 'tells')::boolean, false) as tells
     from replicate.capture c where relid = $1 for share`,
    [relid],
  );
  const [capture] = found === undefined ? [] : await loadCaptures(connection, [found.id]);
  if (found === undefined || capture === undefined) {
    // Nobody reads changes there, so the row that stays needs no note.
    if (entry.side === winner) return;
    throw new ReplicateError(
      "CAPTURE_BROKEN",
      `the changes of ${entry.table} are not recorded on the ${winner}`,
      {
        hint: "Run `replicate init` again, if the table shall be part of the sync.",
      },
    );
  }
  const names = capture.keyColumns.map(({ name }) => name);
  const keys = entry.keys.map(({ byName, texts }) =>
    // Columns that have other names on this side are known by their place.
    names.every((name) => name in byName) ? names.map((name) => byName[name] ?? null) : texts,
  );
  const delta = deltaTables(found.id)[found.active === "a" ? 0 : 1];
  const values = capture.keyColumns.map((column, index) => `(v ->> ${index})::${column.deltaType}`);
  const columns = [...deltaColumns(capture), ...(found.tells ? ["op", "changed_at"] : [])];
  const told = found.tells ? [`'U'`, "pg_catalog.clock_timestamp()"] : [];
  await connection.rows(
    `insert into ${delta} (${columns.join(", ")})
     select ${[...values, ...told].join(", ")} from pg_catalog.jsonb_array_elements($1::jsonb) as v`,
    [JSON.stringify(keys)],
  );
}

/** The table of an entry in the database of the winner; 0 where the sync does not have the table any more. */
function relidOf({ tables }: Sides, entry: Entry, winner: Side): number {
  if (entry.side === winner) return entry.relid;
  const table = tables.find(
    ({ sourceRelid, targetRelid }) => (entry.side === "source" ? sourceRelid : targetRelid) === entry.relid,
  );
  return (winner === "source" ? table?.sourceRelid : table?.targetRelid) ?? 0;
}
