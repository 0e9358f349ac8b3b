import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { openSync, type Sync, type SyncEvent, type SyncOptions } from "../../src/index.ts";
import { compareDatabases, type RowDifference } from "./compare.ts";
import type { Database } from "./database.ts";

// What the tests of copy share: a sync on a pair of databases, and how they look at the outcome.

export interface CopySync {
  sync: Sync;
  events: SyncEvent[];
  /** Events of one type. */
  of: <T extends SyncEvent["type"]>(type: T) => Extract<SyncEvent, { type: T }>[];
}

type Side = Pick<Database, "url" | "sql">;

export async function openCopySync(
  pair: { source: Side; target: Side },
  options: Omit<SyncOptions, "source" | "target"> = {},
): Promise<CopySync> {
  const events: SyncEvent[] = [];
  const sync = await openSync({
    source: pair.source.url,
    target: pair.target.url,
    onEvent: (event) => events.push(event),
    env: {},
    ...options,
  });
  const of = <T extends SyncEvent["type"]>(type: T): Extract<SyncEvent, { type: T }>[] =>
    events.filter((event): event is Extract<SyncEvent, { type: T }> => event.type === type);
  return { sync, events, of };
}

export async function differences(pair: { source: Side; target: Side }): Promise<RowDifference[]> {
  return (await compareDatabases(pair.source.url, pair.target.url)).differences;
}

/** Runs the same statements on both sides. */
export async function onBoth(pair: { source: Side; target: Side }, text: string): Promise<void> {
  await Promise.all([pair.source.sql(text), pair.target.sql(text)]);
}

/** Applies what is left until nothing is. */
export async function followUntilCaughtUp(sync: Sync): Promise<void> {
  for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
}

export const shopSchema = `
  create type mood as enum ('sad', 'ok', 'happy');
  create domain positive as integer check (value > 0);
  create table customer (
    id bigint generated always as identity primary key,
    email text not null unique,
    name varchar(50),
    feeling mood not null default 'ok',
    score positive,
    created timestamptz not null default now(),
    tags text[],
    doc jsonb,
    raw bytea
  );
  create table product (id uuid primary key, title text not null, price numeric(10,2));
  create index product_title on product (lower(title)) where price > 10;
  create table item (
    customer_id bigint not null references customer on delete cascade,
    line int not null,
    product_id uuid not null references product,
    amount int not null,
    primary key (customer_id, line)
  );
  create index item_product on item (product_id);
  create table setting (key text primary key, value text);
`;

export const shopRows = (customers: number): string => `
  insert into customer (email, name, feeling, score, tags, doc, raw)
    select 'u' || g || '@example.org', 'Name ' || g, (array['sad', 'ok', 'happy'])[1 + g % 3]::mood, 1 + g % 50,
           array['a', null, 'b "' || g], jsonb_build_object('g', g), decode(md5(g::text), 'hex')
    from generate_series(1, ${customers}) g;
  insert into product select md5(g::text)::uuid, 'Title ' || g, g / 7.0 from generate_series(1, 1000) g;
  insert into item select 1 + g % ${customers}, g / ${customers}, md5((1 + g % 1000)::text)::uuid, g
    from generate_series(0, ${customers * 2 - 1}) g;
  insert into setting values ('empty', ''), ('null', null), ('dot', E'\\\\.'), ('tab', E'a\\tb\\nc');
  analyze;
`;

/** As pg_dump tells it where one is there that can read this server, and as the catalogue tells it in any case. */
export async function schemaOf(database: Side): Promise<string> {
  const catalogue = await database.sql<{ line: string }>(catalogueQuery);
  const [{ version } = { version: 0 }] = await database.sql<{ version: number }>(
    `select current_setting('server_version_num')::int / 10000 as version`,
  );
  const lines = catalogue.map(({ line }) => line).join("\n");
  if (version > (await dumpVersion())) return lines;
  const { stdout } = await promisify(execFile)(
    "pg_dump",
    ["--schema-only", "--exclude-schema=replicate", "--dbname", database.url],
    { maxBuffer: 64 * 1024 ** 2 },
  );
  return `${lines}\n${stdout.replaceAll(/^\\(un)?restrict .*$/gm, "")}`;
}

/** Major version; 0 without the program. */
async function dumpVersion(): Promise<number> {
  try {
    const { stdout } = await promisify(execFile)("pg_dump", ["--version"]);
    return Number(/\) (\d+)/.exec(stdout)?.[1] ?? 0);
  } catch {
    return 0;
  }
}

// From 18 on a leaf's NOT NULL counts as its own once its key was added by itself, as pg_dump does it too.
const catalogueQuery = `
  select 'index ' || c.oid::regclass::text || ': ' || pg_get_indexdef(c.oid) || ' valid ' || i.indisvalid || ' immediate ' || i.indimmediate
         || ' clustered ' || i.indisclustered || ' identity ' || i.indisreplident || ' tablespace ' || coalesce(t.spcname, '-')
         || ' options ' || coalesce(c.reloptions::text, '-') || ' comment ' || coalesce(obj_description(c.oid, 'pg_class'), '-')
         || ' parent ' || coalesce((select inhparent::regclass::text from pg_inherits where inhrelid = c.oid), '-')
         || ' statistics ' || (select string_agg(attnum || '=' || coalesce(to_jsonb(a) ->> 'attstattarget', '-1'), ',' order by attnum)
                               from pg_attribute a where attrelid = c.oid) as line
  from pg_index i join pg_class c on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace
  left join pg_tablespace t on t.oid = c.reltablespace
  where n.nspname not in ('pg_catalog', 'pg_toast', 'information_schema', 'replicate')
  union all
  select 'constraint ' || k.conrelid::regclass::text || '.' || k.conname || ': ' || pg_get_constraintdef(k.oid) || ' valid ' || k.convalidated
         || ' index ' || k.conindid::regclass::text || ' local ' || (k.conislocal or k.contype = 'n') || ' inherited ' || k.coninhcount
         || ' comment ' || coalesce(obj_description(k.oid, 'pg_constraint'), '-')
  from pg_constraint k join pg_namespace n on n.oid = k.connamespace
  where n.nspname not in ('pg_catalog', 'information_schema', 'replicate') and k.conrelid <> 0
  union all
  select 'trigger ' || tgrelid::regclass::text || '.' || tgname || ' ' || tgenabled::text from pg_trigger where tgname !~ '_ConstraintTrigger_'
  union all
  select 'rule ' || ev_class::regclass::text || '.' || rulename || ' ' || ev_enabled::text from pg_rewrite
  where ev_type <> '1' and ev_class >= 16384
  union all
  select 'table ' || c.oid::regclass::text || ' identity ' || c.relreplident::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where c.relkind in ('r', 'p') and n.nspname not in ('pg_catalog', 'information_schema', 'replicate')
  order by 1`;
