import { openSync, type Batch, type Sync, type SyncOptions } from "../../src/index.ts";
import { compareDatabases } from "./compare.ts";
import { freePair, type Database } from "./database.ts";

/** Three databases in a row, and a sync both ways between neighbours. */
export interface Chain extends AsyncDisposable {
  readonly first: Database;
  readonly second: Database;
  readonly third: Database;
  /** Between the first and the second. */
  readonly near: Sync;
  /** Between the second and the third. */
  readonly far: Sync;
  /** What neighbours differ in, without applying anything. */
  differences: () => Promise<unknown[]>;
}

export async function drain(sync: Sync): Promise<Batch[]> {
  const batches: Batch[] = [];
  for await (const batch of sync.follow({ untilCaughtUp: true })) batches.push(batch);
  return batches;
}

/** The same tables, equally filled, everywhere; all of it is followed, and nothing is left to apply. */
export async function startChain(schema: string, farOptions: Partial<SyncOptions> = {}): Promise<Chain> {
  const [pair, other] = [await freePair(), await freePair()];
  const [first, second, third] = [pair.source, pair.target, other.target];
  for (const each of [first, second, third]) await each.sql(schema);
  const near = await startBothWays("near", first, second);
  const far = await startBothWays("far", second, third, farOptions);
  return {
    first,
    second,
    third,
    near,
    far,
    differences: async () => {
      const compared = [
        await compareDatabases(first.url, second.url),
        await compareDatabases(second.url, third.url),
      ];
      return compared.flatMap(({ differences }) => differences);
    },
    [Symbol.asyncDispose]: async () => {
      for (const each of [near, far, pair, other]) await each[Symbol.asyncDispose]();
    },
  };
}

async function startBothWays(
  name: string,
  source: Database,
  target: Database,
  options: Partial<SyncOptions> = {},
): Promise<Sync> {
  const urls = { source: source.url, target: target.url };
  const sync = await openSync({ name, ...urls, direction: "both", env: {}, ...options });
  await sync.init();
  await sync.copy({ adopt: true });
  await drain(sync);
  return sync;
}
