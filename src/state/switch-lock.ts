/**
 * The right to switch the sides of a sync, which one process has at a time: a lease on the sync's target, where the state of
 * the switch lies, and one on its source, taken by whoever has the first. Each session of the switch keeps the lease of its
 * side in the transactions in which it changes anything, so that a process that has lost the right can commit nothing on
 * either side, whatever it was about to do. Its sessions bear the tag of their process in their names: whoever takes the right over ends them.
 */
import { createHash, randomUUID } from "node:crypto";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { load } from "../postgres/sql.ts";
import {
  INSUFFICIENT_PRIVILEGE,
  isConnectionFailure,
  POSITION_MOVED,
  sqlstateOf,
} from "../postgres/sqlstate.ts";
import {
  describeHolder, isStateMissing, keepLeaseSql, leaseHolder, leaseName, renewLease, takeLease, type Lease,
} from "./lease.ts"; // prettier-ignore
import { migrateOlder, stateVersion } from "./migrate.ts";

/** How often it is tried again after sessions were ended, and the pause in milliseconds. */
const TRIES = 50;
const PAUSE_MS = 100;

/** Eight digits that stand for a text. */
const short = (text: string): string => createHash("sha256").update(text).digest("hex").slice(0, 8);

export class SwitchLock implements AsyncDisposable {
  readonly #sync: string;
  readonly #token: string;
  readonly #reopen: () => Promise<Connection>;
  #state: Connection | undefined;

  private constructor(sync: string, reopen: () => Promise<Connection>, state?: Connection) {
    this.#sync = sync;
    this.#token = randomUUID();
    this.#reopen = reopen;
    this.#state = state;
  }

  /**
   * Takes it, bound to the session `state` on the sync's target. `reopen`: another session there, should that one break. Throws
   * RUNNER_ACTIVE while another process has it.
   */
  static async take(state: Connection, sync: string, reopen: () => Promise<Connection>): Promise<SwitchLock> {
    const lock = new SwitchLock(sync, reopen, state);
    const lease = lock.#lease("target");
    for (let tries = 1; ; tries += 1) {
      const { isTaken, before } = await takeLease(state, lease, { isBound: true });
      if (isTaken) break;
      const isHeld = (await leaseHolder(state, lease.name)) !== undefined;
      if (isHeld || tries === TRIES) {
        throw new ReplicateError(
          "RUNNER_ACTIVE",
          `another process is switching sync ${sync}${before === undefined ? "" : `: ${describeHolder(before)}`}`,
          { hint: "Look at `replicate status`, and wait for it to end." },
        );
      }
      // He is gone, and has left a session in the middle of something.
      await lock.#endOthers(state, "target");
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
    state.guard = keepLeaseSql(lease);
    await lock.#outliveOthers(state, "target");
    return lock;
  }

  /** Where the sync's target is away, nobody can say who has it there. */
  static withoutState(sync: string, reopen: () => Promise<Connection>): SwitchLock {
    return new SwitchLock(sync, reopen);
  }

  /** What the names of this process's sessions end with. `side`: of the sync; a database may be either of two that are named alike. */
  tag(side: "source" | "target"): string {
    return `${this.#family(side)}${short(this.#token)}`;
  }

  /** What all tags of switches of this sync begin with. */
  #family(side: "source" | "target"): string {
    return `#${side[0]}${short(this.#sync)}`;
  }

