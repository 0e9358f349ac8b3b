/** Compares the schemas of both sides, object by object, and names what differs. */
import { keepsColumns } from "../catalog/mapping.ts";
import { normalise } from "../catalog/expression-text.ts";
import { isSelected, parseTableName, selectTables } from "../catalog/patterns.ts";
import { tableLabel } from "../catalog/table.ts";
import { mappingOf, hasMapping, targetName } from "../config/mapping.ts";
import type { Connection } from "../postgres/connect.ts";
import { load } from "../postgres/sql.ts";
import type { SyncContext } from "../state/context.ts";
import { loadSelections } from "../state/newcomers.ts";
import type { Description, SchemaDifference } from "./difference.ts";
import { readSourceFacts, schemasLeftOut, type TargetFacts } from "./facts.ts";
import { remedyFor } from "./remedy.ts";

export interface SchemaComparison {
  readonly equal: boolean;
  /** Objects that were compared. */
  readonly objects: number;
  readonly differences: readonly SchemaDifference[];
  /** What the copy took away and gives back; no difference. */
  readonly owed: readonly string[];
}

/**
 * Reads both catalogues and changes nothing. Where the settings choose tables, only those and what is in their schemas
 * is compared; a table with another name or other columns on the target is passed over.
 */
export async function compareSchemas(context: SyncContext): Promise<SchemaComparison> {
  await using source = await context.source("verify");
  await using target = await context.target("verify");
  return await compareSchemasIn(context, source, target);
}

/** The same in sessions that are open already. */
export async function compareSchemasIn(
  context: SyncContext,
  source: Connection,
  target: Connection,
): Promise<SchemaComparison> {
  const [facts, { hasLedger }] = await Promise.all([
    readSourceFacts(source),
    target.row<TargetFacts>(load("schema/target")),
  ]);
  const leftOut = schemasLeftOut(facts, context.config);
  const owed = hasLedger
    ? await target.rows<{ objectName: string; tableName: string }>(load("schema/deferred"))
    : [];
  const both = await Promise.all(
    [source, target].map((side) => side.rows<Description>(load("schema/describe"))),
  );
  const isChosen = await choice(source, target, context);
  const [own = [], other = []] = both.map((rows) =>
    rows.filter((row) => !leftOut.has(row.schema ?? "") && isChosen(row)),
  );
  const major = (connection: Connection): number => Math.floor(connection.version / 10_000);
  return diffSchemas(own, other, {
    owed: new Set(owed.map((each) => plain(`${each.objectName} on ${each.tableName}`))),
    isSameVersion: major(source) === major(target),
  });
}

async function choice(
  source: Connection,
  target: Connection,
  { config }: SyncContext,
): Promise<(row: Description) => boolean> {
  const { tables, exclude } = config;
  // Settings that choose nothing are those of a machine that was told nothing: `init` was.
  const isTold = tables.length > 0 || exclude.length > 0;
  const selections = isTold ? [] : await loadSelections(target, config.name);
  const isAll = selections.every((each) => each.tables.length === 0 && each.exclude.length === 0);
  if (!isTold && isAll && !hasMapping(config)) return () => true;
  interface Relation {
    readonly schema: string;
    readonly name: string;
  }
  const sides = await Promise.all(
    [source, target].map((side) => side.rows<Relation>(load("catalog/relations"))),
  );
  const all = sides.flat();
  // A table that is another one on the target has no counterpart, on either side.
  const isOther = (table: Relation): boolean =>
    tableLabel(targetName(table, config)) !== tableLabel(table) ||
    !keepsColumns(mappingOf(table, config)) ||
    Object.values(config.schemas).includes(table.schema) ||
    Object.values(config.overrides).some(
      ({ target: name }) => name != null && tableLabel(parseTableName(name)) === tableLabel(table),
    );
  const selected = isAll
    ? selectTables(all, tables, exclude).selected
    : all.filter((table) => isSelected(table, selections));
  const chosen = selected.filter((table) => !isOther(table));
  const names = new Set(chosen.map(({ schema, name }) => plain(`${schema}.${name}`)));
  const others = new Set(
    all.map(({ schema, name }) => plain(`${schema}.${name}`)).filter((each) => !names.has(each)),
  );
  const schemas = new Set(chosen.map(({ schema }) => schema));
  return ({ schema, relation }) => {
    if (relation !== null && others.has(plain(relation))) return false;
    return schema === null || schemas.has(schema);
  };
}

