/** The initial load, from empty tables to rows and indexes all there, against psql's COPY through a pipe. */
import { interleave, type Benchmark } from "./support/benchmark.ts";
import { replicate } from "./support/command.ts";
import { indexesSql, indexStatements, rowsSql, tables, tablesSql } from "./support/data.ts";
import { hasProgram, noPsql, pipe, psql } from "./support/psql.ts";
import { createDatabase, settle, sql, startServers, type Servers } from "./support/servers.ts";

const gigabyte = 1024 ** 3;

export const copy: Benchmark = {
  defaults: { rows: 2_000_000 },
  run: async (options, report) => {
    const servers = await startServers(options);
    const source = await createDatabase(servers.source, tablesSql);
    await sql(source.url, rowsSql(options.rows));
    await sql(source.url, indexesSql);
    await sql(source.url, "vacuum analyze");
    const [size] = await sql<{ bytes: number }>(
      source.url,
      `select sum(pg_table_size(oid))::float8 as bytes from pg_class where relname in ('${tables.join("', '")}')`,
    );
    report.note(
      `${options.rows} rows, ${((size?.bytes ?? 0) / gigabyte).toFixed(2)} GB of heap, ${indexStatements.length} indexes`,
    );

    const runs = await interleave(options.rounds, {
      replicate: () => runReplicate(source.url, servers),
      ...(hasProgram("psql")
        ? {
            psql: () => runPsql(source.url, servers, { atOnce: 1, format: "text" }),
            binary: () => runPsql(source.url, servers, { atOnce: 2, format: "binary" }),
          }
        : {}),
    } as Record<"replicate" | "psql" | "binary", () => Promise<Run>>);
    const ours = runs.replicate;
    const measured = { values: ours.map((run) => run.seconds), unit: "s" };
    if (!hasProgram("psql")) {
      report.skip(noPsql);
      report.add({ what: "copy --jobs 2", measured });
    } else {
      report.add({
        what: "copy --jobs 2",
        measured,
        against: { what: "psql | psql", values: runs.psql.map((run) => run.seconds), unit: "s" },
        goal: { of: "ratio", is: "at most", limit: 1 },
      });
      report.add({
        what: "copy --jobs 2",
        measured,
        against: {
          what: "psql | psql, two at a time, binary",
          values: runs.binary.map((run) => run.seconds),
          unit: "s",
        },
      });
    }
    report.add({
      what: "Node's CPU per GB of COPY data, without its start",
      measured: { values: ours.map((run) => (run.cpuSeconds / run.bytes) * gigabyte), unit: "s" },
      goal: { of: "value", is: "at most", limit: 4 },
    });
    report.add({
      what: "memory of the process",
      measured: { values: ours.map((run) => run.peakBytes / 1024 ** 2), unit: "MB" },
      goal: { of: "value", is: "at most", limit: 250 },
    });
  },
};

interface Run {
  seconds: number;
  cpuSeconds: number;
  bytes: number;
  peakBytes: number;
}

async function runReplicate(source: string, servers: Servers): Promise<Run> {
  const target = await createDatabase(servers.target, `${tablesSql};${indexesSql}`);
  const sides = { source, target: target.url };
  await replicate(sides, "init");
  const start = await replicate(sides, "status");
  await settle(servers.source, servers.target);
  const { seconds, cpuSeconds, peakBytes, lines } = await replicate(
    sides,
    "copy",
    "--jobs",
    "2",
    "--index-jobs",
    "2",
  );
  await replicate(sides, "drop", "--yes");
  await target.drop();
  return {
    seconds,
    cpuSeconds: Math.max(0, cpuSeconds - start.cpuSeconds),
    bytes: Number(lines.at(-1)?.["bytes"]),
    peakBytes,
  };
}

async function runPsql(
  source: string,
  servers: Servers,
  { atOnce, format }: { atOnce: number; format: "text" | "binary" },
): Promise<Run> {
  const target = await createDatabase(servers.target, tablesSql);
  await settle(servers.source, servers.target);
  const startedAt = performance.now();
  const waiting: string[] = [...tables];
  const indexes = [...indexStatements];
  await inParallel(atOnce, waiting, async (table) => {
    const options = `with (format ${format})`;
    await pipe(source, target.url, {
      out: [`copy ${table} to stdout ${options}`],
      into: [`copy ${table} from stdin ${options}`],
    });
  });
  // Each alone, as they stand in a dump.
  await inParallel(1, indexes, async (statement) => void (await psql(target.url, statement)));
  const seconds = (performance.now() - startedAt) / 1000;
  await target.drop();
  return { seconds, cpuSeconds: 0, bytes: 0, peakBytes: 0 };
}

async function inParallel<Item>(
  atOnce: number,
  items: Item[],
  work: (item: Item) => Promise<void>,
): Promise<void> {
  const worker = async (): Promise<void> => {
    for (let item = items.shift(); item !== undefined; item = items.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
}
