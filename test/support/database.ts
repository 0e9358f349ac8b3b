import type pg from "pg";

import { connect, createDatabaseAt, quoteName, uniqueName, urlWith, withClient } from "./admin.ts";
import type { Cluster } from "./cluster.ts";
import { waitForLeavers } from "./leaks.ts";
import { Session } from "./session.ts";

// A pair of new, empty databases per test. What a test leaves open in them is an error of its own.

/** A major version of the shared servers, or a server of the test's own. */
export type Server = string | Pick<Cluster, "adminUrl">;

export interface Role {
  name: string;
  password: string;
  /** Of this role in this database. */
  url: string;
}

export interface RoleOptions {
  /** Tells the role apart in messages; made unique. */
  prefix?: string;
  password?: string;
  /** What follows `create role NAME login`, such as "createdb". */
  attributes?: string;
}

export interface Database {
  name: string;
  url: string;
  /** Connected as the role in `url`; closed by `dispose`. */
  client: () => Promise<pg.Client>;
  /** Runs one statement or, without parameters, several; returns the rows of the last one. */
  sql: <Row extends pg.QueryResultRow = Record<string, unknown>>(
    text: string,
    params?: unknown[],
  ) => Promise<Row[]>;
  /** A login role, dropped by `dispose`. */
  createRole: (options?: RoleOptions) => Promise<Role>;
}

export interface Pair {
  source: Database;
  target: Database;
  dispose: () => Promise<void>;
  [Symbol.asyncDispose]: () => Promise<void>;
}

export interface PairOptions {
  source?: Server;
  target?: Server;
  /** What follows `create database NAME`, such as "template template0 lc_collate 'C.utf8' lc_ctype 'C.utf8'". */
  createOptions?: string;
  /** The same for the target's, where it differs. */
  targetOptions?: string;
  /**
   * Connections that are still open at `dispose` fail the test, since the library promises to free all of
   * its own; a test that kills a process in the middle of a statement has to ignore them.
   */
  leaks?: "fail" | "ignore";
}

/** Two new databases, seen as the superuser. Versions default to 13 and 18 (REPLICATE_TEST_VERSIONS). */
export async function freePair(options: PairOptions = {}): Promise<Pair> {
  const sides = await adminUrls(options);
  const source = await DatabaseHandle.create(sides.source, "source", options.createOptions);
  let target: DatabaseHandle;
  try {
    target = await DatabaseHandle.create(
      sides.target,
      "target",
      options.targetOptions ?? options.createOptions,
    );
  } catch (error) {
    await source.drop("ignore");
    throw error;
  }
  const dispose = async (): Promise<void> => {
    const results = await Promise.allSettled(
      [source, target].map((side) => side.drop(options.leaks ?? "fail")),
    );
    const reasons = results.flatMap((result) =>
      result.status === "rejected" ? [result.reason as unknown] : [],
    );
    if (reasons.length > 0) throw reasons[0];
  };
  return { source, target, dispose, [Symbol.asyncDispose]: dispose };
}

async function adminUrls(options: PairOptions): Promise<{ source: string; target: string }> {
  if (typeof options.source === "object" && typeof options.target === "object") {
    return { source: options.source.adminUrl, target: options.target.adminUrl };
  }
  // Loaded here because demonstration and benchmarks use this file without the test runner.
  const { inject } = await import("vitest");
  const servers = inject("servers");
  const resolve = (asked: Server | undefined, given: string | undefined, version: string): string => {
    if (typeof asked === "object") return asked.adminUrl;
    const url = given ?? servers.byVersion[asked ?? version];
    if (url !== undefined) return url;
    const known = Object.keys(servers.byVersion).join(", ");
    throw new Error(`no shared server of version ${asked ?? version}; this project has ${known}`);
  };
  return {
    source: resolve(options.source, servers.source, servers.sourceVersion),
    target: resolve(options.target, servers.target, servers.targetVersion),
  };
}

export class DatabaseHandle implements Database {
  readonly name: string;
  readonly url: string;
  readonly adminUrl: string;
  readonly #dropDatabase: () => Promise<void>;
  readonly #clients: pg.Client[] = [];
  readonly #roles: string[] = [];
  readonly #session: Session = new Session(() => this.client());

  constructor(adminUrl: string, name: string, dropDatabase: () => Promise<void>) {
    this.adminUrl = adminUrl;
    this.name = name;
    this.url = urlWith(adminUrl, { database: name });
    this.#dropDatabase = dropDatabase;
  }

  static async create(adminUrl: string, prefix: string, createOptions?: string): Promise<DatabaseHandle> {
    const database = await createDatabaseAt(adminUrl, prefix, createOptions);
    return new DatabaseHandle(adminUrl, database.name, database.drop);
  }

  async client(url: string = this.url): Promise<pg.Client> {
    const client = await connect(url);
    this.#clients.push(client);
    return client;
  }

  sql<Row extends pg.QueryResultRow>(text: string, params?: unknown[]): Promise<Row[]> {
    return this.#session.query<Row>(text, params);
  }

  async createRole(options: RoleOptions = {}): Promise<Role> {
    const name = uniqueName(options.prefix ?? "role");
    const password = options.password ?? "test-password";
    await withClient(this.url, async (client) => {
      const attributes = `login ${options.attributes ?? ""} password ${client.escapeLiteral(password)}`;
      await client.query(`create role ${quoteName(name)} ${attributes}`);
    });
    this.#roles.push(name);
    return { name, password, url: urlWith(this.url, { user: name, password }) };
  }

  async drop(leaks: "fail" | "ignore"): Promise<void> {
    await Promise.all(this.#clients.splice(0).map((client) => client.end().catch(() => undefined)));
    const leaked = leaks === "fail" ? await waitForLeavers(this.adminUrl, this.name) : [];
    await this.#dropDatabase();
    if (this.#roles.length > 0) {
      const names = this.#roles.splice(0).map(quoteName).join(", ");
      await withClient(this.adminUrl, (client) => client.query(`drop role if exists ${names}`));
    }
    if (leaked.length > 0) throw new Error(`connections left open in ${this.name}:\n${leaked.join("\n")}`);
  }
}
