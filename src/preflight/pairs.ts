/** Which tables are meant, which of them can be replicated, and where each goes. */
import { parseTableName, patternMatches, selectTables } from "../catalog/patterns.ts";
import { describeTables, tableLabel, type Table } from "../catalog/table.ts";
import type { KeylessPolicy, ResolvedConfig, ResolvedOverride } from "../config.ts";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { load } from "../postgres/sql.ts";
import type { Finding } from "./finding.ts";

/** A table and where it goes. */
export interface TablePair {
  readonly source: Table;
  readonly target: Table;
  readonly override: ResolvedOverride;
  /** What becomes of it if it has no key. */
  readonly keyless: KeylessPolicy;
}

/** The tables that are in the sync already, by source oid. */
export type KnownTables = ReadonlyMap<number, { readonly isKeyless: boolean }>;

interface Relation {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  readonly kind: string;
  readonly isPartition: boolean;
  readonly isExtensionMember: boolean;
}

/** Describes the tables of the source that the settings choose. Throws PATTERN_MATCHES_NOTHING. */
export async function chosenTables(
  source: Connection,
  config: ResolvedConfig,
  findings: Finding[],
): Promise<Table[]> {
  const relations = await source.rows<Relation>(load("catalog/relations"));
  const { selected, unmatchedPatterns, unmatchedExcludes } = selectTables(
    relations.filter((relation) => !relation.isExtensionMember),
    config.tables,
    config.exclude,
  );
  const unmatchedOverrides = Object.keys(config.overrides).filter(
    (pattern) => !relations.some(({ schema, name }) => patternMatches(pattern, schema, name)),
  );
  const unmatched = [...unmatchedPatterns, ...unmatchedOverrides];
  if (unmatched.length > 0) {
    throw new ReplicateError(
      "PATTERN_MATCHES_NOTHING",
      `no table on the source fits ${unmatched.join(", ")}`,
      { problems: unmatched.map((subject) => ({ subject, message: "fits no table on the source" })) },
    );
  }
  for (const pattern of unmatchedExcludes) {
    findings.push({ severity: "note", subject: pattern, message: "this exclusion fits no table" });
  }
  const tables = await describeTables(source, replicable(relations, selected, findings));
  if (tables.length === 0) {
    findings.push({ severity: "blocking", subject: "source", message: "there is no table to replicate" });
  }
  return tables;
}

/** Oids of the relations that can be replicated; the others are named. */
function replicable(all: readonly Relation[], selected: readonly Relation[], findings: Finding[]): number[] {
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
export function refuseSameDatabase(tables: readonly Table[], config: ResolvedConfig): void {
  const unmapped = tables.filter((table) => overrideOf(table, config).target === undefined);
  if (unmapped.length === 0 && tables.length > 0) return;
  throw new ReplicateError("SAME_DATABASE", "source and target are the same database", {
    problems: unmapped.map((table) => ({
      subject: tableLabel(table),
      message: "would be copied onto itself: give it another name (overrides: target)",
    })),
  });
}

function overrideOf(table: Table, { overrides }: ResolvedConfig): ResolvedOverride {
  const found = Object.entries(overrides).find(([pattern]) =>
    patternMatches(pattern, table.schema, table.name),
  );
  return found?.[1] ?? {};
}

/** What becomes of a table that has no key. One that was taken in so stays so. */
export function keylessPolicy(table: Table, config: ResolvedConfig, known: KnownTables): KeylessPolicy {
  return overrideOf(table, config).keyless ?? (known.get(table.oid)?.isKeyless ? "reload" : config.keyless);
}

/** Finds each table's counterpart on the target. */
export async function pairTables(
  target: Connection,
  tables: readonly Table[],
  config: ResolvedConfig,
  known: KnownTables,
  findings: Finding[],
): Promise<TablePair[]> {
  const relations = await target.rows<Relation>(load("catalog/relations"));
  const byName = new Map(relations.map((each) => [tableLabel(each), each]));
  const wanted = tables.map((source) => {
    const override = overrideOf(source, config);
    const name = override.target === undefined ? source : parseTableName(override.target);
    return { source, override, name, relation: byName.get(tableLabel(name)) };
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
  for (const { source, override, name, relation } of wanted) {
    const found = relation === undefined ? undefined : described.get(relation.oid);
    if (found !== undefined && ["r", "p"].includes(found.kind)) {
      pairs.push({ source, target: found, override, keyless: keylessPolicy(source, config, known) });
    } else {
      findings.push({
        severity: "blocking",
        subject: tableLabel(source),
        message:
          relation === undefined
            ? `the target has no table ${tableLabel(name)}`
            : `${tableLabel(name)} on the target is not a table`,
        remedy: `replicate schema  -- creates it; or: pg_dump --schema-only --table '${tableLabel(source)}' SOURCE | psql TARGET`,
      });
    }
  }
  return pairs;
}
