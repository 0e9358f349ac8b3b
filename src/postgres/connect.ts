/**
 * Opens sessions. Every session of ours is pinned to the same settings on every version, so that text forms,
 * comparisons and time-outs do not depend on the server's, the database's or the role's defaults.
 */
import type { Socket } from "node:net";
import pg from "pg";
import { ReplicateError } from "../errors.ts";
import type { Side } from "../events.ts";
import type { Client, QueryResult } from "./client.ts";
import { requireChannelBinding } from "./channel-binding.ts";
import type { ConnectionSettings } from "./conninfo.ts";
import { watchLiveness } from "./liveness.ts";
import { placeText } from "./place.ts";
import { assertKeepsSessions, keepsSessions, type Ask } from "./pooler.ts";
import { sleep } from "./sleep.ts";
import { fill, literal } from "./sql.ts";
import { asReplicateError, sqlstateOf, toldBy } from "./sqlstate.ts";
import { traceStatements, type TracedStatement } from "./trace.ts";

export interface ConnectOptions {
  readonly side: Side;
  /** Shown in pg_stat_activity after "replicate": copy, follow, verify … */
  readonly purpose: string;
  /** Closes the session when it fires. */
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds a statement may wait for a lock; 0 waits for ever. Default 3000. */
  readonly lockTimeoutMs?: number;
  /** Try to set session_replication_role = replica; `Connection.isReplicaRole` tells whether the role may. */
  readonly isReplicaRole?: boolean;
  /** No parallel plans in this session. */
  readonly isSerial?: boolean;
  /** The session can be done without: where the server has no place for it, that is said at once. */
  readonly isSpare?: boolean;
  /** Called at the end of each statement. */
  readonly onStatement?: ((statement: TracedStatement) => void) | undefined;
}

/**
 * A place that is taken now may be free in a moment: that of a session which was just closed, or which lives but briefly.
 * Two that come for the last place at the same time are both refused.
 */
const CROWD_PATIENCE_MS = 1500;
const CROWD_PAUSE_MS = 100;

/** A row as the driver gives it; catalogue queries name their columns in camelCase. */
export type Row = Record<string, unknown>;

/** Array results of a multi-statement string, one per statement. */
export type Results = readonly QueryResult[];

/** The driver's socket, which it does not show. */
function wire(client: pg.Client | Client): Pick<Socket, "destroy" | "destroyed" | "bytesRead"> {
  return (client as unknown as { connection: { stream: Socket } }).connection.stream;
}

/** The driver has asked nothing that is not answered yet; it does not say so itself. */
function isReady(client: pg.Client | Client): boolean {
  return (client as unknown as { readyForQuery: boolean }).readyForQuery;
}

/** The number that was announced when we logged in: the pid of the server's process, unless a pool made it up. */
function announcedPid(client: pg.Client): number {
  return (client as unknown as { processID: number | null }).processID ?? 0;
}

interface SessionFacts {
  readonly version: number;
  readonly pid: number;
  readonly isReplicaRole: boolean;
  readonly isPooled: boolean;
}

/** One session on one server. Not to be shared between concurrent callers. */
export class Connection {
  readonly side: Side;
  readonly client: Client;
  /** `server_version_num`, for example 130023. */
  readonly version: number;
  readonly pid: number;
  /** Neither triggers nor foreign keys act on what this session writes. */
  readonly isReplicaRole: boolean;
  /** A pool is in between, which keeps the session for us until we leave, and then gives it to somebody else. */
  readonly isPooled: boolean;
  /** A statement that begins each transaction which changes anything, and fails where this process must not any more. */
  guard: string | undefined;
  readonly #lastWork: (() => Promise<void>)[] = [];
  #broken: Error | undefined;

  constructor(client: Client, side: Side, session: SessionFacts) {
    this.client = client;
    this.side = side;
    this.version = session.version;
    this.pid = session.pid;
    this.isReplicaRole = session.isReplicaRole;
    this.isPooled = session.isPooled;
    client.on("error", (error) => {
      this.#broken ??= error;
    });
    client.on("end", () => {
      this.#broken ??= new Error("Connection terminated");
    });
  }

  /** Where it leads to, for people. */
  get place(): string {
    const { host, port, database = "", user = "" } = this.client;
    return placeText({ host, port, database, role: user });
  }

