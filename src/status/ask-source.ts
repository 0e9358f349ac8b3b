/** What the source says for the status of a sync: what waits there, who waits, and whether it is fenced. */
import { foreignSql, unions, windowCountSql } from "../catalog/delta.ts";
import { countPending } from "../conflict/log.ts";
import { ReplicateError } from "../errors.ts";
import { readFence, type Fence } from "../fence/fence.ts";
import type { Connection } from "../postgres/connect.ts";
import { load } from "../postgres/sql.ts";
import { asReplicateError } from "../postgres/sqlstate.ts";
import type { SyncContext } from "../state/context.ts";
import { findNotReplicated, type NotReplicated } from "../state/newcomers.ts";
import { readRetainedDeltas, type RetainedDeltas } from "../state/retained-deltas.ts";
import { checkPair } from "../state/source-identity.ts";
import type { SyncTable } from "../state/sync-table.ts";
import type { Wait } from "./report.ts";

export async function waitsOn(connection: Connection): Promise<Wait[]> {
  const rows = await connection.rows<Omit<Wait, "side">>(load("status/waits"));
  return rows.map((row) => ({ side: connection.side, ...row }));
}

export interface Waiting {
  readonly rows: number | null;
  readonly byCapture: ReadonlyMap<number, number> | null;
  readonly blockedBy: string | null;
  readonly waits: readonly Wait[];
  readonly conflicts: number;
  readonly error: string | null;
  readonly fence: Fence | undefined;
  /** The source could be asked at least for that. */
  readonly isFenceKnown: boolean;
  readonly held: readonly RetainedDeltas[];
  readonly notReplicated: readonly NotReplicated[];
}

/** Counts the deltas that wait on the source. */
export async function askSource(
  context: SyncContext,
  target: Connection,
  tables: readonly SyncTable[],
  { position }: { readonly position: string | null },
): Promise<Waiting> {
  let source: Connection | undefined;
  let fence: Fence | undefined;
  let isFenceKnown = false;
  try {
    source = await context.source("status");
    fence = await readFence(source, context.config.name);
    isFenceKnown = true;
    await checkPair(source, target, context.config.name);
    const byCapture = new Map<number, number>();
    const sized = await source.rows<{ id: number; tracksOrigin: boolean }>(
      `select c.id, c.tracks_origin as "tracksOrigin" from replicate.subscription s join replicate.capture c on c.id = s.capture_id
       where s.sync = $1 and pg_catalog.pg_relation_size(c.delta_a) + pg_catalog.pg_relation_size(c.delta_b) > 0`,
      [context.config.name],
    );
    const counts = sized.map(({ id, tracksOrigin }) => {
      const entry = tables.find((table) => table.captureId === id);
      const from = entry?.state === "following" ? position : null;
      return `select ${id} as id, n::float8 as n from (${windowCountSql(id, from, foreignSql({ tracksOrigin }, context.config.name))}) as w`;
    });
    for (const some of unions(counts))
      for (const { id, n } of await source.rows<{ id: number; n: number }>(some)) byCapture.set(id, n);
    const [oldest] = await source.rows<{ pid: number; user: string; seconds: number; state: string }>(
      `select pid, coalesce(usename, '?')::text as user, coalesce(state, 'state not shown') as state,
              extract(epoch from clock_timestamp() - xact_start)::int as seconds
       from pg_catalog.pg_stat_activity
       where datname = pg_catalog.current_database() and backend_xid is not null
         and xact_start < clock_timestamp() - interval '1 minute'
         and application_name not like 'replicate %'
       order by xact_start limit 1`,
    );
    return {
      rows: [...byCapture.values()].reduce((total, n) => total + n, 0),
      byCapture,
      blockedBy:
        oldest === undefined
          ? null
          : `pid ${oldest.pid} of ${oldest.user}, ${oldest.state}, has a transaction open for ${oldest.seconds} s`,
      waits: await waitsOn(source),
      conflicts: await countPending(source, context.config.name),
      error: null,
      fence,
      isFenceKnown,
      held: await readRetainedDeltas(source),
      notReplicated: await findNotReplicated(context.config, source, target),
    };
  } catch (error) {
    const failure = error instanceof ReplicateError ? error : asReplicateError(error, "asking the source");
    return {
      rows: null,
      byCapture: null,
      blockedBy: null,
      waits: [],
      conflicts: 0,
      error: failure.message,
      fence,
      isFenceKnown,
      held: [],
      notReplicated: [],
    };
  } finally {
    await source?.close();
  }
}
