/** Preflight: every check before anything is changed, and all findings at once, each with its remedy. */
import { columnPlan } from "../catalog/columns.ts";
import { isFitting, refit } from "../catalog/refit.ts";
import { tableLabel, type Table } from "../catalog/table.ts";
import type { Problem } from "../errors.ts";
import { saidBy } from "../postgres/server-words.ts";
import type { Connection } from "../postgres/connect.ts";
import type { SyncContext } from "../state/context.ts";
import { columnsBefore } from "../state/fitting.ts";
import { loadKnownTables } from "../state/sync-table.ts";
import { checkActivity } from "./activity.ts";
import { checkApplication } from "./application.ts";
import { checkConnections, checkVersions } from "./connections.ts";
import { checkDefaultPrivileges } from "./default-privileges.ts";
import type { Examination } from "./examination.ts";
import { checkExtensions } from "./extensions.ts";
import type { Finding } from "./finding.ts";
import { gather } from "./gather.ts";
import { checkFreeFunctions } from "./free-functions.ts";
import { checkRetainedDeltas } from "./retained-deltas.ts";
import { checkKeyless } from "./keyless.ts";
import { checkLeftBehind } from "./left-behind.ts";
import { checkRightsOfCode } from "./rights-of-code.ts";
import { checkLoad } from "./load.ts";
import { checkLocale } from "./locale.ts";
import { checkReverseSync } from "./reverse-sync.ts";
import { checkForeignKeys } from "./orphans.ts";
import {
  chosenTables,
  keylessPolicy,
  pairTables,
  assertDifferentDatabases,
  type KnownTables,
  type TablePair,
} from "./pairs.ts";
import { checkLocks } from "./locks.ts";
import { checkMappings } from "./mapping.ts";
import { settingsOfTables, type TableSettings } from "./overrides.ts";
import { checkPartitions } from "./partitions.ts";
import { checkPlaces } from "./places.ts";
import { checkReactions } from "./reactions.ts";
import { checkSchema } from "./schema.ts";
import { checkSequences } from "./sequences.ts";
import { checkContents, checkPublications, checkServer, readServer, type Server } from "./server.ts";
import { checkTableRights } from "./table-rights.ts";
import { findUserCasts } from "../catalog/user-casts.ts";
import { checkTwoWay } from "./two-way.ts";
import { checkPair, checkSourceTable } from "./tables.ts";
import { checkUnvalidated } from "./unvalidated.ts";

export { gather } from "./gather.ts";
export { assertNoneBlocking, type Finding, type Severity } from "./finding.ts";
export type { TableSettings } from "./overrides.ts";
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
  if (own.identity === other.identity) assertDifferentDatabases(tables, config);
  const pairs = await checkTables(
    context,
    { source, target },
    tables,
    { source: own, target: other },
    known,
    findings,
  );
  return { findings, pairs, tables, servers: { source: own, target: other } };
}

/** Checks that are about these tables alone. Adds to the findings, and returns the tables that have a counterpart. */
async function checkTables(
  { config }: SyncContext,
  { source, target }: Record<"source" | "target", Connection>,
  tables: readonly Table[],
  { source: own, target: other }: Preflight["servers"],
  known: KnownTables,
  findings: Finding[],
): Promise<TablePair[]> {
  const pairs = await pairTables(source, target, tables, config, known, findings);
  for (const table of tables) {
    const policy = keylessPolicy(table, config, known);
    findings.push(
      ...checkKeyless(table, source, policy, config.keylessLimitBytes),
      ...checkSourceTable(table, source, own),
    );
  }
  const problems = await fitProblems(source, target, pairs, known);
  for (const pair of pairs) {
    // The keys of known tables may be away for the time of a copy; but one that has got its key since needs one there.
    const isKnown = known.get(pair.source.oid)?.isKeyless === false;
    findings.push(...checkPair(pair, target, other, isKnown, problems.get(pair.source.oid) ?? []));
    findings.push(...checkPartitions(pair, config));
  }
  findings.push(...(await checkReverseSync(config, source, target, pairs)));
  findings.push(...(await checkMappings(source, target, pairs, known, config)));
  const targets = pairs.map((pair) => pair.target);
  const casts = [
    ...(await findUserCasts(source, tables, config.tracksTarget ? tables : [])),
    ...(await findUserCasts(target, targets, config.tracksTarget ? targets : [])),
  ];
  const places = await Promise.all([checkPlaces(source, own, tables), checkPlaces(target, other, targets)]);
  findings.push(
    ...(await checkTwoWay(config, source, target, pairs)),
    ...places.flat(),
    ...casts.map((cast) => ({ severity: "blocking" as const, ...cast })),
    ...(await checkFreeFunctions(source, target, pairs)),
    ...(await checkUnvalidated(target, other.role, pairs)),
    ...(await checkTableRights(source, own, tables, config)),
    ...(await checkTableRights(target, other, targets, config)),
    ...checkPublications(source, own, tables),
    ...checkPublications(target, other, targets),
  );
  return pairs;
}

