import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "vitest";

import type { SyncOptions } from "../../src/config/options.ts";
import { openSync } from "../../src/sync.ts";
import { compareDatabases } from "./compare.ts";
import type { Database } from "./database.ts";
import { deltasOf, takeAccount, type Account, type AccountOptions } from "./two-way-account.ts";
import { twoWayTables } from "./two-way-workload.ts";

/** The tables that are replicated: not the test's own account. */
export const twoWayPatterns: readonly string[] = twoWayTables.map((table) => `public.${table}`);

/** All are equal, nothing moves any more, no delta is left, and the log has what was overwritten. */
export async function assertConverged(
  sides: readonly Database[],
  syncs: readonly SyncOptions[],
  options: AccountOptions = {},
): Promise<Account> {
  const [first, ...others] = sides;
  for (const other of others) {
    const { differences, rows } = await compareDatabases((first as Database).url, other.url, twoWayPatterns);
    expect(differences.slice(0, 10)).toEqual([]);
    expect(rows).toBeGreaterThan(5);
  }
  const account = await takeAccount(sides, options);
  expect(account.wrong.slice(0, 10)).toEqual([]);
  await assertNoEcho(sides, syncs);
  return account;
}

/** Follows until every delta table is empty, and sees no batch meanwhile. */
async function assertNoEcho(sides: readonly Database[], syncs: readonly SyncOptions[]): Promise<void> {
  const stop = new AbortController();
  const batches: unknown[] = [];
  const running = syncs.map(async (options) => {
    await using sync = await openSync({ ...options, env: {} });
    for await (const batch of sync.follow({ signal: stop.signal })) batches.push(batch);
  });
  try {
    const deadline = Date.now() + 60_000;
    while ((await deltasOf(sides)) > 0) {
      if (Date.now() > deadline) throw new Error("deltas are left");
      await sleep(100);
    }
  } finally {
    stop.abort();
    await Promise.all(running);
  }
  expect(batches).toEqual([]);
}
