/** What keeps the new side from being opened. */
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import type { SyncContext } from "../state/context.ts";
import { countParked } from "../state/parked.ts";
import type { SwitchOptions } from "./switch-run.ts";

/** Rows that the new side rejects would be missing there. */
export async function assertNoneParked(
  target: Connection,
  { config }: SyncContext,
  { acceptParked = false }: SwitchOptions,
): Promise<void> {
  if (acceptParked) return;
  const rows = [...(await countParked(target, config.name)).values()].reduce((sum, count) => sum + count, 0);
  if (rows === 0) return;
  throw new ReplicateError(
    "ROWS_PARKED",
    `${rows} ${rows === 1 ? "row is" : "rows are"} parked: the new side has rejected and would lack ${rows === 1 ? "it" : "them"}`,
  );
}

/** Parked rows have been accepted by now. */
export function assertNoDifferences(
  compared: readonly { readonly table: string; readonly total: number; readonly parked: number }[],
): void {
  const tables = compared
    .map(({ table, total, parked }) => ({ table, total: total - parked }))
    .filter(({ total }) => total > 0);
  if (tables.length === 0) return;
  throw new ReplicateError("VERIFY_DIFFERENT", "the two sides are not equal", {
    problems: tables.map(({ table, total }) => ({
      subject: table,
      message: `${total} ${total === 1 ? "row differs" : "rows differ"}`,
      remedy: `replicate verify --tables ${table} --repair`,
    })),
  });
}

export function notRestored(problems: ReplicateError["problems"]): ReplicateError {
  return new ReplicateError(
    "STATEMENT_FAILED",
    "constraints or triggers of the new side could not be restored",
    {
      problems,
    },
  );
}

export function undoneByOther(sync: string): ReplicateError {
  return new ReplicateError("CUTOVER_STATE", `the switch of sync ${sync} was undone by another process`, {
    hint: "Look at `replicate status`.",
  });
}
