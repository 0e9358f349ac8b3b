import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";

import { connect } from "./admin.ts";
import type { Random } from "./random.ts";

// An application that writes as awkwardly as applications do, from several connections, by chance but repeatably
// so far as the server's own timing lets it: tables with all kinds of keys, and money that is moved, never made.

/** Of both sides. Works on every version; on 10, foreign keys cannot point at partitioned tables, and none does. */
export const workloadSchema = `
  create table accounts (id integer primary key, owner text not null, balance bigint not null default 1000);
  create table transfers (
    id uuid primary key,
    debited integer not null references accounts,
    credited integer not null references accounts on delete cascade,
    amount bigint not null,
    noted timestamptz not null default clock_timestamp());
  create index transfers_noted on transfers (noted);
  create table items (
    id bigint generated always as identity primary key,
    name text not null,
    tags jsonb,
    body text);
  create index items_name on items (lower(name));
  create table labels (
    language text not null,
    code text not null,
    value text,
    primary key (language, code));
  create table prices (amount numeric primary key, label text);
  create table readings (at timestamptz primary key, value double precision, raw bytea);
  create table members (
    id integer primary key,
    email text not null unique,
    place integer not null,
    unique (place) deferrable initially immediate);
  create table measurements (day date not null, id integer not null, value real, primary key (day, id))
    partition by range (day);
  create table measurements_early partition of measurements for values from ('2020-01-01') to ('2021-01-01');
  create table measurements_late partition of measurements for values from ('2021-01-01') to ('2023-01-01')
    partition by range (id);
  create table measurements_late_low partition of measurements_late for values from (0) to (500);
  create table measurements_late_high partition of measurements_late for values from (500) to (100000);
  create table codes (code char(8) not null, note varchar(40));
  create unique index codes_code on codes (code);
  create table notes (item integer, note text, unique (item, note));
  create table events (kind text, count integer);
`;

const accountCount = 60;
const memberCount = 40;

/** Rows to begin with. `scale` multiplies the tables that are not bound by an invariant. */
export async function fillWorkload(client: pg.Client, scale = 1): Promise<void> {
  const n = Math.round(1500 * scale);
  await client.query(`
    insert into accounts (id, owner) select g, 'owner ' || g from generate_series(1, ${accountCount}) as g;
    insert into items (name, tags, body)
      select 'item ' || g, jsonb_build_object('n', g), repeat(md5(g::text), 1 + g % 120) from generate_series(1, ${n}) as g;
    insert into labels select (array['de','en','fr'])[1 + g % 3], 'c' || g, 'v' || g from generate_series(1, ${n}) as g;
    insert into prices select g + 0.5, 'p' || g from generate_series(1, ${n}) as g;
    insert into readings select timestamptz '2020-01-01' + g * interval '1 minute', g / 7.0, decode(md5(g::text), 'hex')
      from generate_series(1, ${n}) as g;
    insert into members select g, 'm' || g || '@example.org', g from generate_series(1, ${memberCount}) as g;
    insert into measurements select date '2020-01-01' + g % 1000, g, g from generate_series(1, ${n}) as g;
    insert into codes select lpad(g::text, 8, 'c'), 'n' || g from generate_series(1, ${n}) as g;
    insert into notes select nullif(g % 40, 0), 'n' || g from generate_series(1, ${n}) as g;
    insert into events select 'e' || g % 7, g % 5 from generate_series(1, ${n}) as g;
  `);
}

/** Money that does not add up, counted in one snapshot; empty when all is well. */
export const brokenInvariants = `
  select 'total of accounts' as what, sum(balance)::text as found, (count(*) * 1000)::text as wanted
  from accounts having sum(balance) <> count(*) * 1000 or count(*) <> ${accountCount}
  union all
  select 'account ' || a.id, a.balance::text, (1000 + coalesce(t.net, 0))::text
  from accounts a
  left join (
    select account, sum(amount) as net
    from (select credited as account, amount from transfers union all select debited, -amount from transfers) as each
    group by account) as t on t.account = a.id
  where a.balance <> 1000 + coalesce(t.net, 0)
  union all
  select 'places of members', count(*)::text, '${memberCount}'
  from members having count(*) <> ${memberCount} or sum(place) <> ${(memberCount * (memberCount + 1)) / 2}
`;

export interface WorkloadOptions {
  /** Ordinary writers. */
  readonly writers?: number;
  /** Longest pause between two transactions of a writer, in milliseconds. */
  readonly pauseMs?: number;
  /** Transactions that stay open for seconds. */
  readonly longTransactions?: boolean;
  /** PREPARE TRANSACTION, decided later. */
  readonly preparedTransactions?: boolean;
  readonly truncates?: boolean;
}