/** What keeps one table that the sync does not have yet from being taken in; and where it goes. */
export async function examineTable(
  context: SyncContext,
  source: Connection,
  target: Connection,
  table: Table,
): Promise<{ readonly findings: readonly Finding[]; readonly pair: TablePair | undefined }> {
  const findings: Finding[] = [];
  const servers = { source: await readServer(source), target: await readServer(target) };
  const [pair] = await checkTables(context, { source, target }, [table], servers, new Map(), findings);
  return { findings, pair };
}

/** Why rows do not fit the target, by source oid. Of tables that are in the sync, all that keeps `follow` from going on. */
async function fitProblems(
  source: Connection,
  target: Connection,
  pairs: readonly TablePair[],
  known: KnownTables,
): Promise<Map<number, readonly Problem[]>> {
  const found = new Map<number, readonly Problem[]>();
  for (const pair of pairs) {
    const { oid } = pair.source;
    const entry = known.get(oid);
    const table = {
      ...pair,
      label: tableLabel(pair.source),
      before: entry === undefined ? [] : columnsBefore(entry),
    };
    if (entry === undefined) found.set(oid, columnPlan(pair.source, pair.target).problems);
    else if (!isFitting(table)) found.set(oid, await refit(source, target, [table]));
  }
  return found;
}

export interface PreflightOptions {
  /** Look for rows without a parent, which reads whole tables of the source. Default false. */
  readonly checkForeignKeys?: boolean;
  /** Seconds from which on a transaction is long. Default 60. */
  readonly longTransactionSeconds?: number;
  /** Tell too what the settings come to for each table. Default false. */
  readonly showSettings?: boolean;
}

export interface Examined {
  readonly findings: readonly Finding[];
  /** By table, with `showSettings`. */
  readonly settings?: readonly TableSettings[];
}

/** In the order in which people would want to know. */
const checks: readonly (readonly [about: string, check: (examination: Examination) => Promise<Finding[]>])[] =
  [
    ["versions", checkVersions],
    ["connections", checkConnections],
    ["extensions", checkExtensions],
    ["sequences", checkSequences],
    ["the application's roles", checkApplication],
    ["default privileges", checkDefaultPrivileges],
    ["encodings and collations", checkLocale],
    ["activity", checkActivity],
    ["triggers and subscriptions", checkReactions],
    ["whose code runs as whom", checkRightsOfCode],
    ["schemas", checkSchema],
    ["what stays behind", checkLeftBehind],
    ["sizes and settings", checkLoad],
    ["locks", checkLocks],
    ["other syncs", checkRetainedDeltas],
  ];

/**
 * Every check, in sessions that cannot write. Throws as `preflight` does. A check that a server does not let us make is
 * a finding itself.
 */
export async function examine(context: SyncContext, options: PreflightOptions = {}): Promise<Examined> {
  await using source = await context.source("preflight");
  await using target = await context.target("preflight");
  await Promise.all([source, target].map((side) => side.script("set default_transaction_read_only = on")));
  const known = await loadKnownTables(target, context.config.name);
  const byOid = new Map(known.map((table) => [table.sourceRelid, table]));
  const { findings, ...found } = await preflight(context, source, target, byOid);
  const { longTransactionSeconds = 60, showSettings = false } = options;
  const examination: Examination = { context, source, target, longTransactionSeconds, ...found };
  const all = [...findings];
  const asked = options.checkForeignKeys === true ? [["foreign keys", checkForeignKeys] as const] : [];
  for (const [about, check] of [...checks, ...asked]) {
    try {
      all.push(...(await check(examination)));
    } catch (error) {
      if (source.isBroken || target.isBroken) throw error;
      const message = `could not be checked: ${saidBy(error)}`;
      all.push({ severity: "warning", subject: about, message });
    }
  }
  const gathered = gather(all);
  return showSettings
    ? { findings: gathered, settings: settingsOfTables(found.tables, context.config) }
    : { findings: gathered };
}
