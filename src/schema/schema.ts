/** Schema: creates on the target what the tables need, from the source, by way of pg_dump and pg_restore. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { missingSettings } from "../catalog/left-behind.ts";
import { selectTables } from "../catalog/patterns.ts";
import { pinPath, readFreeIndexes } from "../catalog/free-functions.ts";
import { describeTables, tableLabel } from "../catalog/table.ts";
import type { ResolvedConfig } from "../config/options.ts";
import { ReplicateError, type Problem } from "../errors.ts";
import { hasMapping, targetName } from "../config/mapping.ts";
import type { Connection } from "../postgres/connect.ts";
import { ident, load, qualified } from "../postgres/sql.ts";
import type { SyncContext } from "../state/context.ts";
import {
  readSourceFacts,
  schemasLeftOut,
  type SourceFacts,
  type TargetFacts,
  type Unreadable,
} from "./facts.ts";
import { planSchema, type Extension, type NotCreated, type SchemaObject, type SchemaPlan, type Section } from "./plan.ts"; // prettier-ignore
import { findPrograms } from "./programs.ts";
import { Archive, type EntryError } from "./restore.ts";
import { inEnglish } from "./run-program.ts";

export interface SchemaOptions {
  /**
   * `all` (the default): everything, while there are no rows; the copy takes indexes and constraints away and gives them
   * back. `pre-data`: only what rows and `init` need, keys included. `post-data`: the rest, and fills the
   * materialized views.
   */
  readonly section?: Section;
  /** Return the SQL and change nothing. */
  readonly print?: boolean;
  /** Only say what would be done. */
  readonly dryRun?: boolean;
  /** Keep the owners; every one has to exist on the target, and this role has to be a member of it. */
  readonly owners?: boolean;
  /** Keep the privileges, also default ones; the roles they name have to exist on the target. */
  readonly privileges?: boolean;
}

export interface SchemaReport {
  readonly section: Section;
  /** Of the client programs. */
  readonly clientVersion: number;
  /** Objects that were created; with `dryRun` or `print`, that would be. */
  readonly created: readonly string[];
  /** Objects that were there already. */
  readonly existing: readonly string[];
  readonly leftOut: readonly NotCreated[];
  /** Materialized views that were filled. */
  readonly refreshed: readonly string[];
  /** With `print`. */
  readonly sql: string | null;
  readonly dryRun: boolean;
}

/**
 * Run again, it passes over what is there. `env` names the folders of the client programs (PGBIN, PATH).
 * Throws CLIENT_MISSING; PREFLIGHT_BLOCKED with what has to be settled before anything is created;
 * SCHEMA_INCOMPLETE with every object that could not be created, after the others were.
 */
