/** Creates schema `replicate`, and brings an older one up to date. */
import { readdirSync } from "node:fs";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { literal, load } from "../postgres/sql.ts";
import { DUPLICATE_SCHEMA, UNDEFINED_TABLE, UNIQUE_VIOLATION, sqlstateOf } from "../postgres/sqlstate.ts";
import { assertNoStrangers } from "./strangers.ts";

/** One step of the schema. */
export interface Migration {
  readonly version: number;
  readonly sql: string;
}

/** Numbered files of `sql/state`, in order. */
export function migrations(): Migration[] {
  return readdirSync(new URL("../../sql/state/", import.meta.url))
    .filter((file) => /^\d{4}-.*\.sql$/.test(file))
    .sort()
    .map((file) => ({ version: Number(file.slice(0, 4)), sql: load(`state/${file.slice(0, -4)}`) }));
}

/** Serialises whoever changes or removes the schema in a database. Nobody else has the rights for such a lock. */
export const SCHEMA_LOCK = "lock table replicate.migration in share row exclusive mode";

/** Somebody else has just created the schema, or has just removed it. */
const RACES = [UNIQUE_VIOLATION, DUPLICATE_SCHEMA, UNDEFINED_TABLE];
const MOST_RACES = 5;

/** Version of the schema in this database; 0 when there is none. */
export async function stateVersion(connection: Connection): Promise<number> {
  const [found] = await connection.rows(`select 1 from pg_catalog.pg_namespace where nspname = 'replicate'`);
  if (found === undefined) return 0;
  const { exists } = await connection.row<{ exists: boolean }>(
    `select pg_catalog.to_regclass('replicate.migration') is not null as exists`,
  );
  if (!exists) {
    throw new ReplicateError(
      "SYNC_MISMATCH",
      `the ${connection.side} has a schema named replicate that this program did not make`,
      {
        hint: "Rename or drop that schema: the name is needed.",
      },
    );
  }
  const { version } = await connection.row<{ version: number }>(
    `select coalesce(max(version), 0) as version from replicate.migration`,
  );
  return version;
}

/** The same for a side that may be of an earlier version, without a lock where it is not. Where there is no state, none is made. */
export async function migrateOlder(connection: Connection, files = migrations()): Promise<void> {
  const version = await stateVersion(connection);
  if (version > 0 && version < (files.at(-1)?.version ?? 0)) await migrate(connection, files);
}

/** Applies what is missing, in one transaction. Throws STATE_TOO_NEW, SYNC_MISMATCH, and the driver's errors. */
export async function migrate(connection: Connection, files = migrations()): Promise<void> {
  for (let races = 0; ; races += 1) {
    try {
      return await connection.transaction(async () => await migrateNow(connection, files));
    } catch (error) {
      if (races === MOST_RACES || !RACES.includes(sqlstateOf(error) ?? "")) throw error;
    }
  }
}

async function migrateNow(connection: Connection, files: readonly Migration[]): Promise<void> {
  const newest = files.at(-1)?.version ?? 0;
  // Somebody may have made it since the last look.
  await assertNoStrangers(connection, `the ${connection.side}`);
  if ((await stateVersion(connection)) > 0) await connection.script(SCHEMA_LOCK);
  const version = await stateVersion(connection);
  if (version > newest) {
    throw new ReplicateError(
      "STATE_TOO_NEW",
      `schema replicate on the ${connection.side} has version ${version}, this program knows ${newest}`,
    );
  }
  for (const file of files.filter((each) => each.version > version)) {
    await connection.script(file.sql);
    await connection.script(`insert into replicate.migration (version) values (${literal(file.version)})`);
  }
}
