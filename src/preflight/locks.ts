/** Whether the servers have room for the locks of our largest transactions: where it is too small, other sessions fail as well. */
import type { Side } from "../events.ts";
import { OTHERS_SHARE, STAGE_LOCKS, wantedPerTransaction } from "../postgres/lock-table.ts";
import { load } from "../postgres/sql.ts";
import { withLeaves, type Examination } from "./examination.ts";
import { administrator, run, type Finding } from "./finding.ts";

/** As sql/preflight/locks returns it. */
export interface Locks {
  readonly perTransaction: number;
  readonly sessions: number;
  readonly capacity: number;
  readonly indexes: number;
}

export async function checkLocks({ source, target, tables, pairs }: Examination): Promise<Finding[]> {
  const targets = pairs.map((pair) => pair.target);
  const [own, other] = await Promise.all([
    source.row<Locks>(load("preflight/locks"), [withLeaves(tables)]),
    target.row<Locks>(load("preflight/locks"), [withLeaves(targets)]),
  ]);
  const written = withLeaves(targets).length + other.indexes + STAGE_LOCKS * targets.length;
  return [
    ...lockFindings("source", own, withLeaves(tables).length, "`replicate schema` runs pg_dump, which locks"),
    ...lockFindings("target", other, written, "a batch in which all tables have changes locks"),
  ];
}

/** `who` continues with a number of tables and indexes. */
function lockFindings(side: Side, locks: Locks, needed: number, who: string): Finding[] {
  const { capacity, perTransaction, sessions } = locks;
  if (needed <= capacity * (1 - OTHERS_SHARE)) return [];
  const wanted = wantedPerTransaction(needed, sessions);
  return [
    {
      severity: "warning",
      subject: `locks of the ${side}`,
      message: `${who} up to ${needed} tables and indexes in one transaction, and the server has room for about ${capacity} (max_locks_per_transaction = ${perTransaction}, for ${sessions} sessions): it may fail with "out of shared memory", and sessions of others with it`,
      ...run(
        side,
        administrator,
        `alter system set max_locks_per_transaction = ${wanted};  -- then restart the server; at a provider: its parameter group instead`,
      ),
    },
  ];
}
