/** Decides about every entry of the archive: restored now, later, there already, or left out, and why. */
import type { Problem } from "../errors.ts";
import type { Entry } from "./toc.ts";

/** `pre-data`: what rows and `init` need. `post-data`: the rest. `all`: both, before there are rows. */
export type Section = "pre-data" | "post-data" | "all";

/** An object as sql/schema/objects returns it. */
export interface SchemaObject {
  readonly classid: number;
  readonly objid: number;
  readonly identity: string;
  readonly schema: string | null;
  readonly name: string | null;
  readonly isKey: boolean;
}

export interface Extension {
  readonly name: string;
  readonly schema: string;
  readonly version: string;
}

/** Something that is not created. */
export interface NotCreated {
  /** `table public.users` */
  readonly object: string;
  readonly reason: string;
  /** The statement that brings it, where it is one that can be told. */
  readonly remedy?: string;
}

export interface Planned {
  readonly id: number;
  readonly object: string;
  /** Says something about another object, and may be said twice. */
  readonly isDetail: boolean;
}

export interface SchemaPlan {
  readonly restore: readonly Planned[];
  /** On the target already. */
  readonly existing: readonly string[];
  readonly leftOut: readonly NotCreated[];
  /** What makes the rest impossible, with its remedy. */
  readonly problems: readonly Problem[];
}

export interface PlanInput {
  readonly entries: readonly Entry[];
  readonly section: Section;
  readonly source: readonly SchemaObject[];
  readonly target: readonly SchemaObject[];
  readonly sourceExtensions: readonly Extension[];
  readonly targetExtensions: readonly Extension[];
  /** What CREATE EXTENSION would take on the target. */
  readonly available: ReadonlySet<string>;
  /** Schemas that the archive leaves out, with the reason; null where nobody needs to hear of it. */
  readonly outsideSchemas: ReadonlyMap<string, string | null>;
  /** What refers to them: the reference by `classid:objid`. */
  readonly outside: ReadonlyMap<string, { readonly schema: string; readonly name: string }>;
  /** What is made on the hidden column oid of a table, by `classid:objid`. */
  readonly onHiddenOid: ReadonlyMap<string, { readonly schema: string; readonly name: string }>;
  /** Objects that the ledger of a copy gives back: `name on schema.table`, without quotes. */
  readonly deferred: ReadonlySet<string>;
  /** Whether a table belongs to the sync; a reason where it does not. Undefined: all do. */
  readonly whyNot?: (schema: string, name: string) => string | undefined;
  readonly withPrivileges: boolean;
}

const leftOutKinds: Readonly<Record<string, string>> = {
  PUBLICATION: "publications are made anew by who needs them",
  SUBSCRIPTION: "a subscription would take the same changes twice",
  "EVENT TRIGGER": "event triggers need a superuser, and are usually the provider's own",
  "SECURITY LABEL": "security labels belong to the server",
  "USER MAPPING": "it holds a password",
  "DATABASE PROPERTIES": "settings of the database belong to the server",
};

/** Header entries, and members of what is left out: nobody needs to hear of them. */
const silentKinds: ReadonlySet<string> = new Set([
  "ENCODING", "STDSTRINGS", "SEARCHPATH", "DATABASE", "PUBLICATION TABLE", "PUBLICATION TABLES IN SCHEMA",
  "SUBSCRIPTION TABLE", "STATISTICS DATA",
]); // prettier-ignore

/** In the order of pg_dump these come after the rows. */
const postKinds: ReadonlySet<string> = new Set([
  "INDEX", "CONSTRAINT", "CHECK CONSTRAINT", "FK CONSTRAINT", "TRIGGER", "RULE", "POLICY", "ROW SECURITY",
  "STATISTICS",
]); // prettier-ignore

const tableKinds: ReadonlySet<string> = new Set(["TABLE", "FOREIGN TABLE"]);