export async function createSchema(
  context: SyncContext,
  options: SchemaOptions = {},
  env: NodeJS.ProcessEnv = process.env,
): Promise<SchemaReport> {
  const { config, signal } = context;
  const section = options.section ?? "all";
  await using source = await context.source("schema");
  await using target = await context.target("schema");
  const major = (connection: Connection): number => Math.floor(connection.version / 10_000);
  const programs = await findPrograms(env, { source: major(source), target: major(target) });
  const folder = await mkdtemp(join(tmpdir(), "replicate-schema-"));
  try {
    const archive = new Archive(programs, folder);
    const facts = await readSourceFacts(source);
    const outsideSchemas = schemasLeftOut(facts, config);
    const excludeSchemas = [...outsideSchemas.keys()];
    const whyNot = await tableChoice(source, config);
    const unreadable = (await source.rows<Unreadable>(load("schema/unreadable"))).filter(
      ({ schema }) => !outsideSchemas.has(schema),
    );
    assertReadable(unreadable, facts.role, whyNot);
    await archive.dump(await inEnglish(config.source, source), {
      excludeSchemas,
      excludeTables: unreadable,
      encoding: facts.encoding,
      signal,
    });
    const plan = await decide(source, target, archive, {
      facts,
      outsideSchemas,
      unreadable,
      whyNot,
      options,
      section,
      signal,
    });
    const leftOut = [
      ...generalNotes(facts, outsideSchemas, unreadable),
      ...plan.leftOut,
      ...(await settingNotes(source, target)),
    ];
    if (plan.problems.length > 0) throw blocked(plan.problems);

    const report = { section, clientVersion: programs.major, existing: plan.existing, sql: null, refreshed: [], dryRun: false } as const; // prettier-ignore
    const created = plan.restore.filter(({ isDetail }) => !isDetail).map(({ object }) => object);
    const how = { withOwners: options.owners ?? false, withPrivileges: options.privileges ?? false, signal };
    const ids = plan.restore.map(({ id }) => id);
    if (options.print) return { ...report, created, leftOut, sql: await archive.sql(ids, how), dryRun: true };
    if (options.dryRun) return { ...report, created, leftOut, dryRun: true };

    const errors =
      ids.length === 0 ? [] : await archive.restore(await inEnglish(config.target, target), ids, how);
    const { failures: refused, notes } = sortErrors(errors, plan);
    const failures = await withPaths(source, refused);
    const refreshed = section === "post-data" ? await refresh(source, target, failures) : [];
    const failed = new Set(failures.map(({ subject }) => subject));
    const done = { ...report, created: created.filter((each) => !failed.has(each)), leftOut: [...leftOut, ...notes], refreshed }; // prettier-ignore
    if (failures.length > 0) throw incomplete(done, failures);
    return done;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

interface Decision {
  readonly facts: SourceFacts;
  readonly outsideSchemas: ReadonlyMap<string, string | null>;
  readonly unreadable: readonly Unreadable[];
  readonly whyNot: WhyNot | undefined;
  readonly options: SchemaOptions;
  readonly section: Section;
  readonly signal: AbortSignal;
}

async function decide(
  source: Connection,
  target: Connection,
  archive: Archive,
  { facts, outsideSchemas, unreadable, whyNot, options, section, signal }: Decision,
): Promise<SchemaPlan> {
  const entries = await archive.entries(signal);
  const there = await target.row<TargetFacts>(load("schema/target"));
  const references = await source.rows<Reference>(load("schema/outside"), [
    [...outsideSchemas.keys()],
    unreadable.map(({ oid }) => oid),
  ]);
  const onHiddenOid = await source.rows<Reference>(load("schema/hidden-oids"));
  const deferred = there.hasLedger
    ? await target.rows<{ objectName: string; tableName: string }>(load("schema/deferred"))
    : [];
  return planSchema({
    entries,
    section,
    source: await source.rows<SchemaObject>(load("schema/objects")),
    target: await target.rows<SchemaObject>(load("schema/objects")),
    sourceExtensions: facts.extensions,
    targetExtensions: there.extensions,
    available: await availableExtensions(target, facts.extensions, there.extensions),
    outsideSchemas,
    outside: byObject(references),
    onHiddenOid: byObject(onHiddenOid),
    deferred: new Set(deferred.map((each) => `${each.objectName} on ${each.tableName.replaceAll('"', "")}`)),
    ...(whyNot === undefined ? {} : { whyNot }),
    withPrivileges: options.privileges ?? false,
  });
}

/** An object, and the table, function or type that it refers to. */
interface Reference {
  readonly classid: number;
  readonly objid: number;
  readonly schema: string;
  readonly name: string;
}

function byObject(references: readonly Reference[]): Map<string, Reference> {
  return new Map(references.map((each) => [`${each.classid}:${each.objid}`, each]));
}

/** What the target could have, where it has to be asked. A server that cannot tell is not in the way: it will. */
async function availableExtensions(
  target: Connection,
  wanted: readonly Extension[],
  there: readonly Extension[],
): Promise<ReadonlySet<string>> {
  const names = wanted.map(({ name }) => name);
  if (names.every((name) => there.some((each) => each.name === name))) return new Set();
  try {
    const rows = await target.rows<{ name: string }>(load("schema/available-extensions"));
    return new Set(rows.map(({ name }) => name));
  } catch (error) {
    if (target.isBroken) throw error;
    return new Set(names);
  }
}

type WhyNot = (schema: string, name: string) => string | undefined;

/** Throws PREFLIGHT_BLOCKED where the sync wants something that this role may not read. What it does not want is left out. */
function assertReadable(unreadable: readonly Unreadable[], role: string, whyNot: WhyNot | undefined): void {
  const problems = unreadable.flatMap(({ schema, name, owner, kind }): Problem[] => {
    // A sequence goes with its table, or is named among what is left out.
    if (kind === "S" || whyNot?.(schema, name) !== undefined) return [];
    const label = tableLabel({ schema, name });
    return [
      {
        subject: `table ${label}`,
        message: `belongs to ${owner}, and this role may not read it`,
        remedy:
          `grant usage on schema ${ident(schema)} to ${ident(role)}; grant select on ${qualified(schema, name)} to ${ident(role)};` +
          `  -- on the source, as ${owner}; or leave it out: --exclude-tables '${label}'`,
      },
    ];
  });
  if (problems.length > 0) throw blocked(problems);
}

/** Why a table is not created, where the settings choose tables or give them other names. */
async function tableChoice(source: Connection, config: ResolvedConfig): Promise<WhyNot | undefined> {
  const { tables, exclude } = config;
  if (tables.length === 0 && exclude.length === 0 && !hasMapping(config)) return undefined;
  const relations = await source.rows<{ schema: string; name: string }>(load("catalog/relations"));
  const { selected, unmatchedPatterns } = selectTables(relations, tables, exclude);
  if (unmatchedPatterns.length > 0) {
    throw new ReplicateError(
      "PATTERN_MATCHES_NOTHING",
      `no table on the source fits ${unmatchedPatterns.join(", ")}`,
    );
  }
  const chosen = new Set(selected.map(tableLabel));
  return (schema, name) => {
    if (!chosen.has(tableLabel({ schema, name }))) return "it is not among the tables of this sync";
    const there = tableLabel(targetName({ schema, name }, config));
    if (there === tableLabel({ schema, name })) return undefined;
    return `it is called ${there} on the target: create it there by hand`;
  };
}

function generalNotes(
  facts: SourceFacts,
  outside: ReadonlyMap<string, string | null>,
  unreadable: readonly Unreadable[],
): NotCreated[] {
  return [
    ...unreadable.map(({ kind, schema, name }) => ({
      object: `${kind === "S" ? "sequence" : "table"} ${tableLabel({ schema, name })}`,
      reason: "this role may not read it",
    })),
    ...[...outside].flatMap(([name, reason]) =>
      reason === null ? [] : [{ object: `schema ${name}`, reason }],
    ),
    ...facts.subscriptions.map((name) => ({
      object: `subscription ${name}`,
      reason: "a subscription would take the same changes twice",
    })),
    ...facts.tablespaces.map(({ name, relations }) => ({
      object: `tablespace ${name}`,
      reason: `tablespaces belong to the server: its ${relations} tables and indexes go to the target's default`,
    })),
  ];
}

/** Of the database and its roles: no dump of a database has them. */
async function settingNotes(source: Connection, target: Connection): Promise<NotCreated[]> {
  return (await missingSettings(source, target)).map(({ subject, remedy = "" }) => ({
    object: subject,
    reason: "settings of the database and its roles are no part of it; on the target, as an administrator",
    remedy,
  }));
}

/** Errors of comments are worth a word; what failed because something else had failed before is told as that. */
function sortErrors(
  errors: readonly EntryError[],
  plan: SchemaPlan,
): { readonly failures: Problem[]; readonly notes: NotCreated[] } {
  const failures: Problem[] = [];
  const notes: NotCreated[] = [];
  for (const { id, message } of errors) {
    const object = plan.restore.find((each) => each.id === id)?.object ?? "session";
    if (object.startsWith("comment ")) {
      notes.push({ object, reason: message });
      continue;
    }
    const remedy = remedyOf(message);
    failures.push({ subject: object, message, ...(remedy === undefined ? {} : { remedy }) });
  }
  return { failures, notes };
}

/** Has indexes that could not be made say which functions want a search path: pg_restore has none. */
async function withPaths(source: Connection, failures: readonly Problem[]): Promise<Problem[]> {
  const isOpen = ({ subject, remedy }: Problem): boolean =>
    remedy === undefined && subject.startsWith("index ");
  if (!failures.some(isOpen)) return [...failures];
  const relations = await source.rows<{ oid: number }>(load("catalog/relations"));
  const indexes = await readFreeIndexes(source, relations.map(({ oid }) => oid)); // prettier-ignore
  const tables = await describeTables(source, indexes.map(({ relid }) => relid)); // prettier-ignore
  return failures.map((failure) => {
    const index = indexes.find((each) => failure.subject === `index ${each.index}`);
    const table = tables.find(({ oid }) => oid === index?.relid);
    if (!isOpen(failure) || index === undefined || table === undefined) return failure;
    const statements = ["-- on both sides, then run this again", ...pinPath(index, table.searchPath)];
    return { ...failure, remedy: statements.join("\n") };
  });
}

/** There is no SQLSTATE to go by: see `restoreErrors`. Of a server that speaks another language none is found. */
function remedyOf(message: string): string | undefined {
  const [, role] = /^role "(.*)" does not exist/.exec(message) ?? [];
  if (role !== undefined) return `create role "${role}" nologin;  -- on the target, as an administrator`;
  const [, kind, name] = /^permission denied for (database|schema) (\S+)/.exec(message) ?? [];
  return (
    kind &&
    `grant create on ${kind} ${name} to current_user;  -- on the target, by its owner, with the role's name`
  );
}

/** Fills, in the order in which they read each other, the views that are filled on the source. */
async function refresh(source: Connection, target: Connection, failures: Problem[]): Promise<string[]> {
  interface View {
    readonly schema: string;
    readonly name: string;
    readonly isPopulated: boolean;
  }
  const filled = new Set((await source.rows<View>(load("schema/materialized-views"))).filter((each) => each.isPopulated).map(tableLabel)); // prettier-ignore
  const refreshed: string[] = [];
  for (const view of await target.rows<View>(load("schema/materialized-views"))) {
    const name = tableLabel(view);
    if (!filled.has(name)) continue;
    try {
      await target.script(`refresh materialized view ${qualified(view.schema, view.name)}`);
      refreshed.push(name);
    } catch (error) {
      if (target.isBroken) throw error;
      failures.push({ subject: `materialized view ${name}`, message: (error as Error).message });
    }
  }
  return refreshed;
}

function blocked(problems: readonly Problem[]): ReplicateError {
  return new ReplicateError(
    "PREFLIGHT_BLOCKED",
    `${problems.length} finding${problems.length > 1 ? "s" : ""} must be settled first; nothing was created`,
    { problems },
  );
}

function incomplete(report: SchemaReport, problems: readonly Problem[]): ReplicateError {
  const many = (number: number, what: string): string => `${number} ${what}${number === 1 ? "" : "s"}`;
  return new ReplicateError(
    "SCHEMA_INCOMPLETE",
    `${many(report.created.length, "object")} created, ${problems.length} could not be`,
    { problems },
  );
}
