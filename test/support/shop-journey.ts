import { openSync, type Sync, type SyncEvent } from "../../src/index.ts";
import { withClient, serverMajor } from "./admin.ts";
import { compareDatabases } from "./compare.ts";
import type { Random } from "./random.ts";
import { describeSchema, dumpSchema } from "./schema-description.ts";
import { shopRows, shopSchema, shopTables, startShopWriters } from "./shop.ts";

// The whole way of a database that is written to, from init to drop, and what has to be true at each step. Finds fault
// by throwing; tests add what is particular to them by hooks.

export interface ShopSide {
  /** What the product is given. */
  url: string;
  /** Who makes the schema; the product's role unless given. */
  ownerUrl?: string;
  /** The application; the product's role unless given. */
  writerUrl?: string;
  /** Sees everything; the product's role unless given. */
  adminUrl?: string;
}

export interface JourneyOptions {
  random: Random;
  customers?: number;
  /** While batches are applied. */
  whileFollowing?: (sync: Sync) => Promise<void>;
}

export interface JourneyReport {
  committed: number;
  batches: number;
  rows: number;
  /** Phases that status told, in order. */
  phases: string[];
  events: SyncEvent[];
  /** Lines of the schema's description that are not the same after drop. */
  schemaChanges: string[];
  differences: unknown[];
}

export async function takeShopThrough(
  source: ShopSide,
  target: ShopSide,
  options: JourneyOptions,
): Promise<JourneyReport> {
  const { random } = options;
  const admin = { source: source.adminUrl ?? source.url, target: target.adminUrl ?? target.url };
  const versions = {
    source: await withClient(admin.source, serverMajor),
    target: await withClient(admin.target, serverMajor),
  };
  const common = Math.min(versions.source, versions.target);
  await withClient(source.ownerUrl ?? source.url, async (client) => {
    await client.query(shopSchema(versions.source, common));
    await client.query(shopRows(options.customers ?? 6000));
  });
  await withClient(target.ownerUrl ?? target.url, async (client) => {
    await client.query(shopSchema(versions.target, common));
  });
  const before = await schemasOf(admin);

  const events: SyncEvent[] = [];
  const phases: string[] = [];
  await using sync = await openSync({
    source: source.url,
    target: target.url,
    name: "whole",
    env: {},
    copy: { partSize: "64kB" },
    onEvent: (event) => events.push(event),
  });
  const writers = await startShopWriters(source.writerUrl ?? source.url, {
    random: random.fork("writers"),
    version: versions.source,
  });
  const told = async (): Promise<void> => {
    phases.push((await sync.status()).phase);
  };
  let batches = 0;
  let rows = 0;
  const stop = new AbortController();
  let following: Promise<void> | undefined;
  try {
    await sync.init();
    await told();
    await sync.copy();
    await told();
    following = (async () => {
      for await (const batch of sync.follow({ signal: stop.signal })) {
        batches++;
        rows += batch.rows;
      }
    })();
    following.catch(() => stop.abort());
    for (let round = 0; round < 3; round++) {
      const { tables } = await sync.verify();
      const wrong = tables.filter(({ equal }) => !equal);
      if (wrong.length > 0) throw new Error(`verify while writing: ${JSON.stringify(wrong, null, 1)}`);
    }
    await told();
    await options.whileFollowing?.(sync);
  } finally {
    stop.abort();
    await Promise.allSettled([following]);
    // Their failures come first: the application must not notice us.
    await writers.stop();
  }
  await following;
  for await (const batch of sync.follow({ untilCaughtUp: true })) {
    batches++;
    rows += batch.rows;
  }
  await told();
  const { differences } = await compareDatabases(admin.source, admin.target, shopTables);
  const verified = await sync.verify();
  if (!verified.equal) throw new Error(`verify in the end: ${JSON.stringify(verified.tables, null, 1)}`);
  const carried = await sync.sequences({ margin: 3 });
  if (carried.missing.length > 0 || carried.sequences.length < 4) {
    throw new Error(`sequences: ${JSON.stringify(carried)}`);
  }
  const dropped = await sync.drop();
  if (dropped.leftInvalid.length > 0) throw new Error(`left invalid: ${JSON.stringify(dropped.leftInvalid)}`);
  await assertNextKeysAreFree(admin.target);
  return {
    committed: writers.committed,
    batches,
    rows,
    phases,
    events,
    schemaChanges: changes(before, await schemasOf(admin)),
    differences,
  };
}

interface Schemas {
  source: string[];
  target: string[];
}

async function schemasOf(urls: { source: string; target: string }): Promise<Schemas> {
  const describe = async (url: string): Promise<string[]> => [
    ...(await describeSchema(url)),
    ...((await dumpSchema(url)) ?? "").split("\n"),
  ];
  return { source: await describe(urls.source), target: await describe(urls.target) };
}

function changes(before: Schemas, after: Schemas): string[] {
  return (["source", "target"] as const).flatMap((side) => [
    ...before[side].filter((line) => !after[side].includes(line)).map((line) => `${side} lost ${line}`),
    ...after[side].filter((line) => !before[side].includes(line)).map((line) => `${side} has ${line}`),
    ...(before[side].join("\n") === after[side].join("\n") || before[side].length !== after[side].length
      ? []
      : [`${side} has the same objects in another order`]),
  ]);
}

/** An application that goes on with the target must not meet keys that are taken. */
async function assertNextKeysAreFree(url: string): Promise<void> {
  await withClient(url, async (client) => {
    await client.query("begin");
    await client.query(
      "insert into customer (email, name) values ('next@example.org', 'x'); insert into booking (room, during) values ('[9000,9001)', '[2020-01-01,)')",
    );
    await client.query("rollback");
  });
}
