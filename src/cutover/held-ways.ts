/** Both ways of a sync as a switch uses them: every session is one of the switch, see state/switch-lock.ts. */
import type { OpenWay } from "../reverse/ways.ts";
import type { Connection } from "../postgres/connect.ts";
import type { OpenOptions } from "../state/context.ts";
import { SwitchLock } from "../state/switch-lock.ts";

/** Takes the right to switch the sync, bound to the session `state` on its target. Throws RUNNER_ACTIVE. */
export async function holdSwitch(open: OpenWay, state: Connection): Promise<SwitchLock> {
  const { name } = open("forward").config;
  return await SwitchLock.take(state, name, reopening(open));
}

/** The same where the target is away, for what can be undone without it. */
export function holdWithoutState(open: OpenWay): SwitchLock {
  return SwitchLock.withoutState(open("forward").config.name, reopening(open));
}

const reopening = (open: OpenWay) => async (): Promise<Connection> =>
  await open("forward", { isCut: false, isStoppable: false }).target("cutover");

export function heldWays(open: OpenWay, lock: SwitchLock): OpenWay {
  return (way, options) => {
    const context = open(way, options);
    const opening =
      (side: "source" | "target") =>
      async (purpose: string, given?: OpenOptions): Promise<Connection> => {
        const ofSync = (way === "forward") === (side === "target") ? "target" : "source";
        const connection = await context[side](`${purpose} ${lock.tag(ofSync)}`, given);
        try {
          await lock.enter(connection, ofSync);
          return connection;
        } catch (error) {
          await connection.close();
          throw error;
        }
      };
    return {
      config: context.config,
      emit: context.emit,
      log: context.log,
      signal: context.signal,
      source: opening("source"),
      target: opening("target"),
      get isReplicaRole() {
        return context.isReplicaRole;
      },
    };
  };
}
