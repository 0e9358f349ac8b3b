/** What the triggers cost the source: small transactions by several clients, and statements on many rows. */
import { rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import type { ClusterDatabase } from "../test/support/cluster.ts";
import { interleave, type Benchmark } from "./support/benchmark.ts";
import { whileCaptured } from "./support/command.ts";
import { startTpcb } from "./support/tpcb.ts";
import { isWanted, type Options } from "./support/options.ts";
import type { Report } from "./support/report.ts";
import { createDatabase, settle, sql, startServers, type Servers } from "./support/servers.ts";

export const capture: Benchmark = {
  defaults: { rows: 200_000, seconds: 8 },
  run: async (options, report) => {
    const servers = await startServers(options);
    if (isWanted(options, "transactions")) await smallTransactions(servers, options, report);
    if (isWanted(options, "statements")) await largeStatements(servers, options, report);
  },
};

const clientCounts = [1, 4, 16];
/** More branches than clients, or they would wait for each other's rows most of the time. */
const scale = 20;

async function smallTransactions(servers: Servers, options: Options, report: Report): Promise<void> {
  const { sides, name, load: loadBy } = await startTpcb(servers, report, scale);
  for (const clients of clientCounts) {
    const load = async (): Promise<number> => await loadBy(clients, options.seconds);
    const rates = await interleave(options.rounds, {
      bare: load,
      captured: () => whileCaptured(sides, [], load),
    });
    report.add({
      what: `${name}, ${clients} clients, with capture`,
      measured: { values: rates.captured, unit: "tps" },
      against: { what: "without", values: rates.bare, unit: "tps" },
      goal: { of: "ratio", is: "at least", limit: 0.85 },
    });
  }
}

const bulkSql =
  "create table bulk (id bigint primary key, branch integer, balance integer, filler character(84))";

async function largeStatements(servers: Servers, options: Options, report: Report): Promise<void> {
  const source = await createDatabase(servers.source, bulkSql);
  const target = await createDatabase(servers.target, bulkSql);
  const sides = { source: source.url, target: target.url };
  const config = join(tmpdir(), `bench-${process.pid}.yaml`);
  await writeFile(config, "overrides: { public.bulk: { capture: statement } }\n");
  try {
    const runs = await interleave(options.rounds, {
      bare: () => statements(source, servers, options.rows),
      row: () => whileCaptured(sides, [], () => statements(source, servers, options.rows)),
      statement: () =>
        whileCaptured(sides, ["--config", config], () => statements(source, servers, options.rows)),
    });
    for (const [index, { name }] of bulkStatements.entries()) {
      for (const kind of ["row", "statement"] as const) {
        report.add({
          what: `${name} of ${options.rows} rows, ${kind} triggers`,
          measured: { values: runs[kind].map((run) => run[index] ?? 0), unit: "s" },
          against: { what: "without", values: runs.bare.map((run) => run[index] ?? 0), unit: "s" },
        });
      }
    }
  } finally {
    await rm(config);
  }
}

const bulkStatements = [
  {
    name: "INSERT",
    text: (rows: number) =>
      `insert into bulk select n, 1 + n % 100, 0, 'filler' from generate_series(1, ${rows}) n`,
  },
  { name: "UPDATE", text: () => "update bulk set balance = balance + 1" },
  { name: "DELETE", text: () => "delete from bulk" },
];

/** Seconds of each statement. */
async function statements(source: ClusterDatabase, servers: Servers, rows: number): Promise<number[]> {
  // A plain DELETE first would leave room in the table that the INSERT of the next round finds.
  await sql(source.url, "truncate bulk");
  const seconds: number[] = [];
  for (const { text } of bulkStatements) {
    await settle(servers.source);
    const startedAt = performance.now();
    await sql(source.url, text(rows));
    seconds.push((performance.now() - startedAt) / 1000);
  }
  return seconds;
}
