/** The columns by which `{ latest: COLUMN }` decides conflicts: there on both sides, with values that can be compared. */
import { dataColumns, tableLabel } from "../catalog/table.ts";
import type { ResolvedConfig } from "../config/options.ts";
import { policyOf } from "../config/conflict-policy.ts";
import type { Connection } from "../postgres/connect.ts";
import { ident } from "../postgres/sql.ts";
import { sqlstateOf, UNDEFINED_FUNCTION } from "../postgres/sqlstate.ts";
import { didYouMean } from "../config/spelling.ts";
import type { Finding } from "./finding.ts";
import type { TablePair } from "./pairs.ts";

export async function checkLatest(
  config: ResolvedConfig,
  target: Connection,
  pairs: readonly TablePair[],
): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const pair of pairs) {
    const policy = policyOf(config, pair.source.schema, pair.source.name);
    if (policy.kind !== "latest-column") continue;
    const { column } = policy;
    const blocking = (message: string): number =>
      findings.push({
        severity: "blocking",
        subject: tableLabel(pair.source),
        message: `conflicts are decided by { latest: ${column} }, but ${message}`,
      });
    for (const side of ["source", "target"] as const) {
      const found = dataColumns(pair[side]).find(({ name }) => name === column);
      if (found === undefined) {
        const names = dataColumns(pair[side]).map(({ name }) => name);
        blocking(`the ${side} has no such column that is replicated${didYouMean(column, names)}`);
      } else if (side === "target" && !(await isComparable(target, found.baseType))) {
        blocking(`there is no greater or lesser in ${ident(column)}, which is ${found.type}`);
      }
    }
  }
  return findings;
}

async function isComparable(connection: Connection, type: string): Promise<boolean> {
  try {
    await connection.rows(`select null::${type} > null::${type}`);
    return true;
  } catch (error) {
    if (sqlstateOf(error) !== UNDEFINED_FUNCTION) throw error;
    return false;
  }
}
