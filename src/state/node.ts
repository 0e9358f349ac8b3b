/** Names of databases, by which conflicts tell where a change was made. */
import { randomBytes } from "node:crypto";
import { ReplicateError } from "../errors.ts";
import type { Side } from "../events.ts";
import type { Connection } from "../postgres/connect.ts";

/** The name of this database. Throws SYNC_MISMATCH where it has none: `init` gives it. */
export async function ownNode(connection: Connection): Promise<string> {
  const [node] = await connection.rows<{ name: string }>(`select name from replicate.node where is_own`);
  if (node !== undefined) return node.name;
  throw new ReplicateError(
    "SYNC_MISMATCH",
    `the ${connection.side}'s database has no name for conflicts yet`,
    {
      hint: "Run `replicate init` again.",
    },
  );
}

/**
 * Gives both databases their names, if they have none, and tells each of all that the other knows. `wanted`: as the settings
 * say; what they leave out is made up. Throws CONFIG_INVALID where a database has another name already, or both the same.
 */
export async function nameNodes(
  source: Connection,
  target: Connection,
  wanted: Partial<Record<Side, string>>,
): Promise<Record<Side, string>> {
  const names = {
    source: await nameNode(source, wanted.source),
    target: await nameNode(target, wanted.target),
  };
  if (names.source === names.target) {
    throw new ReplicateError("CONFIG_INVALID", `source and target are both called ${names.source}`, {
      hint: "Give the databases different names (nodes).",
    });
  }
  for (const [from, to] of [[source, target], [target, source]] as const) {
    const known = await from.rows<{ name: string }>(`select name from replicate.node`);
    await to.rows(
      `insert into replicate.node (name, is_own) select n, false from pg_catalog.unnest($1::text[]) as n on conflict do nothing`,
      [known.map(({ name }) => name)],
    );
  } // prettier-ignore
  return names;
}

/** Names of a policy's order that no database has, as far as these two know. */
export async function strangeNodes(connection: Connection, names: readonly string[]): Promise<string[]> {
  const rows = await connection.rows<{ name: string }>(`select name from replicate.node`);
  return names.filter((name) => !rows.some((row) => row.name === name));
}

/**
 * How far the clock of the second database is ahead of that of the first, in seconds, and how far that may be off: half of
 * the time that asking took.
 */
export async function clockDifference(
  first: Connection,
  second: Connection,
): Promise<{ readonly seconds: number; readonly uncertainty: number }> {
  const ask = async (connection: Connection): Promise<{ offset: number; took: number }> => {
    const before = Date.now();
    const { epoch } = await connection.row<{ epoch: number }>(
      `select extract(epoch from pg_catalog.clock_timestamp())::float8 as epoch`,
    );
    const took = (Date.now() - before) / 1000;
    return { offset: epoch - before / 1000 - took / 2, took };
  };
  const [one, other] = [await ask(first), await ask(second)];
  return { seconds: other.offset - one.offset, uncertainty: (one.took + other.took) / 2 };
}

async function nameNode(connection: Connection, wanted: string | undefined): Promise<string> {
  const [known] = await connection.rows<{ name: string }>(`select name from replicate.node where is_own`);
  if (known !== undefined) {
    if (wanted === undefined || wanted === known.name) return known.name;
    throw new ReplicateError(
      "CONFIG_INVALID",
      `the ${connection.side} database is called ${known.name} already, not ${wanted}`,
      { hint: `Say nodes.${connection.side}: ${known.name}, or leave it out.` },
    );
  }
  const { database } = await connection.row<{ database: string }>(
    `select pg_catalog.current_database()::text as database`,
  );
  const name = wanted ?? `${database}-${randomBytes(2).toString("hex")}`;
  await connection.rows(`insert into replicate.node (name, is_own) values ($1, true)`, [name]);
  return name;
}
