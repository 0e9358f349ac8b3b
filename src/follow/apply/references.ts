/**
 * Rows that others point to by a foreign key. Foreign keys do not act on rows that we bring, so a row that gives way to
 * another one with the same unique value could leave rows behind that point nowhere.
 */
import type { Side } from "../../events.ts";
import { asApplication } from "../../catalog/search-path.ts";
import { fromSql, type Table } from "../../catalog/table.ts";
import type { Connection } from "../../postgres/connect.ts";
import { ident, literal, load } from "../../postgres/sql.ts";
import type { TrackedPair } from "../conflicts/sides.ts";

interface Reference {
  readonly table: string;
  readonly condition: string;
}

/** A row of one side, by its key as text in the order of staging. */
interface Row {
  readonly connection: Connection;
  readonly table: Table;
  readonly condition: string;
}

export class References {
  /** By side and oid of the table. */
  readonly #known = new Map<string, readonly Reference[]>();

  /**
   * Whether rows would be left behind that point to nothing if `loser` lost to a row of the other side: it does not exist
   * there, so it goes for good. `side`: where the loser is.
   */
  async wouldBreak(
    shape: TrackedPair,
    sides: { readonly source: Connection; readonly target: Connection },
    side: Side,
    loser: readonly string[],
  ): Promise<boolean> {
    const other = side === "source" ? "target" : "source";
    const row = rowOf(shape, side, sides[side], loser);
    const references = await this.#of(row);
    if (references.length === 0) return false;
    if (await exists(rowOf(shape, other, sides[other], loser))) return false;
    const pointing = references.map(
      ({ table, condition }) =>
        `exists (select 1 from ${table} as c join ${fromSql(row.table)} as t on ${condition} where ${row.condition})`,
    );
    const results = await row.connection.script(
      asApplication(row.table, [`select ${pointing.join(" or ")} as "isReferenced"`]).join(";\n"),
    );
    return (results[1]?.rows[0] as { isReferenced: boolean } | undefined)?.isReferenced === true;
  }

  async #of({ connection, table }: Row): Promise<readonly Reference[]> {
    const key = `${connection.side} ${table.oid}`;
    const known =
      this.#known.get(key) ?? (await connection.rows<Reference>(load("follow/references"), [table.oid]));
    this.#known.set(key, known);
    return known;
  }
}

function rowOf(
  { source, target, capture, targetKey }: TrackedPair,
  side: Side,
  connection: Connection,
  texts: readonly string[],
): Row {
  const conditions = texts.map((text, n) => {
    const own = capture.keyColumns[n];
    const there = targetKey[n];
    const [name, type, equals] =
      side === "source"
        ? [own?.name, own?.readType, own?.equals]
        : [there?.column.name, there?.column.baseType, there?.equals];
    return `(t.${ident(name ?? "")})::${type} ${equals} ${literal(text)}::${type}`;
  });
  return { connection, table: side === "source" ? source : target, condition: conditions.join(" and ") };
}

async function exists({ connection, table, condition }: Row): Promise<boolean> {
  const results = await connection.script(
    asApplication(table, [`select 1 from ${fromSql(table)} as t where ${condition}`]).join(";\n"),
  );
  return (results[1]?.rows.length ?? 0) > 0;
}
