import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";

import { connect } from "./admin.ts";
import type { Random } from "./random.ts";

// Applications that write to the same rows of several databases at once, and an account of all they did: every write
// carries a value of its own, and triggers of the test note which value each write replaced by which. These triggers
// are silent for replicated rows, as the applications' own are.

export const twoWayTables = ["num", "pair", "word", "member"] as const;
type TwoWayTable = (typeof twoWayTables)[number];

const keys: Readonly<Record<TwoWayTable, readonly string[]>> = {
  num: ["id"],
  pair: ["a", "b"],
  word: ["w"],
  member: ["id"],
};

const audited = twoWayTables
  .map(
    (table) => `
  create trigger noted after insert or update or delete on ${table} for each row execute procedure audit.note('${keys[table].join(",")}');
  create trigger noted_truncate before truncate on ${table} for each statement execute procedure audit.note_truncate('${keys[table].join(",")}');`,
  )
  .join("");

/** Of every database, the same. */
export const twoWaySchema = `
  create table num (id integer primary key, n numeric, j jsonb, b bytea, v text not null);
  create table pair (a integer, b text, v text not null, primary key (a, b));
  create table word (w text primary key, v text not null);
  create table member (id integer primary key, email text unique, nick text, active boolean not null, v text not null);
  create unique index member_nick on member (lower(nick)) where active;

  create schema audit;
  create table audit.change (
    seq bigserial primary key, at timestamptz not null default clock_timestamp(), txid bigint not null default txid_current(),
    op text not null, tab text not null, key text not null, old_v text, new_v text);
  create function audit.key_of(row_ jsonb, columns text) returns text language sql immutable as $$
    select string_agg(row_ ->> c, '/' order by n) from unnest(string_to_array(columns, ',')) with ordinality as u (c, n) $$;
  create function audit.note() returns trigger language plpgsql as $$
  begin
    if TG_OP = 'INSERT' then
      insert into audit.change (op, tab, key, new_v) values ('I', TG_TABLE_NAME, audit.key_of(to_jsonb(NEW), TG_ARGV[0]), NEW.v);
    elsif TG_OP = 'DELETE' then
      insert into audit.change (op, tab, key, old_v) values ('D', TG_TABLE_NAME, audit.key_of(to_jsonb(OLD), TG_ARGV[0]), OLD.v);
    elsif audit.key_of(to_jsonb(NEW), TG_ARGV[0]) = audit.key_of(to_jsonb(OLD), TG_ARGV[0]) then
      insert into audit.change (op, tab, key, old_v, new_v) values ('U', TG_TABLE_NAME, audit.key_of(to_jsonb(NEW), TG_ARGV[0]), OLD.v, NEW.v);
    else
      insert into audit.change (op, tab, key, old_v) values ('D', TG_TABLE_NAME, audit.key_of(to_jsonb(OLD), TG_ARGV[0]), OLD.v);
      insert into audit.change (op, tab, key, new_v) values ('I', TG_TABLE_NAME, audit.key_of(to_jsonb(NEW), TG_ARGV[0]), NEW.v);
    end if;
    return null;
  end $$;
  create function audit.note_truncate() returns trigger language plpgsql as $$
  begin
    execute format('insert into audit.change (op, tab, key, old_v) select ''T'', %L, audit.key_of(to_jsonb(t), %L), t.v from only %I.%I as t',
      TG_TABLE_NAME, TG_ARGV[0], TG_TABLE_SCHEMA, TG_TABLE_NAME);
    return null;
  end $$;
  ${audited}`;

/** Rows to begin with, the same in every database; nobody notes them. */
export const twoWayRows = `
  set session_replication_role = replica;
  insert into num select g, g + 0.50, jsonb_build_object('g', g), decode(md5(g::text), 'hex'), 'first ' || g from generate_series(1, 12) g;
  insert into pair select g % 4, 'b' || g, 'first ' || g from generate_series(1, 12) g;
  insert into word select 'w''\\' || g, 'first ' || g from generate_series(1, 12) g;
  insert into member select g, 'm' || g, 'Nick' || g, g % 3 > 0, 'first ' || g from generate_series(1, 8) g;
  reset session_replication_role`;

/** What writers who share rows do to each other on any server. Deadlocks also with whoever replicates. */
const ownErrors = new Set(["23505", "40P01", "55P03", "40001"]);

export interface TwoWayWriters {
  /** Lets every writer end its transaction. Returns errors that an application must not have had. */
  stop: () => Promise<{ readonly committed: number; readonly failures: readonly string[] }>;
}

export interface TwoWayWriterOptions {
  readonly writers?: number;
  readonly pauseMs?: number;
  readonly truncates?: boolean;
  readonly tables?: readonly TwoWayTable[];
}

