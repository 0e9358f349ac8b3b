/** What a hook that transforms rows costs copy and follow, against the same table as it is. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { interleave, type Benchmark } from "./support/benchmark.ts";
import { startItems, type Items } from "./support/items.ts";
import { startServers } from "./support/servers.ts";

const module = `export default { transformRow: ({ name }) => ({ name: name.toUpperCase() }) };`;
const settings = { hooks: "./hooks.mjs", overrides: { "public.item": { transform: true } } };

export const hooks: Benchmark = {
  defaults: { rows: 1_000_000, changes: 200_000 },
  run: async (options, report) => {
    const servers = await startServers(options);
    const folder = await mkdtemp(join(tmpdir(), "bench-hooks-"));
    await writeFile(join(folder, "hooks.mjs"), module);
    await writeFile(join(folder, "replicate.yaml"), JSON.stringify(settings));
    const variant = async (...flags: readonly string[]): Promise<Items["copyAndFollow"]> =>
      (await startItems(servers, options, flags)).copyAndFollow;
    try {
      const runs = await interleave(options.rounds, {
        transformed: await variant("--config", join(folder, "replicate.yaml")),
        plain: await variant(),
      });
      for (const what of ["copy", "follow"] as const) {
        const rows = what === "follow" ? options.changes : options.rows;
        report.add({
          what: `${what} of a table whose rows a hook transforms`,
          measured: { values: runs.transformed.map((run) => rows / run[what].seconds), unit: "rows/s" },
          against: {
            what: "as it is",
            values: runs.plain.map((run) => rows / run[what].seconds),
            unit: "rows/s",
          },
        });
        report.add({
          what: `CPU of the process, ${what}`,
          measured: { values: runs.transformed.map((run) => run[what].cpuSeconds), unit: "s" },
          against: { what: "as it is", values: runs.plain.map((run) => run[what].cpuSeconds), unit: "s" },
        });
      }
      report.add({
        what: "memory of the process",
        measured: {
          values: runs.transformed.map(
            ({ copy, follow }) => Math.max(copy.peakBytes, follow.peakBytes) / 1024 ** 2,
          ),
          unit: "MB",
        },
        goal: { of: "value", is: "at most", limit: 250 },
      });
    } finally {
      await rm(folder, { recursive: true });
    }
  },
};
