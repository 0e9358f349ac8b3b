/** What keeps this role from writing to tables that are its own: privileges that it lacks, and publications. */
import { tableLabel, tableSql, type Table } from "../catalog/table.ts";
import type { ResolvedConfig } from "../config/options.ts";
import type { Connection } from "../postgres/connect.ts";
import { ident, load } from "../postgres/sql.ts";
import { withLeaves } from "./examination.ts";
import { run, some, type Finding } from "./finding.ts";
import type { Server } from "./server.ts";

interface Lack {
  readonly relid: number;
  readonly schema: string;
  readonly name: string;
  readonly owner: string;
  readonly lacks: readonly string[];
}

/** What has to be allowed on a table, and on its partitions, which rows are read from and loaded into by themselves. */
interface Needs {
  readonly table: readonly string[];
  readonly leaf: readonly string[];
  /** For a lock: one of these. */
  readonly anyOf: readonly string[];
}

const writers = ["UPDATE", "DELETE", "TRUNCATE"];

const reading: Needs = { table: ["SELECT", "TRIGGER"], leaf: ["SELECT", "TRIGGER"], anyOf: writers };
const writing: Needs = {
  table: ["SELECT", "INSERT", ...writers, "TRIGGER"],
  leaf: ["SELECT", "INSERT", "TRUNCATE", "TRIGGER"],
  anyOf: [],
};

/** Tables of other owners are told of elsewhere. */
export async function checkTableRights(
  connection: Connection,
  server: Server,
  tables: readonly Table[],
  config: Pick<ResolvedConfig, "direction">,
): Promise<Finding[]> {
  const { side } = connection;
  const needs = side === "target" || config.direction === "both" ? writing : reading;
  const own = tables.filter(({ isOwned }) => isOwned);
  const leaves = own.flatMap((table) => table.leaves.filter(({ kind }) => kind !== "f"));
  const lacking = async (
    relations: readonly { readonly oid: number }[],
    all: readonly string[],
  ): Promise<Lack[]> =>
    await connection.rows<Lack>(load("preflight/table-rights"), [
      relations.map(({ oid }) => oid),
      all,
      needs.anyOf,
    ]);
  const lacks = [
    ...(await lacking(own, needs.table)),
    ...(leaves.length === 0 ? [] : await lacking(leaves, needs.leaf)),
  ];
  return [
    ...lacks.map((lack): Finding => {
      const names = lack.lacks.join(", ").toLowerCase();
      return {
        severity: "blocking",
        subject: tableLabel(lack),
        message: `on the ${side}, role ${server.role} has no ${names} on it, not even as its owner`,
        ...run(side, lack.owner, `grant ${names} on table ${tableSql(lack)} to ${ident(server.role)};`),
      };
    }),
    ...(await checkIdentities(connection, tables, needs === writing)),
  ];
}

/** A publication wants the rows that are changed to be told apart, by whoever changes them. */
async function checkIdentities(
  connection: Connection,
  tables: readonly Table[],
  isWritten: boolean,
): Promise<Finding[]> {
  const { side } = connection;
  const found = await connection.rows<Omit<Lack, "lacks"> & { readonly publications: readonly string[] }>(
    load("preflight/unidentified"),
    [withLeaves(tables)],
  );
  return found.map((table): Finding => {
    const names = `publication${table.publications.length > 1 ? "s" : ""} ${some(table.publications)}`;
    return {
      severity: isWritten ? "blocking" : "warning",
      subject: tableLabel(table),
      message: `on the ${side}, ${names} cannot tell its rows apart, so the server refuses every UPDATE and DELETE on it${isWritten ? "" : ", also those of the reverse replication after a cutover"}`,
      ...run(
        side,
        table.owner,
        `alter table ${tableSql(table)} replica identity full;  -- or take it out of the publication`,
      ),
    };
  });
}