/** Writes to one database; `side` is part of every value. */
export async function startTwoWayWriters(
  url: string,
  side: string,
  random: Random,
  options: TwoWayWriterOptions = {},
): Promise<TwoWayWriters> {
  const { writers = 3, pauseMs = 30, truncates = true, tables = twoWayTables } = options;
  const stopping = new AbortController();
  const failures: string[] = [];
  let committed = 0;
  const pause = async (ms: number): Promise<void> =>
    await sleep(ms, undefined, { signal: stopping.signal }).catch(() => undefined);
  const run = async (client: pg.Client, name: string, own: Random): Promise<void> => {
    for (let n = 0; !stopping.signal.aborted;) {
      let doing = "begin";
      try {
        const isRepeatable = own.bool(0.2);
        await client.query(isRepeatable ? "begin isolation level repeatable read" : "begin");
        // There, the trigger that notes what goes would not see what others have just made.
        const canTruncate = truncates && !isRepeatable;
        for (let step = own.int(1, 3); step > 0; step -= 1) {
          n += 1;
          doing = await act(client, own, own.pick(tables), `${name}.${n}`, canTruncate);
          // Between write and commit: this is when others overtake.
          if (own.bool(0.15)) await pause(own.int(1, 120));
        }
        const isRolledBack = own.bool(0.12);
        await client.query(isRolledBack ? "rollback" : "commit");
        if (!isRolledBack) committed += 1;
      } catch (error) {
        const { code = "", message } = error as { code?: string; message: string };
        if (!ownErrors.has(code)) failures.push(`${name}: ${doing}: ${code} ${message}`);
        await client.query("rollback").catch((again: unknown) => failures.push(String(again)));
      }
      await pause(own.int(0, pauseMs));
    }
    await client.end();
  };
  const running: Promise<void>[] = [];
  for (let n = 1; n <= writers; n += 1)
    running.push(run(await connect(url), `${side}${n}`, random.fork(`${side}${n}`)));
  return {
    stop: async () => {
      stopping.abort();
      await Promise.all(running);
      return { committed, failures };
    },
  };
}

/** One statement, or two. Few keys, so that both sides meet often. */
async function act(
  client: pg.Client,
  random: Random,
  table: TwoWayTable,
  v: string,
  truncates: boolean,
): Promise<string> {
  if (truncates && table === "word" && random.bool(0.05)) {
    await client.query("set local lock_timeout = '200ms'");
    await client.query("truncate word");
    await client.query("set local lock_timeout = 0");
    return "truncate word";
  }
  const [doing, text, values] = random.pick(statements[table])(random, v);
  await client.query(text, values);
  return doing;
}

type Statement = (random: Random, v: string) => readonly [doing: string, text: string, values: unknown[]];

const id = (random: Random): number => random.int(1, 12);

const statements: Readonly<Record<TwoWayTable, readonly Statement[]>> = {
  num: [
    (random, v) => [
      "upsert num",
      `insert into num values ($1, $2::numeric, jsonb_build_object('v', $3::text, 'n', $2::numeric), decode(md5($3::text), 'hex'), $3::text)
       on conflict (id) do update set n = excluded.n, j = excluded.j, b = excluded.b, v = excluded.v`,
      [id(random), random.pick(["1.0", "1.00", "12345678901234567890.123456789", "NaN", "-0.5"]), v],
    ],
    (random, v) => [
      "insert num",
      "insert into num (id, v, b) select g, $2, '\\x00ff5c' from generate_series($1::int, $1::int + 2) g on conflict do nothing",
      [id(random), v],
    ],
    (random, v) => ["update num", "update num set v = $2, n = n + 1 where id = $1", [id(random), v]],
    (random, v) => ["update nums", "update num set v = $2, j = null where id between $1::int and $1::int + 3", [id(random), v]],
    (random) => ["delete num", "delete from num where id = $1", [id(random)]],
    (random) => ["delete nums", "delete from num where id between $1::int and $1::int + 1", [id(random)]],
    (random, v) => [
      "move num",
      "update num set id = $2, v = $3 where id = $1 and not exists (select 1 from num where id = $2)",
      [id(random), id(random), v],
    ],
  ],
  pair: [
    (random, v) => [
      "upsert pair",
      "insert into pair values ($1, $2, $3) on conflict (a, b) do update set v = excluded.v",
      [random.int(0, 3), `b${id(random)}`, v],
    ],
    (random, v) => ["update pairs", "update pair set v = $2 where a = $1", [random.int(0, 3), v]],
    (random) => ["delete pair", "delete from pair where a = $1 and b = $2", [random.int(0, 3), `b${id(random)}`]],
    (random, v) => [
      "move pairs",
      "update pair p set a = $2, v = $3 where a = $1 and not exists (select 1 from pair o where o.a = $2 and o.b = p.b)",
      [random.int(0, 3), random.int(0, 3), v],
    ],
  ],
  word: [
    (random, v) => [
      "upsert word",
      "insert into word values ($1, $2) on conflict (w) do update set v = excluded.v",
      [`w'\\${id(random)}`, v],
    ],
    (random, v) => ["update word", "update word set v = $2 where w = $1", [`w'\\${id(random)}`, v]],
    (random) => ["delete word", "delete from word where w = $1", [`w'\\${id(random)}`]],
    (random, v) => [
      "move word",
      "update word set w = $2, v = $3 where w = $1 and not exists (select 1 from word where w = $2)",
      [`w'\\${id(random)}`, `w'\\${id(random)}`, v],
    ],
  ],
  member: [
    (random, v) => [
      "insert member",
      "insert into member values ($1, $2, $3, $4, $5) on conflict do nothing",
      [random.int(1, 16), `m${random.int(1, 16)}`, `${random.pick(["N", "n"])}ick${random.int(1, 16)}`, random.bool(0.7), v],
    ],
    (random, v) => [
      "update member",
      "update member set email = $2, v = $3 where id = $1 and not exists (select 1 from member where email = $2 and id <> $1)",
      [random.int(1, 16), `m${random.int(1, 16)}`, v],
    ],
    (random, v) => ["wake members", "update member set active = not active, v = $2 where id = $1", [random.int(1, 16), v]],
    (random, v) => ["update members", "update member set v = $2 where id between $1::int and $1::int + 1", [random.int(1, 16), v]],
    (random) => ["delete member", "delete from member where id = $1", [random.int(1, 16)]],
  ],
}; // prettier-ignore
