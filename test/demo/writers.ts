import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";

import { createRandom, type Random } from "../support/random.ts";

/** What the application has lived through so far. */
export interface Experience {
  transactions: number;
  /** Messages of those that failed. */
  failures: string[];
  slowestMs: number;
}

/** The shop's customers and clerks, at work until stopped. */
export interface Writers {
  experience: () => Experience;
  /** Lets the transactions under way end. */
  stop: () => Promise<void>;
}

/** Each client becomes one writer, which makes some ten to fifty transactions a second. */
export function startWriters(clients: readonly pg.Client[]): Writers {
  const experience: Experience = { transactions: 0, failures: [], slowestMs: 0 };
  const stopping = new AbortController();
  const running = clients.map((client, index) => {
    // Rows that move between partitions cannot be waited for by a second writer.
    const activities = index === 0 ? [...common, correctDates, correctDates, correctDates] : common;
    return write(client, createRandom(index), activities, { experience, signal: stopping.signal });
  });
  return {
    experience: () => ({ ...experience }),
    stop: async () => {
      stopping.abort();
      await Promise.all(running);
    },
  };
}

async function write(
  client: pg.Client,
  random: Random,
  activities: readonly Activity[],
  { experience, signal }: { experience: Experience; signal: AbortSignal },
): Promise<void> {
  while (!signal.aborted) {
    const startedAt = performance.now();
    try {
      await client.query("begin");
      await random.pick(activities)(client, random);
      await client.query("commit");
    } catch (error) {
      experience.failures.push((error as Error).message);
      await client.query("rollback").catch(() => undefined);
    }
    experience.transactions++;
    experience.slowestMs = Math.max(experience.slowestMs, performance.now() - startedAt);
    await sleep(random.int(10, 40), undefined, { signal }).catch(() => undefined);
  }
}

type Activity = (client: pg.Client, random: Random) => Promise<unknown>;

const aCustomer = `(select id from customer where id >= gen_random_uuid() and state = 'active' order by id limit 1)`;

/** An order with its lines, the stock they leave, and the visit it came from: four tables in one transaction. */
const placeOrder: Activity = async (client, random) => {
  const { rows } = await client.query<{ id: string }>(
    `insert into orders (customer_id, note)
     select id, 'by phone' from customer where id = ${aCustomer} returning id`,
  );
  const order = rows[0]?.id;
  if (order === undefined) return;
  await client.query(
    `insert into order_item (order_id, line, sku, quantity, price)
     select $1, row_number() over (order by sku), sku, 1, price
     from (select sku, price from product where sku >= $2 and for_sale order by sku limit $3) product`,
    [order, aSku(random), random.int(1, 3)],
  );
  await client.query(
    `update stock set quantity = quantity - 1
     where warehouse = 'Lyon' and sku = (select min(sku) from order_item where order_id = $1)`,
    [order],
  );
  await client.query(`insert into event (happened_at, kind) values (now(), 'payment')`);
};

const shipOrder: Activity = (client, random) =>
  client.query(
    `update orders set state = 'shipped', note = null
     where id = (select id from orders where id >= $1 and state <> 'shipped' order by id limit 1)`,
    [random.int(1, 100_000)],
  );

/** Takes the order's lines along. */
const cancelOrder: Activity = (client, random) =>
  client.query(`delete from orders where id = (select id from orders where id >= $1 order by id limit 1)`, [
    random.int(1, 100_000),
  ]);

const changePrice: Activity = (client, random) =>
  client.query(
    `update product set price = price + 0.10, details = details || jsonb_build_object('weight', $2::int)
     where sku = (select sku from product where sku >= $1 order by sku limit 1)`,
    [aSku(random), random.int(1, 700)],
  );

/** Changes keys, also those of the stock that belongs to the product. */
const renameProduct: Activity = (client, random) =>
  client.query(
    `update product set sku = sku || '-old'
     where sku = (select sku from product where sku >= $1 and not for_sale and length(sku) < 40 order by sku limit 1)`,
    [aSku(random)],
  );

const moveHouse: Activity = (client, random) =>
  client.query(
    `update customer set address = jsonb_build_object('city', 'City ' || $1::int), tags = tags || 'moved'::text
     where id = ${aCustomer}`,
    [random.int(1, 89)],
  );

/** Two customers exchange a unique value, which takes a detour for one of them. */
const swapEmails: Activity = async (client) => {
  const { rows } = await client.query<{ id: string; email: string }>(
    `select id, email from customer
     where id >= gen_random_uuid() and state = 'active' order by id limit 2 for update`,
  );
  const [one, other] = rows;
  if (one === undefined || other === undefined) return;
  const setEmail = (id: string, email: string): Promise<unknown> =>
    client.query("update customer set email = $2 where id = $1", [id, email]);
  await setEmail(one.id, `${one.id}@swap.example.org`);
  await setEmail(other.id, one.email);
  await setEmail(one.id, other.email);
};

/** Someone signs up and orders; whoever did before is deleted, which takes orders and lines along. */
const comeAndGo: Activity = async (client) => {
  await client.query(`delete from customer where id = (
                        select id from customer where state = 'new' limit 1 for update skip locked)`);
  await client.query(
    `with newcomer as (
       insert into customer (email, name, state) select gen_random_uuid() || '@example.org', 'Newcomer', 'new' returning id
     ) insert into orders (customer_id) select id from newcomer`,
  );
};

/** Moves rows from one partition to another. */
const correctDates: Activity = (client, random) =>
  client.query(
    `update event set happened_at = happened_at + interval '80 days'
     where (happened_at, id) in (select happened_at, id from event where happened_at >= $1::timestamptz order by happened_at limit 5)
       and happened_at < '2026-10-01'`,
    [`2026-0${random.int(1, 9)}-15`],
  );

const retakePicture: Activity = (client, random) =>
  client.query(
    `update picture set bytes = decode(repeat(md5($1), 1000), 'hex'), taken_at = now()
     where sku = (select sku from picture where sku >= $1 order by sku limit 1)`,
    [aSku(random)],
  );

/** Many rows in one statement, and a mistake that is taken back. */
const importVisits: Activity = async (client) => {
  await client.query(
    `insert into event (happened_at, kind, payload)
     select now() - n * interval '1 second', 'visit', jsonb_build_object('page', n) from generate_series(1, 200) n`,
  );
  await client.query("savepoint mistake");
  await client.query("delete from event where happened_at = now() - interval '1 second'");
  await client.query("rollback to savepoint mistake");
};

/** Those that stand here several times happen more often. */
const common: readonly Activity[] = [
  placeOrder, placeOrder, placeOrder, placeOrder, shipOrder, shipOrder, cancelOrder, changePrice,
  renameProduct, moveHouse, swapEmails, comeAndGo, retakePicture, importVisits,
]; // prettier-ignore

function aSku(random: Random): string {
  return `SKU-${String(random.int(1, 4000)).padStart(5, "0")}`;
}
