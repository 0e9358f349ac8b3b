import { openSync, type Batch, type Sync, type SyncEvent, type SyncOptions } from "../../src/index.ts";
import { compareDatabases, type RowDifference, type TableNames } from "./compare.ts";
import type { Database } from "./database.ts";

// What the tests of capture, follow and drift share: tables that are followed from their first row on.

export type Side = Pick<Database, "url" | "sql">;

export interface Followed extends AsyncDisposable {
  sync: Sync;
  /** Everything that was told, in order. */
  events: SyncEvent[];
  /** Applies what there is, until nothing is left. Returns the batches. */
  drain: () => Promise<Batch[]>;
  /** Drains, and says in what both sides differ. */
  differences: (tables?: readonly (string | TableNames)[]) => Promise<RowDifference[]>;
}

/** Runs the same statements on both sides. */
export async function onBoth(pair: { source: Side; target: Side }, text: string): Promise<void> {
  await Promise.all([pair.source.sql(text), pair.target.sql(text)]);
}

/** Creates the tables, equally filled, on both sides, and starts a sync that follows them. */
export async function startFollowed(
  pair: { source: Side; target: Side },
  schema: string,
  options: Omit<SyncOptions, "source" | "target"> = {},
): Promise<Followed> {
  await onBoth(pair, schema);
  return await openFollowed(pair, options);
}

/** The same with tables that are there, with the same rows, on both sides. */
export async function openFollowed(
  pair: { source: Side; target: Side },
  options: Omit<SyncOptions, "source" | "target"> = {},
): Promise<Followed> {
  const events: SyncEvent[] = [];
  const sync = await openSync({
    source: pair.source.url,
    target: pair.target.url,
    onEvent: (event) => events.push(event),
    env: {},
    ...options,
  });
  await sync.init();
  await sync.copy({ adopt: true });
  const drain = async (): Promise<Batch[]> => {
    const batches: Batch[] = [];
    for await (const batch of sync.follow({ untilCaughtUp: true })) batches.push(batch);
    return batches;
  };
  return {
    sync,
    events,
    drain,
    differences: async (tables) => {
      await drain();
      return (await compareDatabases(pair.source.url, pair.target.url, tables)).differences;
    },
    [Symbol.asyncDispose]: async () => await sync[Symbol.asyncDispose](),
  };
}
