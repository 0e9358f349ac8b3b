/**
 * Whether the target has room for the locks of a batch. Where a server's lock table is full, every session of every database
 * fails that needs one more, so it is looked at before any is taken.
 */
import { ReplicateError } from "../../errors.ts";
import type { Connection } from "../../postgres/connect.ts";
import { OTHERS_SHARE, STAGE_LOCKS, wantedPerTransaction } from "../../postgres/lock-table.ts";
import { load } from "../../postgres/sql.ts";
import type { BatchTable } from "./batch-table.ts";
import { isRead, isStaged } from "../read/table-mode.ts";

/** As sql/follow/lock-room returns it. */
interface LockBudget {
  readonly perTransaction: number;
  readonly sessions: number;
  readonly capacity: number;
  readonly held: number;
  readonly needed: number;
}

/** The delta tables in which the other side's changes are looked for. */
const DELTA_LOCKS = 2;
/** Batches of fewer tables and partitions are not looked at: the smallest lock table there can be has room for them. */
const FEW = 12;
/** What needs a smaller share of the room is harmless, however the tables of the next batch are indexed. */
const HARMLESS_SHARE = 0.05;
/** By session: how many tables and partitions were found to be harmless. */
const harmless = new WeakMap<Connection, number>();

/** Throws OUT_OF_LOCKS where there is no room. Outside of a transaction. */
export async function assertLockBudget(target: Connection, tables: readonly BatchTable[]): Promise<void> {
  const written = tables.filter(({ mode }) => isRead(mode));
  const relations = written.flatMap(({ shape: { target: table } }) => [
    table.oid,
    ...table.leaves.map(({ oid }) => oid),
  ]);
  if (relations.length <= Math.max(FEW, harmless.get(target) ?? 0)) return;
  const budget = await target.row<LockBudget>(load("follow/lock-budget"), [relations]);
  const needed =
    budget.needed +
    STAGE_LOCKS * written.filter(({ mode }) => isStaged(mode)).length +
    DELTA_LOCKS * written.filter(({ shape }) => shape.reverse !== undefined).length;
  if (needed <= budget.capacity * HARMLESS_SHARE) harmless.set(target, relations.length);
  if (needed <= (budget.capacity - budget.held) * (1 - OTHERS_SHARE)) return;
  const wanted = wantedPerTransaction(needed + budget.held, budget.sessions);
  throw new ReplicateError(
    "OUT_OF_LOCKS",
    `a batch of ${written.length} tables needs ${needed} locks, and the server of the target has room for about ${budget.capacity} and holds ${budget.held} now (max_locks_per_transaction = ${budget.perTransaction}): it is not begun, because sessions of others would fail with it, until max_locks_per_transaction is at least ${wanted}`,
    {
      side: "target",
      hint: `As an administrator of the target: alter system set max_locks_per_transaction = ${wanted};  -- then restart that server; at a provider: its parameter group instead. A command that still runs goes on by itself.`,
    },
  );
}
