/** What every stage is given: the settings, a way to each server, and somewhere to report to. */
import type { ResolvedConfig } from "../config/options.ts";
import type { OnEvent } from "../events.ts";
import type { Connection } from "../postgres/connect.ts";

/** The part of pino's interface that is used. */
export interface Logger {
  /** Every statement; without it, or where the level says no, none is looked at. */
  trace?(fields: object, message: string): void;
  isLevelEnabled?(level: "trace"): boolean;
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export interface OpenOptions {
  readonly lockTimeoutMs?: number;
  /** No parallel plans in this session. */
  readonly isSerial?: boolean;
  /** The session can be done without: throws TOO_MANY_CONNECTIONS at once instead of trying for a moment. */
  readonly isSpare?: boolean;
}

export interface SyncContext {
  readonly config: ResolvedConfig;
  readonly emit: OnEvent;
  readonly log: Logger;
  /** Fires when the caller wants to stop. Sessions opened below are cut by it. */
  readonly signal: AbortSignal;
  /** Opens a session; the caller closes it. `purpose` shows in pg_stat_activity. */
  source(purpose: string, options?: OpenOptions): Promise<Connection>;
  /**
   * Opens a session that writes to the target: with session_replication_role = replica where the role may set it,
   * so that neither triggers nor foreign keys act on replicated rows.
   */
  target(purpose: string, options?: OpenOptions): Promise<Connection>;
  /** Whether target sessions run in the replica role. Known after the first `target()`. */
  readonly isReplicaRole: boolean;
}
