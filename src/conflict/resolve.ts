/**
 * Resolving a conflict that was skipped: the key is recorded as changed in the database of the winning row, so that the next
 * batch takes the row, as it is then, to the other side.
 *
 * While an entry is pending, the key is neither read from the database that holds the entry nor applied to it. Where the
 * winning row is in that database, one transaction ends this and notes the key. Where it is in the other one, there are three:
 *
 * 1. The entry gets its winner. From now on the key is applied again, so that nothing of it can be left out here any more.
 * 2. The key is recorded in the other database.
 * 3. The entry is resolved, and the key is read again.
 *
 * Whoever dies in between leaves an entry with a winner that is not resolved: the same call again, or the runner
 * (`finishResolutions`), does the rest. To note a key twice does no harm.
 */
import { deltaColumns, deltaTables, keyMatchSql, loadCaptures, type Capture } from "../catalog/delta.ts";
import { fromText } from "../catalog/text-form.ts";
import { ReplicateError, type Problem } from "../errors.ts";
import type { Side } from "../events.ts";
import type { Connection } from "../postgres/connect.ts";
import { failpoint } from "../postgres/failpoint.ts";
import { fill } from "../postgres/sql.ts";
import type { SyncContext } from "../state/context.ts";
import { checkPair } from "../state/source-identity.ts";
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
  await checkPair(source, target, context.config.name);
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
      // Whoever holds one is at it.
      `select id::float8 as id from replicate.conflict
       where sync = $1 and resolved_at is null and winner <> 'skip' for update skip locked`,
      [sync],
    );
    if (begun.length === 0) continue;
    tables ??= await loadTables(target, sync);
    const sides: Sides = { source, target, sync, tables };
    const ids = begun.map(({ id }) => publicId(connection.side, id));
    for (const entry of (await loadEntries(sides, ids)).values()) {
      if (entry.winner !== "source" && entry.winner !== "target") continue;
      try {
        await settle(sides, entry, entry.winner);
        finished++;
      } catch (error) {
        // Its table has left the sync: no reason to stop.
        if (!(error instanceof ReplicateError) || error.code !== "CAPTURE_BROKEN") throw error;
      }
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

/**
 * See the head of this file. Throws CONFLICT_UNKNOWN where somebody else resolves it otherwise meanwhile, and CAPTURE_BROKEN
 * where the table has left the sync.
 */
async function settle(sides: Sides, entry: Entry, winner: Side): Promise<void> {
  const keeper = sides[entry.side];
  const capture = await captureOf(sides, entry, winner);
  // Nobody reads changes there, so a row that stays needs no note.
  if (capture === undefined && entry.side !== winner) throw leftSync(entry, winner);
  const decideEntry = async (): Promise<void> => {
    const decided = await keeper.rows(
      `update replicate.conflict set winner = $2
       where id = $1 and winner in ('skip', $2) and resolved_at is null returning id`,
      [entry.id, winner],
    );
    if (decided.length > 0) return;
    const id = publicId(entry.side, entry.id);
    throw new ReplicateError("CONFLICT_UNKNOWN", `conflict ${id} was resolved by somebody else meanwhile`);
  };
  const recordEntry = async (): Promise<void> => {
    if (capture !== undefined) await recordChanged(sides[winner], capture, entry.keys);
  };
  const endEntry = async (): Promise<void> => {
    await keeper.rows(`update replicate.conflict set resolved_at = clock_timestamp() where id = $1`, [
      entry.id,
    ]);
  };
  await keepLoser(sides, entry, winner === "source" ? "target" : "source");
  if (entry.side === winner) {
    await keeper.transaction(async () => {
      await decideEntry();
      await recordEntry();
      await endEntry();
    });
    return;
  }
  await decideEntry();
  await failpoint("conflict.begun");
  await sides[winner].transaction(recordEntry);
  await failpoint("conflict.key-recorded");
  await endEntry();
}

/** The capture of the entry's table on one side; undefined where there is none. */
async function captureOf(
  { tables, ...sides }: Sides,
  entry: Entry,
  side: Side,
): Promise<Capture | undefined> {
  const table = tables.find(
    ({ sourceRelid, targetRelid }) => (entry.side === "source" ? sourceRelid : targetRelid) === entry.relid,
  );
  const other = side === "source" ? table?.sourceRelid : table?.targetRelid;
  const found = await sides[side].rows<{ id: number }>(`select id from replicate.capture where relid = $1`, [
    entry.side === side ? entry.relid : (other ?? 0),
  ]);
  const [capture] = await loadCaptures(sides[side], found.map(({ id }) => id)); // prettier-ignore
  return capture;
}

function leftSync({ table }: Entry, side: Side): ReplicateError {
  return new ReplicateError("CAPTURE_BROKEN", `the changes of ${table} are not recorded on the ${side}`, {
    side,
    hint: "Run `replicate init` again, if the table shall be part of the sync.",
  });
}

/** A key as a capture has it. Columns that have other names on that side are known by their place. */
function keyTexts({ keyColumns }: Capture, { byName, texts }: Key): readonly (string | null)[] {
  const names = keyColumns.map(({ name }) => name);
  return names.every((name) => name in byName) ? names.map((name) => byName[name] ?? null) : texts;
}

/** Notes keys as changed just now by an application, in the open transaction. */
async function recordChanged(connection: Connection, capture: Capture, keys: readonly Key[]): Promise<void> {
  // Against a rotation meanwhile.
  const { active } = await connection.row<{ active: "a" | "b" }>(
    `select active from replicate.capture where id = $1 for share`,
    [capture.id],
  );
  const values = capture.keyColumns.map((column, index) => fromText(`v ->> ${index}`, column.deltaType));
  const columns = [...deltaColumns(capture), ...(capture.tracksOrigin ? ["op", "changed_at"] : [])];
  const origin = capture.tracksOrigin ? [`'U'`, "pg_catalog.clock_timestamp()"] : [];
  await connection.rows(
    `insert into ${deltaTables(capture.id)[active === "a" ? 0 : 1]} (${columns.join(", ")})
     select ${[...values, ...origin].join(", ")} from pg_catalog.jsonb_array_elements($1::jsonb) as v`,
    [JSON.stringify(keys.map((key) => keyTexts(capture, key)))],
  );
}

/**
 * The losing row may have been changed since the conflict was met, and goes now: the log keeps it as it is. What is changed
 * from here on is a change like any other, and the next conflict.
 */
async function keepLoser(sides: Sides, entry: Entry, loser: Side): Promise<void> {
  const capture = await captureOf(sides, entry, loser);
  // Of two rows that want the same value, the second one is that of the side where it was met.
  const key = entry.keys[entry.side === loser ? entry.keys.length - 1 : 0];
  if (capture === undefined || key === undefined) return;
  const { rel, only } = await sides[loser].row<{ rel: string; only: string }>(
    `select c.oid::pg_catalog.regclass::text as rel, case when c.relkind = 'p' then '' else 'only' end as only
     from pg_catalog.pg_class c where c.oid = $1`,
    [capture.relid],
  );
  const values = capture.keyColumns.map(
    ({ readType }, index) => `${fromText(`$1::jsonb ->> ${index}`, readType)} as k${index + 1}`,
  );
  const [found] = await sides[loser].rows<{ image: string }>(
    `select pg_catalog.to_jsonb(t)::text as image from ${only} ${rel} as t, (select ${values.join(", ")}) as d
     where ${keyMatchSql(capture, "t", "d")}`,
    [JSON.stringify(keyTexts(capture, key))],
  );
  await sides[entry.side].rows(fill("conflict/keep-loser", { side: loser }), [
    entry.id,
    found?.image ?? null,
  ]);
}
