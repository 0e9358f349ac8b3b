/** Constraints that old rows may break have to go before rows come: of domains and parents, that may be somebody else's. */
import type { Unvalidated } from "../catalog/definitions.ts";
import { tableLabel } from "../catalog/table.ts";
import type { Connection } from "../postgres/connect.ts";
import { ident, load, qualified } from "../postgres/sql.ts";
import { withLeaves } from "./examination.ts";
import { administrator, run, type Finding } from "./finding.ts";
import type { TablePair } from "./pairs.ts";

export async function checkUnvalidated(
  target: Connection,
  us: string,
  pairs: readonly TablePair[],
): Promise<Finding[]> {
  const oids = withLeaves(pairs.map((pair) => pair.target));
  const found = await target.rows<Unvalidated>(load("catalog/unvalidated"), [oids]);
  // That tables of the sync have other owners is told elsewhere.
  const own = new Set(oids);
  return found
    .filter(({ kind, relid, isOurs }) => !isOurs && (kind === "domain" || !own.has(relid)))
    .map(({ kind, schema, owner, name, role }): Finding => ({
      severity: "blocking",
      subject: `${kind} ${tableLabel({ schema, name: owner })}`,
      message: `on the target, constraint ${name} is NOT VALID, so it has to be away while old rows come, and it belongs to ${role}`,
      ...run(
        "target",
        administrator,
        `grant ${ident(role)} to ${ident(us)};`,
        `-- or, where every row meets it, as ${role}: alter ${kind} ${qualified(schema, owner)} validate constraint ${ident(name)};`,
      ),
    }));
}
