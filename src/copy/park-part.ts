/**
 * A part that the target has rejected goes again by way of a temporary table of texts, which takes every row. From there
 * the rows go into the target's table, and those that are rejected are parked, all in the part's transaction.
 */
import { targetColumn } from "../catalog/mapping.ts";
import { asApplication } from "../catalog/search-path.ts";
import type { Column } from "../catalog/table.ts";
import { fromText } from "../catalog/text-form.ts";
import type { Connection } from "../postgres/connect.ts";
import { failpoint } from "../postgres/failpoint.ts";
import { ident } from "../postgres/sql.ts";
import { isRejection, REJECTIONS, sqlstateOf } from "../postgres/sqlstate.ts";
import { finderSql, findRows } from "../parked/find-rejected.ts";
import { decide, MOST_PER_SYNC, parks, rowsToPark, tooMany } from "../parked/policy.ts";
import { countParked, park, type RejectedRow } from "../state/parked.ts";
import type { CopyRun, CopyTable } from "./run.ts";

/** A second row with a unique value stops the copy, small table or not: elsewhere only the index that is built later tells. */
const NOT_UNIQUE = ["23505", "23P01"];
const PARKED = REJECTIONS.replace("^", `^(?!${NOT_UNIQUE.join("|")})`);

/** The temporary table has one column more. */
const MOST_COLUMNS = 1600;

/** Rows that go into the table at once: a try that is rejected leaves that many dead ones at most. */
const STEP_ROWS = 1000;

/** Whether the part that has failed so is worth another try, in which what is rejected is parked. */
export function canPark(run: CopyRun, table: CopyTable, error: unknown): boolean {
  return (
    isRejection(error) &&
    table.columns.columns.length < MOST_COLUMNS &&
    !NOT_UNIQUE.includes(sqlstateOf(error) ?? "") &&
    parks(run.context.config, run.hooks, table)
  );
}

interface ParkingColumn {
  /** In the temporary table. */
  readonly name: string;
  /** Of the source. */
  readonly source: string;
  /** Null: a part of the key that the target computes itself. */
  readonly target: Column | null;
}

/** The temporary table's columns in the order of the COPY; those of the key are k1 …, as `findRows` wants them. */
function parkingColumns({ columns, capture }: CopyTable): ParkingColumn[] {
  const keyAt = (attnum: number): number => capture.keyColumns.findIndex((key) => key.attnum === attnum);
  const carried = columns.columns.map(({ source, target }, n) => {
    const key = keyAt(source.attnum);
    return { name: key < 0 ? `c${n + 1}` : `k${key + 1}`, source: source.name, target };
  });
  const others = capture.keyColumns.flatMap(({ name }, n) =>
    carried.some((each) => each.name === `k${n + 1}`)
      ? []
      : [{ name: `k${n + 1}`, source: name, target: null }],
  );
  return [...carried, ...others];
}

const parkingTable = ({ capture }: CopyTable): string => `pg_temp.parking_${capture.id}`;

/** Names of the columns that are read from the source. */
export function parkingNames(table: CopyTable): string[] {
  return parkingColumns(table).map(({ source }) => source);
}

/** Makes the temporary table. Returns the COPY into it. */
export async function prepareParking(target: Connection, table: CopyTable): Promise<string> {
  const names = parkingColumns(table).map(({ name }) => name);
  await target.script(
    `create temporary table ${parkingTable(table).slice("pg_temp.".length)} (
       n bigint generated always as identity, ${names.map((name) => `${name} text`).join(", ")}) on commit drop`,
  );
  return `copy ${parkingTable(table)} (${names.join(", ")}) from stdin`;
}

/**
 * Writes the rows that have come into `into`, and parks what is rejected of them; "retry": they are to be tried again, in
 * another transaction. `attempt`: how often they were tried. Throws ROW_REFUSED, HOOK_FAILED, and what the server says.
 */
export async function parkRows(
  run: CopyRun,
  target: Connection,
  table: CopyTable,
  into: string,
  attempt: number,
): Promise<readonly RejectedRow[] | "retry"> {
  const from = parkingTable(table);
  const columns = parkingColumns(table).flatMap(({ name, target: to }) =>
    to === null ? [] : [{ name, to }],
  );
  const names = columns.map(({ to }) => ident(to.name)).join(", ");
  // As the type without its length: a cast to that would cut what is too long.
  const values = columns.map(({ name, to }) => fromText(`r.${name}`, to.baseType)).join(", ");
  const keyTypes = table.capture.keyColumns.map(({ name }, n) => {
    const to =
      columns.find((each) => each.name === `k${n + 1}`)?.to ??
      table.target.columns.find((each) => each.name === targetColumn(table.entry.mapping, name));
    return to?.baseType ?? "text";
  });
  await target.script([`create unique index on ${from} (n)`, `analyze ${from}`, finderSql()].join(";\n"));
  const known = [...(await countParked(target, run.sync)).values()].reduce((sum, count) => sum + count, 0);
  const found = await findRows(target, run.sync, table.capture, {
    from,
    keyTypes,
    attempt: [
      ...asApplication(table.target, [
        `insert into ${into} (${names}) overriding system value
         select ${values} from ${from} as r where r.n between $1 and $2`,
      ]),
    ],
    step: STEP_ROWS,
    most: Math.max(1, MOST_PER_SYNC - known + 1),
    keeps: true,
    rejections: PARKED,
  });
  if (found.length === 0) return [];
  const rejected = rowsToPark(
    { captureId: table.capture.id, relid: table.target.oid, label: table.label },
    found,
  );
  if (known + found.length > MOST_PER_SYNC)
    throw tooMany(`${MOST_PER_SYNC} of a sync`, rejected[0] as RejectedRow);
  if ((await decide(run.hooks, table.label, found, attempt, run.signal)) === "retry") return "retry";
  await park(target, run.sync, rejected);
  await failpoint("parked.written");
  return rejected;
}
