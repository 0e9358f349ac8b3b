/** Whether every override holds somewhere: one that does not was meant for something. And what holds for each table. */
import { parsePattern, patternMatches, type TableName } from "../catalog/patterns.ts";
import { tableLabel } from "../catalog/table.ts";
import type { ResolvedConfig } from "../config/options.ts";
import { effectiveSettings, type EffectiveSetting } from "../config/overrides.ts";
import { policyLabel, type ConflictPolicy } from "../config/conflict-policy.ts";
import { targetName } from "../config/mapping.ts";
import { didYouMean } from "../config/spelling.ts";
import { some, type Finding } from "./finding.ts";

interface Relation extends TableName {
  readonly kind: string;
  readonly isPartition: boolean;
  readonly isExtensionMember: boolean;
}

/** `all`: what the source has. `replicated`: the tables that the sync takes. */
export function checkOverrides(
  { overrides }: Pick<ResolvedConfig, "overrides">,
  all: readonly Relation[],
  replicated: readonly TableName[],
): Finding[] {
  const effective = replicated.map((table) => ({ table, settings: effectiveSettings(table, overrides) }));
  const known = new Set(
    effective.flatMap(({ settings }) => settings.map(({ from, key, name }) => path(from, key, name))),
  );
  const taken = new Set(replicated.map(tableLabel));
  return Object.entries(overrides).flatMap(([text, override]): Finding[] => {
    const subject = `overrides.${text}`;
    const pattern = parsePattern(text);
    const fitting = all.filter(({ schema, name }) => patternMatches(pattern, schema, name));
    if (fitting.length === 0) {
      const guess = didYouMean(text, [
        ...all.map(tableLabel),
        ...all.filter(({ schema }) => schema === "public").map(({ name }) => name),
      ]);
      return [{ severity: "blocking", subject, message: `fits no table on the source${guess}` }];
    }
    const labels = fitting.map(tableLabel);
    if (!labels.some((label) => taken.has(label))) return [whyNone(subject, fitting)];
    const idle = settingsOf(override).filter(([key, name]) => !known.has(path(text, key, name)));
    if (idle.length === 0) return [];
    const idleKeys = new Set(idle.map(([key]) => key));
    const others = effective
      .filter(({ table }) => patternMatches(pattern, table.schema, table.name))
      .flatMap(({ settings }) => settings.filter(({ key }) => idleKeys.has(key)).map(({ from }) => from));
    const narrower = [...new Set(others)].filter((each) => each !== text);
    const what = idle.map(([key, name]) => (name === null ? key : `${key}.${name}`));
    const why =
      narrower.length === 0
        ? "narrower ones take it back"
        : `before it ${narrower.length === 1 ? "goes" : "go"} ${some(narrower)}`;
    const message = `has no effect on any table in ${some(what)}: ${why}`;
    return [{ severity: "warning", subject, message }];
  });
}

/** Why an override fits nothing that is replicated. */
function whyNone(subject: string, fitting: readonly Relation[]): Finding {
  const labels = some(fitting.map(tableLabel));
  // Rows of a partition travel as those of its root: without a filter or a mask that was meant for them.
  if (fitting.some(({ isPartition, isExtensionMember }) => isPartition && !isExtensionMember)) {
    const message = `has no effect: ${labels}, a partition, is replicated with its root, whose settings hold`;
    return { severity: "blocking", subject, message };
  }
  const isOther = fitting.every(
    ({ kind, isExtensionMember }) => isExtensionMember || ["f", "m"].includes(kind),
  );
  const why = isOther ? "is not replicated" : "is excluded, or not among the chosen tables";
  return { severity: "warning", subject, message: `has no effect: ${labels} ${why}` };
}

/** What an override sets, one by one; what it takes back has no value to be held. */
function settingsOf(override: object): (readonly [key: string, name: string | null])[] {
  return Object.entries(override).flatMap(
    ([key, value]: [string, unknown]): (readonly [string, string | null])[] => {
      if (value === null || value === undefined) return [];
      const isInner = key === "columns" || key === "discriminator";
      return isInner ? Object.keys(value).map((name) => [key, name] as const) : [[key, null] as const];
    },
  );
}

function path(from: string, key: string, name: string | null): string {
  return JSON.stringify([from, key, name]);
}

/** What the settings come to for a table. */
export interface TableSettings {
  readonly table: string;
  readonly target: string;
  /** By setting: `where`, `columns.email`. Settings that no override makes are those of the sync. */
  readonly settings: Readonly<Record<string, { readonly value: unknown; readonly from: string }>>;
}

export function settingsOfTables(tables: readonly TableName[], config: ResolvedConfig): TableSettings[] {
  return tables.map((table) => ({
    table: tableLabel(table),
    target: tableLabel(targetName(table, config)),
    settings: Object.fromEntries(
      effectiveSettings(table, config.overrides).map((effective) => [
        effective.name === null ? effective.key : `${effective.key}.${effective.name}`,
        { value: shown(effective), from: `overrides.${effective.from}` },
      ]),
    ),
  }));
}

function shown({ key, value }: EffectiveSetting): unknown {
  return key === "conflict" ? policyLabel(value as ConflictPolicy) : value;
}
