/**
 * Where it is not known any more which rows they have changed, whatever a batch would make different here may undo a change
 * of theirs: it is a conflict.
 */
import { deltaTables, REREAD, DISPUTED } from "../../catalog/delta.ts";
import { fromSql } from "../../catalog/table.ts";
import { literal } from "../../postgres/sql.ts";
import { isSame } from "./effects.ts";
import { stageName } from "../apply/staging.ts";
import { isReread, type TableMode } from "../read/table-mode.ts";
import { matchRow, reverseWindow, type Sides, type TrackedPair } from "./sides.ts";

/**
 * Marks staged rows that differ from what is here as disputed, as long as keys of the reverse changes are not known. Once all rows were
 * compared they are settled for this sync, by one statement: what becomes unknown while it runs is so for the next one.
 * Where nothing brings their changes back, nothing else would ever settle them, so that only then rows are compared.
 */
export function disputeUnknownSql(shape: TrackedPair, sides: Sides, mode: TableMode): string[] {
  const isWhole = isReread(shape, mode);
  if (sides.isLone && !isWhole) return [];
  const unknown = deltaTables(shape.reverse.capture.id).map((delta) => {
    const which = `truncated operator(pg_catalog.=) ${REREAD}::pg_catalog.oid and ${reverseWindow(shape, sides)}`;
    return isWhole
      ? `update ${delta} set via = ${literal(sides.base)} where ${which} returning 1`
      : `select 1 from ${delta} where ${which}`;
  });
  return [
    `with a as (${unknown[0]}), b as (${unknown[1]})
     update ${stageName(shape)} as x set op = '${DISPUTED}'
     from (select s.ctid from ${stageName(shape)} as s left join ${fromSql(shape.target)} as t on ${matchRow(shape, "s")}
       where not ${isSame(shape)}) as g
     where x.ctid = g.ctid and (exists (select 1 from a) or exists (select 1 from b))`,
  ];
}
