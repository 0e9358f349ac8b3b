/** Preflight: every check before anything is changed, and all findings at once, each with its remedy. */
import { tableSql, type Table } from "../catalog/table.ts";
import type { Connection } from "../postgres/connect.ts";
import type { SyncContext } from "../state/context.ts";
import type { Finding } from "./finding.ts";
import { checkKeyless } from "./keyless.ts";
import {
  chosenTables,
  keylessPolicy,
  pairTables,
  refuseSameDatabase,
  type KnownTables,
  type TablePair,
} from "./pairs.ts";
import { checkPlaces } from "./places.ts";
import { checkContents, checkPublications, checkServer, readServer, type Server } from "./server.ts";
import { checkPair, checkSourceTable } from "./tables.ts";

export { refuseBlocking, type Finding, type Severity } from "./finding.ts";
export type { TablePair } from "./pairs.ts";

export interface Preflight {
  readonly findings: readonly Finding[];
  /** Tables that can be replicated; complete only when no finding is blocking. */
  readonly pairs: readonly TablePair[];
  /** Tables of the source that were chosen, also those without a counterpart. */
  readonly tables: readonly Table[];
  readonly servers: { readonly source: Server; readonly target: Server };
}

/**
 * What `init` has to know, and no more. Changes nothing. `known`: the tables that are in the sync already. Throws PATTERN_MATCHES_NOTHING, SAME_DATABASE,
 * SERVER_IS_STANDBY, POOLER_IN_BETWEEN, which leave nothing to check, and the connection errors.
 */
export async function preflight(
  context: SyncContext,
  source: Connection,
  target: Connection,
  known: KnownTables = new Map(),
): Promise<Preflight> {
  const { config } = context;
  const findings: Finding[] = [];
  const [own, other] = await Promise.all([readServer(source), readServer(target)]);
  findings.push(...checkServer(source, own), ...checkServer(target, other), ...checkContents(own));
  const tables = await chosenTables(source, config, findings);
  if (own.identity === other.identity) refuseSameDatabase(tables, config);
  const pairs = await pairTables(target, tables, config, known, findings);
  for (const table of tables) {
    const policy = keylessPolicy(table, config, known);
    findings.push(
      ...checkKeyless(table, source, policy, config.keylessLimitBytes),
      ...checkSourceTable(table, source, own),
    );
  }
  for (const pair of pairs) {
    // The keys of known tables may be away for the time of a copy; but one that has got its key since needs one there.
    const isKnown = known.get(pair.source.oid)?.isKeyless === false;
    findings.push(...checkPair(pair, target, other, isKnown));
  }
  const targets = pairs.map((pair) => pair.target);
  const places = await Promise.all([checkPlaces(source, own, tables), checkPlaces(target, other, targets)]);
  findings.push(
    ...places.flat(),
    ...checkPublications(source, own, tables.map(tableSql)),
    ...checkPublications(target, other, targets.map(tableSql)),
  );
  return { findings, pairs, tables, servers: { source: own, target: other } };
}
