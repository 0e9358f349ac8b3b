/**
 * The application's roles: what they may do on the source, they have to be able to do on the target after the switch.
 * Roles are compared by name, with their effective rights.
 */
import { tableSql } from "../catalog/table.ts";
import type { Connection } from "../postgres/connect.ts";
import { ident, load } from "../postgres/sql.ts";
import { isProviderRole } from "../catalog/providers.ts";
import type { Examination } from "./examination.ts";
import { administrator, run, some, type Finding } from "./finding.ts";

/** As sql/preflight/objects returns it. */
interface Item {
  readonly oid: number;
  readonly kind: "schema" | "table" | "view" | "sequence";
  readonly schema: string;
  readonly name: string;
  readonly owner: string;
  readonly roles: readonly string[];
}

interface Role {
  readonly name: string;
  readonly canLogin: boolean;
  readonly memberOf: readonly string[];
}

interface RightsRow {
  readonly role: string;
  readonly kind: "role" | "schema" | "table" | "sequence" | "column";
  readonly privileges: readonly string[];
  readonly oids: readonly number[];
  readonly columns: readonly string[];
}

/** What a role has: privileges by object, and on single columns. */
interface Rights {
  readonly whole: ReadonlyMap<number, ReadonlySet<string>>;
  /** By `oid privilege`. */
  readonly columns: ReadonlyMap<string, readonly string[]>;
}

const nothing: Rights = { whole: new Map(), columns: new Map() };

/** Lacking on the target. `columns`: only on these. */
interface Lack {
  readonly item: Item;
  readonly privileges: readonly string[];
  readonly columns: readonly string[];
}

export async function checkApplication(examination: Examination): Promise<Finding[]> {
  const { source, target, pairs, servers } = examination;
  const [own, others] = await Promise.all([
    readItems(source, pairs.map((pair) => pair.source.oid)),
    readItems(target, pairs.map((pair) => pair.target.oid)),
  ]); // prettier-ignore
  const counterparts = matchItems(own, others, examination);
  const named = new Set(own.filter(({ oid }) => counterparts.has(oid)).flatMap(({ roles }) => roles));
  const reached = await source.rows<Role>(load("preflight/roles"), [[...named]]);
  const roles = reached.filter(({ name }) => !isProviderRole(name));
  const names = ["public", ...roles.map(({ name }) => name)];
  const [before, [after, there]] = await Promise.all([
    readRights(source, names, [...counterparts.keys()], own),
    (async () => {
      const rights = await readRights(target, names, [...counterparts.values()].map(({ oid }) => oid), others); // prettier-ignore
      return [rights, await target.rows<Role>(load("preflight/roles"), [names])] as const;
    })(),
  ]);

  const findings: Finding[] = [];
  const memberships: Finding[] = [];
  const grants: Finding[] = [];
  // What everybody may is everybody's to lack, and none of a single role's.
  const shared = before.get("public") ?? nothing;
  for (const name of names) {
    const role = roles.find((each) => each.name === name);
    const lacks = compareRights(counterparts, before.get(name) ?? nothing, after.get(name) ?? nothing, {
      isPublic: role === undefined,
      shared,
    });
    if (role !== undefined && !after.has(name)) findings.push(missingRole(role));
    if (role !== undefined) {
      const groups = lackingGroups(role, there, !after.has(name));
      const isCovered = lacks.length === 0 && before.get(name)?.whole.size !== 0;
      if (groups.length > 0 && !isCovered) memberships.push(missingMembership(role, groups));
      // Rights that come from a group are given to the group.
      if (!named.has(name)) continue;
    }
    grants.push(...missingRights(name, lacks, others, servers.target.role));
  }
  return [...findings, ...memberships, ...grants];
}

async function readItems(connection: Connection, oids: readonly number[]): Promise<Item[]> {
  return await connection.rows<Item>(load("preflight/objects"), [oids]);
}

/** Objects of the target by the oid of the source's. Tables that are not replicated are nobody's concern. */
function matchItems(
  own: readonly Item[],
  others: readonly Item[],
  { pairs }: Examination,
): Map<number, Item> {
  const byOid = new Map(others.map((item) => [item.oid, item]));
  const keyOf = ({ kind, schema, name }: Item): string => JSON.stringify([kind, schema, name]);
  const byName = new Map(others.map((item) => [keyOf(item), item]));
  const paired = new Map(pairs.map(({ source, target }) => [source.oid, byOid.get(target.oid)]));
  return new Map(
    own.flatMap((item) => {
      const other = item.kind === "table" ? paired.get(item.oid) : byName.get(keyOf(item));
      return other === undefined ? [] : [[item.oid, other] as const];
    }),
  );
}

/** By role; a role that does not exist has no entry. */
async function readRights(
  connection: Connection,
  names: readonly string[],
  oids: readonly number[],
  items: readonly Item[],
): Promise<Map<string, Rights>> {
  const schemas = new Set(items.filter(({ kind }) => kind === "schema").map(({ oid }) => oid));
  const rows = await connection.rows<RightsRow>(load("preflight/rights"), [
    names,
    oids.filter((oid) => schemas.has(oid)),
    oids.filter((oid) => !schemas.has(oid)),
  ]);
  const rights = new Map<
    string,
    { whole: Map<number, ReadonlySet<string>>; columns: Map<string, readonly string[]> }
  >();
  for (const { role, kind, privileges, oids: granted, columns } of rows) {
    const of = rights.get(role) ?? { whole: new Map(), columns: new Map() };
    rights.set(role, of);
    for (const oid of granted) {
      if (kind === "column") of.columns.set(`${oid} ${privileges[0]}`, columns);
      else of.whole.set(oid, new Set(privileges));
    }
  }
  return rights;
}

