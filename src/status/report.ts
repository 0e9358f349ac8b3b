/** What the status of a sync consists of. */
import type { Direction } from "../config/options.ts";
import type { Side } from "../events.ts";
import type { Place } from "../postgres/place.ts";
import type { LeftInvalid } from "../state/restore-deferred.ts";
import type { BatchAtHand, StoredError, StoredMaintenance } from "../state/runner-lock.ts";
import type { SchemaChange } from "../state/schema-changes.ts";
import type { Switch } from "../state/switch.ts";
import type { SyncTable } from "../state/sync-table.ts";

export type Phase =
  | "new" | "initialised" | "copying" | "copied" | "catching-up" | "following" | "fenced" | "cut-over" | "failed"; // prettier-ignore

export interface Status {
  readonly sync: string;
  readonly phase: Phase;
  readonly direction: Direction;
  /** The two databases. After a cutover the same as before it. */
  readonly source: Place;
  readonly target: Place;
  readonly runner: {
    readonly alive: boolean;
    readonly host: string | null;
    readonly pid: number | null;
    readonly since: string | null;
    /** Its last sign of life, by the target's clock: every few seconds, also in the middle of a batch. */
    readonly seenAt: string | null;
    /** The batch at hand, once it takes more than a moment. */
    readonly batch: BatchAtHand | null;
  };
  readonly copy: {
    readonly tablesDone: number;
    readonly tablesTotal: number;
    readonly rowsDone: number;
    readonly bytesDone: number;
    readonly bytesTotal: number;
    readonly indexesDone: number;
    readonly indexesTotal: number;
    /** Null while nothing runs or nothing is known. */
    readonly etaSeconds: number | null;
  };
  readonly follow: {
    readonly position: string | null;
    readonly batches: number;
    readonly rowsApplied: number;
    readonly rowsPerSecond: number;
    readonly lastBatchAt: string | null;
  };
  readonly lag: {
    /** Deltas on the source that are not applied. Null when the source cannot be asked. */
    readonly rows: number | null;
    /**
     * Age of the oldest change that is not applied, from above: the time since the runner's last look that left nothing to
     * apply. 0 when nothing waits; null while it is not known, as before the first batch, or without the source.
     */
    readonly seconds: number | null;
    /** Who keeps deltas from being thrown away or a table from being captured: the oldest transaction. */
    readonly blockedBy: string | null;
    /** Seconds by which the lag grows each second, over the last minute; negative: it shrinks. Null: not known. */
    readonly trend: number | null;
  };
  /** Of a sync that goes both ways: what applications change on the target. Null: it goes one way, or is not known. */
  readonly back: Pick<Status, "lag" | "follow" | "lastError"> | null;
  /** Sessions of ours that cannot get a lock now. */
  readonly waits: readonly Wait[];
  /** Skipped ones that are to be resolved, as far as the servers can be asked. */
  readonly conflicts: number;
  /** Rows that the target has rejected, and that are parked (see `parked`). */
  readonly parked: number;
  readonly lastError: StoredError | null;
  /** Maintenance that a server rejects at the time: batches go on, and it is tried again by itself. */
  readonly upkeep: StoredMaintenance | null;
  /** `side`: whose objects they are, after a cutover those of the old source. */
  readonly owed: {
    readonly side: Side;
    readonly open: number;
    readonly leftInvalid: readonly LeftInvalid[];
  };
  /** The last cutover or rollback; null: never begun, or undone. `isRunning`: a process is at it now. */
  readonly switch: (Switch & { readonly isRunning: boolean }) | null;
  /** The side whose tables refuse writes of applications, and since when. Null: neither, or not known. */
  readonly fence: { readonly side: Side; readonly since: string } | null;
  /**
   * Syncs of the same source, this one perhaps among them, that have taken nothing for a minute or more, and what the source
   * keeps for them. `isOver`: more than `deltaLimit`.
   */
  readonly held: readonly {
    readonly sync: string;
    readonly since: string;
    readonly bytes: number;
    readonly isOver: boolean;
    /** The command that gives the sync up. */
    readonly giveUp: string;
  }[];
  /** Tables that the sync is meant to replicate and does not, as they were created after `init`. */
  readonly notReplicated: readonly string[];
  /** By table, why it is not taken in; without those that nobody has tried to. */
  readonly notReplicatedReasons: Readonly<Record<string, string>>;
  /** Changes of the source's schema that the target has not yet, and the last ones that it has; the latest first. */
  readonly schemaChanges: readonly SchemaChange[];
  /** Why the source could not be asked, or is not this sync's any more, if so. */
  readonly sourceError: string | null;
  readonly tables: readonly {
    readonly source: string;
    readonly target: string;
    readonly state: SyncTable["state"];
    readonly rows: number;
    readonly bytes: number;
    readonly pending: number | null;
    readonly parked: number;
    readonly lastChangeAt: string | null;
    /**
     * Of a table without a key: since when the target lacks changes for which it has to be read again as a whole, its size
     * on the source then, and whether that is too large to happen before a cutover. Null: nothing of the kind.
     */
    readonly reload: {
      readonly since: string;
      readonly bytes: number;
      readonly isHeld: boolean;
    } | null;
  }[];
}

/** A session of ours that waits for a lock, or tries again and again to get one without making others wait. */
export interface Wait {
  readonly side: Side;
  /** As in pg_stat_activity: `replicate init`. */
  readonly session: string;
  /** The table, as far as it is known. */
  readonly what: string;
  readonly seconds: number | null;
  readonly blockedBy: string | null;
}