  /** Makes a new session one of the switch. `side`: of the sync itself. Throws RUNNER_ACTIVE where the right is lost. */
  async enter(connection: Connection, side: "source" | "target"): Promise<void> {
    const lease = this.#lease(side);
    if (side === "target") await this.#retake();
    if (!(await this.#has(connection, lease))) {
      if (side === "target") throw this.lost();
      // Nothing of ours is there: whoever asks for something of it says so better.
      if ((await stateVersion(connection)) === 0) return;
      await this.#follow(connection, lease);
    }
    connection.guard = keepLeaseSql(lease);
  }

  /** What to tell instead where the right is lost: who takes it over ends our sessions. */
  async explain(error: unknown): Promise<unknown> {
    if (isRightLost(error)) return error instanceof ReplicateError ? error : this.lost(error);
    if (!isConnectionFailure(error)) return error;
    try {
      await this.#retake();
      const isOurs = this.#state !== undefined && (await this.#has(this.#state, this.#lease("target")));
      return isOurs ? error : this.lost(error);
    } catch (second) {
      return isRightLost(second) ? this.lost(error) : error;
    }
  }

  lost(cause?: unknown): ReplicateError {
    return new ReplicateError(
      "RUNNER_ACTIVE",
      `another process has taken over the switch of sync ${this.#sync}: this one has ended, and has changed nothing since`,
      { cause, sqlstate: POSITION_MOVED, hint: "Look at `replicate status`." },
    );
  }

  /** Closes the session that was opened in place of a broken one. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#state?.close();
  }

  #lease(side: "source" | "target"): Lease {
    return {
      name: leaseName(side === "target" ? "switch" : "source-switch", this.#sync),
      token: this.#token,
    };
  }

  async #has(connection: Connection, { name, token }: Lease): Promise<boolean> {
    const found = await connection
      .rows(`select from replicate.lease where name = $1 and token = $2`, [name, token])
      .catch((error: unknown) => {
        if (isStateMissing(error)) return [];
        throw error;
      });
    return found.length > 0;
  }

  /** Binds the lease to a new session, where its own is broken and nobody has taken it since. */
  async #retake(): Promise<void> {
    if (this.#state !== undefined && !this.#state.isBroken) return;
    const lease = this.#lease("target");
    const state = await this.#reopen();
    // Without the first session we never had it.
    const isOurs = this.#state !== undefined && (await renewLease(state, lease));
    if (!isOurs || !(await takeLease(state, lease, { isBound: true })).isTaken) {
      await state.close();
      throw this.lost();
    }
    this.#state = state;
  }

  /** Takes the source's lease: who has the target's may, whoever had it before. */
  async #follow(source: Connection, lease: Lease): Promise<void> {
    await migrateOlder(source);
    for (let tries = 0; tries < TRIES; tries += 1) {
      if (this.#state !== undefined) {
        await this.#retake();
        // Who has slept through his loss finds out here.
        if (!(await renewLease(this.#state, this.#lease("target")))) throw this.lost();
      }
      if ((await takeLease(source, lease, { isForced: true })).isTaken) {
        await this.#outliveOthers(source, "source");
        return;
      }
      await this.#endOthers(source, "source");
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
    throw this.#stays(source, "source");
  }

  /** Ends what sessions other processes have left on a server, and waits until they are gone. Throws RUNNER_ACTIVE. */
  async #outliveOthers(connection: Connection, side: "source" | "target"): Promise<void> {
    for (let tries = 0; tries < TRIES; tries += 1) {
      if ((await this.#endOthers(connection, side)) === 0) return;
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
    throw this.#stays(connection, side);
  }

  /** Returns how many are there. */
  async #endOthers(connection: Connection, side: "source" | "target"): Promise<number> {
    // A pool may have given them to anybody by now. They can commit nothing.
    if (connection.isPooled) return 0;
    try {
      const pattern = ` ${this.#family(side)}[0-9a-f]{8}`;
      return (await connection.rows(load("state/end-switchers"), [pattern, this.tag(side)])).length;
    } catch (error) {
      if (sqlstateOf(error) !== INSUFFICIENT_PRIVILEGE) throw error;
      return 1;
    }
  }

  #stays({ place }: Connection, side: "source" | "target"): ReplicateError {
    return new ReplicateError(
      "RUNNER_ACTIVE",
      `sessions of an earlier switch of sync ${this.#sync} stay on the ${side} ${place}`,
      {
        hint: `End them there: select pg_terminate_backend(pid) from pg_stat_activity where application_name ~ ' ${this.#family(side)}';`,
      },
    );
  }
}

/** Whether another process has taken the switch over. */
export function isRightLost(error: unknown): boolean {
  return (error instanceof ReplicateError ? error.sqlstate : sqlstateOf(error)) === POSITION_MOVED;
}
