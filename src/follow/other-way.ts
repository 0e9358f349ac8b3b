/** The other way of a sync that goes both ways, as one of them sees it. */
import type { Connection } from "../postgres/connect.ts";
import type { Way } from "../state/switch.ts";
import type { OtherSide } from "./conflicts/other-side.ts";
import type { FollowSession } from "./session.ts";

/** What one way has to do with the other while it follows. */
export interface OtherWay {
  readonly way: Way;
  /** Waits until the other way is between two batches, and keeps it there meanwhile. */
  alone<T>(work: () => Promise<T>): Promise<T>;
  /** Whether a batch may be applied now: the other way can tell how far it has come, and the tables are there. */
  isReady(): boolean;
  /** The session that follows this way; undefined: it broke. */
  session: FollowSession | undefined;
  /** Whether this way has its lock; false as long as another runner has it. */
  isLeased: boolean;
  /**
   * Whether this way may be taken. The forward one leads: of two runners, each with one way, neither would go on.
   */
  readonly isLed: boolean;
  /** Tells that this way has looked, and whether there was something to apply. */
  recordLook(hasApplied: boolean): void;
  /** Whether both ways have looked and found nothing since the last that did; with `once`, whether both have looked. */
  isOver(): boolean;
  /** Whether this way has to wait for the other's look before it is over. */
  isResting(): boolean;
  otherSide(source: Connection, target: Connection): Promise<OtherSide>;
}
