/** The statement that makes an object of the target as it is on the source. */
import type { Description, SchemaDifference } from "./difference.ts";

type Difference = Pick<SchemaDifference, "kind" | "changes">;

const constraintKinds: ReadonlySet<string> = new Set([
  "primary key", "unique constraint", "foreign key", "exclusion constraint", "check",
]); // prettier-ignore

/**
 * SQL with qualified names, or null where it takes more than a statement or two. `row`: the object on the source, or where
 * it is an extra one, on the target; `there`: the same on the target.
 */
export function remedyFor(row: Description, difference: Difference, there: Description): string | null {
  if (difference.kind === "extra") return dropSql(row);
  if (difference.kind === "missing") return createSql(row);
  const statements = changeSql(row, new Set(difference.changes.map(({ property }) => property)), there);
  return statements === null || statements.length === 0 ? null : statements.join("\n");
}

/** What is before ` on schema.table`, or behind `schema.table.`: the object's own name, quoted where needed. */
function ownName({ name, relation }: Description): string {
  if (relation === null) return name;
  if (name.endsWith(` on ${relation}`)) return name.slice(0, -` on ${relation}`.length);
  return name.startsWith(`${relation}.`) ? name.slice(relation.length + 1) : name;
}

function detail({ details }: Description, property: string): string | null {
  const value = details[property];
  return value == null ? null : String(value as string | number | boolean);
}

function dropSql(row: Description): string | null {
  const on = `alter table ${row.relation}`;
  if (constraintKinds.has(row.kind)) return `${on} drop constraint ${ownName(row)};`;
  switch (row.kind) {
    case "column":
      return `${on} drop column ${ownName(row)};`;
    case "index":
      return `drop index ${row.name};`;
    case "trigger":
    case "rule":
    case "policy":
      return `drop ${row.kind} ${ownName(row)} on ${row.relation};`;
    default:
      return null;
  }
}

function createSql(row: Description): string | null {
  if (constraintKinds.has(row.kind)) return addConstraint(row);
  switch (row.kind) {
    case "index":
      return `${detail(row, "definition")};`;
    case "trigger":
      return [`${detail(row, "definition")};`, ...enabledSql(row)].join("\n");
    case "view":
      return `create view ${row.name} as\n${detail(row, "query")}`;
    case "materialized view":
      return `create materialized view ${row.name} as\n${detail(row, "query")?.replace(/;\s*$/, "")}\nwith no data;`;
    case "table":
      return detail(row, "partition of") === null || detail(row, "partition key") !== null
        ? null
        : `create table ${row.name} partition of ${detail(row, "partition of")} ${detail(row, "bound")};`;
    case "sequence":
      return [`create sequence ${row.name}${sequenceOptions(row)};`, ...ownedSql(row)].join("\n");
    default:
      return null;
  }
}

/** As it is on the source, also if it is not validated there. */
function addConstraint(row: Description): string {
  const notValid = detail(row, "valid") === "false" ? " not valid" : "";
  return `alter table ${row.relation} add constraint ${ownName(row)} ${detail(row, "definition")}${notValid};`;
}

/** Null where one of the properties cannot be changed by itself. */
function changeSql(
  row: Description,
  changed: ReadonlySet<string>,
  there: Description,
): readonly string[] | null {
  const on = `alter table ${row.relation}`;
  if (constraintKinds.has(row.kind)) {
    const isOnlyInvalid = !changed.has("definition") && detail(row, "valid") === "true";
    return isOnlyInvalid
      ? [`${on} validate constraint ${ownName(row)};`]
      : [`${on} drop constraint ${ownName(row)};`, addConstraint(row)];
  }
  switch (row.kind) {
    case "column":
      return columnSql(row, changed, there);
    case "index":
      return changed.has("definition")
        ? [`drop index ${row.name};`, `${detail(row, "definition")};`]
        : [`reindex index ${row.name};`];
    case "trigger":
      return changed.has("definition")
        ? [
            `drop trigger ${ownName(row)} on ${row.relation};`,
            `${detail(row, "definition")};`,
            ...enabledSql(row),
          ]
        : [`${on} ${enableWord(row)} trigger ${ownName(row)};`];
    case "table":
      return tableSql(row, changed);
    case "view":
      return changed.has("query") && changed.size === 1
        ? [`create or replace view ${row.name} as\n${detail(row, "query")}`]
        : null;
    case "materialized view":
      return changed.has("filled") && changed.size === 1 ? [`refresh materialized view ${row.name};`] : null;
    case "sequence":
      return [`alter sequence ${row.name}${sequenceOptions(row)};`, ...ownedSql(row)];
    case "enum":
      return labelsSql(row, there);
    default:
      return null;
  }
}

