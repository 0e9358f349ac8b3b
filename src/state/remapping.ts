/**
 * The mapping in the settings against the one in the ledger, which tells what the rows on the target were copied with.
 * They are never mixed: what differs has to be copied again.
 */
import { isReversible, type TableMapping } from "../catalog/mapping.ts";
import { tableLabel } from "../catalog/table.ts";
import type { ResolvedConfig } from "../config/options.ts";
import { ReplicateError, type Problem } from "../errors.ts";
import { hasMapping, isSameMapping, mappingOf, targetName } from "../config/mapping.ts";
import type { SyncTable } from "./sync-table.ts";

/** What is needed of a table in the ledger. */
export type LedgerTable = Pick<
  SyncTable,
  "sourceSchema" | "sourceName" | "targetSchema" | "targetName" | "state" | "mapping"
>;

/**
 * What the settings say of a table's mapping. Settings that map no table at all, as on a machine without the file, have
 * nothing to say: then it is the ledger's.
 */
export function wantedMapping(config: ResolvedConfig, entry: LedgerTable): TableMapping | null {
  return hasMapping(config) ? mappingOf(sourceOf(entry), config) : entry.mapping;
}

/** Why the rows on the target cannot be replicated by these settings; undefined: they can. */
export function remappingProblem(config: ResolvedConfig, entry: LedgerTable): Problem | undefined {
  if (!hasMapping(config)) return undefined;
  const subject = tableLabel(sourceOf(entry));
  const target = tableLabel({ schema: entry.targetSchema, name: entry.targetName });
  const wanted = tableLabel(targetName(sourceOf(entry), config));
  if (wanted !== target) {
    return {
      subject,
      message: `goes to ${wanted} by the settings, and has gone to ${target} so far`,
      remedy: "replicate drop  -- then init and copy; or give it its former target in the settings",
    };
  }
  const mapping = wantedMapping(config, entry);
  if (isSameMapping(mapping, entry.mapping)) return undefined;
  if (!isSameOwner(mapping, entry.mapping)) {
    return {
      subject,
      message: "has another discriminator in the settings than its rows on the target",
      remedy: "replicate drop  -- then remove its rows from the target, init and copy",
    };
  }
  return {
    subject,
    message: "is mapped otherwise by the settings than its rows on the target are",
    remedy:
      entry.state === "new"
        ? "replicate init  -- takes the new mapping, as nothing is copied yet"
        : "replicate copy --remap  -- copies it again; or give it its former mapping in the settings",
  };
}

/** Throws CONFIG_INVALID with every table that the settings map otherwise than the ledger. */
export function assertNoRemapping(config: ResolvedConfig, entries: readonly LedgerTable[]): void {
  fail(entries.flatMap((entry) => remappingProblem(config, entry) ?? []));
}

/** The tables to be copied again with another mapping. Throws CONFIG_INVALID for what a copy does not change. */
export function remapped<Entry extends LedgerTable>(
  config: ResolvedConfig,
  entries: readonly Entry[],
): Entry[] {
  const found = entries.filter((entry) => remappingProblem(config, entry) !== undefined);
  const changed = found.filter((entry) => {
    const place = tableLabel(targetName(sourceOf(entry), config));
    return (
      entry.state !== "new" &&
      place === tableLabel({ schema: entry.targetSchema, name: entry.targetName }) &&
      isSameOwner(wantedMapping(config, entry), entry.mapping)
    );
  });
  assertNoRemapping(config, found.filter((entry) => !changed.includes(entry))); // prettier-ignore
  return changed;
}

/** What keeps tables from being replicated back. */
export function irreversible(entries: readonly LedgerTable[]): Problem[] {
  return entries
    .filter((entry) => !isReversible(entry.mapping))
    .map((entry) => ({
      subject: tableLabel(sourceOf(entry)),
      message:
        "is filtered, lacks columns, or has computed ones on the new side: reverse replication is not possible",
      remedy: "cut over without reverse replication: --no-reverse",
    }));
}

function isSameOwner(one: TableMapping | null, two: TableMapping | null): boolean {
  const only = (mapping: TableMapping | null): TableMapping => ({
    where: null,
    columns: {},
    discriminator: mapping?.discriminator ?? {},
  });
  return isSameMapping(only(one), only(two));
}

function sourceOf(entry: LedgerTable): { readonly schema: string; readonly name: string } {
  return { schema: entry.sourceSchema, name: entry.sourceName };
}

function fail(problems: readonly Problem[]): void {
  if (problems.length === 0) return;
  throw new ReplicateError(
    "CONFIG_INVALID",
    `the settings map ${[...new Set(problems.map(({ subject }) => subject))].join(", ")} in another way than the rows on the target were copied`,
    {
      problems,
    },
  );
}