export function planSchema(input: PlanInput): SchemaPlan {
  const { entries } = input;
  const byId = new Map(entries.map((entry) => [entry.id, entry]));
  const sourceObjects = new Map(
    input.source.filter(({ objid }) => objid !== 0).map((each) => [`${each.classid}:${each.objid}`, each]),
  );
  const targetHas = new Set(input.target.map((each) => `${each.classid}:${sameOnAll(each.identity)}`));
  const objectOf = (entry: Entry): SchemaObject | undefined =>
    sourceObjects.get(`${entry.classid}:${entry.objid}`);
  const label = (entry: Entry): string =>
    `${entry.kind.toLowerCase()} ${objectOf(entry)?.identity ?? entry.rest}`;

  const dropped = new Map<number, string | null>();
  const drop = (entry: Entry, reason: string | null): void => void dropped.set(entry.id, reason);
  for (const entry of entries) {
    const reason = whyLeftOut(entry, objectOf(entry), input);
    if (reason !== undefined) drop(entry, reason);
  }
  const states = new Map(
    input.source.filter(({ objid }) => objid === 0).map((each) => [each.identity, each.name]),
  );
  // A partition goes where its table goes.
  const isPartOf = (entry: Entry): boolean =>
    tableKinds.has(entry.kind) && states.has(`partition ${objectOf(entry)?.identity}`);
  for (const entry of entries) {
    if (!tableKinds.has(entry.kind) || dropped.has(entry.id) || isPartOf(entry)) continue;
    const { schema, name } = objectOf(entry) ?? {};
    const reason = schema && name ? input.whyNot?.(schema, name) : undefined;
    if (reason !== undefined) drop(entry, reason);
  }
  dropDependents(entries, byId, dropped, label);
  if (input.whyNot !== undefined) dropUnneeded(entries, byId, dropped, objectOf, isPartOf);

  const isDropped = (entry: Entry): boolean =>
    dropped.has(entry.id) || (isDetailOf(entry) && [...entry.needs].some((id) => dropped.has(id)));
  const types = new Map(entries.filter(({ kind }) => kind === "TYPE").map((entry) => [entry.rest, entry]));
  const isThere = (entry: Entry): boolean => {
    if (entry.kind === "INDEX ATTACH") return isSecondAttached(entry, byId, objectOf, states, targetHas);
    // It has no object of its own, and becomes the type of its name.
    const type = entry.kind === "SHELL TYPE" ? types.get(entry.rest) : undefined;
    if (type !== undefined) return isThere(type);
    const { identity } = objectOf(entry) ?? {};
    if (entry.kind === "TABLE ATTACH" || entry.kind === "ROW SECURITY") {
      const about = aboutTable(entry, byId, objectOf)?.identity;
      return targetHas.has(`0:${entry.kind === "ROW SECURITY" ? "row security of" : "partition"} ${about}`);
    }
    // The view was created without its query first, where something like its key had to come in between.
    if (identity === undefined || isViewQuery(entry)) return false;
    return (
      targetHas.has(`${entry.classid}:${sameOnAll(identity)}`) ||
      isSecondKey(entry, objectOf(entry), states, targetHas)
    );
  };

  const plan = { restore: [] as Planned[], existing: [] as string[], leftOut: [] as NotCreated[] };
  const deferred = new Set<number>();
  for (const entry of entries) {
    const object = label(entry);
    if (isDropped(entry)) {
      const reason = dropped.get(entry.id);
      if (typeof reason === "string") plan.leftOut.push({ object, reason });
      continue;
    }
    if (!isInSection(entry, input.section, byId, objectOf)) continue;
    const deferredName = `${objectOf(entry)?.name} on ${onTable(entry, byId, objectOf)?.replaceAll('"', "")}`;
    if (isThere(entry)) {
      if (!isDetailOf(entry) && object !== "schema public") plan.existing.push(object);
    } else if (isDetailOf(entry) && [...entry.needs].some((id) => deferred.has(id))) {
      continue;
    } else if (input.deferred.has(deferredName)) {
      deferred.add(entry.id);
      plan.leftOut.push({ object, reason: "copy took it away and gives it back" });
    } else {
      plan.restore.push({ id: entry.id, object, isDetail: isDetailOf(entry) || isViewQuery(entry) });
    }
  }
  const restored = new Set(plan.restore.map(({ id }) => id));
  const { problems, useless } = checkExtensions(input, entries, restored, label);
  return {
    ...plan,
    restore: plan.restore.filter(({ id }) => {
      const entry = byId.get(id) as Entry;
      return !useless.has(id) && !(isDetailOf(entry) && [...entry.needs].some((each) => useless.has(each)));
    }),
    leftOut: [...plan.leftOut, ...useless.values()],
    problems,
  };
}

