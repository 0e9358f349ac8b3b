/** Makes the context of a sync: sessions, and what they have to be. */
import { setMaxListeners } from "node:events";
import type { ResolvedConfig } from "../config/options.ts";
import type { OnEvent, Side } from "../events.ts";
import type { TracedStatement } from "../postgres/trace.ts";
import { connect, type Connection } from "../postgres/connect.ts";
import { declareApplying } from "./applying.ts";
import type { ConnectionSettings } from "../postgres/conninfo.ts";
import type { Logger, OpenOptions, SyncContext } from "./context.ts";
import { assertNoStrangers } from "./strangers.ts";

const silent: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

/** Sessions that are open, so that they can be closed when the owner is disposed. */
export class Sessions {
  readonly #open = new Set<Connection>();
  /** Servers whose schema replicate was found to be ours alone, so that nobody else can change that. */
  readonly checked = new WeakSet<ConnectionSettings>();

  add(connection: Connection): void {
    this.#open.add(connection);
    connection.client.once("end", () => this.#open.delete(connection));
  }

  async closeAll(): Promise<void> {
    await Promise.all([...this.#open].map((connection) => connection.close()));
  }
}

export interface ContextOptions {
  readonly onEvent?: OnEvent | undefined;
  readonly logger?: Logger | undefined;
  readonly signal?: AbortSignal | undefined;
  /**
   * False: sessions outlive the signal, for work that ends by itself when asked to stop. Default true: the signal
   * cuts them.
   */
  readonly isCutBySignal?: boolean;
}

/** Purposes of the sessions that change rows of the application's tables. */
const WRITERS = /^(follow|copy|conflicts)\b/;

export function makeContext(
  config: ResolvedConfig,
  sessions: Sessions,
  options: ContextOptions,
): SyncContext {
  // One of our own, because each session listens to it, and Node.js warns about more than ten listeners.
  const signal = AbortSignal.any(options.signal === undefined ? [] : [options.signal]);
  setMaxListeners(0, signal);
  const log = options.logger ?? silent;
  let isReplicaRole = false;
  const open = async (side: Side, purpose: string, given: OpenOptions = {}): Promise<Connection> => {
    const connection = await connect(config[side], {
      side,
      purpose,
      isReplicaRole: side === "target",
      onStatement: tracer(log, side, purpose),
      ...(options.isCutBySignal === false ? {} : { signal }),
      ...(given.isSerial === true ? { isSerial: true } : {}),
      ...(given.isSpare === true ? { isSpare: true } : {}),
      ...(given.lockTimeoutMs === undefined ? {} : { lockTimeoutMs: given.lockTimeoutMs }),
    });
    sessions.add(connection);
    if (sessions.checked.has(config[side])) return connection;
    try {
      await assertNoStrangers(connection, config[side].label);
    } catch (error) {
      await connection.close();
      throw error;
    }
    sessions.checked.add(config[side]);
    return connection;
  };
  return {
    config,
    emit: options.onEvent ?? (() => undefined),
    log,
    signal,
    source: async (purpose, given) => await open("source", purpose, given),
    target: async (purpose, given) => {
      const connection = await open("target", purpose, given);
      ({ isReplicaRole } = connection);
      // What we write is no change of an application.
      if (config.tracksTarget && WRITERS.test(purpose)) await declareApplying(connection);
      return connection;
    },
    get isReplicaRole() {
      return isReplicaRole;
    },
  };
}

/** What writes statements to the log, where it wants them. */
function tracer(
  log: Logger,
  side: Side,
  purpose: string,
): ((statement: TracedStatement) => void) | undefined {
  if (log.trace === undefined || log.isLevelEnabled?.("trace") === false) return undefined;
  return ({ text, milliseconds, rows, error }) =>
    log.trace?.({ side, purpose, milliseconds, rows, ...(error === undefined ? {} : { error }) }, text);
}
