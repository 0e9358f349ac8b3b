import { setTimeout as sleep } from "node:timers/promises";

import { withClient } from "./admin.ts";

const patienceMs = 3_000;

interface Connection {
  pid: number;
  application_name: string;
  state: string | null;
  query: string;
}

/**
 * Returns a description of each connection that stays open in the database. A backend outlives its
 * client's goodbye by some milliseconds, hence the patience. Only client connections count: autovacuum
 * comes and goes as it likes.
 */
export async function waitForLeavers(adminUrl: string, database: string): Promise<string[]> {
  return withClient(adminUrl, async (client) => {
    const deadline = Date.now() + patienceMs;
    for (;;) {
      const { rows } = await client.query<Connection>(
        `select pid, application_name, state, query
           from pg_catalog.pg_stat_activity
          where datname = $1 and backend_type = 'client backend'
          order by pid`,
        [database],
      );
      if (rows.length === 0 || Date.now() > deadline) return rows.map(describe);
      await sleep(20);
    }
  });
}

function describe(connection: Connection): string {
  return `${connection.pid} ${connection.application_name} (${connection.state ?? "unknown"}): ${connection.query}`;
}
