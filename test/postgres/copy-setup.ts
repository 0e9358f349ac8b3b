import { openSync, type Sync, type SyncEvent, type SyncOptions } from "../../src/index.ts";
import { compareDatabases, type RowDifference } from "../support/compare.ts";
import type { Database } from "../support/database.ts";

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
