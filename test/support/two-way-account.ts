import { withClient } from "./admin.ts";
import type { Database } from "./database.ts";
import { twoWayTables } from "./two-way-workload.ts";

// Whether all that applications did in several databases is where it belongs: in the rows that are there in the end,
// replaced by an application that saw it, or in the log of conflicts.

interface Change {
  readonly side: string;
  readonly op: "I" | "U" | "D" | "T";
  readonly txid: string;
  readonly tab: string;
  readonly key: string;
  /** Seconds. */
  readonly at: number;
  readonly old_v: string | null;
  readonly new_v: string | null;
}

interface Entry {
  readonly tab: string;
  readonly kind: string;
  readonly key: string;
  readonly other_key: string | null;
  readonly winner: "source" | "target" | "merged" | "skip";
  readonly source_change: string;
  readonly target_change: string;
  readonly source_v: string | null;
  readonly target_v: string | null;
  readonly merged_v: string | null;
  readonly source_at: number | null;
  readonly target_at: number | null;
  readonly source_node: string;
  readonly target_node: string;
}

export interface Account {
  readonly changes: number;
  readonly conflicts: readonly Entry[];
  /** What is wrong, in words. */
  readonly wrong: readonly string[];
}

const cellOf = (tab: string, key: string): string => `${tab} ${key}`;

export interface AccountOptions {
  /** The later change has to win everywhere. */
  readonly isLatest?: boolean;
  /** Somebody has resolved conflicts, and has thrown away what was made of these rows meanwhile. */
  readonly isResolved?: boolean;
}

/** Call when all databases are equal; rows are taken from the first. */
export async function takeAccount(sides: readonly Database[], options: AccountOptions): Promise<Account> {
  const changes: Change[] = [];
  const entries: Entry[] = [];
  const rows = new Map<string, string>();
  for (const [n, side] of sides.entries()) {
    await withClient(side.url, async (client) => {
      const noted = await client.query<Change>(
        `select $1::text as side, op, txid::text as txid, tab, key, extract(epoch from at)::float8 as at, old_v, new_v from audit.change order by seq`,
        [side.name],
      );
      changes.push(...noted.rows);
      const keyText = (key: string): string =>
        `(select string_agg(e.value, '/' order by e.key) from jsonb_each_text(${key}) as e)`;
      const logged = await client.query<Entry>(
        `select replace(table_name, 'public.', '') as tab, kind, ${keyText("key")} as key, ${keyText("other_key")} as other_key, winner,
           source_change, target_change, source_image ->> 'v' as source_v, target_image ->> 'v' as target_v, merged_image ->> 'v' as merged_v,
           extract(epoch from source_at)::float8 as source_at, extract(epoch from target_at)::float8 as target_at, source_node, target_node
         from replicate.conflict order by id`,
      );
      entries.push(...logged.rows);
      if (n > 0) return;
      for (const tab of twoWayTables) {
        const found = await client.query<{ key: string; v: string }>(
          `select ${tab === "pair" ? "a || '/' || b" : tab === "word" ? "w" : "id::text"} as key, v from ${tab}`,
        );
        for (const { key, v } of found.rows) rows.set(cellOf(tab, key), v);
      }
    });
  }
  const isMet = ({ tab, key }: Change): boolean =>
    entries.some((entry) => entry.tab === tab && [entry.key, entry.other_key].includes(key));
  if (options.isResolved === true)
    for (const { tab, key, other_key } of entries)
      for (const each of [key, other_key]) rows.delete(cellOf(tab, String(each)));
  const counted = options.isResolved === true ? changes.filter((change) => !isMet(change)) : changes;
  const wrong = [...lost(counted, entries, rows), ...revived(counted, entries, rows), ...incomplete(entries)];
  if (options.isLatest === true) wrong.push(...notLatest(changes, entries, rows));
  return { changes: changes.length, conflicts: entries, wrong };
}

/** `tab key v` of every image that lost, and where it was merged or left to somebody, of both. */
function losers(entries: readonly Entry[]): Set<string> {
  const found = new Set<string>();
  for (const { tab, winner, source_v, target_v } of entries) {
    // By table and value alone: where two rows want the same unique value, each image has a key of its own.
    if (winner !== "source" && source_v !== null) found.add(`${tab} ${source_v}`);
    if (winner !== "target" && target_v !== null) found.add(`${tab} ${target_v}`);
  }
  return found;
}

/** What happened to a row of late, to tell where something is wrong. */
function history(cell: string, changes: readonly Change[], entries: readonly Entry[]): string {
  const made = changes.filter(({ tab, key }) => cellOf(tab, key) === cell).toSorted((a, b) => a.at - b.at);
  const met = entries.filter(({ tab, key, other_key }) => [key, other_key].some((each) => cellOf(tab, String(each)) === cell)); // prettier-ignore
  return `${JSON.stringify(made.slice(-12))}, ${JSON.stringify(met.slice(-12))}`;
}

