import { execFileSync } from "node:child_process";

// A schema with something of each kind that a dump has trouble with.

/** Says why the tests cannot run here; undefined where they can. They need pg_dump of the source's version or newer. */
function whyNoClient(): string | undefined {
  try {
    const said = execFileSync("pg_dump", ["--version"], { encoding: "utf8" });
    const major = Number(/\) (\d+)/.exec(said)?.[1]);
    return major >= 13 ? undefined : `pg_dump is of version ${major}, older than the source`;
  } catch {
    return "pg_dump is not installed";
  }
}

/** Says it where the results are read, since a skipped test looks like any other. */
export function tellWhySkipped(): boolean {
  const why = whyNoClient();
  if (why !== undefined) process.stderr.write(`schema tests are skipped: ${why}\n`);
  return why !== undefined;
}

export const difficultSchema = `
  create schema app;
  create schema "Odd Schema";
  create type app.status as enum ('new', 'gone');
  create domain app.cents as bigint check (value >= 0);
  create function app.touch() returns trigger language plpgsql as $$ begin new.touched := new.touched + 1; return new; end $$;
  create function app.double(x int) returns int language sql immutable as 'select x * 2';
  create table app.customer (
    id bigint generated always as identity primary key,
    email text not null constraint email_once unique,
    status app.status not null default 'new' check (status in ('new', 'gone')),
    total app.cents default 0,
    kind varchar(10) check (kind in ('a', 'b')),
    twice int generated always as (5 * 2) stored,
    touched int not null default 0,
    note text collate "C");
  comment on table app.customer is 'Customers; all of them';
  comment on column app.customer.email is 'lower case';
  create index customer_note on app.customer (lower(note)) where status = 'new';
  create unique index customer_partial on app.customer (kind) where kind is not null;
  comment on index app.customer_note is 'For the search box';
  create statistics app.customer_statistics on kind, status from app.customer;
  create table app."Order Lines" (
    id serial primary key,
    customer bigint references app.customer on delete cascade deferrable,
    "Weird ""column""" text default E'it''s\\n');
  alter table app."Order Lines" add constraint later foreign key (customer) references app.customer not valid;
  create table "Odd Schema"."select" (key text primary key);
  create table app.unkeyed (a int not null, b int);
  create unique index unkeyed_a on app.unkeyed (a);
  alter table app.unkeyed replica identity using index unkeyed_a;
  create table app.event (id int not null, at date not null, what text, primary key (id, at)) partition by range (at);
  create table app.event_2020 partition of app.event for values from ('2020-01-01') to ('2021-01-01');
  create table app.event_other partition of app.event default;
  create index event_what on app.event (what);
  create sequence app.ticket increment 5 start 100;
  create trigger touch before update on app.customer for each row execute function app.touch();
  create trigger sleeping before update on app."Order Lines" for each row execute function app.touch();
  alter table app."Order Lines" disable trigger sleeping;
  create rule quiet as on delete to app.unkeyed do instead nothing;
  alter table app.unkeyed enable row level security;
  create policy everybody on app.unkeyed using (true);
  create view app.grouped as select id, email, touched from app.customer group by id;
  create materialized view app.counts as select status, count(*) as number from app.customer group by status with data;
  create unique index counts_status on app.counts (status);
  create materialized view app.all_counts as select sum(number) as number from app.counts;
`;

/** What has to stay behind. */
export const leftBehind = `
  create publication everything for table app.customer;
  grant select on app.customer to public;
  alter default privileges in schema app grant select on tables to public;
`;
