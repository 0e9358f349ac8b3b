/**
 * What has to leave a table while rows are loaded, and the statements that bring it back exactly as it was: the
 * same dump before and after. Pure but for `readDefinitions`.
 */
import type { Connection, Results } from "../postgres/connect.ts";
import { ident, literal, qualified, withArgument } from "../postgres/sql.ts";
import { tableLabel } from "./table.ts";

export interface TreeMember {
  readonly oid: number;
  readonly kind: string;
  readonly depth: number;
}

export interface IndexDefinition {
  readonly oid: number;
  readonly relid: number;
  readonly parent: number | null;
  readonly name: string;
  readonly schema: string;
  readonly table: string;
  readonly tableKind: string;
  readonly definition: string;
  readonly isValid: boolean;
  readonly isClustered: boolean;
  readonly isReplicaIdentity: boolean;
  readonly tablespace: string | null;
  readonly options: string | null;
  readonly comment: string | null;
  readonly statistics: readonly { readonly column: number; readonly target: number }[];
  readonly extensions: readonly string[];
  readonly constraint: {
    readonly name: string;
    readonly type: "p" | "u" | "x";
    readonly definition: string;
    readonly isDeferrable: boolean;
    readonly isDeferred: boolean;
    readonly isPeriod: boolean;
    readonly comment: string | null;
  } | null;
  readonly isNeeded: boolean;
  /** Its functions may find things by the search path: it stays, and the rows go in with it. */
  readonly callsFreely: boolean;
}

export interface ForeignKey {
  readonly oid: number;
  readonly name: string;
  readonly relid: number;
  readonly referenced: number;
  readonly schema: string;
  readonly table: string;
  readonly tableKind: string;
  readonly definition: string;
  readonly isValid: boolean;
  readonly comment: string | null;
  readonly referencedKind: string;
}

export interface Reaction {
  readonly kind: "trigger" | "rule";
  readonly relid: number;
  readonly schema: string;
  readonly table: string;
  readonly name: string;
  readonly enabled: "O" | "A" | "R";
}

/** A constraint that old rows need not meet, see sql/catalog/unvalidated. */
export interface Unvalidated {
  readonly kind: "table" | "domain";
  readonly relid: number;
  readonly schema: string;
  readonly owner: string;
  readonly name: string;
  readonly definition: string;
  readonly comment: string | null;
  readonly isMerged: boolean;
  readonly role: string;
  readonly isOurs: boolean;
}

export interface Definitions {
  /** Of the server, as in `Connection.version`. */
  readonly version: number;
  readonly tree: readonly TreeMember[];
  readonly indexes: readonly IndexDefinition[];
  readonly foreignKeys: readonly ForeignKey[];
  readonly reactions: readonly Reaction[];
  readonly unvalidated: readonly Unvalidated[];
}

export type DeferredKind =
  "key" | "index" | "attach" | "constraint" | "foreign-key" | "check" | "trigger" | "rule" | "analyze";

/**
 * The order of restoring. Indexes of one table are built side by side; what takes the table for itself comes after, so
 * that no build waits for it and no two of them wait for each other.
 */
export const stages = {
  build: 10,
  attach: 20,
  exclusion: 25,
  tree: 30,
  analyze: 40,
  foreignKey: 50,
  merged: 55,
  reaction: 60,
} as const;

/** One object: how it goes, and what is deferred once it is gone. */
export interface Removal {
  readonly kind: DeferredKind;
  readonly objectName: string;
  readonly tableName: string;
  readonly relid: number;
  readonly stage: number;
  /** Null when another removal takes it along. */
  readonly drop: string | null;
  readonly restore: readonly string[];
  readonly validate: string | null;
  /** The same while others write, as far as that is possible. Null: `validate` is. */
  readonly validateGently?: string;
}

/** Reads the definitions of everything that hangs on a table of the target and on its partitions. */
export async function readDefinitions(target: Connection, relid: number): Promise<Definitions> {
  return definitionsIn(target.version, await target.script(definitionsSql(relid)));
}

