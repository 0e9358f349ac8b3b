/** What the checks are given that go beyond what `init` has to know. */
import type { Table } from "../catalog/table.ts";
import type { Connection } from "../postgres/connect.ts";
import type { SyncContext } from "../state/context.ts";
import type { TablePair } from "./pairs.ts";
import type { Server } from "./server.ts";

export interface Examination {
  readonly context: SyncContext;
  readonly source: Connection;
  readonly target: Connection;
  readonly servers: { readonly source: Server; readonly target: Server };
  /** Tables of the source that were chosen. */
  readonly tables: readonly Table[];
  /** Those that have a counterpart. */
  readonly pairs: readonly TablePair[];
  readonly longTransactionSeconds: number;
}

/** Oids of tables and of their leaf partitions. */
export function withLeaves(tables: readonly Table[]): number[] {
  return tables.flatMap((table) => [table.oid, ...table.leaves.map((leaf) => leaf.oid)]);
}
