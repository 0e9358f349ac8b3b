/** Copy and follow where the network between the servers takes its time: 100 ms for every question and answer. */
import { startProxy, type Proxy } from "../test/support/proxy.ts";
import { interleave, type Benchmark } from "./support/benchmark.ts";
import { replicate, startReplicate, type Sides } from "./support/command.ts";
import { indexesSql, rowsSql, tablesSql } from "./support/data.ts";
import { measureLag } from "./support/lag.ts";
import { isWanted, type Options } from "./support/options.ts";
import { quantile, type Report } from "./support/report.ts";
import { createDatabase, settle, sql, startServers, type Servers } from "./support/servers.ts";

const oneWayMs = 50;

/** Where the program runs: beside the target, far from the source, or the other way round. */
const places = ["source", "target"] as const;
type Far = (typeof places)[number];

export const link: Benchmark = {
  defaults: { rows: 2_000_000, seconds: 20 },
  run: async (options, report) => {
    const servers = await startServers(options);
    await using source = await startProxy({ targetPort: servers.source.port });
    await using target = await startProxy({ targetPort: servers.target.port });
    const proxies = { source, target };
    if (isWanted(options, "copy")) await copyOverLink(servers, proxies, options, report);
    if (isWanted(options, "lag")) await lagOverLink(servers, proxies, options, report);
  },
};

function through(sides: Sides, proxies: Readonly<Record<Far, Proxy>>): Sides {
  const moved = (url: string, { port }: Proxy): string => {
    const address = new URL(url);
    address.port = String(port);
    return address.toString();
  };
  return { source: moved(sides.source, proxies.source), target: moved(sides.target, proxies.target) };
}

async function copyOverLink(
  servers: Servers,
  proxies: Readonly<Record<Far, Proxy>>,
  options: Options,
  report: Report,
): Promise<void> {
  const source = await createDatabase(servers.source, tablesSql);
  await sql(source.url, rowsSql(options.rows));
  await sql(source.url, indexesSql);
  await sql(source.url, "vacuum analyze");
  const run = async (far: Far | undefined): Promise<{ seconds: number; peakBytes: number }> => {
    const target = await createDatabase(servers.target, `${tablesSql};${indexesSql}`);
    const sides = { source: source.url, target: target.url };
    await replicate(sides, "init");
    await settle(servers.source, servers.target);
    // The local runs go through the proxies too, so that what these cost falls on both.
    if (far !== undefined) proxies[far].setDelay(oneWayMs);
    for (const place of places) proxies[place].takeTraffic();
    const used = await replicate(through(sides, proxies), "copy", "--jobs", "4");
    for (const place of places) proxies[place].setDelay(0);
    const traffic = places.map((place) => {
      const { roundTrips, connections } = proxies[place].takeTraffic();
      return `${roundTrips} round trips with the ${place} on ${connections} connections`;
    });
    report.note(
      `${far === undefined ? "local" : `${far} far away`}: ${used.seconds.toFixed(1)} s, ${traffic.join(", ")}`,
    );
    await replicate(sides, "drop", "--yes");
    await target.drop();
    return used;
  };
  const runs = await interleave(options.rounds, {
    local: () => run(undefined),
    source: () => run("source"),
    target: () => run("target"),
  });
  const rate = ({ seconds }: { seconds: number }): number => options.rows / seconds;
  for (const far of places) {
    report.add({
      what: `copy --jobs 4, ${far} 100 ms away`,
      measured: { values: runs[far].map(rate), unit: "rows/s" },
      against: { what: "local", values: runs.local.map(rate), unit: "rows/s" },
      goal: { of: "ratio", is: "at least", limit: 0.7 },
    });
    report.add({
      what: `memory of the process, ${far} 100 ms away`,
      measured: { values: runs[far].map(({ peakBytes }) => peakBytes / 1024 ** 2), unit: "MB" },
      goal: { of: "value", is: "at most", limit: 250 },
    });
  }
  await source.drop();
}

async function lagOverLink(
  servers: Servers,
  proxies: Readonly<Record<Far, Proxy>>,
  options: Options,
  report: Report,
): Promise<void> {
  const script = `
    create table account (id integer primary key, branch integer, balance integer, filler character(84));
    create table heartbeat (id integer primary key, at timestamptz)`;
  const source = await createDatabase(servers.source, script);
  await sql(source.url, "insert into account select n, 1, 0, '' from generate_series(1, 100000) n; analyze");
  const target = await createDatabase(servers.target, script);
  const sides = { source: source.url, target: target.url };
  await replicate(sides, "init");
  await replicate(sides, "copy");
  for (const far of places) {
    proxies[far].setDelay(oneWayMs);
    const running = startReplicate(through(sides, proxies), "follow");
    // Who measures is near both servers.
    const { lagsMs, commitsPerSecond } = await measureLag(sides, {
      commitsPerSecond: 50,
      seconds: options.seconds,
    });
    await running.stop();
    proxies[far].setDelay(0);
    const load = `${far} 100 ms away, ${Math.round(commitsPerSecond)} commits/s`;
    report.add({
      what: `lag, ${load}, median of ${lagsMs.length}`,
      measured: { values: [quantile(lagsMs, 0.5)], unit: "ms" },
      goal: { of: "value", is: "at most", limit: 500 },
    });
    report.add({
      what: `lag, ${load}, 99th percentile`,
      measured: { values: [quantile(lagsMs, 0.99)], unit: "ms" },
    });
  }
}
