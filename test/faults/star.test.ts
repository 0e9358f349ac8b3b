import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";

import { openSync, type Sync } from "../../src/index.ts";
import { connect, createDatabaseAt, urlWith } from "../support/admin.ts";
import { freePair } from "../support/database.ts";
import { until } from "../support/until.ts";

// A hub and eighteen leaves: what is written on one is on all of them, once.

const leaves = 18;

test(
  "a row of each of eighteen leaves reaches every database, and nothing goes around",
  { timeout: 300_000 },
  async () => {
    await using hub = await freePair({ leaks: "ignore" });
    const schema = "create table t (id int primary key, v text)";
    await hub.source.sql(schema);
    const admin = urlWith(hub.target.url, { database: "postgres" });
    const databases = await Promise.all(
      Array.from({ length: leaves }, async (_, n) => await createDatabaseAt(admin, `leaf${n}`)),
    );
    const syncs: Sync[] = [];
    const clients = await Promise.all(databases.map(async ({ url }) => await connect(url)));
    const stop = new AbortController();
    const running: Promise<void>[] = [];
    let applied = 0;
    try {
      for (const client of clients) await client.query(schema);
      for (const [n, { url }] of databases.entries()) {
        const sync = await openSync({
          name: `leaf${n}`,
          source: hub.source.url,
          target: url,
          direction: "both",
          conflict: "latest",
          env: {},
        });
        syncs.push(sync);
        await sync.init();
        await sync.copy({ adopt: true });
        // So that what is counted below is news.
        for await (const batch of sync.follow({ untilCaughtUp: true })) expect(batch.rows).toBe(0);
      }
      for (const sync of syncs)
        running.push(
          (async () => {
            for await (const batch of sync.follow({ signal: stop.signal })) applied += batch.rows;
          })(),
        );
      for (const [n, client] of clients.entries())
        await client.query("insert into t values ($1, $2)", [n, `of ${n}`]);
      await hub.source.sql("insert into t values (100, 'of the hub')");
      const rowsOf = async (query: (text: string) => Promise<{ rows: unknown[] }>): Promise<unknown[]> =>
        (await query("select id, v from t order by id")).rows;
      const all = [
        ...Array.from({ length: leaves }, (_, n) => ({ id: n, v: `of ${n}` })),
        { id: 100, v: "of the hub" },
      ];
      for (const client of [await hub.source.client(), ...clients])
        await until("every database has every row", async () => {
          const rows = await rowsOf(async (text) => await client.query(text));
          return rows.length === all.length && (expect(rows).toEqual(all), true);
        });

      // Every delta table becomes empty, and no batch comes any more.
      const deltas = `select coalesce(sum((xpath('/row/n/text()', query_to_xml(format('select count(*) as n from %I.%I', schemaname, tablename), false, true, '')))[1]::text::int), 0)::int as n
        from pg_tables where schemaname = 'replicate' and tablename like 'delta%'`;
      for (const client of [await hub.source.client(), ...clients])
        await until("deltas are thrown away", async () => {
          const { rows } = await client.query<{ n: number }>(deltas);
          return rows[0]?.n === 0;
        });
      await sleep(2000);
      // Each row of a leaf comes to the hub and to the seventeen others, that of the hub to eighteen: once.
      expect(applied).toBe(leaves * leaves + leaves);
      for (const client of clients) {
        const { rows } = await client.query("select 1 from replicate.conflict");
        expect(rows).toEqual([]);
      }
    } finally {
      stop.abort();
      await Promise.allSettled(running);
      for (const sync of syncs) await sync[Symbol.asyncDispose]();
      for (const client of clients) await client.end();
      for (const database of databases) await database.drop();
    }
    await Promise.all(running);
  },
);
