/** What a filter and a computed column cost copy, follow and verify, against the same table as it is. */
import { rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { interleave, type Benchmark } from "./support/benchmark.ts";
import { replicate } from "./support/command.ts";
import { startItems } from "./support/items.ts";
import { startServers } from "./support/servers.ts";

const overrides = {
  // Keeps all rows, so that as much goes over as without.
  "public.item": { where: "price >= 0", columns: { name: "md5(name)" } },
};

type Figures = Readonly<Record<"copy" | "follow" | "verify", number>>;

export const mapping: Benchmark = {
  defaults: { rows: 1_000_000, changes: 200_000 },
  run: async (options, report) => {
    const servers = await startServers(options);
    const file = join(tmpdir(), `bench-mapping-${process.pid}.yaml`);
    await writeFile(file, JSON.stringify({ overrides }));
    const variant = async (...flags: readonly string[]): Promise<(round: number) => Promise<Figures>> => {
      const { sides, copyAndFollow } = await startItems(servers, options, flags);
      return async (round) => {
        const { copy, follow } = await copyAndFollow(round);
        const verify = await replicate(sides, "verify", ...flags);
        if (verify.lines.at(-1)?.["equal"] !== true) throw new Error("the sides differ");
        return { copy: copy.seconds, follow: follow.seconds, verify: verify.seconds };
      };
    };
    try {
      const runs = await interleave(options.rounds, {
        mapped: await variant("--config", file),
        plain: await variant(),
      });
      for (const what of ["copy", "follow", "verify"] as const) {
        const rows = what === "follow" ? options.changes : options.rows;
        report.add({
          what: `${what} of a table with a filter and a computed column`,
          measured: { values: runs.mapped.map((run) => rows / run[what]), unit: "rows/s" },
          against: { what: "as it is", values: runs.plain.map((run) => rows / run[what]), unit: "rows/s" },
        });
      }
    } finally {
      await rm(file);
    }
  },
};