/** Null where there is more to do than to add labels. */
function labelsSql(row: Description, there: Description): string[] | null {
  const [own, other] = [row, there].map((each): readonly string[] => {
    return detail(each, "labels")?.match(/'(?:[^']|'')*'/g) ?? [];
  }) as [readonly string[], readonly string[]];
  if (own.filter((label) => other.includes(label)).join() !== other.join()) return null;
  return own.flatMap((label, n) => {
    if (other.includes(label)) return [];
    const place = n === 0 ? (other.length === 0 ? "" : ` before ${other[0]}`) : ` after ${own[n - 1]}`;
    return [`alter type ${row.name} add value ${label}${place};`];
  });
}

function columnSql(row: Description, changed: ReadonlySet<string>, there: Description): string[] | null {
  const alter = `alter table ${row.relation} alter column ${ownName(row)}`;
  if (changed.has("generated") || changed.has("collation")) return null;
  const statements: string[] = [];
  if (changed.has("type")) {
    statements.push(`${alter} type ${detail(row, "type")} using ${ownName(row)}::${detail(row, "type")};`);
  }
  if (changed.has("default")) {
    const value = detail(row, "default");
    statements.push(value === null ? `${alter} drop default;` : `${alter} set default ${value};`);
  }
  if (changed.has("not null")) {
    statements.push(`${alter} ${detail(row, "not null") === "true" ? "set" : "drop"} not null;`);
  }
  if (changed.has("identity")) {
    const [own, other] = [detail(row, "identity"), detail(there, "identity")];
    const kind = own === "a" ? "always" : "by default";
    if (own === null) statements.push(`${alter} drop identity;`);
    else if (other === null) statements.push(`${alter} add generated ${kind} as identity;`);
    else statements.push(`${alter} set generated ${kind};`);
  }
  return statements;
}

function tableSql(row: Description, changed: ReadonlySet<string>): string[] | null {
  const alter = `alter table ${row.relation}`;
  const identity = { d: "default", n: "nothing", f: "full" }[detail(row, "replica identity") ?? ""];
  const statements = new Map<string, string>([
    ["row security", `${alter} ${detail(row, "row security") === "true" ? "enable" : "disable"} row level security;`],
    ["forced row security", `${alter} ${detail(row, "forced row security") === "true" ? "" : "no "}force row level security;`],
    ["unlogged", `${alter} set ${detail(row, "unlogged") === "true" ? "unlogged" : "logged"};`],
    ...(identity === undefined
      ? []
      : [["replica identity", `${alter} replica identity ${identity};`] as const]),
  ]); // prettier-ignore
  if ([...changed].some((property) => !statements.has(property))) return null;
  return [...changed].map((property) => statements.get(property) ?? "");
}

function sequenceOptions(row: Description): string {
  const of = (property: string): string => detail(row, property) ?? "";
  return (
    ` as ${of("type")} increment ${of("increment")} minvalue ${of("min")} maxvalue ${of("max")}` +
    ` start ${of("start")} cache ${of("cache")}${of("cycle") === "true" ? "" : " no"} cycle`
  );
}

function ownedSql(row: Description): string[] {
  const owner = detail(row, "owned by");
  return owner === null ? [] : [`alter sequence ${row.name} owned by ${owner};`];
}

function enabledSql(row: Description): string[] {
  return detail(row, "enabled") === "O"
    ? []
    : [`alter table ${row.relation} ${enableWord(row)} trigger ${ownName(row)};`];
}

function enableWord(row: Description): string {
  const words: Readonly<Record<string, string>> = {
    O: "enable",
    A: "enable always",
    R: "enable replica",
    D: "disable",
  };
  return words[detail(row, "enabled") ?? "O"] ?? "enable";
}