/** The queries of `readDefinitions`, for a script that does more in the same round trip. */
export function definitionsSql(relid: number): string {
  const tree = withArgument("catalog/table-tree", String(relid));
  const oids = `(select pg_catalog.array_agg(t.oid::bigint::oid) from (${tree}) as t)`;
  const queries = ["catalog/indexes", "catalog/foreign-keys", "catalog/reactions", "catalog/unvalidated"];
  return [tree, ...queries.map((path) => withArgument(path, oids))].join(";\n");
}

/** Makes definitions of the results of `definitionsSql`, which are the last of these. */
export function definitionsIn(version: number, results: Results): Definitions {
  const [tree, indexes, foreignKeys, reactions, unvalidated] = results.slice(-5).map((result) => result.rows);
  return { version, tree, indexes, foreignKeys, reactions, unvalidated } as unknown as Definitions;
}

export interface RemovalChoice {
  /** Without: the rows go in with the indexes in place, which pays for small tables. */
  readonly indexes: boolean;
  readonly foreignKeys: boolean;
  /** Sessions run with session_replication_role = replica: origin triggers do not fire anyway. */
  readonly isReplicaRole: boolean;
  /** Name of the index that identifies a row. */
  readonly key: string | null;
}

/** What to remove for a load, in the order of dropping. */
export function removals(definitions: Definitions, choice: RemovalChoice): Removal[] {
  return [
    ...(choice.foreignKeys
      ? definitions.foreignKeys.map((key) => foreignKeyRemoval(key, definitions.version))
      : []),
    ...(choice.indexes ? indexRemovals(definitions, choice.key) : []),
    ...reactionRemovals(definitions, choice.isReplicaRole),
    ...definitions.unvalidated.map(unvalidatedRemoval),
  ];
}

export function foreignKeyRemoval(key: ForeignKey, version: number): Removal {
  const table = qualified(key.schema, key.table);
  const name = ident(key.name);
  const knowsPartitions = version >= 180_000;
  // NOT VALID is not possible on partitioned tables before 18: there the rows are checked as it is added.
  const isChecked = key.isValid && (key.tableKind !== "p" || knowsPartitions);
  const comment = commentOn(`constraint ${name} on ${table}`, key.comment);
  // Nor does VALIDATE reach the keys to each partition of the referenced table: it has to be added anew.
  const gently = `alter table ${table} validate constraint ${name}`;
  const isGentle = key.referencedKind !== "p" || knowsPartitions;
  const validate = isGentle
    ? [gently]
    : [`alter table ${table} drop constraint ${name}, add constraint ${name} ${key.definition}`, ...comment];
  return {
    kind: "foreign-key",
    objectName: key.name,
    tableName: tableLabel({ schema: key.schema, name: key.table }),
    relid: key.relid,
    stage: stages.foreignKey,
    drop: `alter table ${table} drop constraint ${name}`,
    restore: [
      `alter table ${table} add constraint ${name} ${key.definition}${isChecked ? " not valid" : ""}`,
      ...comment,
    ],
    validate: isChecked ? validate.join("; ") : null,
    ...(isChecked && !isGentle ? { validateGently: gently } : {}),
  };
}

/**
 * Old rows may break it, and come here all the same: with the load, and whenever a batch reads them again. So it stays away
 * for as long as foreign keys do. That of a domain may have been taken away for several tables.
 */
function unvalidatedRemoval(check: Unvalidated): Removal {
  const owner = qualified(check.schema, check.owner);
  const name = ident(check.name);
  const alter = `alter ${check.kind} ${owner}`;
  // Nothing on the server keeps two sessions from altering a domain at the same time: a row of ours does.
  const alone =
    check.kind === "domain" ? ["select from replicate.migration where version = 1 for update"] : [];
  const drop = [...alone, `${alter} drop constraint if exists ${name}`];
  const on = check.kind === "domain" ? `domain ${owner}` : owner;
  return {
    kind: "check",
    objectName: check.name,
    tableName: tableLabel({ schema: check.schema, name: check.owner }),
    relid: check.relid,
    // A child that has it by then keeps it as its own when its parent's comes.
    stage: check.isMerged ? stages.merged : stages.reaction,
    drop: drop.join("; "),
    restore: [
      ...(check.kind === "domain" ? drop : []),
      `${alter} add constraint ${name} ${check.definition}`,
      ...commentOn(`constraint ${name} on ${on}`, check.comment),
    ],
    validate: null,
  };
}

