/** Reads the table of contents of a pg_dump archive, as `pg_restore --list --verbose` prints it. */

export interface Entry {
  /** By which `pg_restore --use-list` and the dependencies of other entries name it. */
  readonly id: number;
  /** The object on the source as in pg_depend; both 0 where the entry only says something about another object. */
  readonly classid: number;
  readonly objid: number;
  /** TABLE, FK CONSTRAINT … */
  readonly kind: string;
  /** Schema, name and owner, separated by spaces that names may have too: for messages alone. */
  readonly rest: string;
  /** Ids of the entries that have to be there before. */
  readonly needs: ReadonlySet<number>;
}

/** Kinds that consist of several words, the longer before those that they begin with. */
const longKinds = [
  "ACCESS METHOD", "CHECK CONSTRAINT", "DATABASE PROPERTIES", "DEFAULT ACL", "EVENT TRIGGER", "FK CONSTRAINT",
  "FOREIGN DATA WRAPPER", "FOREIGN SERVER", "FOREIGN TABLE", "INDEX ATTACH", "LARGE OBJECT",
  "MATERIALIZED VIEW DATA", "MATERIALIZED VIEW", "OPERATOR CLASS", "OPERATOR FAMILY", "PROCEDURAL LANGUAGE",
  "PUBLICATION TABLES IN SCHEMA", "PUBLICATION TABLE", "ROW SECURITY", "SECURITY LABEL", "SEQUENCE OWNED BY",
  "SEQUENCE SET", "SHELL TYPE", "STATISTICS DATA", "SUBSCRIPTION TABLE", "TABLE ATTACH", "TABLE DATA",
  "TEXT SEARCH CONFIGURATION", "TEXT SEARCH DICTIONARY", "TEXT SEARCH PARSER", "TEXT SEARCH TEMPLATE",
  "USER MAPPING",
]; // prettier-ignore

/** Entries in the order in which they are restored. */
export function parseToc(list: string): Entry[] {
  const entries: (Entry & { readonly needs: Set<number> })[] = [];
  for (const line of list.split("\n")) {
    const needs = /^;\s+depends on:(.*)$/.exec(line);
    if (needs !== null) {
      for (const id of (needs[1] ?? "").matchAll(/\d+/g)) entries.at(-1)?.needs.add(Number(id[0]));
      continue;
    }
    const found = /^(\d+); (\d+) (\d+) (.*)$/.exec(line);
    if (found === null) continue;
    const [, id, classid, objid, text = ""] = found;
    const kind = longKinds.find((each) => text.startsWith(`${each} `)) ?? (text.split(" ", 1)[0] as string);
    entries.push({
      id: Number(id),
      classid: Number(classid),
      objid: Number(objid),
      kind,
      rest: text.slice(kind.length + 1).trimEnd(),
      needs: new Set(),
    });
  }
  return entries;
}
