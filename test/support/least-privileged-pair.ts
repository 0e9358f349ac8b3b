import type pg from "pg";

import { quoteName } from "./admin.ts";
import { type DatabaseHandle, freePair, type Pair, type PairOptions, type Role } from "./database.ts";
import { Session } from "./session.ts";

// What the product promises to do with: no superuser, just the owner of the tables. The passwords hold
// the characters that break a URL put together carelessly.

export interface LeastPrivilegedSide {
  name: string;
  /** The owner's; what the product is given. */
  url: string;
  owner: Role;
  /** The application's role: may read and write the tables of `public`, and nothing else. */
  writer: Role;
  /** The superuser's, for what the tests themselves have to arrange or look at. */
  adminUrl: string;
  client: (role?: "owner" | "writer" | "admin") => Promise<pg.Client>;
  /** As the owner. */
  sql: Query;
  asWriter: Query;
  asAdmin: Query;
}

export type Query = <Row extends pg.QueryResultRow = Record<string, unknown>>(
  text: string,
  params?: unknown[],
) => Promise<Row[]>;

export interface LeastPrivilegedPair {
  source: LeastPrivilegedSide;
  target: LeastPrivilegedSide;
  dispose: () => Promise<void>;
  [Symbol.asyncDispose]: () => Promise<void>;
}

export async function leastPrivilegedPair(options: PairOptions = {}): Promise<LeastPrivilegedPair> {
  const pair: Pair = await freePair(options);
  try {
    const source = await withdrawPrivileges(pair.source as DatabaseHandle);
    const target = await withdrawPrivileges(pair.target as DatabaseHandle);
    return { source, target, dispose: pair.dispose, [Symbol.asyncDispose]: pair.dispose };
  } catch (error) {
    await pair.dispose();
    throw error;
  }
}

async function withdrawPrivileges(database: DatabaseHandle): Promise<LeastPrivilegedSide> {
  const owner = await database.createRole({
    prefix: "owner",
    password: "o:w@n/e%r 1",
    attributes: "nosuperuser nocreatedb nocreaterole noreplication nobypassrls",
  });
  const writer = await database.createRole({
    prefix: "app_writer",
    password: "w%r:i@t/e%40r",
    attributes: "nosuperuser nocreatedb nocreaterole noreplication nobypassrls",
  });
  const [databaseName, ownerName, writerName] = [database.name, owner.name, writer.name].map(quoteName);
  // Default privileges in `public` alone: granted everywhere, they would also open the product's own
  // schema, and hide that a capture trigger needs them.
  await database.sql(`
    grant create, temporary on database ${databaseName} to ${ownerName};
    alter schema public owner to ${ownerName};
    revoke all on schema public from public;
    grant usage on schema public to ${writerName};
    alter default privileges for role ${ownerName} in schema public
      grant select, insert, update, delete on tables to ${writerName};
    alter default privileges for role ${ownerName} in schema public
      grant usage, select on sequences to ${writerName};
  `);
  const urls = { owner: owner.url, writer: writer.url, admin: database.url };
  const queryAs = (role: keyof typeof urls): Query => {
    const session = new Session(() => database.client(urls[role]));
    return (text, params) => session.query(text, params);
  };
  return {
    name: database.name,
    url: owner.url,
    owner,
    writer,
    adminUrl: database.url,
    client: (role = "owner") => database.client(urls[role]),
    sql: queryAs("owner"),
    asWriter: queryAs("writer"),
    asAdmin: queryAs("admin"),
  };
}
