/** Privileges that objects to come are given on the source, and would not be given on the target. */
import type { Connection } from "../postgres/connect.ts";
import { ident, load } from "../postgres/sql.ts";
import { isProviderRole } from "../catalog/providers.ts";
import type { Examination } from "./examination.ts";
import { run, type Finding } from "./finding.ts";

interface Default {
  readonly creator: string;
  readonly schema: string | null;
  readonly kind: string;
  readonly grantee: string;
  readonly privileges: readonly string[];
}

/** Objects made by our own role on the source will be made by ours on the target, whatever they are called. */
export async function checkDefaultPrivileges({
  source,
  target,
  servers,
  pairs,
}: Examination): Promise<Finding[]> {
  const [own, others] = await Promise.all([readDefaults(source), readDefaults(target)]);
  const schemas = new Map(pairs.map((pair) => [pair.source.schema, pair.target.schema]));
  const creatorThere = (creator: string): string =>
    creator === servers.source.role ? servers.target.role : creator;
  const missing = own.flatMap((each): Default[] => {
    const schema = each.schema === null ? null : schemas.get(each.schema);
    if (schema === undefined || [each.creator, each.grantee].some(isProviderRole)) return [];
    if (each.grantee === servers.source.role) return [];
    const there = { ...each, creator: creatorThere(each.creator), schema };
    const granted = others
      .filter((other) => other.kind === there.kind && other.grantee === there.grantee)
      .filter((other) => other.creator === there.creator && [null, schema].includes(other.schema))
      .flatMap((other) => other.privileges);
    const privileges = each.privileges.filter((privilege) => !granted.includes(privilege));
    return privileges.length === 0 ? [] : [{ ...there, privileges }];
  });
  const creators = [...new Set(missing.map(({ creator }) => creator))];
  return creators.map((creator) => ({
    severity: "warning",
    subject: `default privileges of ${creator}`,
    message: "tables, sequences or functions that it creates after the switch lack privileges that they are given on the source", // prettier-ignore
    ...run("target", creator, ...missing.filter((each) => each.creator === creator).map(statement)),
  }));
}

async function readDefaults(connection: Connection): Promise<Default[]> {
  return await connection.rows<Default>(load("preflight/default-privileges"));
}

function statement({ creator, schema, kind, grantee, privileges }: Default): string {
  const where = schema === null ? "" : ` in schema ${ident(schema)}`;
  const to = grantee === "public" ? "public" : ident(grantee);
  return `alter default privileges for role ${ident(creator)}${where} grant ${privileges.join(", ").toLowerCase()} on ${kind} to ${to};`;
}
