/**
 * What the library tells while it works: the only window for the terminal and for embedding programs.
 * Every event is plain data; names are past tense for what happened, `progress` for what goes on.
 */

/** Progress of one table's copy. Rows and bytes count what is committed on the target plus what is in flight. */
export interface TableProgress {
  readonly table: string;
  readonly rowsDone: number;
  readonly bytesDone: number;
  /** Heap and TOAST bytes on the source when the copy was planned. */
  readonly bytesTotal: number;
}

export type SyncEvent =
  | { readonly type: "capture-installed"; readonly table: string }
  | {
      readonly type: "capture-waiting";
      readonly table: string;
      readonly blockedBy: string;
      readonly attempt: number;
    }
  | { readonly type: "copy-planned"; readonly tables: number; readonly parts: number; readonly bytes: number }
  | {
      readonly type: "copy-progress";
      readonly rowsDone: number;
      readonly bytesDone: number;
      readonly bytesTotal: number;
      readonly bytesPerSecond: number;
      /** Null while there is nothing to base it on. */
      readonly etaSeconds: number | null;
      readonly indexesDone: number;
      readonly indexesTotal: number;
      /** Tables with a part in flight. */
      readonly tables: readonly TableProgress[];
      /** Indexes being built, with `pg_stat_progress_create_index` where the target has it. */
      readonly building: readonly {
        readonly index: string;
        readonly phase: string;
        readonly percent: number | null;
      }[];
    }
  | { readonly type: "table-copied"; readonly table: string; readonly rows: number; readonly bytes: number }
  | { readonly type: "table-restarted"; readonly table: string; readonly reason: string }
  | { readonly type: "index-built"; readonly table: string; readonly index: string; readonly seconds: number }
  | {
      readonly type: "constraint-left-invalid";
      readonly table: string;
      readonly constraint: string;
      readonly reason: string;
    }
  | {
      readonly type: "copy-finished";
      readonly rows: number;
      readonly bytes: number;
      readonly seconds: number;
    }
  | { readonly type: "batch-applied"; readonly batch: Batch }
  | { readonly type: "caught-up"; readonly position: string }
  | { readonly type: "constraint-validated"; readonly table: string; readonly constraint: string }
  | { readonly type: "table-reread"; readonly table: string; readonly reason: string }
  /** A change of the source's schema was made on the target too. `seconds`: how long the statements took. */
  | {
      readonly type: "schema-change-applied";
      readonly table: string;
      readonly statement: string;
      readonly seconds: number;
    }
  /** The target does not take a change of the schema now: nothing is applied until it does. It is tried again by itself. */
  | {
      readonly type: "schema-change-waiting";
      readonly table: string;
      readonly statement: string;
      readonly reason: string;
    }
  /** Rows that the target has rejected were parked; key and message are those of the first. */
  | {
      readonly type: "rows-parked";
      readonly table: string;
      readonly rows: number;
      readonly key: Readonly<Record<string, unknown>>;
      readonly message: string;
    }
  /** Rows that had been parked were applied, or are gone from the source. */
  | { readonly type: "parked-rows-settled"; readonly table: string; readonly rows: number }
  /** A table without a key has changed, and is too large to be read again while `follow` runs. */
  | {
      readonly type: "reload-held";
      readonly table: string;
      readonly bytes: number;
      readonly limitBytes: number;
    }
  /** Another sync of this source takes nothing, and makes the source keep more deltas than `deltaLimit`. */
  | {
      readonly type: "deltas-held";
      readonly sync: string;
      /** When it was heard of last, ISO 8601. */
      readonly since: string;
      readonly bytes: number;
      readonly limitBytes: number;
    }
  /** A table that the sync is meant to replicate was created after `init`: nobody records or carries its rows. */
  | {
      readonly type: "table-not-replicated";
      readonly side: Side;
      readonly table: string;
      /** Why it was not taken in; absent where that was not tried. */
      readonly reason?: string;
    }
  /** A new table of the source was created on the target by these statements. */
  | {
      readonly type: "table-created";
      readonly table: string;
      readonly statements: readonly string[];
      readonly seconds: number;
    }
  /** A new table is followed from now on. */
  | { readonly type: "table-joined"; readonly table: string }
  | { readonly type: "partition-adopted"; readonly table: string; readonly partition: string }
  | {
      readonly type: "connection-lost";
      readonly side: Side;
      readonly message: string;
      readonly retryInMs: number;
    }
  | { readonly type: "connection-restored"; readonly side: Side }
  /** A runner waits for the end of another, which is named. */
  | { readonly type: "standing-by"; readonly runner: string }
  /** The other one's end has come: this runner follows from here on. */
  | { readonly type: "taken-over" }
  /** A runner ends because another command waits for it, which is named. */
  | { readonly type: "asked-to-end"; readonly by: string }
  | {
      readonly type: "verify-progress";
      readonly table: string;
      readonly rowsDone: number;
      readonly tablesDone: number;
      readonly tablesTotal: number;
    }
  | { readonly type: "switch-step"; readonly step: string }
  /**
   * Of a switch. `raising`: from here on applications may be refused, so that the process must not be ended by force.
   * `lifted`, `open`: they can write, to the old side or to the new one.
   */
  | { readonly type: "fence"; readonly state: "raising" | "lifted" | "open" }
  /** A line that the command given for the opening has said. */
  | { readonly type: "hook-said"; readonly line: string }
  | { readonly type: "object-removed"; readonly side: Side; readonly object: string }
  | { readonly type: "warning"; readonly message: string };

export type Side = "source" | "target";

/** One applied batch: the deltas of one source snapshot, committed on the target in one transaction. */
export interface Batch {
  /** Counts up by one per batch over the life of the sync. */
  readonly number: number;
  /** The source snapshot that the target equals since this batch, `xmin:xmax:xip`. */
  readonly position: string;
  /** Distinct keys applied: deleted plus upserted. */
  readonly rows: number;
  readonly tables: number;
  /** Seconds from the start of reading to the commit on the target. */
  readonly seconds: number;
  /** Age of the batch's snapshot when its target transaction had committed, in seconds. */
  readonly lagSeconds: number;
}

export type OnEvent = (event: SyncEvent) => void;