function whyLeftOut(
  entry: Entry,
  object: SchemaObject | undefined,
  input: PlanInput,
): string | null | undefined {
  if (silentKinds.has(entry.kind)) return null;
  if (entry.kind === "SCHEMA" && object?.name === "public") return null;
  const byKind = leftOutKinds[entry.kind];
  if (byKind !== undefined) return byKind;
  if ((entry.kind === "ACL" || entry.kind === "DEFAULT ACL") && !input.withPrivileges) {
    return "privileges stay behind: the target has roles of its own";
  }
  if (entry.kind === "COMMENT" && /^\S+ EXTENSION /.test(entry.rest)) {
    return "only the owner of an extension may comment on it";
  }
  const schema = entry.kind === "EXTENSION" ? extensionSchema(input.sourceExtensions, object) : undefined;
  if (schema !== undefined && input.outsideSchemas.has(schema)) return input.outsideSchemas.get(schema);
  const table = input.onHiddenOid.get(`${entry.classid}:${entry.objid}`);
  if (table !== undefined) {
    return `uses the hidden column oid of ${table.schema}.${table.name}, which is not replicated, and which servers from 12 on do not have`;
  }
  const reference = input.outside.get(`${entry.classid}:${entry.objid}`);
  if (reference === undefined) return undefined;
  const reason = input.outsideSchemas.has(reference.schema)
    ? input.outsideSchemas.get(reference.schema)
    : "this role may not read it";
  return reason == null ? null : `refers to ${reference.schema}.${reference.name}: ${reason}`;
}

function extensionSchema(
  extensions: readonly Extension[],
  object: SchemaObject | undefined,
): string | undefined {
  return extensions.find(({ name }) => name === object?.name)?.schema;
}

/** What cannot be without something that is left out is left out too. */
function dropDependents(
  entries: readonly Entry[],
  byId: ReadonlyMap<number, Entry>,
  dropped: Map<number, string | null>,
  label: (entry: Entry) => string,
): void {
  let before = -1;
  while (before !== dropped.size) {
    before = dropped.size;
    for (const entry of entries) {
      if (dropped.has(entry.id) || isDetailOf(entry)) continue;
      const missing = [...entry.needs]
        .map((id) => byId.get(id))
        .find((each) => each !== undefined && each.kind !== "SCHEMA" && dropped.has(each.id));
      if (missing === undefined) continue;
      const isOwn = dropped.get(missing.id) === null;
      dropped.set(entry.id, isOwn ? null : `needs ${label(missing)}, which is left out`);
    }
  }
}

/** Where tables are chosen, a schema without any of them is of no interest, but for what the chosen ones need. */
function dropUnneeded(
  entries: readonly Entry[],
  byId: ReadonlyMap<number, Entry>,
  dropped: Map<number, string | null>,
  objectOf: (entry: Entry) => SchemaObject | undefined,
  isPartOf: (entry: Entry) => boolean,
): void {
  const kept = entries.filter((entry) => !dropped.has(entry.id));
  const schemas = new Set(
    kept.filter((each) => tableKinds.has(each.kind) && !isPartOf(each)).map((each) => objectOf(each)?.schema),
  );
  const isOfInterest = (entry: Entry): boolean => {
    const { schema, name } = objectOf(entry) ?? {};
    if (entry.kind === "SCHEMA") return schemas.has(name ?? "");
    return schema == null || schemas.has(schema) || isPartOf(entry);
  };
  const needed = new Set<number>();
  const need = (entry: Entry): void => {
    if (needed.has(entry.id)) return;
    needed.add(entry.id);
    for (const id of entry.needs) {
      const other = byId.get(id);
      if (other !== undefined) need(other);
    }
  };
  for (const entry of kept) if (!isDetailOf(entry) && isOfInterest(entry)) need(entry);
  for (const entry of kept) {
    if (!needed.has(entry.id) && !isDetailOf(entry))
      dropped.set(entry.id, "no table of the sync is in its schema");
  }
}

/**
 * An identity as all versions agree on it: they do not on which of the server's types have their schema before them (`json`
 * has none from 16 on), nor on how a transform is called.
 */
