import { expect, test } from "vitest";

import { openSync, type SyncEvent } from "../../../src/index.ts";
import { freePair } from "../../support/database.ts";

// Who holds a lock that no session has: a transaction that was prepared and forgotten.

test("init says which prepared transaction it waits for, and how to end it", async () => {
  await using pair = await freePair();
  for (const side of [pair.source, pair.target]) await side.sql("create table t (id int primary key)");
  const gid = `it's ${pair.source.name}`;
  const quoted = `'${gid.replace("'", "''")}'`;
  const client = await pair.source.client();
  await client.query(`begin; insert into t values (1); prepare transaction ${quoted}`);
  const stop = new AbortController();
  const events: SyncEvent[] = [];
  await using sync = await openSync({
    source: pair.source.url,
    target: pair.target.url,
    env: {},
    onEvent: (event) => {
      events.push(event);
      if (JSON.stringify(event).includes("prepared transaction")) stop.abort();
    },
  });
  await Promise.allSettled([sync.init({ signal: stop.signal })]);
  await client.query(`rollback prepared ${quoted}`);
  const told = events.map((event) => JSON.stringify(event)).join("\n");
  expect(told).toContain(`prepared transaction ${quoted} of`);
  expect(told).toContain(`rollback prepared ${quoted};`);
  await sync.init();
});
