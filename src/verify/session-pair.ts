/** Two sessions, one on each side, that compare one part after another. */
import type { Side } from "../events.ts";
import { cancelStatement } from "../postgres/cancel.ts";
import type { Connection } from "../postgres/connect.ts";
import type { LockWatch } from "../postgres/lock-watch.ts";
import { isConnectionFailure, QUERY_CANCELED, sqlstateOf } from "../postgres/sqlstate.ts";
import type { SyncContext } from "../state/context.ts";

export interface Watches {
  readonly source: LockWatch;
  readonly target: LockWatch;
}

export class SessionPair {
  readonly source: Connection;
  readonly target: Connection;
  readonly #context: SyncContext;
  readonly #watches: Watches;
  #stopped: Promise<unknown> = Promise.resolve();
  #brokenSide: Side | undefined;
  #brake: Connection | undefined;

  private constructor(context: SyncContext, source: Connection, target: Connection, watches: Watches) {
    this.source = source;
    this.target = target;
    this.#context = context;
    this.#watches = watches;
    context.signal.addEventListener("abort", this.#onAbort, { once: true });
  }

  /** The signal cuts our sessions, which a server in the middle of a scan would not notice before its end. */
  readonly #onAbort = (): void => {
    const { config } = this.#context;
    this.#stopped = Promise.all(sides.map(async (side) => await cancelStatement(this[side], config[side])));
  };

  /** Opens both sessions and has them watched. Throws as `connect` does. */
  static async open(context: SyncContext, watches: Watches): Promise<SessionPair> {
    const source = await context.source("verify");
    const target = await context.target("verify").catch(async (error: unknown) => {
      await source.close();
      throw error;
    });
    const pair = new SessionPair(context, source, target, watches);
    try {
      for (const side of sides) {
        await prepare(pair[side]);
        watches[side].watch(pair[side]);
      }
      return pair;
    } catch (error) {
      await pair.close();
      throw error;
    }
  }

  /** A session on the source besides, for as long as the pair: see two-way.ts. */
  async brake(): Promise<Connection> {
    if (this.#brake?.isBroken !== false) this.#brake = await this.#context.source("verify");
    return this.#brake;
  }

  get isBroken(): boolean {
    return this.source.isBroken || this.target.isBroken;
  }

  /** The side whose session broke, or broke first. */
  get brokenSide(): Side {
    return this.#brokenSide ?? (this.source.isBroken ? "source" : "target");
  }

  /** Waits for work on both sides. When one fails, the other is cancelled and waited for. */
  async both<S, T>(onSource: Promise<S>, onTarget: Promise<T>): Promise<[S, T]> {
    const failed = async (side: Side, error: unknown): Promise<never> => {
      if (isConnectionFailure(error)) this.#brokenSide ??= side;
      await this.#cancelSide(side === "source" ? "target" : "source");
      throw error;
    };
    const [source, target] = await Promise.allSettled([
      onSource.catch(async (error: unknown) => await failed("source", error)),
      onTarget.catch(async (error: unknown) => await failed("target", error)),
    ]);
    if (source.status === "fulfilled" && target.status === "fulfilled") return [source.value, target.value];
    const reasons = [source, target].flatMap((result) =>
      result.status === "rejected" ? [result.reason] : [],
    );
    // A cancelled statement is most likely the consequence of the other side's failure.
    throw reasons.find((reason) => sqlstateOf(reason) !== QUERY_CANCELED) ?? reasons[0];
  }

  /** Cancels what both sessions are doing. */
  async cancel(): Promise<void> {
    await Promise.all(sides.map(async (side) => await this.#cancelSide(side)));
  }

  async #cancelSide(side: Side): Promise<void> {
    if (this[side].isBroken || (await this.#watches[side].cancel(this[side]))) return;
    await cancelStatement(this[side], this.#context.config[side]);
    this[side].destroy();
  }

  /** Ends both transactions; a session that cannot is cut. */
  async rollback(): Promise<void> {
    await Promise.all(
      sides.map(async (side) => {
        if (!this[side].isBroken) await this[side].script("rollback").catch(() => this[side].destroy());
      }),
    );
  }

  async close(): Promise<void> {
    this.#context.signal.removeEventListener("abort", this.#onAbort);
    await this.#stopped;
    await this.#brake?.close();
    await Promise.all(
      sides.map(async (side) => {
        this.#watches[side].unwatch(this[side]);
        await this[side].close();
      }),
    );
  }
}

const sides = ["source", "target"] as const;

async function prepare(connection: Connection): Promise<void> {
  // Compiling a part's query takes longer than it saves.
  if (connection.version >= 110_000) await connection.script("set jit = off");
  // Without this, a long scan goes on after its client has died.
  await connection.noticeDeath();
}