function indexRemovals({ indexes, tree }: Definitions, keyName: string | null): Removal[] {
  // An index that belongs to that of a table above the tree has a parent here, but is nobody's descendant.
  const tops = indexes.filter((index) => index.parent === null);
  return tops.flatMap((top) => {
    const family = descendants(top, indexes);
    // pg_dump leaves out an index that a failed CREATE INDEX CONCURRENTLY left behind, and so do we. The index
    // of a partitioned table is invalid too while some partition has no index attached: that one is restored so.
    const isBroken = family.some((index) => !index.isValid && index.tableKind !== "p");
    if (isBroken || family.some((index) => index.isNeeded || index.callsFreely)) return [];
    const isKey = top.name === keyName;
    return top.tableKind === "p" ? treeRemovals(top, family, tree, isKey) : plainRemovals(top, isKey, true);
  });
}

function descendants(top: IndexDefinition, indexes: readonly IndexDefinition[]): IndexDefinition[] {
  const children = indexes.filter((index) => index.parent === top.oid);
  return [top, ...children.flatMap((child) => descendants(child, indexes))];
}

/** An index of a table that holds rows: built first, then made a constraint of, if it was one. */
function plainRemovals(index: IndexDefinition, isKey: boolean, isTop: boolean): Removal[] {
  const about = describe(index);
  const { constraint } = index;
  const drop = isTop ? dropOf(index) : null;
  if (constraint !== null && (constraint.type === "x" || constraint.isPeriod)) {
    return [
      {
        ...about,
        kind: isKey ? "key" : "constraint",
        stage: stages.exclusion,
        drop,
        restore: [intoTablespace(index), addConstraint(index), ...hangings(index), ...marks(index)],
        validate: null,
      },
    ];
  }
  const last = [...usingIndex(index), ...marks(index)];
  return [
    {
      ...about,
      kind: isKey ? "key" : "index",
      stage: stages.build,
      drop,
      restore: [intoTablespace(index), index.definition, ...hangings(index)],
      validate: null,
    },
    ...(last.length === 0
      ? []
      : [
          {
            ...about,
            kind: "attach" as const,
            stage: stages.attach,
            drop: null,
            restore: last,
            validate: null,
          },
        ]),
  ];
}

/**
 * The index of a partitioned table, as pg_dump restores it: the leaves' indexes first, under their own names; then, from
 * the bottom up, an empty index on each partitioned table alone, to which those below are attached.
 */
function treeRemovals(
  top: IndexDefinition,
  family: readonly IndexDefinition[],
  tree: readonly TreeMember[],
  isKey: boolean,
): Removal[] {
  const depthOf = new Map(tree.map((member) => [member.oid, member.depth]));
  const leaves = family.filter((index) => index.tableKind !== "p");
  const branches = family
    .filter((index) => index.tableKind === "p")
    .toSorted((a, b) => (depthOf.get(b.relid) ?? 0) - (depthOf.get(a.relid) ?? 0));
  const builds = leaves.flatMap((leaf) => plainRemovals(leaf, isKey, false));
  const joins = branches.flatMap((branch) => [
    intoTablespace(branch),
    branch.constraint === null ? branch.definition : addConstraint(branch),
    ...hangings(branch),
    ...family
      .filter((index) => index.parent === branch.oid)
      .map((child) => `alter index ${indexSql(branch)} attach partition ${indexSql(child)}`),
  ]);
  return [
    ...builds,
    {
      ...describe(top),
      kind: "attach",
      stage: stages.tree,
      drop: dropOf(top),
      restore: [...joins, ...branches.flatMap(marks)],
      validate: null,
    },
  ];
}

function describe(index: IndexDefinition): Pick<Removal, "objectName" | "tableName" | "relid"> {
  return {
    objectName: index.name,
    tableName: tableLabel({ schema: index.schema, name: index.table }),
    relid: index.relid,
  };
}

function dropOf(index: IndexDefinition): string {
  return index.constraint === null
    ? `drop index ${indexSql(index)}`
    : `alter table ${ownerSql(index)} drop constraint ${ident(index.constraint.name)}`;
}

