/**
 * What a move of tables leaves behind and an application misses on the new side: the settings of the database and of its
 * roles, and the contents of materialized views.
 */
import type { Problem } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { ident, literal, load } from "../postgres/sql.ts";
import { tableLabel, tableSql } from "./table.ts";

interface Setting {
  readonly role: string | null;
  readonly isInDatabase: boolean;
  readonly name: string;
  readonly value: string;
}

/** Kept as a list of quoted names, which is SQL as it is. */
const nameLists = new Set([
  "search_path", "temp_tablespaces", "session_preload_libraries", "local_preload_libraries",
]); // prettier-ignore

/** Settings of an application's own may hold anything. */
const confidential = /\.|secret|pass|token|key|credential/i;

/** Settings of the source's database that the target's lacks or has otherwise, with the statement for each. */
export async function missingSettings(source: Connection, target: Connection): Promise<Problem[]> {
  const own = await source.rows<Setting>(load("catalog/database-settings"));
  const there = await target.rows<Setting>(load("catalog/database-settings"));
  const database = await target.row<{ name: string; roles: string[] }>(
    `select pg_catalog.current_database()::text as name, array(select rolname::text from pg_catalog.pg_roles) as roles`,
  );
  const known = new Set(database.roles);
  return own
    .filter(({ role }) => role === null || known.has(role))
    .flatMap((setting): Problem[] => {
      const { role, isInDatabase, name, value } = setting;
      const other = there.find(
        (each) => each.role === role && each.isInDatabase === isInDatabase && each.name === name,
      );
      if (other?.value === value) return [];
      const isHidden = confidential.test(name);
      const where = `${role === null ? "the database" : `role ${role}`}${role !== null && isInDatabase ? " in the database" : ""}`;
      const show = (text: string): string => (isHidden ? "a value that is not shown" : text);
      const found = other === undefined ? "not set" : isHidden ? "another value" : other.value;
      const inDatabase = ` in database ${ident(database.name)}`;
      const object =
        role === null
          ? isInDatabase
            ? `database ${ident(database.name)}`
            : "role all"
          : `role ${ident(role)}${isInDatabase ? inDatabase : ""}`;
      const sql = isHidden ? "'…'" : nameLists.has(name) ? value : literal(value);
      return [
        {
          subject: `setting ${name}`,
          message: `of ${where} is ${show(value)} on the source and ${found} on the target: sessions of the application begin otherwise there`,
          remedy: `alter ${object} set ${name.split(".").map(ident).join(".")} = ${sql};`,
        },
      ];
    });
}

interface View {
  readonly schema: string;
  readonly name: string;
  readonly isPopulated: boolean;
}

/**
 * The target's materialized views that have to be filled once its rows are complete, in the order in which they read each
 * other; those that are not filled on the source either are left out.
 */
export async function viewsToFill(source: Connection, target: Connection): Promise<Problem[]> {
  const [own, there] = await Promise.all(
    [source, target].map((side) => side.rows<View>(load("schema/materialized-views"))),
  );
  const filled = new Set((own ?? []).filter(({ isPopulated }) => isPopulated).map(tableLabel));
  const views = (there ?? []).filter((view) => filled.has(tableLabel(view)));
  if (views.length === 0) return [];
  const names = views.map(tableLabel);
  const shown = names.length > 5 ? `${names.slice(0, 4).join(", ")} and ${names.length - 4} more` : names.join(", "); // prettier-ignore
  return [
    {
      subject: "materialized views",
      message: `hold nothing of what is replicated until they are filled on the target: ${shown}`,
      remedy: views.map((view) => `refresh materialized view ${tableSql(view)};`).join("\n"),
    },
  ];
}