function compareRights(
  counterparts: ReadonlyMap<number, Item>,
  before: Rights,
  after: Rights,
  { isPublic, shared }: { readonly isPublic: boolean; readonly shared: Rights },
): Lack[] {
  const lacks: Lack[] = [];
  for (const [oid, item] of counterparts) {
    const granted = after.whole.get(item.oid);
    // From 15 on nobody may create in schema public by default, which is meant to be so.
    const isExpected = (privilege: string): boolean =>
      isPublic ? privilege !== "CREATE" : shared.whole.get(oid)?.has(privilege) !== true;
    const privileges = [...(before.whole.get(oid) ?? [])].filter(
      (privilege) => granted?.has(privilege) !== true && isExpected(privilege),
    );
    if (privileges.length > 0) lacks.push({ item, privileges, columns: [] });
  }
  for (const [key, columns] of before.columns) {
    const [oid, privilege = ""] = key.split(" ");
    const item = counterparts.get(Number(oid));
    if (item === undefined || after.whole.get(item.oid)?.has(privilege) === true) continue;
    const granted = after.columns.get(`${item.oid} ${privilege}`);
    const everybodys = isPublic ? undefined : shared.columns.get(key);
    const missing = columns.filter(
      (each) => granted?.includes(each) !== true && everybodys?.includes(each) !== true,
    );
    if (missing.length > 0) lacks.push({ item, privileges: [privilege], columns: missing });
  }
  return lacks;
}

function missingRole({ name, canLogin }: Role): Finding {
  return {
    severity: "warning",
    subject: `role ${name}`,
    message: "has rights on the source and does not exist on the target",
    ...run(
      "target",
      administrator,
      canLogin
        ? `create role ${ident(name)} login;  -- with the password that its application uses`
        : `create role ${ident(name)} nologin;`,
    ),
  };
}

/** Groups of the source that the role is no member of on the target. */
function lackingGroups(role: Role, there: readonly Role[], isMissing: boolean): readonly string[] {
  const other = there.find(({ name }) => name === role.name);
  // One that is not told of is a superuser there.
  if (other === undefined && !isMissing) return [];
  return role.memberOf.filter((group) => other?.memberOf.includes(group) !== true);
}

function missingMembership({ name }: Role, groups: readonly string[]): Finding {
  return {
    severity: "warning",
    subject: `role ${name}`,
    message: `is a member of ${some(groups)} on the source and not on the target`,
    ...run("target", administrator, ...groups.map((each) => `grant ${ident(each)} to ${ident(name)};`)),
  };
}

/** One finding for each owner, who alone can give the rights. */
function missingRights(
  role: string,
  lacks: readonly Lack[],
  all: readonly Item[],
  ourRole: string,
): Finding[] {
  const owners = [...new Set(lacks.map(({ item }) => item.owner))];
  const grantee = role === "public" ? "public" : ident(role);
  return owners.map((owner) => {
    const own = lacks.filter(({ item }) => item.owner === owner);
    const names = [...new Set(own.map(({ item }) => (item.kind === "schema" ? item.schema : `${item.schema}.${item.name}`)))]; // prettier-ignore
    return {
      severity: "warning",
      subject: role === "public" ? "all roles" : `role ${role}`,
      message: `may do less on the target than on the source, with ${some(names)}`,
      ...run("target", owner === ourRole ? ourRole : owner, ...grantStatements(own, all, grantee)),
    };
  });
}

/** Names of one statement, beyond which a whole schema is named instead where that means the same. */
const mostNames = 8;

function grantStatements(lacks: readonly Lack[], all: readonly Item[], grantee: string): string[] {
  const groups = new Map<string, Lack[]>();
  for (const lack of lacks) {
    const { item, privileges, columns } = lack;
    const kind = item.kind === "view" ? "table" : item.kind;
    const schema = kind === "schema" ? "" : item.schema;
    const what = [kind, schema, privileges, columns, columns.length > 0 ? item.oid : 0];
    const key = JSON.stringify(what);
    groups.set(key, [...(groups.get(key) ?? []), lack]);
  }
  return [...groups.values()].map((group) => {
    const [{ item, privileges, columns }] = group as [Lack];
    const list = columns.length === 0 ? "" : ` (${columns.map(ident).join(", ")})`;
    const rights = privileges.map((each) => `${each.toLowerCase()}${list}`).join(", ");
    if (item.kind === "schema") {
      return `grant ${rights} on schema ${group.map((each) => ident(each.item.schema)).join(", ")} to ${grantee};`;
    }
    const isSequence = item.kind === "sequence";
    const inSchema = all.filter(
      (each) =>
        each.schema === item.schema && each.kind !== "schema" && (each.kind === "sequence") === isSequence,
    );
    const word = isSequence ? "sequence" : "table";
    return group.length > mostNames && group.length === inSchema.length
      ? `grant ${rights} on all ${word}s in schema ${ident(item.schema)} to ${grantee};`
      : `grant ${rights} on ${word} ${group.map((each) => tableSql(each.item)).join(", ")} to ${grantee};`;
  });
}