export interface WorkloadReport {
  readonly committed: number;
  readonly rolledBack: number;
  readonly prepared: number;
  readonly truncates: number;
  /** Errors that the application would not have had by itself. None are expected, ever. */
  readonly failures: readonly string[];
}

export interface Workload {
  /** So far. */
  report: () => WorkloadReport;
  /** Lets every writer end its transaction, and decides what is prepared. */
  stop: () => Promise<WorkloadReport>;
}

/** What writers who share rows do to each other on any server: unique violation, deadlock, lock timeout of their own. */
const ownErrors = new Set(["23505", "40P01", "55P03", "40001"]);

interface Tally {
  committed: number;
  rolledBack: number;
  prepared: number;
  truncates: number;
  failures: string[];
}

export async function startWorkload(
  url: string,
  random: Random,
  options: WorkloadOptions = {},
): Promise<Workload> {
  const tally: Tally = { committed: 0, rolledBack: 0, prepared: 0, truncates: 0, failures: [] };
  const stopping = new AbortController();
  const run: WriterRun = {
    tally,
    stopping: stopping.signal,
    pauseMs: options.pauseMs ?? 20,
    truncates: options.truncates ?? true,
  };
  const tasks: Promise<void>[] = [];
  for (let number = 0; number < (options.writers ?? 4); number += 1) {
    tasks.push(write(await connect(url), random.fork(`writer ${number}`), run));
  }
  if (options.longTransactions ?? true) tasks.push(writeLong(await connect(url), random.fork("long"), run));
  if (options.preparedTransactions ?? true)
    tasks.push(writePrepared(await connect(url), random.fork("prepared"), run));
  return {
    report: () => ({ ...tally, failures: [...tally.failures] }),
    stop: async () => {
      stopping.abort();
      await Promise.all(tasks);
      return { ...tally, failures: [...tally.failures] };
    },
  };
}

interface WriterRun {
  readonly tally: Tally;
  readonly stopping: AbortSignal;
  readonly pauseMs: number;
  readonly truncates: boolean;
}

async function pause(run: WriterRun, ms: number): Promise<void> {
  await sleep(ms, undefined, { signal: run.stopping }).catch(() => undefined);
}

function fail(run: WriterRun, error: unknown, doing: string): void {
  const { code, message, where } = error as { code?: string; message?: string; where?: string };
  if (code !== undefined && ownErrors.has(code)) return;
  run.tally.failures.push(`${doing}: ${code ?? ""} ${message ?? String(error)} ${where ?? ""}`);
}

async function write(client: pg.Client, random: Random, run: WriterRun): Promise<void> {
  while (!run.stopping.aborted) {
    await transaction(client, random, run);
    await pause(run, random.int(0, run.pauseMs));
  }
  await client.end();
}

async function transaction(client: pg.Client, random: Random, run: WriterRun): Promise<void> {
  let doing = "begin";
  try {
    await client.query("begin");
    for (let step = random.int(1, 5); step > 0; step -= 1) {
      doing = await act(client, random, run);
      // Between write and commit: this is when others overtake.
      if (random.bool(0.1)) await pause(run, random.int(1, 150));
    }
    doing = random.bool(0.1) ? "rollback" : "commit";
    await client.query(doing);
    if (doing === "commit") run.tally.committed += 1;
    else run.tally.rolledBack += 1;
  } catch (error) {
    fail(run, error, doing);
    run.tally.rolledBack += 1;
    await client.query("rollback").catch((second: unknown) => fail(run, second, "rollback"));
  }
}

/** Open for seconds: across the installation of triggers, and across many batches. */
async function writeLong(client: pg.Client, random: Random, run: WriterRun): Promise<void> {
  while (!run.stopping.aborted) {
    try {
      await client.query("begin");
      await transfer(client, random);
      await change(client, random);
      await pause(run, random.int(300, 3000));
      await transfer(client, random);
      await change(client, random);
      await client.query(random.bool(0.2) ? "rollback" : "commit");
      run.tally.committed += 1;
    } catch (error) {
      fail(run, error, "long transaction");
      await client.query("rollback").catch(() => undefined);
    }
    await pause(run, random.int(500, 3000));
  }
  await client.end();
}

/** At most one at a time, because the server has room for few. */
async function writePrepared(client: pg.Client, random: Random, run: WriterRun): Promise<void> {
  while (!run.stopping.aborted) {
    const name = `workload_${randomUUID()}`;
    let isPrepared = false;
    try {
      await client.query("begin");
      await transfer(client, random);
      await change(client, random);
      await client.query(`prepare transaction '${name}'`);
      isPrepared = true;
      run.tally.prepared += 1;
      await pause(run, random.int(50, 1000));
      await client.query(`${random.bool(0.25) ? "rollback" : "commit"} prepared '${name}'`);
    } catch (error) {
      fail(run, error, "prepared transaction");
      await client.query(isPrepared ? `rollback prepared '${name}'` : "rollback").catch(() => undefined);
    }
    await pause(run, random.int(300, 2000));
  }
  await client.end();
}