/** Properties that are expressions: read again by another server, they get other casts and parentheses. */
const expressions: ReadonlySet<string> = new Set([
  "default", "generated", "definition", "bound", "partition key", "using", "check", "checks", "query",
]); // prettier-ignore

const indexed: ReadonlySet<string> = new Set(["primary key", "unique constraint", "exclusion constraint"]);

export function diffSchemas(
  source: readonly Description[],
  target: readonly Description[],
  options: { readonly owed: ReadonlySet<string>; readonly isSameVersion: boolean },
): SchemaComparison {
  const keyOf = ({ kind, name }: Description): string => `${kind} ${name}`;
  const others = new Map(target.map((each) => [keyOf(each), each]));
  const differences: SchemaDifference[] = [];
  const owed: string[] = [];
  // An index comes and goes with its constraint, and both have one name.
  const constraints = new Set(
    [...source, ...target].filter(({ kind }) => indexed.has(kind)).map(({ name }) => name),
  );
  const report = (
    row: Description,
    difference: Pick<SchemaDifference, "kind" | "changes">,
    there: Description = row,
  ): void => {
    const nameOfIndex = row.name.replace(/^(?:"[^"]*"|[^."])+\./, "");
    const deferredName = row.kind === "index" ? `${nameOfIndex} on ${row.relation}` : row.name;
    if (options.owed.has(plain(deferredName))) owed.push(keyOf(row));
    else {
      const isOfConstraint = row.kind === "index" && constraints.has(`${nameOfIndex} on ${row.relation}`);
      const remedy = isOfConstraint ? null : remedyFor(row, difference, there);
      differences.push({ object: keyOf(row), ...difference, relation: row.relation, remedy });
    }
  };
  const isMoved = movedPartitions(source, target);
  for (const row of source) {
    const other = others.get(keyOf(row));
    others.delete(keyOf(row));
    if (other === undefined) {
      if (isMoved(row)) continue;
      report(row, { kind: "missing", changes: [] });
      continue;
    }
    const changes = Object.entries(row.details).flatMap(([property, value]) => {
      const there = other.details[property];
      if (isEqual(row.kind, property, value, there, options.isSameVersion)) return [];
      return [{ property, source: text(value), target: text(there) }];
    });
    if (changes.length > 0) report(row, { kind: "changed", changes }, other);
  }
  for (const row of others.values()) {
    // A table or an extension more is nobody's loss; something more on a table of ours may refuse rows.
    if (isMoved(row)) continue;
    const isOnOurs = row.relation !== null && source.some((each) => each.relation === row.relation);
    if (isOnOurs) report(row, { kind: "extra", changes: [] });
  }
  return {
    equal: differences.length === 0,
    objects: source.length,
    differences: differences.sort((one, two) => one.object.localeCompare(two.object)),
    owed,
  };
}

/**
 * Whether an index or a constraint is there, or is not, because its table is a partition on one side alone: those that come
 * with the partitioned table are described with that one.
 */
function movedPartitions(
  source: readonly Description[],
  target: readonly Description[],
): (row: Description) => boolean {
  const parents = (rows: readonly Description[]): Map<string, unknown> =>
    new Map(
      rows.flatMap(({ kind, name, details }) => (kind === "table" ? [[name, details["partition of"]]] : [])),
    );
  const [there, other] = [parents(source), parents(target)];
  return ({ kind, relation }) =>
    (kind === "index" || kind === "foreign key" || indexed.has(kind)) &&
    relation !== null &&
    there.has(relation) &&
    other.has(relation) &&
    there.get(relation) !== other.get(relation);
}

function isEqual(
  kind: string,
  property: string,
  source: unknown,
  target: unknown,
  isSameVersion: boolean,
): boolean {
  if (source === target) return true;
  if (typeof source !== "string" || typeof target !== "string") return false;
  // Newer versions of an extension are no difference, and each version prints queries in its own way.
  if (kind === "extension" && property === "version") return !isOlder(target, source);
  if (property === "query" && !isSameVersion) return true;
  if (!expressions.has(property)) return false;
  return normalise(source) === normalise(target);
}

/** Whether a version of an extension is older than another. */
export function isOlder(version: string, than: string): boolean {
  const [one, two] = [version, than].map((each) => each.split(/\D+/).map(Number));
  for (const [n, part] of (two ?? []).entries()) {
    const own = one?.[n] ?? 0;
    if (own !== part) return own < part;
  }
  return false;
}

function text(value: unknown): string | null {
  return value == null ? null : String(value as string | number | boolean);
}

function plain(name: string): string {
  return name.replaceAll('"', "");
}
