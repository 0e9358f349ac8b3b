/** Which side applications write to: what the last cutover or rollback of a sync has come to. Kept on the sync's target. */
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { literal } from "../postgres/sql.ts";
import { leaseHolder, leaseName } from "./lease.ts";

/** The two ways of a sync: from source to target, and the way back. */
export type Way = "forward" | "reverse";

/** See sql/state/0001-schema.sql. */
export interface Switch {
  readonly way: "cutover" | "rollback";
  readonly step: "preparing" | "fencing" | "opening" | "open";
  readonly isReversible: boolean;
  readonly isRestored: boolean;
  readonly isHooked: boolean;
  readonly startedAt: Date;
  readonly fencedAt: Date | null;
  readonly openedAt: Date | null;
}

/** Undefined: the sync was never cut over. `state`: the sync's target. */
export async function readSwitch(state: Connection, sync: string): Promise<Switch | undefined> {
  const { exists } = await state.row<{ exists: boolean }>(
    `select pg_catalog.to_regclass('replicate.switch') is not null as exists`,
  );
  if (!exists) return undefined;
  const [found] = await state.rows<Switch>(
    `select way, step, is_reversible as "isReversible", is_restored as "isRestored", is_hooked as "isHooked",
            started_at as "startedAt", fenced_at as "fencedAt", opened_at as "openedAt"
     from replicate.switch where sync = $1`,
    [sync],
  );
  return found;
}

/** True where the new side is the one to write to. */
export function isCutOver(found: Switch | undefined): boolean {
  if (found === undefined) return false;
  const isOpen = found.step === "opening" || found.step === "open";
  return (found.way === "cutover") === isOpen;
}

/** The name under which the way back is kept: no name that a user can give, see `resolveConfig`. */
export function reverseName(sync: string): string {
  return `${sync}.reverse`;
}

/** The name under which changes are kept until the next switch has compared them. */
export function retentionPointName(sync: string): string {
  return `${sync}.mark`;
}

/** Whether a process is switching the sync now. */
export async function isSwitching(state: Connection, sync: string): Promise<boolean> {
  return (await leaseHolder(state, leaseName("switch", sync))) !== undefined;
}

/** Changes the state of a switch, under the lease of whoever switches: see switch-lock.ts. Returns how many rows it changed. */
async function change(state: Connection, statement: string): Promise<number> {
  if (state.guard === undefined)
    throw new ReplicateError("INTERNAL", "the state of a switch is changed by its holder only");
  return (await state.guarded(statement)).at(-1)?.rowCount ?? 0;
}

/** Begins a switch, or takes one up that was interrupted before the new side was open. */
export async function beginSwitch(
  state: Connection,
  sync: string,
  way: Switch["way"],
  isReversible: boolean,
): Promise<void> {
  await change(
    state,
    `insert into replicate.switch (sync, way, step, is_reversible)
     values (${literal(sync)}, ${literal(way)}, 'preparing', ${isReversible})
     on conflict (sync) do update
       set way = excluded.way, step = 'preparing', is_reversible = excluded.is_reversible, is_hooked = false,
           is_restored = replicate.switch.is_restored and replicate.switch.way = excluded.way,
           started_at = case when replicate.switch.way = excluded.way then replicate.switch.started_at else now() end,
           fenced_at = null, opened_at = null`,
  );
}

/**
 * Moves from one step to the next. Returns false when the switch is not at that step any more. One that goes back from
 * fencing may have left a fence, so it keeps the time.
 */
export async function moveSwitch(
  state: Connection,
  sync: string,
  from: readonly Switch["step"][],
  to: Switch["step"],
): Promise<boolean> {
  const opened = to === "opening" ? ", opened_at = pg_catalog.clock_timestamp()" : "";
  const moved = await change(
    state,
    `update replicate.switch
     set step = ${literal(to)}${opened},
         fenced_at = case when step = 'fencing' then coalesce(fenced_at, pg_catalog.clock_timestamp()) else fenced_at end
     where sync = ${literal(sync)} and step in (${from.map((step) => literal(step)).join(", ")})`,
  );
  return moved > 0;
}

/**
 * Closes a way: no batch of it can be committed any more, whoever still runs it without having noticed the switch. `target`:
 * the way's own. Waits for a batch that is just being applied.
 */
export async function closeWay(target: Connection, way: string): Promise<void> {
  await target.guarded(`update replicate.sync set is_closed = true where name = ${literal(way)}`);
}

/** Whether a way is closed. */
export async function isClosed(target: Connection, way: string): Promise<boolean> {
  const [found] = await target.rows<{ isClosed: boolean }>(
    `select is_closed as "isClosed" from replicate.sync where name = $1`,
    [way],
  );
  return found?.isClosed === true;
}

/** Takes `closeWay` back. Can be repeated. */
export async function reopenWay(target: Connection, way: string): Promise<void> {
  await target.guarded(`update replicate.sync set is_closed = false where name = ${literal(way)}`);
}

/** Records a fact about the switch at hand. */
export async function recordSwitch(
  state: Connection,
  sync: string,
  fact: "is_restored" | "is_hooked" | "fenced",
): Promise<void> {
  const noted = fact === "fenced" ? "fenced_at = pg_catalog.clock_timestamp()" : `${fact} = true`;
  await change(state, `update replicate.switch set ${noted} where sync = ${literal(sync)}`);
}

/**
 * Ends a switch that was undone: as if it had never begun, or, where an earlier one had been completed, in the state in
 * which that one left the sync.
 */
export async function endUndone(
  state: Connection,
  sync: string,
  earlier: Switch["way"] | undefined,
): Promise<void> {
  await change(
    state,
    earlier === undefined
      ? `delete from replicate.switch where sync = ${literal(sync)}`
      : `update replicate.switch
         set way = ${literal(earlier)}, step = 'open', is_reversible = true, is_restored = false, is_hooked = true, fenced_at = null
         where sync = ${literal(sync)}`,
  );
}