/** One step of a transaction; returns its name. */
async function act(client: pg.Client, random: Random, run: WriterRun): Promise<string> {
  if (random.bool(0.3)) return await transfer(client, random);
  if (random.bool(0.12)) return await savepoint(client, random);
  if (run.truncates && random.bool(0.012)) return await truncate(client, random, run);
  return await change(client, random);
}

async function transfer(client: pg.Client, random: Random): Promise<string> {
  const [debited, credited] = random
    .shuffle(Array.from({ length: accountCount }, (_, n) => n + 1))
    .slice(0, 2);
  const amount = random.int(1, 50);
  // Without a net effect on the money, but with new rows: accounts are updated in the order of their ids, or all
  // writers would wait for each other in circles.
  const ids = [debited as number, credited as number].toSorted((a, b) => a - b);
  for (const id of ids) {
    await client.query("update accounts set balance = balance + $2 where id = $1", [
      id,
      id === debited ? -amount : amount,
    ]);
  }
  await client.query("insert into transfers (id, debited, credited, amount) values ($1, $2, $3, $4)", [
    uuid(random),
    debited,
    credited,
    amount,
  ]);
  return "transfer";
}

async function savepoint(client: pg.Client, random: Random): Promise<string> {
  await client.query("savepoint inner_part");
  await change(client, random);
  if (random.bool()) await transfer(client, random);
  await client.query(random.bool() ? "rollback to savepoint inner_part" : "release savepoint inner_part");
  await change(client, random);
  return "savepoint";
}

const truncatable = [
  "events", "items", "readings", "prices", "labels, codes", "measurements", "measurements_early", "measurements_late_low",
  "measurements_late",
]; // prettier-ignore

async function truncate(client: pg.Client, random: Random, run: WriterRun): Promise<string> {
  // The application's own patience, or long transactions would make everybody wait.
  await client.query("set local lock_timeout = '300ms'");
  const tables = random.pick(truncatable);
  await client.query(`truncate ${tables}`);
  await client.query("set local lock_timeout = 0");
  run.tally.truncates += 1;
  return `truncate ${tables}`;
}

