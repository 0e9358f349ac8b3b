/** Comparing two databases, against hashing all rows on both sides by hand. */
import { interleave, type Benchmark } from "./support/benchmark.ts";
import { replicate } from "./support/command.ts";
import { indexesSql, rowsSql, tables, tablesSql } from "./support/data.ts";
import { createDatabase, settle, sql, startServers } from "./support/servers.ts";

export const verify: Benchmark = {
  defaults: { rows: 2_000_000 },
  run: async (options, report) => {
    const servers = await startServers(options);
    const source = await createDatabase(servers.source, tablesSql);
    await sql(source.url, rowsSql(options.rows));
    await sql(source.url, indexesSql);
    await sql(source.url, "vacuum analyze");
    const target = await createDatabase(servers.target, `${tablesSql};${indexesSql}`);
    const sides = { source: source.url, target: target.url };
    await replicate(sides, "init");
    await replicate(sides, "copy");
    await replicate(sides, "follow", "--until-caught-up");
    await sql(target.url, "vacuum analyze");
    await settle(servers.source, servers.target);

    const runs = await interleave(options.rounds, {
      replicate: async () => {
        const { seconds, peakBytes, lines } = await replicate(sides, "verify");
        if (lines.at(-1)?.["equal"] !== true) throw new Error("the sides differ");
        return { seconds, peakBytes };
      },
      hand: async () => ({ seconds: await hashByHand(Object.values(sides)), peakBytes: 0 }),
    });
    const rate = (seconds: number): number => options.rows / seconds;
    report.add({
      what: "verify",
      measured: { values: runs.replicate.map(({ seconds }) => rate(seconds)), unit: "rows/s" },
      against: {
        what: "select count(*), sum(hashtextextended(t::text, 0))",
        values: runs.hand.map(({ seconds }) => rate(seconds)),
        unit: "rows/s",
      },
      goal: { of: "ratio", is: "at least", limit: 0.5 },
    });
    report.add({
      what: "memory of the process",
      measured: { values: runs.replicate.map(({ peakBytes }) => peakBytes / 1024 ** 2), unit: "MB" },
      goal: { of: "value", is: "at most", limit: 250 },
    });
  },
};

/** Both sides at the same time, table by table. */
async function hashByHand(urls: readonly string[]): Promise<number> {
  const startedAt = performance.now();
  const queries = tables.map((table) => `select count(*), sum(hashtextextended(t::text, 0)) from ${table} t`);
  await Promise.all(urls.map((url) => sql(url, queries.join(";"))));
  return (performance.now() - startedAt) / 1000;
}
