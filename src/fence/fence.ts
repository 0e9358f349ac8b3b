/**
 * The fence: triggers that keep everybody but us from writing to the tables of a sync on one side. They need no rights
 * but the owner's, and stop the owner and superusers too. Whom they let pass is up to their one function. The fence's
 * row, on the same side, is the authority on whether it stands.
 */
import { createHash } from "node:crypto";
import type { Connection } from "../postgres/connect.ts";
import { failpoint } from "../postgres/failpoint.ts";
import { withBriefLocks } from "../postgres/lock.ts";
import { fill, literal, load } from "../postgres/sql.ts";

export interface Fence {
  readonly id: number;
  readonly pass: string;
  /** By the server's clock. */
  readonly fencedAt: Date;
  /** False once it lets everybody through. */
  readonly isUp: boolean;
  /** It stands, and the other side may be open: only the state on the sync's target can tell. */
  readonly isSealed: boolean;
  /** The id of the transaction that has raised it. */
  readonly raisedTxid: string | null;
}

/** Milliseconds for which a table may be locked because of a fence's triggers. */
export const FENCE_LOCK_MS = 80;

/** The fence of a sync on this server, if there is one or something is left of one. */
export async function readFence(
  connection: Connection,
  sync: string,
  { forUpdate = false } = {},
): Promise<Fence | undefined> {
  const { exists } = await connection.row<{ exists: boolean }>(
    `select pg_catalog.to_regclass('replicate.fence') is not null as exists`,
  );
  if (!exists) return undefined;
  const [fence] = await connection.rows<Fence>(
    `select f.id, f.pass, f.fenced_at as "fencedAt", f.lifted_at is null as "isUp",
            f.raised_txid::text as "raisedTxid",
            f.lifted_at is null and f.sealed_at is not null as "isSealed"
     from replicate.fence f where f.sync = $1 ${forUpdate ? "for update" : ""}`,
    [sync],
  );
  return fence;
}

export const fenceFunction = (id: number): string => `fence_${id}`;

/** Whom a fence lets pass: all; those that had begun when it was raised; none; none, because the database has moved. */
export type Passing = "everybody" | "begun" | "nobody" | "moved";

/** The statements that have a fence let these pass. */
export function passingSql(sync: string, id: number, passing: Passing): string {
  const conditions: Readonly<Record<Passing, string>> = {
    everybody: "true",
    begun:
      "coalesce(pg_catalog.txid_current_if_assigned() operator(pg_catalog.<) raising transaction, false)",
    nobody: "false",
    moved: "false",
  };
  const [message, hint] =
    passing === "moved"
      ? [
          `the database has moved to another server with sync ${sync}, and this one takes no writes to table `,
          "Reads go on here, of what was current when it moved or has been brought back since. Connect to the new server to write.",
        ]
      : [
          `sync ${sync} is being switched to another server, which fences this table: `,
          "Reads go on. Try again in a moment: on the new server once it is open, or here if the switch is undone.",
        ];
  return fill("fence/function", {
    id: String(id),
    passes: conditions[passing],
    message: literal(message),
    hint: literal(hint),
  });
}

const settingName = (fence: Fence): string => `replicate.${fenceFunction(fence.id)}`;

/** True in every session that does not show the pass. Version 10 has no other hash function than md5. */
export function strangerSql(version: number, fence: Fence): string {
  const shown = `coalesce(pg_catalog.current_setting('${settingName(fence)}', true), '')`;
  const isOld = version < 110_000;
  const hash = createHash(isOld ? "md5" : "sha256")
    .update(fence.pass)
    .digest("hex");
  const hashed = isOld
    ? `pg_catalog.md5(${shown})`
    : `pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(${shown}, 'UTF8')), 'hex')`;
  return `${hashed} operator(pg_catalog.<>) '${hash}'`;
}

/** Lets this session through the fence of the sync, where there is one. */
export async function showPass(connection: Connection, sync: string): Promise<void> {
  const fence = await readFence(connection, sync);
  if (fence === undefined) return;
  await connection.rows(`select pg_catalog.set_config($1, $2, false)`, [settingName(fence), fence.pass]);
}

/**
 * Has the fence stand until somebody who knows that the other side is not open lifts it. Returns false where it was
 * lifted meanwhile: the other side must not be opened then.
 */
export async function sealFence(connection: Connection, sync: string): Promise<boolean> {
  const sealed = await connection.guarded(
    `update replicate.fence set sealed_at = pg_catalog.clock_timestamp()
     where sync = ${literal(sync)} and lifted_at is null`,
  );
  return sealed.at(-1)?.rowCount === 1;
}

/** Has the fence say that the database has moved. */
export async function tellMoved(connection: Connection, sync: string): Promise<void> {
  await connection.transaction(async () => {
    const fence = await readFence(connection, sync, { forUpdate: true });
    if (fence?.isUp === true) await connection.script(passingSql(sync, fence.id, "moved"));
  });
}

/**
 * Lets everybody write again, at once and without a lock on any table. `evenSealed`: it is known that the other side is not
 * open, or that both may be written to.
 */
export async function liftFence(
  connection: Connection,
  sync: string,
  { evenSealed = false } = {},
): Promise<"lifted" | "not-up" | "sealed"> {
  return await connection.transaction(async () => {
    const fence = await readFence(connection, sync, { forUpdate: true });
    if (fence === undefined || !fence.isUp) return "not-up";
    if (fence.isSealed && !evenSealed) return "sealed";
    await connection.script(
      `${passingSql(sync, fence.id, "everybody")};
       update replicate.fence set lifted_at = pg_catalog.clock_timestamp() where id = ${fence.id}`,
    );
    return "lifted";
  });
}

/**
 * Lifts the fence of a sync and removes what it consists of, table by table under brief locks. Returns what was removed.
 * Throws LOCK_NOT_AVAILABLE when a table stays locked for `budgetMs` milliseconds, by a long query for example: the
 * fence is lifted all the same, and the next call goes on.
 */
export async function removeFence(
  connection: Connection,
  sync: string,
  options: { readonly signal: AbortSignal; readonly budgetMs?: number },
): Promise<string[]> {
  await liftFence(connection, sync, { evenSealed: true });
  const fence = await readFence(connection, sync);
  if (fence === undefined) return [];
  await failpoint("cutover.lifted");
  const triggers = await connection.rows<{ relid: number; table: string; trigger: string }>(
    load("fence/triggers-of"),
    [fenceFunction(fence.id)],
  );
  const tables = [...new Set(triggers.map(({ table }) => table))];
  for (const table of tables) {
    const drops = triggers
      .filter((each) => each.table === table)
      .map(({ trigger }) => `drop trigger if exists ${trigger} on ${table}`);
    await withBriefLocks(connection, { what: table, longestMs: FENCE_LOCK_MS, ...options }, async () => {
      await connection.script(drops.join(";\n"));
    });
  }
  await connection.guarded(
    `drop function if exists replicate.${fenceFunction(fence.id)}(); delete from replicate.fence where id = ${fence.id}`,
  );
  return tables.map((table) => `fence of ${table}`);
}
