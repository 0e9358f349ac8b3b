/** What is going on at the servers: others' transactions, and vacuums that give way to nobody. */
import type { Side } from "../events.ts";
import type { Connection } from "../postgres/connect.ts";
import { ident, literal, load } from "../postgres/sql.ts";
import { withLeaves, type Examination } from "./examination.ts";
import { administrator, run, some, type Finding } from "./finding.ts";

/** Of the 2.1 thousand million after which a server takes no more writes. */
const highAge = 1_500_000_000;

interface Transaction {
  readonly pid: number | null;
  readonly gid: string | null;
  readonly role: string | null;
  readonly application: string | null;
  readonly seconds: number;
  readonly tables: readonly string[];
}

interface Vacuum {
  readonly pid: number;
  readonly table: string;
  readonly age: number;
}

/** As sql/preflight/ages returns it. */
export interface Ages {
  readonly age: number;
  readonly mxidAge: number;
  readonly oldest: string | null;
  readonly owner: string | null;
  readonly seesOthers: boolean;
}

export async function checkActivity(examination: Examination): Promise<Finding[]> {
  const { source, target, servers, tables, pairs, longTransactionSeconds } = examination;
  const oids = { source: withLeaves(tables), target: withLeaves(pairs.map((pair) => pair.target)) };
  const sides = [source, target];
  const transactions = await Promise.all(
    sides.map((each) =>
      each.rows<Transaction>(load("preflight/transactions"), [oids[each.side], longTransactionSeconds]),
    ),
  );
  const ages = await Promise.all(sides.map((each) => each.row<Ages>(load("preflight/ages"))));
  const vacuums = await source.rows<Vacuum>(load("preflight/vacuums"), [oids.source]);
  return [
    ...sides.flatMap((each, n) => (transactions[n] ?? []).map((found) => transactionFinding(each, found))),
    ...vacuums.map(vacuumFinding),
    ...sides.flatMap((each, n) => ageFindings(each.side, ages[n] as Ages, servers[each.side].role)),
  ];
}

function transactionFinding({ side }: Connection, found: Transaction): Finding {
  const { pid, gid, role, application, seconds, tables } = found;
  const isInTheWay = tables.length > 0;
  const doing = side === "source" ? "installing capture" : "taking indexes away for the copy";
  const message = `${gid === null ? "open" : "prepared"} for ${Math.round(seconds)} s${
    isInTheWay ? ` with a lock on ${some(tables)}: ${doing} waits for it` : ", and holds back vacuum"
  }`;
  const severity = isInTheWay ? "warning" : "note";
  if (gid !== null) {
    return {
      severity,
      subject: `prepared transaction ${gid}`,
      message,
      ...run(side, role ?? administrator, `rollback prepared ${literal(gid)};  -- or: commit prepared`),
    };
  }
  const who = [role, application].filter((each) => each !== null && each !== "").join(", ");
  return {
    severity,
    subject: `long transaction of pid ${pid} on the ${side} (${who})`,
    message,
    ...run(
      side,
      role ?? administrator,
      `select pg_catalog.pg_terminate_backend(${pid});  -- or wait for its end`,
    ),
  };
}

function vacuumFinding({ pid, table, age }: Vacuum): Finding {
  return {
    severity: "warning",
    subject: table,
    message: `autovacuum to prevent wraparound is at work on it (pid ${pid}, ${Math.round(age / 1e6)} million transactions): installing capture waits for its end, and it gives way to nobody`,
    ...run(
      "source",
      administrator,
      `select phase, heap_blks_scanned, heap_blks_total from pg_catalog.pg_stat_progress_vacuum where pid = ${pid};  -- wait for its end`,
    ),
  };
}

export function ageFindings(side: Side, ages: Ages, role: string): Finding[] {
  const { age, mxidAge, oldest, owner, seesOthers } = ages;
  const findings: Finding[] = [];
  if (Math.max(age, mxidAge) > highAge) {
    const [number, what] = age >= mxidAge ? [age, "transactions"] : [mxidAge, "multixacts"];
    findings.push({
      severity: "warning",
      subject: `transaction ids of the ${side}`,
      message: `${Math.round(number / 1e6)} million ${what} are not frozen; at 2,100 million the server takes no more writes`,
      ...run(
        side,
        owner ?? administrator,
        `vacuum (freeze) ${oldest ?? ""};  -- the oldest; then look again`,
      ),
    });
  }
  if (!seesOthers) {
    findings.push({
      severity: "note",
      subject: `transactions on the ${side}`,
      message: `role ${role} is not shown how long other roles' transactions are open: long ones are found by their locks only once they are in the way`,
      ...run(side, administrator, `grant pg_read_all_stats to ${ident(role)};`),
    });
  }
  return findings;
}
