/**
 * Descriptions of many tables that are each needed again under a lock: all are described in one go beforehand, and one by one
 * only where a table has changed since. To describe one costs the server much more than to look whether it is the same.
 */
import type { Connection } from "../postgres/connect.ts";
import { load } from "../postgres/sql.ts";
import { describeTables, type Table } from "./table.ts";

interface Described {
  readonly stamp: string;
  readonly table: Table;
}

export class DescribedTables {
  readonly #connection: Connection;
  readonly #known: ReadonlyMap<number, Described>;

  private constructor(connection: Connection, known: ReadonlyMap<number, Described>) {
    this.#connection = connection;
    this.#known = known;
  }

  static async of(connection: Connection, oids: readonly number[]): Promise<DescribedTables> {
    // The stamps first: what changes before the tables are described is found to have changed.
    const stamps = await readStamps(connection, oids);
    const known = new Map<number, Described>();
    for (const table of await describeTables(connection, oids)) {
      const stamp = stamps.get(table.oid);
      if (stamp !== undefined) known.set(table.oid, { stamp, table });
    }
    return new DescribedTables(connection, known);
  }

  /** As it is now. Undefined where it is gone. */
  async now(oid: number): Promise<Table | undefined> {
    const known = this.#known.get(oid);
    if (known !== undefined && (await readStamps(this.#connection, [oid])).get(oid) === known.stamp)
      return known.table;
    return (await describeTables(this.#connection, [oid]))[0];
  }
}

async function readStamps(connection: Connection, oids: readonly number[]): Promise<Map<number, string>> {
  const rows = await connection.rows<{ relid: number; stamp: string }>(load("catalog/stamps"), [oids]);
  return new Map(rows.map(({ relid, stamp }) => [relid, stamp]));
}
