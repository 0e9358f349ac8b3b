import { openSync, type Sync } from "../../src/index.ts";
import type { Database, Pair } from "./database.ts";

// A sync whose conflicts were met by nobody: tests of the log write the entries themselves.

const users = `
  create table users (id bigint, "group" text, name text, primary key (id, "group"));
  insert into users values (1, 'a', 'Ann'), (2, 'a', 'Bob'), (3, 'b', 'Cy')`;

export interface LoggedSync extends AsyncDisposable {
  readonly sync: Sync;
  /** Writes an entry, into the log of the side where it was met. Returns the id that users see. */
  log: (side: "source" | "target", entry?: Entry) => Promise<number>;
  /** The keys that were recorded as changed on a side, with what was told about them. */
  noted: (side: "source" | "target") => Promise<string[]>;
}

export interface Entry {
  key?: { id: number | string; group: string };
  otherKey?: { id: number | string; group: string };
  table?: string;
  kind?: string;
  winner?: string;
  isPending?: boolean;
  /** SQL. */
  at?: string;
}

/** A sync whose tables are captured on both sides, by deltas that tell. */
export async function startLogged(pair: Pair): Promise<LoggedSync> {
  const url = { source: pair.source.url, target: pair.target.url };
  for (const side of [pair.source, pair.target]) await side.sql(users);
  await pair.source.sql(`create table others (like users including all)`);
  const sync = await openSync({ name: "shop", ...url, tables: ["users"] });
  // Another sync has the target's captured: into a table of its own, as no sync may go back into this one.
  const back = await openSync({
    name: "back",
    source: url.target,
    target: url.source,
    tables: ["users"],
    overrides: { "public.users": { target: "others" } },
  });
  for (const each of [sync, back]) await each.init();
  for (const side of [pair.source, pair.target]) {
    for (const delta of ["a", "b"])
      await side.sql(`alter table replicate.delta_1_${delta} add column if not exists op "char",
        add column if not exists changed_at timestamptz, add column if not exists origin text, add column if not exists via text`);
    await side.sql(`update replicate.capture set tracks_origin = true`);
  }
  const log = async (side: "source" | "target", entry: Entry = {}): Promise<number> => {
    const key = entry.key ?? { id: 1, group: "a" };
    const isPending = entry.isPending ?? true;
    const [row] = await pair[side].sql<{ id: string }>(
      `insert into replicate.conflict (sync, way, relid, table_name, key, key_texts, other_key, other_key_texts, kind,
         source_change, target_change, source_image, target_image, source_at, target_at, source_node, target_node,
         policy, winner, at, resolved_at)
       values ('shop', $1, 'users'::regclass, $2, $3, $4, $5, $6, $7, 'update', 'delete', $8, null,
         '2026-05-01 12:00:00.000001+02', null, 'office', 'cloud', $9, $10, ${entry.at ?? "now()"}, ${isPending ? "null" : (entry.at ?? "now()")})
       returning id`,
      [
        side === "target" ? "forward" : "reverse",
        entry.table ?? "public.users",
        key,
        Object.values(key).map(String),
        entry.otherKey ?? null,
        entry.otherKey === undefined ? null : Object.values(entry.otherKey).map(String),
        entry.kind ?? "update_origin_differs",
        `{"id": 9007199254740993, "group": "a", "name": "Ann"}`,
        isPending ? "skip" : "latest",
        entry.winner ?? (isPending ? "skip" : "source"),
      ],
    );
    return 2 * Number(row?.id) + (side === "source" ? 1 : 0);
  };
  const noted = async (side: "source" | "target"): Promise<string[]> => {
    const rows = await pair[side].sql<{ line: string }>(
      `select concat_ws(' ', k1, k2, op, via, origin, case when changed_at > now() - interval '1 minute' then 'now' end) as line
       from (select * from replicate.delta_1_a union all select * from replicate.delta_1_b) d order by 1`,
    );
    return rows.map(({ line }) => line);
  };
  return {
    sync,
    log,
    noted,
    [Symbol.asyncDispose]: async () => {
      for (const each of [sync, back]) await each[Symbol.asyncDispose]();
    },
  };
}

/** What an entry of a side says: winner, and whether it is resolved. */
export async function entryOf(side: Database, id: number): Promise<string> {
  const [row] = await side.sql<{ line: string }>(
    `select winner || case when resolved_at is null then ' open' else ' resolved' end as line
     from replicate.conflict where id = $1`,
    [Math.floor(id / 2)],
  );
  return row?.line ?? "gone";
}
