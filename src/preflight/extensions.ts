/** Extensions that the source has and the target lacks, or has in an older version. */
import { tableLabel } from "../catalog/table.ts";
import type { Connection } from "../postgres/connect.ts";
import { ident, literal, load } from "../postgres/sql.ts";
import { isOlder } from "../schema/compare.ts";
import { readSourceFacts, schemasLeftOut, type TargetFacts } from "../schema/facts.ts";
import { withLeaves, type Examination } from "./examination.ts";
import { administrator, run, some, type Finding } from "./finding.ts";

interface Extension {
  readonly name: string;
  readonly version: string;
  readonly schema: string;
  readonly types: readonly number[];
  readonly users: number;
  readonly example: string | null;
}

/** A provider's own extensions are passed over, as `schema` does. */
export async function checkExtensions({
  context,
  source,
  target,
  tables,
  pairs,
}: Examination): Promise<Finding[]> {
  const [[facts, extensions], { extensions: there }] = await Promise.all([
    (async () => {
      const own = await readSourceFacts(source);
      const found = await source.rows<Extension>(load("preflight/extensions"), [withLeaves(tables)]);
      return [own, found] as const;
    })(),
    target.row<TargetFacts>(load("schema/target")),
  ]);
  const leftOut = schemasLeftOut(facts, context.config);
  const wanted = extensions.filter(
    ({ name, schema }) => name !== "plpgsql" && (!leftOut.has(schema) || schema === "pg_catalog"),
  );
  const lacking = wanted.filter(({ name, version }) => {
    const found = there.find((each) => each.name === name);
    return found === undefined || isOlder(found.version, version);
  });
  if (lacking.length === 0) return [];
  const offered = await offeredVersions(target);
  const hasCounterpart = new Set(pairs.flatMap((pair) => withLeaves([pair.source])));
  return lacking.map((extension) => {
    const { name, version, types, users, example } = extension;
    const subject = `extension ${name}`;
    const holders = tables
      .filter((table) => withLeaves([table]).some((oid) => types.includes(oid)))
      .map(tableLabel);
    const isBlocking = types.some((oid) => !hasCounterpart.has(oid));
    const isNeeded = types.length > 0 || users > 0;
    const need =
      holders.length > 0
        ? `, and columns of ${some(holders)} are of its types`
        : example === null ? "; no replicated column is of its types, but functions and indexes may call it" : `, and ${example} needs it`; // prettier-ignore
    const severity = isBlocking ? "blocking" : isNeeded ? "warning" : "note";
    const found = there.find((each) => each.name === name);
    const best = offered?.get(name);
    if (found !== undefined) {
      const message = `is ${version} on the source and ${found.version} on the target${need}`;
      const isOffered = best === undefined || !isOlder(best, version);
      return {
        severity: isNeeded ? "warning" : "note",
        subject,
        message: isOffered ? message : `${message}; the target offers ${best} at most`,
        ...run(
          "target",
          administrator,
          isOffered
            ? `alter extension ${ident(name)} update to ${literal(best ?? version)};`
            : `alter extension ${ident(name)} update;  -- once a newer version is installed on the server`,
        ),
      };
    }
    const isOffered = offered === undefined || best !== undefined;
    return {
      severity,
      subject,
      message: `is missing on the target${isOffered ? "" : ", which does not offer it"}${need}`,
      ...run("target", administrator, ...createStatements(extension, isOffered)),
    };
  });
}

function createStatements({ name, schema }: Extension, isOffered: boolean): string[] {
  const isBuiltin = schema === "public" || schema === "pg_catalog";
  const where = schema === "pg_catalog" ? "" : ` with schema ${ident(schema)}`;
  return [
    ...(isBuiltin ? [] : [`create schema if not exists ${ident(schema)};`]),
    `create extension if not exists ${ident(name)}${where};${isOffered ? "" : "  -- once its package is installed"}`,
  ];
}

/** By name; undefined where a server cannot tell, because a file of its own is damaged. */
async function offeredVersions(target: Connection): Promise<ReadonlyMap<string, string> | undefined> {
  try {
    const rows = await target.rows<{ name: string; version: string }>(load("schema/available-extensions"));
    return new Map(rows.map(({ name, version }) => [name, version]));
  } catch (error) {
    if (target.isBroken) throw error;
    return undefined;
  }
}
