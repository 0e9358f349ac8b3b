/** What a session has, for those who find its batches, read and write them. */
import type { Hooks } from "../config/hooks.ts";
import type { Connection } from "../postgres/connect.ts";
import type { SyncContext } from "../state/context.ts";
import type { Lease } from "../state/lease.ts";
import type { DeadLetters } from "./apply/parked-rows.ts";
import type { DriftWatch } from "./read/schema-watch.ts";
import type { FollowedTables } from "./followed-tables.ts";
import type { Opposite } from "./conflicts/other-side.ts";
import type { Reader } from "./read/read-batch.ts";
import type { Reloads } from "./read/reload.ts";

export interface SessionParts {
  readonly context: SyncContext;
  readonly source: Connection;
  readonly target: Connection;
  /** What the batches are applied under. */
  readonly lease: Lease;
  readonly reader: Reader;
  readonly tables: FollowedTables;
  readonly drift: DriftWatch;
  readonly reloads: Reloads;
  readonly letters: DeadLetters;
  readonly hooks: Hooks;
  /** Where conflicts are to be found. */
  readonly opposite: Opposite | undefined;
}