  get isBroken(): boolean {
    return this.#broken !== undefined;
  }

  /** Neither broken nor in the middle of a statement. */
  get isFree(): boolean {
    return !this.isBroken && isReady(this.client);
  }

  /** Rows of one statement. Throws the driver's error: callers that can retry look at its SQLSTATE. */
  async rows<T extends object = Row>(text: string, values: readonly unknown[] = []): Promise<T[]> {
    const result = await this.#answer(this.client.query(text, values as unknown[]));
    return result.rows as T[];
  }

  async #answer<T>(answer: Promise<T>): Promise<T> {
    try {
      return await answer;
    } catch (error) {
      throw toldBy(this.side, error);
    }
  }

  /** The only row of one statement. */
  async row<T extends object = Row>(text: string, values: readonly unknown[] = []): Promise<T> {
    const [row, ...more] = await this.rows<T>(text, values);
    if (row === undefined || more.length > 0)
      throw new Error(`expected one row, got ${more.length + (row ? 1 : 0)}`);
    return row;
  }

  /** Runs several statements in one round trip. No parameters: holes are quoted by the caller. */
  async script(text: string): Promise<Results> {
    const result = (await this.#answer(this.client.query(text))) as QueryResult | QueryResult[];
    return Array.isArray(result) ? result : [result];
  }

  /** Runs several statements as one transaction, under the guard of this session, in one round trip. */
  async guarded(text: string): Promise<Results> {
    if (this.guard === undefined) return await this.script(text);
    return (await this.script(`${this.guard};\n${text}`)).slice(1);
  }

  /**
   * Runs `work` in a transaction: commit when it returns, rollback when it throws. After a rollback the session
   * can be used again; a broken session stays broken and the error says so.
   */
  async transaction<T>(work: () => Promise<T>, begin = "begin"): Promise<T> {
    // In others a snapshot would be taken too early, or nothing may be locked.
    const isPlain = /^begin(;|$)/.test(begin);
    await this.script(isPlain && this.guard !== undefined ? `${begin}; ${this.guard}` : begin);
    try {
      const result = await work();
      await this.script("commit");
      return result;
    } catch (error) {
      if (!this.isBroken) await this.script("rollback").catch(() => this.destroy());
      throw error;
    }
  }

  /**
   * Has the server (14 and newer) notice within two seconds that our process is gone, also in the middle of a statement,
   * which would go on to its end otherwise. Refused where the server's operating system cannot tell.
   */
  async noticeDeath(): Promise<void> {
    if (this.version < 140_000) return;
    await this.script(`set client_connection_check_interval = '2s'`).catch((error: unknown) => {
      if (sqlstateOf(error) === undefined) throw error;
    });
  }

  /** `work` is done before the session is closed, unless it is broken by then. It must not throw. */
  beforeClose(work: () => Promise<void>): void {
    this.#lastWork.push(work);
  }

  /** Ends the session politely; never throws. */
  async close(): Promise<void> {
    if (this.isBroken) return this.destroy();
    const timer = setTimeout(() => this.destroy(), 2000);
    for (const work of this.#lastWork.splice(0)) await work();
    if (this.isPooled) await this.#leaveClean();
    await this.client.end().catch(() => undefined);
    clearTimeout(timer);
  }

  /** Pools do it too, unless they were told not to. */
  async #leaveClean(): Promise<void> {
    await this.script("rollback").catch(() => undefined);
    await this.script("discard all").catch(() => undefined);
  }

  /** Cuts the session: the server rolls its transaction back. For sessions stuck in a COPY or on a dead network. */
  destroy(): void {
    this.#broken ??= new Error("Connection terminated by us");
    wire(this.client).destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/**
 * Opens a session and pins its settings. Where the server has no place for it, that is tried for a moment.
 * Throws SERVER_UNREACHABLE, LOGIN_REFUSED, TOO_MANY_CONNECTIONS, SERVER_TOO_OLD, POOLER_IN_BETWEEN, ABORTED.
 */
export async function connect(settings: ConnectionSettings, options: ConnectOptions): Promise<Connection> {
  const patience = Date.now() + (options.isSpare === true ? 0 : CROWD_PATIENCE_MS);
  for (;;) {
    try {
      return await openEncryptedOrNot(settings, options);
    } catch (error) {
      const isOverBudget = error instanceof ReplicateError && error.code === "TOO_MANY_CONNECTIONS";
      if (!isOverBudget || Date.now() >= patience) throw error;
      await sleep(CROWD_PAUSE_MS * (0.5 + Math.random()), options.signal ?? new AbortController().signal);
    }
  }
}

async function openEncryptedOrNot(
  settings: ConnectionSettings,
  options: ConnectOptions,
): Promise<Connection> {
  try {
    return await open(settings, options);
  } catch (error) {
    if (settings.sslFallback !== true || !isRefusalOfTls(error)) throw error;
    const without = { ...settings, ssl: false, sslFallback: false } as const;
    // Where neither way is let in, the answer to the encrypted try says more, unless there was none.
    return await open(without, options).catch((second: unknown) => {
      throw sqlstateOf((error as ReplicateError).cause) === undefined ? second : error;
    });
  }
}

/**
 * True when the server cannot encrypt, or lets this user in only without encryption (28000: no line in pg_hba.conf).
 * Of the first there is but a sentence of the driver's own, which speaks English wherever it runs.
 */
function isRefusalOfTls(error: unknown): boolean {
  if (!(error instanceof ReplicateError) || error.cause === undefined) return false;
  const { code, message } = error.cause as { code?: unknown; message?: string };
  return (
    code === "28000" ||
    (typeof code === "string" && /^(ERR_SSL|ERR_TLS|EPROTO)|CERT|SIGNATURE/.test(code)) ||
    /does not support SSL|establishing an SSL connection/.test(message ?? "")
  );
}

function newClient(settings: ConnectionSettings, { side, purpose, onStatement }: ConnectOptions): pg.Client {
  const client = new pg.Client({
    host: settings.host,
    port: settings.port,
    user: settings.user,
    database: settings.database,
    // A function, because the driver would look for a password of its own if it was given none.
    password: () => {
      if (settings.password !== undefined) return settings.password;
      const said = `cannot connect to the ${side} ${settings.label}: the server asks for a password, and none was given`;
      throw new ReplicateError("LOGIN_REFUSED", said, { side, hint: passwordHint(settings) });
    },
    ssl: settings.ssl,
    ...(settings.channelBinding === true ? { enableChannelBinding: true } : {}),
    ...(settings.options === undefined ? {} : { options: settings.options }),
    application_name: `replicate ${purpose}`,
    connectionTimeoutMillis: settings.connectTimeoutMs,
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
  });
  // The driver kills the process on a broken idle connection unless somebody listens.
  client.on("error", () => undefined);
  if (settings.channelBinding === true) requireChannelBinding(client, side, settings);
  if (onStatement !== undefined) traceStatements(client, onStatement);
  return client;
}

async function open(settings: ConnectionSettings, options: ConnectOptions): Promise<Connection> {
  const { side, signal } = options;
  if (signal?.aborted) throw new ReplicateError("ABORTED", "stopped before connecting");
  const client = newClient(settings, options);
  const onAbort = (): void => void wire(client).destroy();
  signal?.addEventListener("abort", onAbort, { once: true });
  client.once("end", () => signal?.removeEventListener("abort", onAbort));
  try {
    await client.connect();
    let facts = await beginSession(client, announcedPid(client), options);
    if (facts.version < 100_000) {
      throw new ReplicateError(
        "SERVER_TOO_OLD",
        `the ${side} ${settings.label} runs version ${facts.version}`,
        { side },
      );
    }
    if (facts.isPooled) {
      await assertOursAlone(client, facts.pid, settings, options);
      facts = { ...(await beginSession(client, facts.pid, options)), isPooled: true };
    }
    const connection = new Connection(client as unknown as Client, side, facts);
    const stopWatching = watchLiveness({
      settings,
      bytesRead: () => wire(client).bytesRead,
      isWaiting: () => !isReady(client),
      cut: () => connection.destroy(),
    });
    client.once("end", stopWatching);
    return connection;
  } catch (error) {
    signal?.removeEventListener("abort", onAbort);
    await client.end().catch(() => undefined);
    if (signal?.aborted) throw new ReplicateError("ABORTED", "stopped while connecting", { cause: error });
    throw connectError(error, side, settings);
  }
}

/**
 * Asks the session who it is and pins its settings, in one round trip; where it is another one than `pid`, nothing is changed
 * in it, and `isPooled` is true.
 */
async function beginSession(client: pg.Client, pid: number, options: ConnectOptions): Promise<SessionFacts> {
  const results = (await client.query(sessionScript(options, pid))) as unknown as pg.QueryResult[];
  const [first] = (results[0]?.rows ?? []) as { version: string; pid: number }[];
  const [last] = (results.at(-1)?.rows ?? []) as { role?: string }[];
  return {
    version: Number(first?.version),
    pid: Number(first?.pid),
    isReplicaRole: last?.role === "replica",
    isPooled: Number(first?.pid) !== pid,
  };
}

/** The statements of one string reach one session, whatever is in between. */
function sessionScript(
  { lockTimeoutMs = 3000, isReplicaRole = false, isSerial = false }: ConnectOptions,
  pid: number,
): string {
  const pins = fill("catalog/session", {
    pid: literal(pid),
    lock_timeout: literal(String(lockTimeoutMs)),
    max_parallel_workers_per_gather: isSerial ? "'0'" : "null",
  });
  return [
    "select pg_catalog.current_setting('server_version_num') as version, pg_catalog.pg_backend_pid() as pid",
    pins,
    ...(isReplicaRole ? [fill("catalog/replica-role", { pid: literal(pid) })] : []),
    "select pg_catalog.current_setting('session_replication_role') as role",
  ].join(";\n");
}

/** The second client of a pool waits so long for a session of its own. */
const SECOND_MS = 10_000;

/** Throws POOLER_IN_BETWEEN, and TOO_MANY_CONNECTIONS where the pool has no second session for the comparison. */
async function assertOursAlone(
  client: pg.Client,
  pid: number,
  settings: ConnectionSettings,
  options: ConnectOptions,
): Promise<void> {
  const { host, port, database, user, label } = settings;
  const asking =
    (of: pg.Client): Ask =>
    async () => {
      const result = await of.query<{ pid: number }>("select pg_catalog.pg_backend_pid() as pid");
      return Number(result.rows[0]?.pid);
    };
  await assertKeepsSessions(options.side, label, JSON.stringify([host, port, database, user]), async () => {
    const other = newClient(settings, options);
    const timer = setTimeout(() => wire(other).destroy(), SECOND_MS);
    try {
      await other.connect();
      return await keepsSessions(pid, asking(client), asking(other));
    } catch (error) {
      if (sqlstateOf(error) !== undefined && !wire(other).destroyed) throw error;
      throw new ReplicateError("TOO_MANY_CONNECTIONS", `the pool of the ${options.side} ${label} has no place for two sessions of this program`, { cause: error, side: options.side }); // prettier-ignore
    } finally {
      clearTimeout(timer);
      await other.end().catch(() => undefined);
    }
  });
}

function connectError(error: unknown, side: Side, settings: ConnectionSettings): ReplicateError {
  if (error instanceof ReplicateError) return error;
  const said =
    error instanceof Error ? error.message || String((error as { code?: string }).code) : String(error);
  const message = `cannot connect to the ${side} ${settings.label}: ${said}`;
  const sqlstate = sqlstateOf(error);
  if (sqlstate === "53300")
    return new ReplicateError("TOO_MANY_CONNECTIONS", message, { cause: error, sqlstate, side });
  if (sqlstate !== undefined && (sqlstate.startsWith("28") || sqlstate === "3D000" || sqlstate === "42501")) {
    const hint = sqlstate === "28P01" ? { hint: passwordHint(settings) } : {};
    return new ReplicateError("LOGIN_REFUSED", message, { cause: error, sqlstate, side, ...hint });
  }
  if (/does not support SSL|self-signed|self signed|certificate|password must be a string/i.test(said)) {
    return new ReplicateError("LOGIN_REFUSED", message, { cause: error, side });
  }
  if (sqlstate === undefined || sqlstate.startsWith("08") || sqlstate.startsWith("57")) {
    return new ReplicateError("SERVER_UNREACHABLE", message, { cause: error, side });
  }
  return asReplicateError(toldBy(side, error), message);
}

function passwordHint(settings: ConnectionSettings): string {
  const places = "Give the password in the URL, in a variable such as PGPASSWORD, or in ~/.pgpass.";
  return [...(settings.warnings ?? []).map((each) => `Note: ${each}.`), places].join(" ");
}
