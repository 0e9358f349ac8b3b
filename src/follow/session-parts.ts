/** What a session has, for those who find its batches, read and write them. */
import type { Hooks } from "../config/hooks.ts";
import type { Connection } from "../postgres/connect.ts";
import type { SyncContext } from "../state/context.ts";
import type { Lease } from "../state/lease.ts";
import type { ParkedRows } from "./apply/parked-rows.ts";
import type { SchemaWatch } from "./read/schema-watch.ts";
import type { FollowedTables } from "./followed-tables.ts";
import type { OtherSide } from "./conflicts/other-side.ts";
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
  readonly schemaWatch: SchemaWatch;
  readonly reloads: Reloads;
  readonly parked: ParkedRows;
  readonly hooks: Hooks;
  /** Where conflicts are to be found. */
  readonly otherSide: OtherSide | undefined;
}
