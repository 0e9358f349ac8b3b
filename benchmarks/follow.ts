/** How fast queued changes are applied, how far the target lags behind, and what following costs when nothing happens. */
import { interleave, type Benchmark } from "./support/benchmark.ts";
import { replicate, startReplicate, type Sides } from "./support/command.ts";
import { measureLag } from "./support/lag.ts";
import { isWanted, type Options } from "./support/options.ts";
import { cpuSecondsOf } from "./support/processes.ts";
import { hasProgram, noPsql, pipe } from "./support/psql.ts";
import { quantile, type Report } from "./support/report.ts";
import { createDatabase, settle, sql, startServers, type Servers } from "./support/servers.ts";

const accountSql = `
create table account (id integer primary key, branch integer, balance integer, filler character(84));
create table heartbeat (id integer primary key, at timestamptz)`;

/** The keys that a round changes, so that the work can be done by hand without knowing what capture has recorded. */
const changedSql = "create table changed (round integer, id integer)";

export const follow: Benchmark = {
  defaults: { rows: 2_000_000, changes: 500_000, seconds: 20 },
  run: async (options, report) => {
    const servers = await startServers(options);
    if (isWanted(options, "drain")) await drain(servers, options, report);
    if (isWanted(options, "lag")) await lag(servers, options, report);
    if (isWanted(options, "idle")) await idle(servers, options, report);
  },
};

async function drain(servers: Servers, options: Options, report: Report): Promise<void> {
  const source = await createDatabase(servers.source, `${accountSql};${changedSql}`);
  await sql(
    source.url,
    `insert into account select n, 1 + n % 100, 0, 'filler of account ' || n from generate_series(1, ${options.rows}) n`,
  );
  const target = await createDatabase(servers.target, accountSql);
  const hand = await createDatabase(servers.target, accountSql);
  const sides = { source: source.url, target: target.url };
  await replicate(sides, "init", "--tables", "account", "heartbeat");
  await replicate(sides, "copy");
  await replicate(sides, "follow", "--until-caught-up");
  await sql(
    hand.url,
    `insert into account select n, 1 + n % 100, 0, 'filler' from generate_series(1, ${options.rows}) n`,
  );

  const isPsql = hasProgram("psql");
  if (!isPsql) report.skip(noPsql);
  let queuedRound = -1;
  const queue = async (round: number): Promise<void> => {
    if (round === queuedRound) return;
    queuedRound = round;
    await queueChanges(source.url, round, options);
    for (const url of [source.url, target.url, hand.url]) await sql(url, "vacuum analyze account");
  };
  const runs = await interleave(options.rounds, {
    replicate: async (round) => {
      await queue(round);
      await settle(servers.source, servers.target);
      const { seconds, cpuSeconds, lines } = await replicate(sides, "follow", "--until-caught-up");
      const result = lines.at(-1);
      if (Number(result?.["rows"]) < options.changes)
        throw new Error(`applied only ${String(result?.["rows"])}`);
      return { seconds, cpuSeconds };
    },
    ...(isPsql
      ? {
          hand: async (round: number) => {
            await queue(round);
            await settle(servers.source, servers.target);
            const seconds = await pipe(source.url, hand.url, {
              out: [
                `copy (select a.* from changed c join account a using (id) where c.round = ${round}) to stdout`,
              ],
              into: [
                "create temp table staged (like account)",
                "copy staged from stdin",
                `insert into account select * from staged on conflict (id) do update
                 set branch = excluded.branch, balance = excluded.balance, filler = excluded.filler`,
              ],
            });
            return { seconds, cpuSeconds: 0 };
          },
        }
      : {}),
  } as Record<"replicate" | "hand", (round: number) => Promise<{ seconds: number; cpuSeconds: number }>>);
  const rates = (side: readonly { seconds: number }[]): number[] =>
    side.map(({ seconds }) => options.changes / seconds);
  report.add({
    what: `drain of ${options.changes.toLocaleString("en-US")} updates`,
    measured: { values: rates(runs.replicate), unit: "rows/s" },
    ...(isPsql
      ? {
          against: { what: "COPY and upsert by psql", values: rates(runs.hand), unit: "rows/s" },
          goal: { of: "ratio", is: "at least", limit: 0.8 },
        }
      : {}),
  });
  report.add({
    what: "Node's CPU for it",
    measured: { values: runs.replicate.map(({ cpuSeconds }) => cpuSeconds), unit: "s" },
  });
  await Promise.all([target.drop(), hand.drop()]);
  await source.drop();
}

