/** How much memory the program takes, at its peak, where the data are large. */
import type { Benchmark } from "./support/benchmark.ts";
import { replicate, type Finished, type Sides } from "./support/command.ts";
import { isWanted, type Options } from "./support/options.ts";
import type { Report } from "./support/report.ts";
import { createDatabase, sql, startServers, type Servers } from "./support/servers.ts";

const limitMegabytes = 250;

export const memory: Benchmark = {
  defaults: { rows: 1_000_000, changes: 2_000_000, rounds: 1 },
  run: async (options, report) => {
    const servers = await startServers(options);
    if (isWanted(options, "rows")) await manyRows(servers, options, report);
    if (isWanted(options, "value")) await largeValue(servers, options, report);
  },
};

/** Two tables, and a backlog as large as both. */
async function manyRows(servers: Servers, options: Options, report: Report): Promise<void> {
  const script = `
    create table account (id integer primary key, branch integer, balance integer, filler character(84));
    create table entry (id uuid primary key, at timestamptz, note text)`;
  const source = await createDatabase(servers.source, script);
  await sql(
    source.url,
    `insert into account select n, 1 + n % 100, 0, '' from generate_series(1, ${options.rows}) n;
     insert into entry select md5(n::text)::uuid, now(), 'entry ' || n from generate_series(1, ${options.rows}) n;
     analyze`,
  );
  const target = await createDatabase(servers.target, script);
  const sides = { source: source.url, target: target.url };
  const run = runner(sides, report, `${options.rows.toLocaleString("en-US")} rows twice`);
  await run("init");
  await run("copy", "--jobs", "4");
  await run("follow", "--until-caught-up");
  const changes = Math.ceil(options.changes / 2 / options.rows);
  for (let each = 0; each < changes; each++) {
    await sql(source.url, "update account set balance = balance + 1");
    await sql(source.url, "update entry set note = note || '.'");
  }
  const backlog = changes * 2 * options.rows;
  const after = runner(sides, report, `${backlog.toLocaleString("en-US")} changes waiting`);
  await after("status");
  await after("verify", "--jobs", "4");
  await after("follow", "--until-caught-up");
  await run("verify", "--jobs", "4");
  await source.drop();
  await target.drop();
}

/** One value of many megabytes, through copy, follow and verify. */
async function largeValue(servers: Servers, options: Options, report: Report): Promise<void> {
  const script = "create table file (id integer primary key, name text, content bytea)";
  const source = await createDatabase(servers.source, script);
  const megabytes = Math.round(options.valueBytes / 1024 ** 2);
  // Not compressible, as files are. A server makes a value of this size only from pieces.
  const contents = `(select string_agg(piece, ''::bytea) from (
    select decode(string_agg(md5(n::text || m::text), ''), 'hex') as piece
    from generate_series(1, ${megabytes}) m, generate_series(1, 65536) n group by m) pieces)`;
  await sql(
    source.url,
    `alter table file alter content set storage external; insert into file values (1, 'large', ${contents}), (2, 'small', 'x')`,
  );
  const target = await createDatabase(servers.target, script);
  const sides = { source: source.url, target: target.url };
  const run = runner(sides, report, `a value of ${megabytes} MB`);
  await replicate(sides, "init");
  await run("copy");
  await sql(source.url, "update file set name = name || '.'");
  await run("follow", "--until-caught-up");
  await run("verify");
  await source.drop();
  await target.drop();
}

function runner(
  sides: Sides,
  report: Report,
  data: string,
): (...args: readonly string[]) => Promise<Finished> {
  return async (...args) => {
    const used = await replicate(sides, ...args);
    report.add({
      what: `${args[0]}, ${data}`,
      measured: { values: [used.peakBytes / 1024 ** 2], unit: "MB" },
      goal: { of: "value", is: "at most", limit: limitMegabytes },
    });
    return used;
  };
}
