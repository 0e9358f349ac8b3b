/** Casts that users have defined and that would run with our rights: see docs/security.md. */
import type { Problem } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { load } from "../postgres/sql.ts";
import type { Column, Table } from "./table.ts";

/** What is known of a table's columns; a table without a key has none. */
export type Typed = Pick<Table, "key" | "columns">;

interface Cast {
  readonly type: string;
  readonly to: string;
  readonly owner: string;
}

export interface UserCast extends Problem {
  readonly side: Connection["side"];
  /** Who owns the type, and may drop the cast. */
  readonly role: string;
}

/** `logged`: those of the tables whose rows go into the log of conflicts. */
export async function findUserCasts(
  connection: Connection,
  tables: readonly Typed[],
  logged: readonly Typed[],
): Promise<UserCast[]> {
  const { side } = connection;
  const keys = tables.flatMap(({ key, columns }) =>
    (key?.columns ?? []).flatMap(({ attnum }) => columns.filter((column) => column.attnum === attnum)),
  );
  const find = async (path: string, columns: readonly Column[]): Promise<Cast[]> =>
    columns.length === 0
      ? []
      : await connection.rows<Cast>(load(path), [[...new Set(columns.map(({ baseOid }) => baseOid))]]);
  const implicit = await find("preflight/implicit-casts", keys);
  const toJson = await find("preflight/json-casts", logged.flatMap(({ columns }) => columns)); // prettier-ignore
  return [
    ...implicit.map(({ type, to, owner }) => ({
      subject: `cast (${type} as ${to})`,
      message: `is implicit on the ${side}, so that keys of type ${type} are compared through it, or cannot be compared`,
      side,
      role: owner,
      remedy: `-- on the ${side}, as ${owner}\ndrop cast (${type} as ${to});  -- and create it again, as assignment`,
    })),
    ...toJson
      .filter((cast) => !implicit.some(({ type, to }) => type === cast.type && to === cast.to))
      .map(({ type, to, owner }) => ({
        subject: `cast (${type} as ${to})`,
        message: `would run with our role's rights on the ${side}, where rows in conflict are logged as JSON`,
        side,
        role: owner,
        remedy: `-- on the ${side}, as ${owner}\ndrop cast (${type} as ${to});`,
      })),
  ];
}
