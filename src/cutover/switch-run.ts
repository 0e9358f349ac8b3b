/** A switch on its way to the opening of the new side. */
import type { Connection } from "../postgres/connect.ts";
import type { SyncContext } from "../state/context.ts";
import type { SwitchOptions } from "./cutover.ts";
import type { Follower } from "./follower.ts";
import type { OpenWay, Turn } from "../reverse/ways.ts";

export interface SwitchRun {
  readonly open: OpenWay;
  readonly turn: Turn;
  readonly state: Connection;
  /** Of the active way: the old side, and the new one. */
  readonly source: Connection;
  readonly target: Connection;
  readonly follower: Follower;
  readonly options: SwitchOptions;
  readonly isReversible: boolean;
}

/** Milliseconds for which the fence may stand. */
export const timeoutOf = ({ timeoutMs = 60_000 }: SwitchOptions): number => timeoutMs;

/** Says who is waited for. */
export const waitWarning =
  (context: SyncContext) =>
  (who: string): void =>
    context.emit({ type: "warning", message: `the fence waits for ${who}` });

export const tell = (context: SyncContext, step: string): void => context.emit({ type: "switch-step", step });