function uuid(random: Random): string {
  const digits = random.text(32, "0123456789abcdef");
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

type Change = (client: pg.Client, random: Random) => Promise<unknown>;

const anyItem = "select id from items order by id offset $1 limit 1";

/** Every way to change a row, each a statement or two. */
const changes: Readonly<Record<string, Change>> = {
  "insert item": (client, random) =>
    client.query("insert into items (name, body) select 'new ' || g, repeat(md5(g::text), $1) from generate_series(1, $2) g", [random.int(1, 400), random.int(1, 8)]),
  "update item": (client, random) =>
    client.query(`update items set body = repeat($2, 2000), tags = null where id in (${anyItem})`, [random.int(0, 800), random.text(8)]),
  "move items": (client, random) =>
    client.query("update items set name = name || '!' where id between $1 and $1 + 20", [random.int(1, 2000)]),
  "no-op": (client, random) => client.query("update items set name = name where id between $1 and $1 + 10", [random.int(1, 2000)]),
  "delete items": (client, random) => client.query("delete from items where id between $1 and $1 + 5", [random.int(1, 2000)]),
  "note": (client, random) =>
    client.query("insert into notes values (null, $1), (null, $1), ($2, $3)", [random.text(3), random.int(1, 1e9), random.text(8)]),
  "event": (client, random) =>
    client.query("insert into events select 'e' || $1::int, $1 from generate_series(1, $2)", [random.int(1, 9), random.int(1, 4)]),
  "move events": (client, random) => client.query("update events set count = count + 1 where kind = 'e' || $1::int", [random.int(1, 9)]),
  "delete notes": (client, random) => client.query("delete from notes where note like $1", [`${random.text(1)}%`]),
  "new label": (client, random) =>
    client.query("insert into labels values ($1, $2, $3) on conflict (language, code) do update set value = excluded.value", [random.pick(["de", "en", "fr", "it"]), `c${random.int(1, 900)}`, random.text(12)]),
  "change label's key": (client, random) =>
    client.query("update labels set code = code || 'x' where language = $1 and code like $2", [random.pick(["de", "en"]), `c${random.int(1, 99)}%`]),
  "change label's first column": (client, random) =>
    client.query("update labels set language = 'es' where language = 'fr' and code = $1", [`c${random.int(1, 900)}`]),
  "delete label": (client, random) => client.query("delete from labels where code like $1", [`c${random.int(1, 99)}%`]),
  "empty label": (client, random) =>
    client.query("insert into labels values ('', $1, null), ($1, '\\N', '\\.') on conflict do nothing", [random.pick(["NULL", "a,b", 'q"q', "t\tt", "ü", " "])]),
  "new price": (client, random) =>
    client.query("insert into prices values ($1, $2) on conflict do nothing", [`${random.int(1, 2000)}.5`, random.text(5)]),
  "price's scale": (client, random) =>
    client.query("update prices set amount = (amount::text || '0')::numeric where amount = $1 and length(amount::text) < 12", [`${random.int(1, 1500)}.5`]),
  "price up": (client, random) => client.query("update prices set amount = amount + 10000 where amount = $1", [`${random.int(1, 1500)}.5`]),
  "delete price": (client, random) => client.query("delete from prices where amount between $1 and $1 + 3", [random.int(1, 12000)]),
  reading: (client, random) =>
    client.query("insert into readings values (clock_timestamp(), $1, $2) on conflict do nothing", [random.pick(["NaN", "-0", "Infinity", "1e-300", "0.1"]), Buffer.from(random.text(20))]),
  "later readings": (client, random) =>
    client.query("update readings set at = at + interval '1 microsecond' where at between timestamptz '2020-01-01' + $1 * interval '1 minute' and timestamptz '2020-01-01' + ($1 + 3) * interval '1 minute'", [random.int(0, 1500)]),
  "delete readings": (client, random) =>
    client.query("delete from readings where at < timestamptz '2020-01-01' + $1 * interval '1 minute' and at > timestamptz '2020-01-01' + ($1 - 5) * interval '1 minute'", [random.int(0, 1500)]),
  "swap e-mails": (client, random) => swapEmails(client, random),
  "rotate places": (client, random) => {
    const [low = 1, high = 2] = [random.int(1, memberCount), random.int(1, memberCount)].toSorted((a, b) => a - b);
    return client.query("update members set place = case when place = $1 then $2::int else place - 1 end where place between $1 and $2", [low, high]);
  },
  "swap members' keys": (client, random) => swapMembers(client, random),
  measure: (client, random) =>
    client.query("insert into measurements values (date '2020-01-01' + $1::int, $2, 1) on conflict (day, id) do update set value = measurements.value + 1", [random.int(0, 1000), random.int(0, 2500)]),
  "move between partitions": (client, random) =>
    client.query("update measurements set day = day + 366, id = (id + 499) % 90000 where id = $1 and day < '2021-06-01'", [random.int(0, 1500)]),
  "write to a leaf": (client, random) =>
    client.query("insert into measurements_early values (date '2020-03-01', $1, 2) on conflict do nothing", [random.int(3000, 9000)]),
  "delete measurements": (client, random) => client.query("delete from measurements where id between $1 and $1 + 9", [random.int(0, 2500)]),
  "new code": (client, random) => client.query("insert into codes values ($1, 'x') on conflict do nothing", [random.text(random.int(1, 8))]),
  "change codes": (client, random) => client.query("update codes set note = $1 where code like $2", [random.text(10), `%${random.int(1, 400)}`]),
  "change a code": (client, random) => client.query("update codes set code = $1 where code = lpad($2, 8, 'c')", [random.text(8), String(random.int(1, 1500))]),
}; // prettier-ignore

const names = Object.keys(changes);

async function change(client: pg.Client, random: Random): Promise<string> {
  const name = random.pick(names);
  await (changes[name] as Change)(client, random);
  return name;
}

/** Two rows exchange a unique value within one transaction. */
async function swapEmails(client: pg.Client, random: Random): Promise<void> {
  const [one, other] = twoMembers(random);
  const { rows } = await client.query<{ id: number; email: string }>(
    "select id, email from members where id in ($1, $2) order by id for update",
    [one, other],
  );
  const [first, second] = rows;
  if (first === undefined || second === undefined) return;
  const set = "update members set email = $2 where id = $1";
  await client.query(set, [first.id, `swap ${random.text(8)}`]);
  await client.query(set, [second.id, first.email]);
  await client.query(set, [first.id, second.email]);
}

/** Two rows exchange their primary keys through a third value. */
async function swapMembers(client: pg.Client, random: Random): Promise<void> {
  const [one, other] = twoMembers(random);
  const { rows } = await client.query("select id from members where id in ($1, $2) order by id for update", [
    one,
    other,
  ]);
  if (rows.length < 2) return;
  const between = -random.int(1, 1_000_000);
  const set = "update members set id = $2 where id = $1";
  await client.query(set, [one, between]);
  await client.query(set, [other, one]);
  await client.query(set, [between, other]);
}

function twoMembers(random: Random): readonly [number, number] {
  const one = random.int(1, memberCount);
  const other = 1 + ((one + random.int(0, memberCount - 2)) % memberCount);
  return one < other ? [one, other] : [other, one];
}
