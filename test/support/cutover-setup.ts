import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";

import { openSync, type OpenOptions, type Sync, type SyncEvent, type SyncOptions } from "../../src/index.ts";
import { connect } from "./admin.ts";
import { onBoth, type Side } from "./follow-setup.ts";

// What the tests of cutover and rollback share: a database of every kind of thing that has to be carried over, and an
// application that counts what it was told to be committed.

export const schema = `
  create table account (id bigint generated always as identity primary key, balance bigint not null default 0, name text unique);
  create table entry (id serial primary key, account_id bigint not null references account on delete cascade,
    writer int not null, number int not null, amount int not null, unique (writer, number));
  create table log (id bigint not null, at date not null, what text, primary key (id, at)) partition by range (at);
  create table log_1 partition of log for values from ('2020-01-01') to ('2021-01-01');
  create table log_2 partition of log for values from ('2021-01-01') to ('2022-01-01');
  create table touched (id int primary key, times int not null default 0);
  create table visit (who int, what text);
  create sequence ticket increment 5;
  create sequence small as smallint;
  create sequence down increment -1;
  create function touch() returns trigger language plpgsql as $$ begin
    update public.touched set times = times + 1 where id = 1; return null; end $$;
  create trigger touch after insert on entry for each row execute procedure touch();
`;

export const rows = `
  insert into account (name) select 'account ' || g from generate_series(1, 200) g;
  insert into log select g, date '2020-01-01' + g % 700, 'x' from generate_series(1, 1000) g;
  insert into touched values (1);
  insert into visit select g % 5, 'x' from generate_series(1, 500) g;
  select nextval('ticket') from generate_series(1, 7);
  select nextval('small') from generate_series(1, 7);
  select nextval('down') from generate_series(1, 7);
`;

export interface Prepared extends AsyncDisposable {
  sync: Sync;
  events: SyncEvent[];
}

/** Both sides with the schema, the source with its rows, copied and followed to its end. */
export async function prepareCutover(
  pair: { source: Side; target: Side },
  options: Partial<SyncOptions> & OpenOptions = {},
): Promise<Prepared> {
  await onBoth(pair, schema);
  await pair.source.sql(rows);
  return await openPrepared(pair, options);
}

export async function openPrepared(
  pair: { source: Side; target: Side },
  options: Partial<SyncOptions> & OpenOptions = {},
): Promise<Prepared> {
  const events: SyncEvent[] = [];
  const sync = await openSync({
    name: "shop",
    source: pair.source.url,
    target: pair.target.url,
    onEvent: (event) => events.push(event),
    env: {},
    // Changes of the table without a key wait until the switch.
    keyless: "reload",
    keylessLimit: 0,
    ...options,
  });
  await sync.init();
  await sync.copy();
  await drain(sync);
  return { sync, events, [Symbol.asyncDispose]: async () => await sync[Symbol.asyncDispose]() };
}

export async function drain(sync: Sync): Promise<void> {
  for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
}

export interface Application {
  /** Transactions that were committed, by writer: the numbers they wrote. */
  committed: Map<number, number[]>;
  /** How often a write was refused because of the fence. */
  refused: number;
  /** The longest time between two commits, in seconds. */
  longestPause: number;
  /** From now on, new connections go there, as a new secret in the environment would have it. */
  switchTo: (url: string) => void;
  stop: () => Promise<void>;
}

/** Writers that try again when they are refused, and look where to connect to before each try. */
export function startApplication(
  url: string,
  options: {
    writers?: number;
    pauseMs?: number;
    /** More statements for the transaction of that number. */
    also?: (writer: number, number: number) => string;
  } = {},
): Application {
  let current = url;
  let isStopping = false;
  const committed = new Map<number, number[]>();
  const failures: unknown[] = [];
  let lastCommit = Date.now();
  const application: Application = {
    committed,
    refused: 0,
    longestPause: 0,
    switchTo: (next) => (current = next),
    stop: async () => {
      isStopping = true;
      await Promise.all(running);
      if (failures.length > 0) throw failures[0];
    },
  };
  const write = async (writer: number): Promise<void> => {
    let connected = "";
    let client: pg.Client | undefined;
    const numbers: number[] = [];
    committed.set(writer, numbers);
    for (let number = 1; !isStopping; number += 1) {
      for (;;) {
        if (connected !== current) {
          await client?.end();
          connected = current;
          client = await connect(connected);
        }
        try {
          // Known to be committed or not: the server answers both.
          await client?.query(`begin;
            update account set balance = balance + ${number % 7} where id = ${1 + ((number * 13 + writer) % 200)};
            insert into entry (account_id, writer, number, amount) values (${1 + ((number * 13 + writer) % 200)}, ${writer}, ${number}, ${number % 7});
            ${number % 10 === 0 ? `insert into log values (${100_000 * writer + number}, date '2020-01-01' + ${number % 700}, 'w');` : ""}
            ${options.also?.(writer, number) ?? ""}
            ${number % 10 === 5 ? `insert into visit values (${writer}, 'w'), (${writer}, 'w');` : ""}
            ${number % 25 === 0 ? `insert into account (name) values ('new ${writer} ${number}');` : ""}
            commit`);
          numbers.push(number);
          application.longestPause = Math.max(application.longestPause, (Date.now() - lastCommit) / 1000);
          lastCommit = Date.now();
          break;
        } catch (error) {
          await client?.query("rollback");
          const { code } = error as { code?: string };
          if (code === "25006") application.refused += 1;
          else if (code !== "40P01") throw error;
          await sleep(20);
        }
      }
      if (options.pauseMs !== undefined) await sleep(options.pauseMs);
    }
    await client?.end();
  };
  const running = Array.from({ length: options.writers ?? 2 }, (_, writer) =>
    write(writer + 1).catch((error: unknown) => {
      failures.push(error);
    }),
  );
  return application;
}

/** Throws unless the database holds exactly what the application knows to be committed, and balances that fit it. */
export async function assertNothingLost(side: Side, application: Application): Promise<void> {
  for (const [writer, numbers] of application.committed) {
    const found = await side.sql<{ number: number }>(
      `select number from entry where writer = ${writer} order by number`,
    );
    const has = found.map((row) => Number(row.number)).join();
    if (has !== numbers.join())
      throw new Error(`writer ${writer}: ${numbers.length} committed, ${found.length} found`);
  }
  const wrong = await side.sql(
    `select a.id, a.balance, pg_catalog.array_agg(e.writer || '/' || e.number || ': ' || e.amount || ' as ' || e.id order by e.id) as entries
     from account a left join entry e on e.account_id = a.id
     group by a.id having a.balance <> coalesce(sum(e.amount), 0)`,
  );
  if (wrong.length > 0) {
    throw new Error(
      `${wrong.length} balances are not the sum of their entries, such as ${JSON.stringify(wrong.slice(0, 4), null, 1)}`,
    );
  }
}
