import { replicate, type Sides, type Used } from "./command.ts";
import type { Options } from "./options.ts";
import { createDatabase, settle, sql, type Servers } from "./servers.ts";

const table = "create table item (id int primary key, name text, price numeric, created timestamptz)";

/** One table of many rows, with a sync of its own that was told by flags what to do with them. */
export interface Items {
  readonly sides: Sides;
  /** Copies all rows anew, then changes some, and applies that. */
  copyAndFollow: (round: number) => Promise<Readonly<Record<"copy" | "follow", Used>>>;
}

export async function startItems(
  servers: Servers,
  { rows, changes }: Options,
  flags: readonly string[],
): Promise<Items> {
  const source = await createDatabase(servers.source, table);
  const target = await createDatabase(servers.target, table);
  await sql(
    source.url,
    `insert into item select n, 'name of item ' || n, n, now() from generate_series(1, ${rows}) n`,
  );
  // In a call of its own: several statements in one are a transaction, where it may not run.
  await sql(source.url, "vacuum analyze");
  const sides = { source: source.url, target: target.url };
  await replicate(sides, "init", ...flags);
  return {
    sides,
    copyAndFollow: async (round) => {
      const copy = await replicate(sides, "copy", "--restart", ...flags);
      await replicate(sides, "follow", "--until-caught-up", ...flags);
      await sql(source.url, `update item set price = price + ${round + 1} where id <= ${changes}`);
      await settle(servers.source, servers.target);
      return { copy, follow: await replicate(sides, "follow", "--until-caught-up", ...flags) };
    },
  };
}
