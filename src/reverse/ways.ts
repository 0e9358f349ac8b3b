/** The two ways of a sync: forward, from source to target, and reverse, which keeps the source current after a cutover. */
import type { ResolvedConfig } from "../config/options.ts";
import type { Connection } from "../postgres/connect.ts";
import { showPass } from "../fence/fence.ts";
import type { SyncContext } from "../state/context.ts";
import { reverseName, type Switch, type Way } from "../state/switch.ts";

export interface WayOptions {
  /** In addition to the caller's own. */
  readonly signal?: AbortSignal;
  /** Whether sessions are cut by the caller's signal too. Default true. */
  readonly isStoppable?: boolean;
  /** Whether sessions are cut by signals at all, or end by themselves. Default true. */
  readonly isCut?: boolean;
}

/** Makes the context of one of the ways. */
export type OpenWay = (way: Way, options?: WayOptions) => SyncContext;

/** The settings of the way back: the same with the sides exchanged. */
function reverseConfig(config: ResolvedConfig): ResolvedConfig {
  return Object.freeze({
    ...config,
    name: reverseName(config.name),
    source: config.target,
    target: config.source,
    schemas: {},
    overrides: {},
  });
}

/** Makes contexts of both ways: `make` connects, as the settings and options say. */
export function openWays(
  config: ResolvedConfig,
  make: (config: ResolvedConfig, options: WayOptions) => SyncContext,
): OpenWay {
  const configs = { forward: config, reverse: reverseConfig(config) };
  // Known after the first session, and then to all contexts of that way.
  const replicaRoles = { forward: false, reverse: false };
  return (way, options = {}) => {
    const made = make(configs[way], options);
    return {
      config: made.config,
      emit: made.emit,
      log: made.log,
      signal: made.signal,
      source: async (...given) => await made.source(...given),
      // The target of either way may be the side that we have fenced.
      target: async (...given) => {
        const connection = await made.target(...given);
        replicaRoles[way] = connection.isReplicaRole;
        try {
          await showPass(connection, config.name);
          return connection;
        } catch (error) {
          await connection.close();
          throw error;
        }
      },
      get isReplicaRole() {
        return replicaRoles[way];
      },
    };
  };
}

/**
 * A switch from an old side to a new one. Before it, data flow from the old side to the new one along `active`;
 * afterwards back along `reverse`. The source of `active` is the old side, its target the new one.
 */
export interface Turn {
  /** The sync's own name; `active` or `reverse` has another. */
  readonly sync: string;
  readonly kind: Switch["way"];
  readonly active: Way;
  readonly reversed: Way;
}

export function turnOf(sync: string, kind: Switch["way"]): Turn {
  return kind === "cutover"
    ? { sync, kind, active: "forward", reversed: "reverse" }
    : { sync, kind, active: "reverse", reversed: "forward" };
}

/** Runs work with a session on either side of a way, and closes both. */
export async function withBoth<T>(
  context: SyncContext,
  purpose: string,
  work: (source: Connection, target: Connection) => Promise<T>,
): Promise<T> {
  await using source = await context.source(purpose);
  await using target = await context.target(purpose);
  return await work(source, target);
}
