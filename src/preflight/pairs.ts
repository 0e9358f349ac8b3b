/** Which tables are meant, which of them can be replicated, and where each goes. */
import { mapTables, type TableMapping } from "../catalog/mapping.ts";
import { selectTables } from "../catalog/patterns.ts";
import { providersSchema } from "../catalog/providers.ts";
import { describeTables, tableLabel, tableSql, type Table } from "../catalog/table.ts";
import type { KeylessPolicy, ResolvedConfig, ResolvedOverride } from "../config/options.ts";
import { tableSettings, type Merged } from "../config/overrides.ts";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { hasMapping, mappingOf, targetName } from "../config/mapping.ts";
import { load } from "../postgres/sql.ts";
import type { LedgerTable } from "../state/remapping.ts";
import type { RawFinding } from "./finding.ts";
import { checkOverrides } from "./overrides.ts";

/** A table and where it goes. */
export interface TablePair {
  readonly source: Table;
  readonly target: Table;
  readonly override: Merged<ResolvedOverride>;
  /** What becomes of it if it has no key. */
  readonly keyless: KeylessPolicy;
  /** Both tables are as it makes them. */
  readonly mapping: TableMapping | null;
}

/** The tables that are in the sync already, by source oid. */
export type KnownTables = ReadonlyMap<
  number,
  LedgerTable & { readonly isKeyless: boolean; readonly fingerprint: string | null }
>;

interface Relation {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  readonly kind: string;
  readonly isPartition: boolean;
  readonly isExtensionMember: boolean;
  readonly schemaOwner: string;
  readonly isForeignSchema: boolean;
  readonly role: string;
}

/** Describes the tables of the source that the settings choose. Throws PATTERN_MATCHES_NOTHING. */
export async function chosenTables(
  source: Connection,
  config: ResolvedConfig,
  findings: RawFinding[],
): Promise<Table[]> {
  const relations = await source.rows<Relation>(load("catalog/relations"));
  const own = relations.filter(({ isExtensionMember, ...relation }) => {
    return !isExtensionMember && providersSchema(relation, config.tables) === undefined;
  });
  const { selected, unmatchedPatterns, unmatchedExcludes } = selectTables(own, config.tables, config.exclude);
  if (unmatchedPatterns.length > 0) {
    throw new ReplicateError(
      "PATTERN_MATCHES_NOTHING",
      `no table on the source fits ${unmatchedPatterns.join(", ")}`,
      { problems: unmatchedPatterns.map((subject) => ({ subject, message: "fits no table on the source" })) },
    );
  }
  for (const pattern of unmatchedExcludes) {
    findings.push({ severity: "note", subject: pattern, message: "this exclusion fits no table" });
  }
  const tables = await describeTables(source, replicable(relations, selected, findings));
  findings.push(...checkOverrides(config, relations, tables));
  if (tables.length === 0) {
    findings.push({ severity: "blocking", subject: "source", message: "there is no table to replicate" });
  }
  return tables;
}

/** Oids of the relations that can be replicated; the others are named. */
function replicable(
  all: readonly Relation[],
  selected: readonly Relation[],
  findings: RawFinding[],
): number[] {
  const kinds: Record<string, string> = { f: "a foreign table", m: "a materialized view" };
  const oids: number[] = [];
  for (const relation of selected) {
    const what = kinds[relation.kind];
    if (what !== undefined) {
      const subject = tableLabel(relation);
      findings.push({ severity: "warning", subject, message: `${what} is not replicated` });
    } else if (!relation.isPartition) {
      oids.push(relation.oid);
    }
  }
  for (const relation of all.filter((each) => each.isExtensionMember && each.kind !== "f")) {
    findings.push({
      severity: "note",
      subject: tableLabel(relation),
      message: "belongs to an extension and is not replicated",
    });
  }
  if (oids.length === 0 && selected.some((relation) => relation.isPartition)) {
    findings.push({
      severity: "blocking",
      subject: selected.map(tableLabel).join(", "),
      message: "partitions are replicated with their root: name the partitioned table",
    });
  }
  return oids;
}

/** Throws SAME_DATABASE where a table would be copied onto itself. */
export function assertDifferentDatabases(tables: readonly Table[], config: ResolvedConfig): void {
  const unmapped = tables.filter((table) => tableLabel(targetName(table, config)) === tableLabel(table));
  if (unmapped.length === 0 && tables.length > 0 && !config.tracksTarget) return;
  throw new ReplicateError("SAME_DATABASE", "source and target are the same database", {
    problems: [
      ...(config.tracksTarget
        ? [{ subject: "direction", message: "inside one database only one-way, with conflict source-wins" }]
        : []),
      ...unmapped.map((table) => ({
        subject: tableLabel(table),
        message: "would be copied onto itself: give it another name (overrides: target) or schema (schemas)",
      })),
    ],
  });
}

/** What becomes of a table that has no key. One that was taken in so stays so. */
export function keylessPolicy(table: Table, config: ResolvedConfig, known: KnownTables): KeylessPolicy {
  const own = tableSettings(table, config).keyless;
  return own ?? (known.get(table.oid)?.isKeyless ? "reload" : config.keyless);
}

/** Finds each table's counterpart on the target. Both are described as the mapping makes them. */
export async function pairTables(
  source: Connection,
  target: Connection,
  tables: readonly Table[],
  config: ResolvedConfig,
  known: KnownTables,
  findings: RawFinding[],
): Promise<TablePair[]> {
  const relations = await target.rows<Relation>(load("catalog/relations"));
  const byName = new Map(relations.map((each) => [tableLabel(each), each]));
  const wanted = tables.map((table) => {
    const override = tableSettings(table, config);
    const entry = known.get(table.oid);
    // Settings that map nothing leave a table of the sync as it is.
    const isKept = entry !== undefined && !hasMapping(config);
    const name = isKept ? { schema: entry.targetSchema, name: entry.targetName } : targetName(table, config);
    const mapping = isKept ? entry.mapping : mappingOf(table, config);
    return { source: table, override, name, mapping, relation: byName.get(tableLabel(name)) };
  });
  const described = new Map(
    (
      await describeTables(
        target,
        wanted.flatMap(({ relation }) => relation?.oid ?? []),
      )
    ).map((table) => [table.oid, table]),
  );
  const pairs: TablePair[] = [];
  for (const { source: table, override, name, mapping, relation } of wanted) {
    const found = relation === undefined ? undefined : described.get(relation.oid);
    if (found !== undefined && ["r", "p"].includes(found.kind)) {
      const keyless = keylessPolicy(table, config, known);
      pairs.push({ source: table, target: found, override, keyless, mapping });
    } else {
      const isRenamed = tableLabel(name) !== tableLabel(table);
      const missing = isRenamed
        ? `is missing on the target, where it is called ${tableLabel(name)}`
        : "is missing on the target";
      findings.push({
        severity: "blocking",
        subject: tableLabel(table),
        isOfTable: true,
        message: relation === undefined ? missing : `${tableLabel(name)} on the target is not a table`,
        remedy: isRenamed
          ? `create table ${tableSql(name)} (…);  -- on the target, by hand: it has another name there`
          : "replicate schema  -- creates what is missing; or: pg_dump --schema-only SOURCE | psql TARGET",
      });
    }
  }
  const mapped = await mapTables(source, pairs);
  return pairs.map((pair, index) => ({ ...pair, ...mapped[index] }));
}
