/** The rights on schemas and tablespaces without which a sync that owns all its tables still fails half-way. */
import type { Table } from "../catalog/table.ts";
import type { Connection } from "../postgres/connect.ts";
import { ident, load } from "../postgres/sql.ts";
import { run, type Finding } from "./finding.ts";
import type { Server } from "./server.ts";

interface Place {
  readonly kind: "schema" | "tablespace";
  readonly name: string;
  readonly owner: string;
  readonly mayUse: boolean;
  readonly mayCreate: boolean;
}

/** On the source the role only has to see the tables; on the target it builds their indexes anew. */
export async function checkPlaces(
  connection: Connection,
  server: Server,
  tables: readonly Table[],
): Promise<Finding[]> {
  const { side } = connection;
  const places = await connection.rows<Place>(load("preflight/places"), [tables.map(({ oid }) => oid)]);
  return places.flatMap(({ kind, name, owner, mayUse, mayCreate }): Finding[] => {
    const lacks = [...(mayUse ? [] : ["usage"]), ...(mayCreate || side === "source" ? [] : ["create"])].join(
      ", ",
    );
    if (lacks === "") return [];
    const reason = side === "source" ? "read its tables" : "build indexes there, not even as their owner";
    return [
      {
        severity: "blocking",
        subject: `${kind} ${name}`,
        message: `on the ${side}, role ${server.role} has no ${lacks} on it, so it cannot ${reason}`,
        ...run(side, owner, `grant ${lacks} on ${kind} ${ident(name)} to ${ident(server.role)};`),
      },
    ];
  });
}
