/** Tables of the target that are somebody's source: in a chain they may be replaced, exchanged sides would lose the original. */
import { tableLabel } from "../catalog/table.ts";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { retentionPointName, reverseName } from "../state/switch.ts";
import type { CopyTable } from "./run.ts";

/** `full`: labels of the tables that hold rows. Throws TARGET_NOT_EMPTY with every table that another sync reads here. */
export async function assertNoReaders(
  target: Connection,
  sync: string,
  tables: readonly CopyTable[],
  full: readonly string[],
): Promise<void> {
  const { exists } = await target.row<{ exists: boolean }>(
    `select pg_catalog.to_regclass('replicate.subscription') is not null as exists`,
  );
  if (!exists || full.length === 0) return;
  const captured = await target.rows<{ relid: number; sync: string }>(
    `select c.relid::bigint::float8 as relid, s.sync
     from replicate.subscription s join replicate.capture c on c.id = s.capture_id
     where s.sync <> all ($1) order by s.sync`,
    [[reverseName(sync), retentionPointName(sync)]],
  );
  const problems = tables
    .map((table) => table.target)
    .filter((table) => full.includes(tableLabel(table)))
    .flatMap((table) => {
      const relids = [table.oid, ...table.leaves.map(({ oid }) => oid)];
      const syncs = [
        ...new Set(captured.filter(({ relid }) => relids.includes(relid)).map((each) => each.sync)),
      ];
      if (syncs.length === 0) return [];
      return [
        {
          subject: tableLabel(table),
          message: `holds rows that ${syncs.join(", ")} takes from this database`,
        },
      ];
    });
  if (problems.length === 0) return;
  throw new ReplicateError(
    "TARGET_NOT_EMPTY",
    `the target ${target.place} is the source of another sync, and its rows would be replaced`,
    {
      side: "target",
      problems,
      hint: "Are source and target exchanged? If the target's rows are to go all the same, as in a chain, say --overwrite --overwrite-source.",
    },
  );
}
