/** A switch on its way to the opening of the new side. */
import type { Side } from "../events.ts";
import type { Connection } from "../postgres/connect.ts";
import type { SyncContext } from "../state/context.ts";
import type { Follower } from "./follower.ts";
import type { OpenWay, Turn } from "../reverse/ways.ts";
import type { SequencesReport } from "../sequences/carry.ts";
import type { LeftInvalid } from "../state/restore-deferred.ts";
import type { Rehearsal } from "./rehearse.ts";

export interface SwitchOptions {
  /** Only predict how long the fence would stand, and say what would stop the switch. */
  readonly rehearse?: boolean;
  /** Undo a switch that was begun and is not open yet. */
  readonly undo?: boolean;
  /** Milliseconds for which applications may be kept from writing; then everything is undone. Default 60,000. */
  readonly timeoutMs?: number;
  /**
   * Milliseconds for which transactions that write for long are waited for before the fence is raised. Nobody waits
   * meanwhile. Default 5 minutes.
   */
  readonly lockBudgetMs?: number;
  /** Values that the new side's sequences leave free. Default 1000. */
  readonly margin?: number;
  /** Shell command that is run once the new side is open, see `hookEnvironment`. */
  readonly onOpen?: string;
  /** Keep the old side current afterwards, for a rollback. Default true. Cutover only. */
  readonly reverse?: boolean;
  /** Go on although rows are parked: the new side lacks them. Default false. */
  readonly acceptParked?: boolean;
  /** Go on although tables that were created after `init` are not replicated: the new side lacks them. Default false. */
  readonly acceptUnreplicated?: boolean;
  /** Compare both sides as a whole before the fence. Default true; what changes since is compared in any case. */
  readonly verify?: boolean;
}

export interface SwitchReport {
  readonly result: "rehearsed" | "switched" | "undone" | "nothing-to-do" | "finished";
  /** The side that applications write to now, as it was named when the sync was made. */
  readonly primary: Side;
  readonly rehearsal: Rehearsal | null;
  /** Seconds from the fence to the opening; null unless this call did both. */
  readonly fenceSeconds: number | null;
  /** Rows that were compared while fenced. */
  readonly rowsCompared: number | null;
  readonly sequences: SequencesReport | null;
  /** Constraints of the new side that are NOT VALID, because rows break them. */
  readonly leftInvalid: readonly LeftInvalid[];
}

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
