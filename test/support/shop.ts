import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";

import { connect } from "./admin.ts";
import type { Random } from "./random.ts";

// The shop: what ordinary databases are made of, and an application that writes to it without a pause.

/** For one side. `version` is this side's, and what only one of the two servers knows is left out of both by `common`. */
export function shopSchema(version: number, common: number = version): string {
  // Version 10 knows neither keys nor row triggers nor DEFAULT on partitioned tables, only on their leaves.
  const isOld = version < 11;
  const leaf = (name: string, from: string, to: string): string => `
    create table ${name} partition of visit for values from ('${from}') to ('${to}');
    ${isOld ? `alter table ${name} add primary key (id, at); create index on ${name} (page);` : ""}`;
  return `
    create type status as enum ('new', 'known', 'gone');
    create domain cents as bigint check (value >= 0);
    create table account (
      id uuid primary key, label text not null, balance bigint not null default 1000,
      touched int not null default 0, constraint solvent check (balance > -100000));
    create table customer (
      id bigint generated always as identity primary key,
      account_id uuid references account on delete set null,
      email text not null,
      name varchar(60) not null,
      status status not null default 'new',
      tags text[] not null default '{}',
      profile jsonb,
      photo bytea,
      rate numeric(6,3),
      since timestamptz not null default clock_timestamp(),
      ${common >= 12 ? "shout text generated always as (upper(name)) stored," : ""}
      constraint customer_email unique (email));
    create index customer_name on customer (lower(name) text_pattern_ops);
    create index customer_tags on customer using gin (tags);
    create index customer_profile on customer using gin (profile jsonb_path_ops) where profile is not null;
    create index customer_since on customer using brin (since);
    create index customer_rate on customer (rate desc nulls last, id);
    create unique index customer_gone on customer (name, id) where status = 'gone';
    comment on index customer_name is 'For the search box; it''s important';
    alter index customer_since rename to "Since when?";
    alter table customer cluster on customer_pkey;
    create table category (
      code text primary key, parent text references category deferrable initially deferred, place int not null,
      constraint one_per_place unique (place) deferrable initially deferred);
    create table "Order" (
      customer_id bigint not null references customer on delete cascade,
      number int not null,
      total cents not null default 0,
      placed date not null default current_date,
      primary key (customer_id, number));
    create table order_line (
      customer_id bigint not null, number int not null, line smallint not null, category text references category,
      amount int not null, note text,
      primary key (customer_id, number, line),
      constraint line_of_order foreign key (customer_id, number) references "Order" on update cascade on delete cascade);
    create index on order_line using hash (category);
    create table booking (
      id serial primary key, room int4range not null, during tsrange not null, wishes text,
      constraint no_overlap exclude using gist (room with &&, during with &&));
    create table setting (key text primary key, value text);
    create table nothing_yet (id int primary key, value text);
    create table only_key (a int, b text collate "C", primary key (b, a));
    create table audit (id bigserial primary key, what text not null, customer_id bigint, at timestamptz default clock_timestamp());
    create table visit (id bigint not null, at timestamptz not null, page text, bytes int${isOld ? "" : ", primary key (id, at)"})
      partition by range (at);
    ${isOld ? "" : "create index visit_page on visit (page);"}
    ${leaf("visit_2020", "2020-01-01", "2021-01-01")}
    ${leaf("visit_2021", "2021-01-01", "2022-01-01")}
    ${leaf("visit_2022", "2022-01-01", "2030-01-01")}
    ${common < 11 ? "" : "create table visit_other partition of visit default;"}
    create function touch() returns trigger language plpgsql as $$ begin new.touched := new.touched + 1; return new; end $$;
    create trigger touch before update on account for each row execute procedure touch();
    create function note_customer() returns trigger language plpgsql as $$ begin
      if TG_OP = 'INSERT' then insert into audit (what, customer_id) values (TG_OP, new.id);
      else insert into audit (what, customer_id) values (TG_OP, old.id); end if;
      return null; end $$;
    create trigger note_customer after insert or delete on customer for each row execute procedure note_customer();
    comment on trigger note_customer on customer is 'Accounting wants to know';
    alter table account alter label set statistics 200;
    create index account_expression on account ((balance / 100), touched);
    ${common < 11 ? "" : "alter index account_expression alter column 1 set statistics 300;"}
    create unique index account_label on account (label);
    alter table account replica identity using index account_label;
    create sequence ticket increment 5;`;
}

/** Every table that is no partition. */
export const shopTables = [
  "account", "customer", "category", '"Order"', "order_line", "booking", "setting", "nothing_yet", "only_key", "audit", "visit",
].map((name) => `public.${name}`); // prettier-ignore

