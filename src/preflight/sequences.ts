/** Rights on the sequences whose values have to be carried at the switch. */
import type { Side } from "../events.ts";
import { selectTables } from "../catalog/patterns.ts";
import { tableLabel, tableSql } from "../catalog/table.ts";
import type { Connection } from "../postgres/connect.ts";
import { ident, load } from "../postgres/sql.ts";
import { readInterleaved } from "../sequences/interleaved.ts";
import type { Examination } from "./examination.ts";
import { run, some, type Finding } from "./finding.ts";

interface Sequence {
  readonly relid: number;
  readonly schema: string;
  readonly name: string;
  readonly owner: string;
  readonly ownerRelid: number | null;
  readonly mayRead: boolean;
  readonly maySet: boolean;
}

export async function checkSequences(examination: Examination): Promise<Finding[]> {
  const { context, source, target, servers, tables, pairs } = examination;
  const [own, others] = await Promise.all(
    [source, target].map((side) => side.rows<Sequence>(load("preflight/sequences"))),
  );
  const chosen = (all: readonly Sequence[], relids: readonly number[]): Sequence[] => [
    ...all.filter(({ ownerRelid }) => ownerRelid !== null && relids.includes(ownerRelid)),
    ...selectTables(
      all.filter(({ ownerRelid }) => ownerRelid === null),
      context.config.tables,
      context.config.exclude,
    ).selected,
  ];
  const sources = chosen(own ?? [], tables.map(({ oid }) => oid)); // prettier-ignore
  const targets = chosen(others ?? [], pairs.map((pair) => pair.target.oid)); // prettier-ignore
  return [
    ...sources
      .filter(({ mayRead }) => !mayRead)
      .map((each) => finding(each, "source", servers.source.role, "read", "select")),
    ...targets
      .filter(({ mayRead, maySet }) => !mayRead || !maySet)
      .map((each) => finding(each, "target", servers.target.role, "set", "select, update")),
    ...(context.config.direction === "both" ? await checkShares(source, sources) : []),
  ];
}

/** Of a sync whose sides both insert rows. */
async function checkShares(source: Connection, sequences: readonly Sequence[]): Promise<Finding[]> {
  const shared = await readInterleaved(source);
  const open = sequences.filter(
    ({ relid, ownerRelid }) => ownerRelid !== null && !shared.some((each) => each.relid === relid),
  );
  if (open.length === 0) return [];
  return [
    {
      severity: "warning",
      subject: "sequences",
      message: `both sides give out the same numbers: ${some(open.map(tableLabel))}`,
      remedy: "replicate sequences --interleave  -- after init",
    },
  ];
}

function finding(sequence: Sequence, side: Side, role: string, verb: string, rights: string): Finding {
  return {
    severity: "warning",
    subject: `sequence ${tableLabel(sequence)}`,
    message: `role ${role} may not ${verb} it on the ${side}, so its value cannot be carried at the switch`,
    ...run(
      side,
      sequence.owner,
      `grant usage on schema ${ident(sequence.schema)} to ${ident(role)};`,
      `grant ${rights} on sequence ${tableSql(sequence)} to ${ident(role)};`,
    ),
  };
}