function addConstraint(index: IndexDefinition): string {
  const { constraint } = index;
  if (constraint === null) throw new Error(`index ${index.name} is no constraint`);
  const add = `alter table only ${ownerSql(index)} add constraint ${ident(constraint.name)}`;
  // The definition of an exclusion constraint has the storage parameters, that of a key has not.
  if (constraint.type === "x" || index.options === null) return `${add} ${constraint.definition}`;
  const timing = deferral(constraint);
  const definition = constraint.definition.slice(0, constraint.definition.length - timing.length);
  return `${add} ${definition} with (${index.options})${timing}`;
}

function usingIndex(index: IndexDefinition): string[] {
  const { constraint } = index;
  if (constraint === null) return [];
  const type = constraint.type === "p" ? "primary key" : "unique";
  const name = ident(constraint.name);
  return [
    `alter table only ${ownerSql(index)} add constraint ${name} ${type} using index ${ident(index.name)}${deferral(constraint)}`,
    ...commentOn(`constraint ${name} on ${ownerSql(index)}`, constraint.comment),
  ];
}

/** As pg_get_constraintdef writes it, at the end of the definition. */
function deferral(constraint: { readonly isDeferrable: boolean; readonly isDeferred: boolean }): string {
  return `${constraint.isDeferrable ? " DEFERRABLE" : ""}${constraint.isDeferred ? " INITIALLY DEFERRED" : ""}`;
}

/** What ALTER INDEX and COMMENT have hung on the index itself. */
function hangings(index: IndexDefinition): string[] {
  const { constraint } = index;
  const isMadeAsConstraint =
    constraint !== null && (index.tableKind === "p" || constraint.type === "x" || constraint.isPeriod);
  return [
    ...commentOn(`index ${indexSql(index)}`, index.comment),
    ...index.statistics.map(
      (each) => `alter index ${indexSql(index)} alter column ${each.column} set statistics ${each.target}`,
    ),
    ...index.extensions.map((each) => `alter index ${indexSql(index)} depends on extension ${ident(each)}`),
    ...(isMadeAsConstraint
      ? commentOn(`constraint ${ident(constraint.name)} on ${ownerSql(index)}`, constraint.comment)
      : []),
  ];
}

/** What the table says about the index. */
function marks(index: IndexDefinition): string[] {
  return [
    ...(index.isClustered ? [`alter table ${ownerSql(index)} cluster on ${ident(index.name)}`] : []),
    ...(index.isReplicaIdentity
      ? [`alter table only ${ownerSql(index)} replica identity using index ${ident(index.name)}`]
      : []),
  ];
}

/** For the whole transaction, whatever the role or the database has as its default. */
function intoTablespace(index: IndexDefinition): string {
  return `set local default_tablespace = ${literal(index.tablespace ?? "")}`;
}

function commentOn(object: string, comment: string | null): string[] {
  return comment === null ? [] : [`comment on ${object} is ${literal(comment)}`];
}

function ownerSql(index: IndexDefinition): string {
  return qualified(index.schema, index.table);
}

function indexSql(index: IndexDefinition): string {
  return qualified(index.schema, index.name);
}

const enable = { O: "enable", A: "enable always", R: "enable replica" } as const;

/** Triggers that would fire in our sessions, and all rules: an upsert is refused on a table with rules in force. */
function reactionRemovals({ reactions }: Definitions, isReplicaRole: boolean): Removal[] {
  const firing = isReplicaRole ? ["A", "R"] : ["O", "A"];
  return reactions
    .filter((each) => each.kind === "rule" || firing.includes(each.enabled))
    .map((each) => {
      // A trigger of a partitioned table has a clone on each partition, with a state of its own.
      const alter = `alter table only ${qualified(each.schema, each.table)}`;
      const what = `${each.kind} ${ident(each.name)}`;
      return {
        kind: each.kind,
        objectName: each.name,
        tableName: tableLabel({ schema: each.schema, name: each.table }),
        relid: each.relid,
        stage: stages.reaction,
        drop: `${alter} disable ${what}`,
        restore: [`${alter} ${enable[each.enabled]} ${what}`],
        validate: null,
      };
    });
}