function sameOnAll(identity: string): string {
  return identity.replaceAll(/\bpg_catalog\.(?="?\w)/g, "").replace(/^(for .+) on (language .+)$/, "$1 $2");
}

/** An entry that only says something about another: no object of its own, and harmless when it is said again. */
function isDetailOf(entry: Entry): boolean {
  return entry.objid === 0 || entry.classid === 0;
}

function isViewQuery(entry: Entry): boolean {
  return entry.kind === "RULE" && / _RETURN( |$)/.test(entry.rest);
}

/** A primary key where the target's table has one already, under whatever name. */
function isSecondKey(
  entry: Entry,
  object: SchemaObject | undefined,
  states: ReadonlyMap<string, string | null>,
  targetHas: ReadonlySet<string>,
): boolean {
  const [, table] = / on (.*)$/.exec(object?.identity ?? "") ?? [];
  const state = `primary key of ${table}`;
  return entry.kind === "CONSTRAINT" && states.get(state) === object?.name && targetHas.has(`0:${state}`);
}

/** The attaching of such a key to that of the partitioned table, where the target's is attached under its own name. */
function isSecondAttached(
  { needs, rest }: Entry,
  byId: ReadonlyMap<number, Entry>,
  objectOf: (entry: Entry) => SchemaObject | undefined,
  states: ReadonlyMap<string, string | null>,
  targetHas: ReadonlySet<string>,
): boolean {
  return [...needs]
    .flatMap((id) => byId.get(id) ?? [])
    .some((entry) => {
      const { schema, name, identity = "" } = objectOf(entry) ?? {};
      const [, table] = / on (.*)$/.exec(identity) ?? [];
      const isOwn = rest.startsWith(`${schema} ${name}`);
      return (
        isOwn &&
        isSecondKey(entry, objectOf(entry), states, targetHas) &&
        targetHas.has(`0:attached primary key of ${table}`)
      );
    });
}

function isInSection(
  entry: Entry,
  section: Section,
  byId: ReadonlyMap<number, Entry>,
  objectOf: (entry: Entry) => SchemaObject | undefined,
): boolean {
  if (section === "all") return true;
  const isLate = (each: Entry): boolean => {
    if (postKinds.has(each.kind)) {
      const isKey = objectOf(each)?.isKey === true && (each.kind === "CONSTRAINT" || each.kind === "INDEX");
      return !isKey && !isViewQuery(each);
    }
    // A comment, or a part of an index: as what it is about.
    if (!isDetailOf(each)) return false;
    return [...each.needs].some((id) => {
      const other = byId.get(id);
      return other !== undefined && !isDetailOf(other) && isLate(other);
    });
  };
  return isLate(entry) === (section === "post-data");
}

/** The table that an entry without an object of its own speaks of: among those it needs, the one that it is named by. */
function aboutTable(
  entry: Entry,
  byId: ReadonlyMap<number, Entry>,
  objectOf: (entry: Entry) => SchemaObject | undefined,
): SchemaObject | undefined {
  return [...entry.needs]
    .flatMap((id) => byId.get(id) ?? [])
    .filter((each) => tableKinds.has(each.kind))
    .flatMap((each) => objectOf(each) ?? [])
    .find(({ schema, name }) => entry.rest.startsWith(`${schema} ${name}`));
}

/** The table that an index, constraint or trigger is on, as messages name it. */
function onTable(
  entry: Entry,
  byId: ReadonlyMap<number, Entry>,
  objectOf: (entry: Entry) => SchemaObject | undefined,
): string | undefined {
  const [, named] = / on (.*)$/.exec(objectOf(entry)?.identity ?? "") ?? [];
  if (named !== undefined) return named;
  const tables = [...entry.needs].flatMap((id) => byId.get(id) ?? []);
  const table = tables.find((each) => tableKinds.has(each.kind) || each.kind === "MATERIALIZED VIEW");
  return table === undefined ? undefined : objectOf(table)?.identity;
}

/** Extensions that the target cannot have, or has in another schema than the types of columns say. */
function checkExtensions(
  input: PlanInput,
  entries: readonly Entry[],
  restored: ReadonlySet<number>,
  label: (entry: Entry) => string,
): { readonly problems: Problem[]; readonly useless: Map<number, NotCreated> } {
  const problems: Problem[] = [];
  const useless = new Map<number, NotCreated>();
  for (const entry of entries) {
    if (entry.kind !== "EXTENSION") continue;
    const wanted = input.sourceExtensions.find(({ name }) => name === entry.rest.replace(/^- /, ""));
    if (wanted === undefined) continue;
    const there = input.targetExtensions.find(({ name }) => name === wanted.name);
    const users = entries.filter(
      (each) => restored.has(each.id) && each.needs.has(entry.id) && !isDetailOf(each),
    );
    const [first] = users;
    const usedBy = first && `${label(first)}${users.length > 1 ? ` and ${users.length - 1} more` : ""}`;
    if (there === undefined && !input.available.has(wanted.name) && restored.has(entry.id)) {
      if (usedBy === undefined) {
        useless.set(entry.id, {
          object: label(entry),
          reason: "the target does not offer it, and nothing needs it",
        });
      } else {
        problems.push({
          subject: label(entry),
          message: `the target does not offer it, and ${usedBy} needs it`,
          remedy: `create extension ${quoted(wanted.name)} with schema ${quoted(wanted.schema)};  -- on the target, once its package is installed`,
        });
      }
    } else if (there !== undefined && there.schema !== wanted.schema && usedBy !== undefined) {
      problems.push({
        subject: label(entry),
        message: `is in schema ${wanted.schema} on the source and in ${there.schema} on the target, and ${usedBy} needs it`,
        remedy:
          `create schema if not exists ${quoted(wanted.schema)};\n` +
          `alter extension ${quoted(wanted.name)} set schema ${quoted(wanted.schema)};  -- on the target, as its owner`,
      });
    }
  }
  return { problems, useless };
}

function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