/** Distinct random keys, in fifty transactions. */
async function queueChanges(url: string, round: number, { rows, changes }: Options): Promise<void> {
  const transactions = 50;
  await sql(
    url,
    `insert into changed select ${round}, id from account order by hashint4(id + ${round * 7919}) limit ${changes};
     create table chosen as select id, row_number() over () as n from changed where round = ${round}`,
  );
  for (let each = 0; each < transactions; each++) {
    await sql(
      url,
      `update account set balance = balance + 1
       where id in (select id from chosen where n % ${transactions} = ${each})`,
    );
  }
  await sql(url, "drop table chosen");
  if (rows < changes) throw new Error("--changes are more than --rows");
}

async function lag(servers: Servers, options: Options, report: Report): Promise<void> {
  const source = await createDatabase(servers.source, accountSql);
  await sql(source.url, "insert into account select n, 1, 0, '' from generate_series(1, 100000) n; analyze");
  const target = await createDatabase(servers.target, accountSql);
  const sides = { source: source.url, target: target.url };
  await replicate(sides, "init");
  await replicate(sides, "copy");
  for (const commitsPerSecond of [200, 0]) {
    const running = startReplicate(sides, "follow");
    const found = await measureLag(sides, { commitsPerSecond, seconds: options.seconds });
    const { cpuSeconds, seconds } = await running.stop();
    const load =
      commitsPerSecond === 0 ? "otherwise idle" : `at ${Math.round(found.commitsPerSecond)} commits/s`;
    const value = (share: number): { values: number[]; unit: string } => ({
      values: [quantile(found.lagsMs, share)],
      unit: "ms",
    });
    const goal = (limit: number): { goal?: { of: "value"; is: "at most"; limit: number } } =>
      commitsPerSecond === 0 ? {} : { goal: { of: "value", is: "at most", limit } };
    report.add({ what: `lag ${load}, median of ${found.lagsMs.length}`, measured: value(0.5), ...goal(30) });
    report.add({ what: `lag ${load}, 99th percentile`, measured: value(0.99), ...goal(150) });
    report.add({ what: `lag ${load}, longest`, measured: value(1) });
    report.add({
      what: `Node's CPU, share of a core, ${load}`,
      measured: { values: [(100 * cpuSeconds) / seconds], unit: "%" },
    });
  }
  await Promise.all([source.drop(), target.drop()]);
}

async function idle(servers: Servers, options: Options, report: Report): Promise<void> {
  const script = Array.from(
    { length: options.tables },
    (_, index) => `create table t${index} (id integer primary key, value text)`,
  ).join(";");
  const source = await createDatabase(servers.source, script);
  const target = await createDatabase(servers.target, script);
  const sides = { source: source.url, target: target.url };
  const init = await replicate(sides, "init");
  const copied = await replicate(sides, "copy");
  report.note(
    `init of ${options.tables} tables ${init.seconds.toFixed(1)} s, copy ${copied.seconds.toFixed(1)} s`,
  );
  const running = startReplicate(sides, "follow");
  // Until everything is loaded and nothing is left from the copy.
  await new Promise((resolve) => setTimeout(resolve, 20_000));
  const node = cpuSecondsOf(running.pid);
  const backends = await backendsOf(sides);
  const before = backends.map(cpuSecondsOf);
  const startedAt = performance.now();
  await new Promise((resolve) => setTimeout(resolve, 60_000));
  const seconds = (performance.now() - startedAt) / 1000;
  const used = backends.reduce((sum, pid, index) => sum + cpuSecondsOf(pid) - (before[index] ?? 0), 0);
  if (String(await backendsOf(sides)) !== String(backends))
    throw new Error("the sessions on the source changed");
  const usedByNode = cpuSecondsOf(running.pid) - node;
  await running.stop();
  report.add({
    what: `CPU of the source with ${options.tables} idle tables, share of a core`,
    measured: { values: [(100 * used) / seconds], unit: "%" },
    goal: { of: "value", is: "at most", limit: 2 },
  });
  report.add({
    what: "Node's CPU meanwhile, share of a core",
    measured: { values: [(100 * usedByNode) / seconds], unit: "%" },
  });
}

/** Processes of our sessions on the source, in order. */
async function backendsOf({ source }: Sides): Promise<number[]> {
  const rows = await sql<{ pid: number }>(
    source,
    `select pid from pg_stat_activity
     where datname = current_database() and application_name like 'replicate %' order by pid`,
  );
  return rows.map(({ pid }) => pid);
}