/** Values that applications wrote, or that were merged, and that are nowhere now. */
function lost(changes: readonly Change[], entries: readonly Entry[], rows: ReadonlyMap<string, string>): string[] {
  const logged = losers(entries);
  const replaced = new Set(changes.filter(({ old_v }) => old_v !== null).map(({ tab, key, old_v }) => `${cellOf(tab, key)} ${old_v}`));
  const made = [
    ...changes.flatMap(({ side, tab, key, new_v }) => (new_v === null ? [] : [{ by: side, tab, key, v: new_v }])),
    ...entries.flatMap(({ tab, key, merged_v }) => (merged_v === null ? [] : [{ by: "merging", tab, key, v: merged_v }])),
  ];
  return made
    .filter(({ tab, key, v }) => rows.get(cellOf(tab, key)) !== v && !replaced.has(`${cellOf(tab, key)} ${v}`) && !logged.has(`${tab} ${v}`))
    .map(({ by, tab, key, v }) => `${tab} ${key}: ${v} of ${by} is lost and not in the log: ${history(cellOf(tab, key), changes, entries)}`);
} // prettier-ignore

/** Rows that nobody made, and rows that an application replaced or deleted, without a word in the log. */
function revived(changes: readonly Change[], entries: readonly Entry[], rows: ReadonlyMap<string, string>): string[] {
  const made = new Set([
    ...changes.map(({ tab, key, new_v }) => `${cellOf(tab, key)} ${new_v}`),
    ...entries.map(({ tab, key, merged_v }) => `${cellOf(tab, key)} ${merged_v}`),
  ]);
  const logged = losers(entries);
  const isDeleteLost = (tab: string, key: string): boolean =>
    entries.some(
      (entry) =>
        entry.tab === tab && [entry.key, entry.other_key].includes(key) && entry.kind !== "delete_missing" &&
        (entry.kind === "multiple_unique_conflicts" ||
          (entry.source_change === "delete" && entry.winner !== "source") || (entry.target_change === "delete" && entry.winner !== "target")),
    );
  const wrong: string[] = [];
  for (const [cell, v] of rows) {
    if (!v.startsWith("first ") && !made.has(`${cell} ${v}`)) wrong.push(`${cell}: ${v} was not made there by anybody`);
    for (const { side, op, tab, key, old_v, new_v } of changes) {
      if (cellOf(tab, key) !== cell || old_v !== v || op === "T") continue;
      const isLogged = isDeleteLost(tab, key) || (new_v !== null && logged.has(`${tab} ${new_v}`));
      if (!isLogged) wrong.push(`${cell}: ${v} is there, which ${side} replaced by ${new_v}: ${history(cell, changes, entries)}`);
    }
  }
  return wrong;
} // prettier-ignore

/** Entries without the image of a row that was there. */
function incomplete(entries: readonly Entry[]): string[] {
  return entries
    .filter(
      (entry) =>
        (entry.source_change !== "delete") !== (entry.source_v !== null) ||
        (entry.target_change !== "delete") !== (entry.target_v !== null),
    )
    .map((entry) => `the log lacks an image: ${JSON.stringify(entry)}`);
}

/** How far apart the note of the test and that of the product may be, in seconds. */
const UNSURE = 0.05;

/** Cells that do not hold what the last change there made, by the clock, which all databases share. */
function notLatest(changes: readonly Change[], entries: readonly Entry[], rows: ReadonlyMap<string, string>): string[] {
  const wrong = entries
    .filter(({ kind, source_at, target_at, source_node, target_node, winner }) => {
      if (source_at === null || target_at === null || ["multiple_unique_conflicts", "delete_missing"].includes(kind)) return false;
      if (source_at === target_at) return winner !== (target_node > source_node ? "target" : "source");
      return winner !== (source_at > target_at ? "source" : "target");
    })
    .map((entry) => `an earlier change won: ${JSON.stringify(entry)}`);
  // What TRUNCATE and unique values decide is no matter of one row.
  const cells = new Map<string, Change[]>();
  for (const change of changes) {
    if (change.tab === "word" || change.tab === "member") continue;
    const cell = cellOf(change.tab, change.key);
    cells.set(cell, [...(cells.get(cell) ?? []), change]);
  }
  for (const [cell, each] of cells) {
    each.sort((one, other) => one.at - other.at);
    const last = each.at(-1) as Change;
    const possible = each.filter(({ at }) => at >= last.at - UNSURE).map(({ new_v }) => new_v);
    const found = rows.get(cell) ?? null;
    if (last.op === "D" && isLateInsert(each, found)) continue;
    if (!possible.includes(found)) wrong.push(
        `${cell}: holds ${found}, and the last change made ${possible.join(" or ")}: ${history(cell, changes, entries)}`,
      );
  }
  return wrong;
} // prettier-ignore

/**
 * Whether the row was inserted by a transaction that may have been open when the deletion arrived: where there is no row,
 * nothing makes one wait for the other, and it is the insert that came later.
 */
function isLateInsert(changes: readonly Change[], found: string | null): boolean {
  const made = changes.find(({ new_v }) => new_v === found && found !== null);
  return (
    made !== undefined &&
    changes.some(({ op, side, txid }) => op === "I" && side === made.side && txid === made.txid)
  );
}

/** Rows of all delta tables: what is still to be brought over, or was not thrown away yet. */
export async function deltasOf(sides: readonly Database[]): Promise<number> {
  let count = 0;
  for (const side of sides) {
    const tables = await side.sql<{ name: string }>(
      `select format('%I.%I', schemaname, tablename) as name from pg_tables where schemaname = 'replicate' and tablename like 'delta%'`,
    );
    for (const { name } of tables) {
      const [found] = await side.sql<{ n: number }>(`select count(*)::int as n from ${name}`);
      count += found?.n ?? 0;
    }
  }
  return count;
}
