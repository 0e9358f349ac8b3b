/** Statements that give the target a column of the source, or make one like it. As complete as can be run with rows there. */
import { ident, literal } from "../postgres/sql.ts";
import { normalise } from "./expression-text.ts";
import { tableSql, type Column } from "./table.ts";

interface Named {
  readonly schema: string;
  readonly name: string;
}

/** What rows from before can only have when follow has brought their values. */
const LATER = "-- once follow has caught up: ";

/**
 * Adds the column. `missing`: the value that rows have on the source which were there before the column. `name`: on the target,
 * if it is another one.
 */
export function addColumnSql(target: Named, column: Column, missing?: string, name = column.name): string {
  const alter = `alter table ${tableSql(target)}`;
  const definition = `${ident(name)} ${column.type}${collateSql(column)}`;
  if (column.generated !== "")
    return `${alter} add column ${definition} generated always as (${column.default ?? ""}) stored;`;
  if (column.identity !== "") return `${alter} add column ${definition} ${identitySql(column)};`;
  const { default: own } = column;
  const isOwn = missing === undefined || (own !== null && normalise(own) === normalise(literal(missing)));
  const filled = isOwn || own === missing ? own : `${literal(missing)}::${column.type}`;
  const statements = [
    `${alter} add column ${definition}${filled === null ? "" : ` default ${filled}`}${column.notNull && filled !== null ? " not null" : ""};`,
    ...(filled === own
      ? []
      : [`${alter} alter column ${ident(name)} ${own === null ? "drop default" : `set default ${own}`};`]),
    ...(column.notNull && filled === null
      ? [`${LATER}${alter} alter column ${ident(name)} set not null;`]
      : []),
  ];
  // That of a serial column.
  const sequence = /^nextval\('((?:[^']|'')+)'::regclass\)$/.exec(own ?? "")?.[1]?.replaceAll("''", "'");
  if (sequence === undefined) return statements.join("\n");
  return [
    `create sequence if not exists ${sequence};`,
    ...statements,
    `alter sequence ${sequence} owned by ${tableSql(target)}.${ident(name)};`,
  ].join("\n");
}

/** Gives the column another type, and its default with it. */
export function retypeColumnSql(target: Named, from: Column, to: Column): string {
  const column = ident(to.name);
  const actions = [
    ...(to.hasDefault ? [`alter column ${column} drop default`] : []),
    `alter column ${column} type ${from.type}${collateSql(from)} using ${column}::${from.type}`,
    ...(from.hasDefault ? [`alter column ${column} set default ${from.default}`] : []),
  ];
  return `alter table ${tableSql(target)} ${actions.join(", ")};`;
}

/** In what else a column of the target is not as on the source, and the statements; null: in nothing. */
export function unlikeColumn(
  target: Named,
  from: Column,
  to: Column,
  isRetyped: boolean,
): { readonly message: string; readonly remedy: string } | null {
  const alter = `alter table ${tableSql(target)} alter column ${ident(to.name)}`;
  const found: [message: string, remedy: string][] = [];
  if (from.collation !== to.collation && from.collation !== null && to.collation !== null && !isRetyped)
    found.push([`has collation ${from.collation}, and ${to.collation} on the target`, `${alter} type ${from.type} collate ${from.collation};`]); // prettier-ignore
  if (!from.notNull && to.notNull && to.identity === "" && from.generated === "")
    found.push(["may be null, and not on the target", `${alter} drop not null;`]);
  if (from.notNull && !to.notNull)
    found.push(["is NOT NULL, and not on the target", `${LATER}${alter} set not null;`]);
  if (!isRetyped && from.generated === "" && normalise(from.default ?? "") !== normalise(to.default ?? "")) {
    const set = from.default === null ? "drop default" : `set default ${from.default}`;
    found.push([`has ${from.default === null ? "no default" : `default ${from.default}`}, and ${to.default === null ? "none" : to.default} on the target`, `${alter} ${set};`]); // prettier-ignore
  }
  if (
    from.generated !== "" &&
    to.generated !== "" &&
    normalise(from.default ?? "") !== normalise(to.default ?? "")
  ) {
    const again = addColumnSql(target, from).replace(
      "add column",
      `drop column ${ident(to.name)}, add column`,
    );
    found.push([`is generated as ${from.default ?? ""}, and as ${to.default ?? ""} on the target`, again]);
  }
  if (from.identity !== to.identity) {
    const set =
      from.identity === ""
        ? "drop identity"
        : to.identity === ""
          ? `add ${identitySql(from)}`
          : `set ${identitySql(from).replace(" as identity", "")}`;
    found.push(["is an identity column in another way on the target", `${alter} ${set};`]);
  }
  if (found.length === 0) return null;
  return {
    message: `column ${ident(to.name)} ${found.map(([message]) => message).join("; ")}`,
    // What is to be done later is said last.
    remedy: found.map(([, remedy]) => remedy).toSorted((a, b) => Number(a.startsWith(LATER)) - Number(b.startsWith(LATER))).join("\n"), // prettier-ignore
  };
}

function identitySql({ identity }: Column): string {
  return `generated ${identity === "a" ? "always" : "by default"} as identity`;
}

/** Nothing where it is that of the database or of the type. */
export function collateSql({ collation, baseType, isDomain }: Column): string {
  if (collation === null || collation === 'pg_catalog."default"' || baseType === "name" || isDomain)
    return "";
  return ` collate ${collation}`;
}