export function shopRows(customers: number): string {
  return `
    insert into account select md5('a' || g)::uuid, rpad('account ' || g, 150, '.') from generate_series(1, ${customers}) g;
    insert into customer (account_id, email, name, tags, profile, photo, rate)
      select md5('a' || 1 + g % ${customers})::uuid, 'c' || g || '@example.org', 'Name ' || g, array['t' || g % 7, null, ''],
             jsonb_build_object('n', g, 'deep', jsonb_build_array(g, null)), decode(repeat(md5(g::text), 1 + g % 20), 'hex'), g % 999 / 7.0
        from generate_series(1, ${customers}) g;
    insert into category select 'k' || g, case when g > 1 then 'k' || g / 2 end, g from generate_series(1, 20) g;
    insert into "Order" select id, n, id * n from customer cross join generate_series(1, 2) n;
    insert into order_line select customer_id, number, l, 'k' || 1 + customer_id % 20, l * number, E'line\\n' || l
      from "Order" cross join generate_series(1, 2) l;
    insert into booking (room, during, wishes)
      select int4range(g + 1000, g + 1001), tsrange('2020-01-01', '2020-01-05'), repeat('quiet ', 25) from generate_series(1, ${customers}) g;
    insert into setting values ('', ''), ('null', null), (E'\\\\.', E'\\\\N'), ('tab', E'\\t');
    insert into only_key select g, 'k' || g % 5 from generate_series(1, 100) g;
    insert into visit select g, timestamptz '2020-01-01 00:00:00+00' + g % 5000 * interval '3 hours', rpad('page ' || g % 9, 150, '.'), g
      from generate_series(1, ${customers}) g;
    select nextval('ticket') from generate_series(1, 7);`;
}

export interface ShopWriters {
  /** Transactions committed so far. */
  readonly committed: number;
  /** Ends the writers; throws what any of them met besides other writers. */
  stop: () => Promise<number>;
}

export interface WriterOptions {
  random: Random;
  writers?: number;
  /** Row movement between leaves works since version 11. */
  version: number;
  /** Milliseconds between two transactions of one writer. */
  pauseMs?: number;
}

/** What writers do to each other on any server: unique and exclusion violations, deadlocks, vanished parents. */
const theirOwn = /^(23505|23P01|23503|40P01|40001)$/;

export async function startShopWriters(url: string, options: WriterOptions): Promise<ShopWriters> {
  let stopping = false;
  let committed = 0;
  const write = async (client: pg.Client, random: Random): Promise<void> => {
    while (!stopping) {
      try {
        await client.query("begin");
        for (let n = random.int(1, 4); n > 0; n--) await client.query(someStatement(random, options.version));
        await client.query(random.bool(0.9) ? "commit" : "rollback");
        committed++;
      } catch (error) {
        if (!theirOwn.test(String((error as { code?: unknown }).code))) throw error;
        await client.query("rollback");
      }
      await sleep(random.int(0, options.pauseMs ?? 10));
    }
  };
  const clients = await Promise.all(Array.from({ length: options.writers ?? 2 }, () => connect(url)));
  const results = Promise.allSettled(
    clients.map((client, n) => write(client, options.random.fork(`writer ${n}`))),
  );
  return {
    get committed() {
      return committed;
    },
    stop: async () => {
      stopping = true;
      const failures = (await results).flatMap((each) =>
        each.status === "rejected" ? [each.reason as unknown] : [],
      );
      await Promise.all(clients.map((client) => client.end().catch(() => undefined)));
      if (failures.length > 0) throw failures[0];
      return committed;
    },
  };
}

function someStatement(random: Random, version: number): string {
  const account = (): string => `md5('a${random.int(1, 50)}')::uuid`;
  const customer = `(select id from customer order by id offset ${random.int(0, 300)} limit 1)`;
  const word = random.text(8);
  const at = `timestamptz '2020-01-01 00:00:00+00' + ${random.int(0, 1000)} * interval '1 day'`;
  return random.pick([
    () => `update account set balance = balance - 1 where id = ${account()}`,
    () => `insert into account (id, label) values ('${randomUUID()}', '${word}')`,
    () =>
      `insert into customer (account_id, email, name, tags) values (${account()}, '${word}@example.org', '${word}', '{x,"",NULL}')`,
    () =>
      `insert into customer (email, name) values ('c${random.int(1, 300)}@example.org', '${word}') on conflict (email) do update set name = excluded.name`,
    () =>
      `update customer set rate = rate + 0.001, profile = profile || '{"seen": "${word}"}' where id = ${customer}`,
    () =>
      `update customer set status = '${random.pick(["new", "known", "gone"])}', photo = null where id = ${customer}`,
    () => `delete from customer where id = ${customer}`,
    // A unique value changes hands.
    () =>
      `with one as (delete from setting where key = '${word[0]}' returning value) insert into setting select '${word[1]}', coalesce((select value from one), '${word}') on conflict (key) do update set value = setting.value || 'x'`,
    () => `insert into "Order" (customer_id, number) select id, ${random.int(3, 9)} from customer where id = ${customer}`, // prettier-ignore
    () => `update "Order" set number = number + 10 where customer_id = ${customer} and number < 10`,
    () => `delete from order_line where customer_id = ${customer} and line = 1`,
    // Two unique values change places.
    () => {
      const [one, other] = [random.int(1, 10), random.int(11, 20)];
      return `update category set place = case place when ${one} then ${other} else ${one} end where place in (${one}, ${other})`;
    },
    () =>
      `insert into booking (room, during) values ('[${random.int(1, 500)},${random.int(500, 501)}]', '[2021-01-0${random.int(1, 9)},2021-02-01)')`,
    () => `delete from booking where id % 50 = ${random.int(0, 49)}`,
    () => `update only_key set a = a + 1000 where a = ${random.int(1, 100)}`,
    () =>
      `insert into visit values (${random.int(1, 1000000)}, ${at}, '${word}', 1) ${version < 11 ? "" : "on conflict do nothing"}`,
    () =>
      version < 11
        ? `update visit set bytes = bytes + 1 where id = ${random.int(1, 500)}`
        : `update visit set at = ${at} where id = ${random.int(1, 500)}`,
    () => `delete from visit where id = ${random.int(1, 500)}`,
    () => `select nextval('ticket')`,
  ])();
}
