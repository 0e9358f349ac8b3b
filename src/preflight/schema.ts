/** What differs between both schemas and is not said already by what stands in the way of rows. */
import { columnPlan } from "../catalog/columns.ts";
import { missingPartitions } from "../catalog/missing-partitions.ts";
import { tableLabel } from "../catalog/table.ts";
import { targetName } from "../config/mapping.ts";
import { compareSchemasIn } from "../schema/compare.ts";
import type { SchemaDifference } from "../schema/difference.ts";
import type { Examination } from "./examination.ts";
import { run, some, type Finding } from "./finding.ts";

/** Extra objects that may refuse rows which the source takes. */
const refusing = /^(primary key|unique constraint|foreign key|exclusion constraint|check|trigger|rule) /;

const relationKinds: ReadonlySet<string> = new Set([
  "table", "view", "materialized view", "foreign table",
]); // prettier-ignore

interface Difference extends SchemaDifference {
  /** `index`, and `public.users_email` of `index public.users_email`. */
  readonly what: string;
  readonly name: string;
}

export async function checkSchema(examination: Examination): Promise<Finding[]> {
  const { context, source, target } = examination;
  const comparison = await compareSchemasIn(context, source, target);
  const differences = comparison.differences.map((each): Difference => {
    const [what = ""] =
      /^(materialized view|\w+ table|\w+ key|\w+ constraint|\w+)(?= )/.exec(each.object) ?? [];
    return { ...each, what, name: each.object.slice(what.length + 1) };
  });
  const isSaid = saidAlready(examination, differences);
  // What makes the missing tables makes all of it.
  const isToBeMade = isSchemaLacking(examination);
  const findings: Finding[] = [];
  const toCreate = new Map<string, string[]>();
  for (const difference of differences.filter((each) => !isSaid(each))) {
    const { what, name, kind, remedy } = difference;
    if (isToBeMade && kind === "missing") continue;
    if (kind === "missing" && remedy === null) toCreate.set(what, [...(toCreate.get(what) ?? []), name]);
    else findings.push(finding(difference, examination));
  }
  for (const [what, names] of toCreate) {
    findings.push({
      severity: "warning",
      subject: names.length === 1 ? `${what} ${names[0]}` : `${names.length} objects of kind ${what}`,
      message:
        names.length === 1 ? "is missing on the target" : `are missing on the target: ${some(names, 10)}`,
      remedy: "replicate schema  -- creates what is missing; verify --schema lists it",
    });
  }
  return findings;
}

/** Whether tables are missing on the target that `replicate schema` creates, with whatever else is missing. */
function isSchemaLacking({ tables, pairs, context }: Examination): boolean {
  const paired = new Set(pairs.map((pair) => pair.source.oid));
  return tables.some(
    (table) => !paired.has(table.oid) && tableLabel(targetName(table, context.config)) === tableLabel(table),
  );
}

/** True for what other checks say, and for what follows from another difference. */
function saidAlready(
  { tables, pairs }: Examination,
  differences: readonly Difference[],
): (difference: Difference) => boolean {
  const plain = (name: string | null): string => (name ?? "").replaceAll('"', "");
  const missing = differences.filter(({ kind }) => kind === "missing");
  const missingRelations = new Set(
    missing.filter(({ what }) => relationKinds.has(what)).map(({ relation }) => relation),
  );
  // An index comes and goes with its constraint, and both have one name.
  const constraints = new Set(
    differences
      .filter(({ what }) => /^(primary key|unique constraint|exclusion constraint)$/.test(what))
      .map(({ kind, name, relation }) =>
        plain(`${kind} ${relation?.split(".")[0]}.${name.slice(0, name.lastIndexOf(" on "))}`),
      ),
  );
  const paired = new Map(pairs.map((pair) => [pair.source.oid, pair]));
  const withoutCounterpart = new Set(
    tables.filter(({ oid }) => !paired.has(oid)).map((table) => plain(tableLabel(table))),
  );
  const rejectedColumns = new Set(
    pairs.flatMap(({ source, target }) =>
      columnPlan(source, target).unfit.map((column) => plain(`${tableLabel(source)}.${column}`)),
    ),
  );
  const lackingPartitions = new Set(
    pairs.flatMap(({ source, target }) =>
      missingPartitions(source, target).flatMap(({ leaf }) =>
        leaf.path.map((level) => plain(tableLabel(level))),
      ),
    ),
  );
  const lackingKeys = new Set(
    pairs.flatMap(({ source, target }) =>
      source.key === null || target.key !== null
        ? []
        : [
            plain(`${source.schema}.${source.key.index}`),
            plain(`${source.key.index} on ${tableLabel(source)}`),
          ],
    ),
  );
  return ({ what, name, kind, relation, changes }) => {
    // Extensions have a check of their own.
    if (what === "extension" || withoutCounterpart.has(plain(relation))) return true;
    if (missingRelations.has(relation) && !relationKinds.has(what)) return true;
    if (kind === "missing" && lackingPartitions.has(plain(relation))) return true;
    if (what === "column" && rejectedColumns.has(plain(name))) return true;
    if (kind === "missing" && lackingKeys.has(plain(name))) return true;
    if (what === "index" && constraints.has(plain(`${kind} ${name}`))) return true;
    // Materialized views are filled when the rows are there; a table that is unlogged on the source alone is no loss.
    const [only] = changes;
    if (changes.length !== 1 || only === undefined) return false;
    return only.property === "filled" || (only.property === "unlogged" && only.source === "true");
  };
}

function finding(difference: Difference, { pairs, servers }: Examination): Finding {
  const { object, kind, changes, relation, remedy } = difference;
  const owner = pairs.find((pair) => tableLabel(pair.target) === relation)?.target.owner;
  const message =
    kind === "changed"
      ? changes
          .map(({ property, source, target }) => `${property} is ${shown(source)} on the source and ${shown(target)} on the target`)
          .join("; ")
      : kind === "missing" ? "is missing on the target" : "exists on the target alone"; // prettier-ignore
  return {
    severity: kind !== "extra" || refusing.test(object) ? "warning" : "note",
    subject: object,
    message,
    ...(remedy === null
      ? { remedy: "replicate verify --schema  -- shows both sides" }
      : run("target", owner ?? servers.target.role, remedy)),
  };
}

/** The beginning of a value, since a view's query may be long. */
function shown(value: string | null): string {
  if (value === null) return "none";
  const line = value.replaceAll(/\s+/g, " ").trim();
  return line.length <= 120 ? line : `${line.slice(0, 119)}…`;
}
