/**
 * What two-way sync costs against one-way: capture that tells who did what when, conflict detection while a backlog is
 * applied, also with conflicts in it, and both ways followed while nothing happens.
 */
import { readFileSync } from "node:fs";
import { rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { withClient } from "../test/support/admin.ts";
import { interleave, type Benchmark } from "./support/benchmark.ts";
import { replicate, startReplicate, whileCaptured, type Sides } from "./support/command.ts";
import { isWanted, type Options } from "./support/options.ts";
import { cpuSecondsOf, cpuSecondsOfEnded } from "./support/processes.ts";
import type { Report } from "./support/report.ts";
import { createDatabase, settle, sql, startServers, type Servers } from "./support/servers.ts";
import { startTpcb } from "./support/tpcb.ts";

const settings = { direction: "both", conflict: "latest" };

export const twoWay: Benchmark = {
  defaults: { rows: 500_000, changes: 200_000, seconds: 4, tables: 500 },
  run: async (options, report) => {
    const servers = await startServers(options);
    const file = join(tmpdir(), `bench-two-way-${process.pid}.yaml`);
    await writeFile(file, JSON.stringify(settings));
    const both = ["--config", file];
    try {
      if (isWanted(options, "transactions")) await transactions(servers, options, report, both);
      if (isWanted(options, "statements")) await statements(servers, options, report, both);
      if (isWanted(options, "drain")) await drain(servers, options, report, both);
      if (isWanted(options, "idle")) await idle(servers, options, report, both);
    } finally {
      await rm(file);
    }
  },
};

const clients = 4;
/** More branches than clients, or they would wait for each other's rows most of the time. */
const scale = 10;

async function transactions(
  servers: Servers,
  { rounds, seconds }: Options,
  report: Report,
  both: readonly string[],
): Promise<void> {
  const { sides, name, load: loadBy, drop } = await startTpcb(servers, report, scale);
  const load = async (): Promise<number> => await loadBy(clients, seconds);
  const rates = await interleave(rounds, {
    bare: load,
    plain: () => whileCaptured(sides, [], load),
    telling: () => whileCaptured(sides, both, load),
  });
  for (const [what, against] of [
    ["plain capture", "plain"],
    ["no capture", "bare"],
  ] as const) {
    // prettier-ignore
    report.add({
      what: `${name}, ${clients} clients, two-way capture`,
      measured: { values: rates.telling, unit: "tps" },
      against: { what, values: rates[against], unit: "tps" },
    });
  }
  await drop();
}

const accountSql = `
create table account (id integer primary key, branch integer, balance integer, filler character(84))`;

const fillSql = (rows: number): string =>
  `insert into account select n, 1 + n % 100, 0, 'filler of account ' || n from generate_series(1, ${rows}) n`;

/** CPU of the session alone: what others do on this machine at the same time matters less. */
async function statements(
  servers: Servers,
  { rounds, changes }: Options,
  report: Report,
  both: readonly string[],
): Promise<void> {
  const source = await createDatabase(servers.source, accountSql);
  const target = await createDatabase(servers.target, accountSql);
  const sides = { source: source.url, target: target.url };
  const bulk = [
    ["INSERT", fillSql(changes)],
    ["UPDATE", "update account set balance = balance + 1"],
    ["DELETE", "delete from account"],
  ] as const;
  /** Microseconds per row, of each statement. */
  const work = async (): Promise<number[]> => {
    await sql(source.url, "truncate account");
    await settle(servers.source);
    return await withClient(source.url, async (client) => {
      const { rows } = await client.query<{ pid: number }>("select pg_backend_pid() as pid");
      const pid = rows[0]?.pid ?? 0;
      const used: number[] = [];
      for (const [, text] of bulk) {
        const before = cpuSecondsOf(pid);
        await client.query(text);
        used.push(((cpuSecondsOf(pid) - before) * 1e6) / changes);
      }
      return used;
    });
  };
  const runs = await interleave(rounds, {
    bare: work,
    plain: () => whileCaptured(sides, [], work),
    telling: () => whileCaptured(sides, both, work),
  });
  for (const [index, [name]] of bulk.entries()) {
    const values = (side: readonly number[][]): number[] => side.map((run) => run[index] ?? 0);
    for (const [what, against] of [
      ["plain capture", "plain"],
      ["no capture", "bare"],
    ] as const) {
      // prettier-ignore
      report.add({
        what: `CPU per row of ${name}, two-way capture`,
        measured: { values: values(runs.telling), unit: "µs" },
        against: { what, values: values(runs[against]), unit: "µs" },
      });
    }
  }
  await Promise.all([source.drop(), target.drop()]);
}

/** Of the keys that a round changes, those that the target changes too. */
const shareInConflict = 0.01;

interface Drained {
  readonly seconds: number;
  /** Of our process and all its sessions on both servers. */
  readonly cpuSeconds: number;
}

async function drain(
  servers: Servers,
  { rows, changes, rounds }: Options,
  report: Report,
  both: readonly string[],
): Promise<void> {
  const postmasters = await Promise.all([postmasterOf(servers.source.adminUrl), postmasterOf(servers.target.adminUrl)]); // prettier-ignore
  const cpuOfServers = (): number => postmasters.reduce((sum, pid) => sum + cpuSecondsOfEnded(pid), 0);
  const variant = async (
    flags: readonly string[],
    conflicts: number,
  ): Promise<(round: number) => Promise<Drained>> => {
    const source = await createDatabase(servers.source, accountSql);
    const target = await createDatabase(servers.target, accountSql);
    const sides = { source: source.url, target: target.url };
    await sql(source.url, fillSql(rows));
    await replicate(sides, "init", ...flags);
    await replicate(sides, "copy", ...flags);
    await replicate(sides, "follow", "--until-caught-up", ...flags);
    return async (round) => {
      await queueChanges(sides, { rows, changes, conflicts, round });
      await settle(servers.source, servers.target);
      const before = cpuOfServers();
      const { seconds, cpuSeconds, lines } = await replicate(sides, "follow", "--until-caught-up", ...flags);
      const applied = Number(lines.at(-1)?.["rows"]);
      if (!(applied >= changes - conflicts)) throw new Error(`applied only ${applied}`);
      await assertMet(sides, conflicts * (round + 1));
      return { seconds, cpuSeconds: cpuSeconds + cpuOfServers() - before };
    };
  };
  const runs = await interleave(rounds, {
    oneWay: await variant([], 0),
    twoWay: await variant(both, 0),
    disputed: await variant(both, Math.round(changes * shareInConflict)),
  });
  for (const side of ["twoWay", "disputed"] as const) {
    const what = `of ${changes.toLocaleString("en-US")} updates, two-way${side === "twoWay" ? "" : ", 1 % in conflict"}`;
    report.add({
      what: `drain ${what}`,
      measured: { values: runs[side].map(({ seconds }) => changes / seconds), unit: "rows/s" },
      against: { what: "one-way", values: runs.oneWay.map(({ seconds }) => changes / seconds), unit: "rows/s" }, // prettier-ignore
    });
    report.add({
      what: `CPU of both servers and Node for the drain ${what}`,
      measured: { values: runs[side].map(({ cpuSeconds }) => cpuSeconds), unit: "s" },
      against: { what: "one-way", values: runs.oneWay.map(({ cpuSeconds }) => cpuSeconds), unit: "s" },
    });
  }
}

interface Queued {
  readonly rows: number;
  readonly changes: number;
  readonly conflicts: number;
  readonly round: number;
}

/** Distinct scattered keys in twenty transactions; then some of the same on the target. */
async function queueChanges({ source, target }: Sides, queued: Queued): Promise<void> {
  const { rows, changes, conflicts, round } = queued;
  const parts = 20;
  const chosen = (count: number): string =>
    `create temp table chosen as
     select id from generate_series(1, ${rows}) id order by hashint4(id + ${round * 7919}), id limit ${count};
     analyze chosen`;
  const change = "update account set balance = balance +";
  await withClient(source, async (client) => {
    await client.query(chosen(changes));
    for (let part = 0; part < parts; part++)
      await client.query(`${change} 1 where id in (select id from chosen where id % ${parts} = ${part})`);
  });
  // Another value, or both sides would have done the same.
  if (conflicts > 0)
    await sql(target, `${chosen(conflicts)}; ${change} 7 where id in (select id from chosen)`);
  for (const url of [source, target]) await sql(url, "vacuum analyze account");
}

/** As many conflicts as were made so far, or something else was measured. Either way may have met them. */
async function assertMet({ source, target }: Sides, expected: number): Promise<void> {
  let met = 0;
  for (const url of expected === 0 ? [] : [source, target]) {
    const [found] = await sql<{ n: number }>(url, "select count(*)::int as n from replicate.conflict");
    met += found?.n ?? 0;
  }
  if (met !== expected) throw new Error(`${met} conflicts instead of ${expected}`);
}

async function postmasterOf(url: string): Promise<number> {
  const [row] = await sql<{ data_directory: string }>(url, "show data_directory");
  return Number(readFileSync(join(row?.data_directory ?? "", "postmaster.pid"), "utf8").split("\n")[0]);
}

/** Both are followed at the same time, so that they share what else goes on. */
async function idle(
  servers: Servers,
  { tables }: Options,
  report: Report,
  both: readonly string[],
): Promise<void> {
  const script = Array.from(
    { length: tables },
    (_, index) => `create table t${index} (id integer primary key, value text)`,
  ).join(";");
  const start = async (
    flags: readonly string[],
  ): Promise<{ sides: Sides; follower: ReturnType<typeof startReplicate> }> => {
    const source = await createDatabase(servers.source, script);
    const target = await createDatabase(servers.target, script);
    const sides = { source: source.url, target: target.url };
    await replicate(sides, "init", ...flags);
    await replicate(sides, "copy", ...flags);
    return { sides, follower: startReplicate(sides, "follow", ...flags) };
  };
  const running = [await start([]), await start(both)];
  // Until everything is loaded and nothing is left from the copy.
  await new Promise((resolve) => setTimeout(resolve, 20_000));
  const cpu = (pids: readonly number[]): number => pids.reduce((sum, pid) => sum + cpuSecondsOf(pid), 0);
  const pids = await Promise.all(running.map(async ({ sides }) => await backendsOf(sides)));
  const used = (): number[] =>
    running.flatMap(({ follower }, index) => [cpu(pids[index] ?? []), cpu([follower.pid])]);
  const before = used();
  const startedAt = performance.now();
  await new Promise((resolve) => setTimeout(resolve, 60_000));
  const after = used();
  const seconds = (performance.now() - startedAt) / 1000;
  for (const { follower } of running) await follower.stop();
  const [oneServers = 0, oneNode = 0, twoServers = 0, twoNode = 0] = after.map(
    (value, index) => (100 * (value - (before[index] ?? 0))) / seconds,
  );
  report.add({
    what: `CPU of both servers with ${tables} idle tables, two-way, share of a core`,
    measured: { values: [twoServers], unit: "%" },
    against: { what: "one-way", values: [oneServers], unit: "%" },
  });
  report.add({
    what: "Node's CPU meanwhile, share of a core",
    measured: { values: [twoNode], unit: "%" },
    against: { what: "one-way", values: [oneNode], unit: "%" },
  });
}

/** Processes of our sessions on both servers. */
async function backendsOf({ source, target }: Sides): Promise<number[]> {
  const found = await Promise.all(
    [source, target].map((url) =>
      sql<{ pid: number }>(
        url,
        `select pid from pg_stat_activity
         where datname = current_database() and application_name like 'replicate %'`,
      ),
    ),
  );
  return found.flat().map(({ pid }) => pid);
}
