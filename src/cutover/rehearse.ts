/** The rehearsal: how long the fence would stand, and what would stop the switch. Changes nothing. */
import type { ResolvedConfig } from "../config/options.ts";
import { ReplicateError, type Problem } from "../errors.ts";
import { isTransformed } from "../transform/transform-rows.ts";
import type { Connection } from "../postgres/connect.ts";
import { sleep } from "../postgres/sleep.ts";
import { ident, load } from "../postgres/sql.ts";
import type { SyncContext } from "../state/context.ts";
import { baseName, isKeyless, loadCaptures } from "../catalog/delta.ts";
import { keepsColumns } from "../catalog/mapping.ts";
import { goneBounds, missingPartitions } from "../catalog/missing-partitions.ts";
import { missingSettings, viewsToFill } from "../catalog/left-behind.ts";
import { describeTables, hidingRelations, tableBytes, tableLabel, tableSql } from "../catalog/table.ts";
import { findNotReplicated, newcomerProblem } from "../state/newcomers.ts";
import { irreversible, assertNoRemapping } from "../state/remapping.ts";
import { unfitProblems } from "../state/fitting.ts";
import { checkPair } from "../state/source-identity.ts";
import { loadTables, type SyncTable } from "../state/sync-table.ts";
import { countPending, FEW_DELTAS } from "./pending.ts";
import { timeComparison, type Uncompared } from "./time-comparison.ts";
import { findWriters, LONG_SECONDS, type Writer } from "../fence/raise.ts";
import { withBoth } from "../reverse/ways.ts";

export interface Rehearsal {
  /** What would stop the switch, each with what to do about it. */
  readonly blockers: readonly Problem[];
  /** What makes the fence longer, or may surprise. */
  readonly warnings: readonly Problem[];
  /** Seconds for which applications could not write. */
  readonly fenceSeconds: number;
  readonly parts: readonly { readonly step: string; readonly seconds: number; readonly basis: string }[];
}

/** Rows per second that are assumed until a rate was measured: slow, for a small server and a long way. */
const ASSUMED_RATE = 5000;
/** Bytes per second at which constraints are checked on the target. */
const CHECK_RATE = 50 * 1024 * 1024;
/** Bytes per second at which a table without a key is reloaded and compared, until it was measured. */
const RELOAD_RATE = 20 * 1024 * 1024;
/** A table without a key that was written to within so many seconds is expected to be written to up to the fence. */
const RECENT_SECONDS = 600;
/** Seconds for comparing the changes of one table, where it could not be tried. */
const COMPARE_SECONDS = 0.01;
/** How often, and after how many milliseconds each, to look who is writing. */
const LOOKS = 6;
const LOOK_MS = 30;

/**
 * `rate`: rows per second, where the caller has measured it. `uncompared`: where some was compared already. Throws SYNC_UNKNOWN and the connection errors.
 */
export async function rehearse(
  active: SyncContext,
  options: {
    readonly isReversible: boolean;
    readonly acceptUnreplicated?: boolean | undefined;
    readonly rate?: number | undefined;
    readonly uncompared?: Uncompared | undefined;
  },
): Promise<Rehearsal> {
  const { name } = active.config;
  return await withBoth(active, "rehearsal", async (source, target) => {
    await checkPair(source, target, name);
    const entries = await loadTables(target, name);
    const blockers: Problem[] = [];
    const warnings: Problem[] = [];
    checkStates(entries, blockers);
    // As long as one is left, follow stands, and nothing can be drained.
    for (const problem of await unfitProblems(source, target, entries))
      blockers.push({ ...problem, message: `TABLE_SHAPE_CHANGED: ${problem.message}` });
    if (options.acceptUnreplicated !== true) {
      const isReverse = name !== baseName(name);
      const newcomers = await findNotReplicated(active.config, source, target);
      blockers.push(...newcomers.map((each) => newcomerProblem(each, isReverse)));
    }
    blockers.push(...(await checkPartitions(source, target, entries)));
    const writing = await watchWriters(source, entries, active.signal, blockers, warnings);
    assertNoRemapping(active.config, entries);
    warnings.push(...(await missingSettings(source, target)), ...(await viewsToFill(source, target)));
    if ((await identityOf(source)) === (await identityOf(target))) {
      blockers.push({
        subject: name,
        message: "source and target are the same database: there are no sides to switch",
        remedy: "let the application use the new tables, then `replicate drop`",
      });
    }
    if (options.isReversible) {
      blockers.push(...irreversible(entries), ...transformed(active.config, entries));
      await checkReverse(source, target, entries, blockers);
    }

    const trips = { source: await roundTrip(source), target: await roundTrip(target) };
    const counted = await countPending(source, target, name);
    // More is applied before the fence is raised.
    const pending = Number.isFinite(counted) ? Math.min(counted, FEW_DELTAS) : 0;
    const tried = await timeComparison(active, entries, options.uncompared);
    const comparing = tried?.seconds ?? entries.length * COMPARE_SECONDS;
    const runner = await target.row<{ rate: number | null; owed: number; bytes: number; sequences: number }>(
      `select (select r.rows_per_second from replicate.runner r where r.sync = $1) as rate,
              (select count(*)::int from replicate.deferred o where o.sync = $1 and o.restored_at is null) as owed,
              (select coalesce(sum(pg_catalog.pg_relation_size(t.target_relid)), 0)::float8
               from replicate.deferred o join replicate.sync_table t on t.sync = o.sync and t.capture_id = o.capture_id
               where o.sync = $1 and o.restored_at is null and o.kind = 'foreign-key' and o.validate is null) as bytes,
              (select count(*)::int from pg_catalog.pg_sequence) as sequences`,
      [name],
    );
    const reloads = await expectedReloads(source, entries, warnings);
    const measured = options.rate ?? runner.rate ?? 0;
    const rate = Math.max(measured, ASSUMED_RATE);
    const ms = (value: number): string => `${Math.round(value * 1000)} ms`;
    const trip = trips.source + trips.target;
    const parts = [
      {
        step: "fence",
        seconds: writing.longest + 8 * trips.source,
        basis: `${writing.transactions === 1 ? "one transaction" : `${writing.transactions} transactions`} seen writing, the longest for ${ms(writing.longest)}; a round trip of ${ms(trips.source)}`,
      },
      {
        step: "drain",
        // The batch that is being applied, and the last one: each looks at as many tables as are compared.
        seconds: pending / rate + 2 * comparing + 4 * trip,
        basis: `${pending} changes at ${Math.round(rate)} rows/s${measured > ASSUMED_RATE ? "" : ", which is assumed"}, in two batches`,
      },
      ...reloads,
      {
        step: "compare",
        seconds: comparing + (tried?.wholeBytes ?? 0) / RELOAD_RATE + 4 * trip,
        basis:
          tried === null
            ? `${entries.length} tables, whose comparison could not be tried`
            : `${tried.tables === 1 ? "one table" : `${tried.tables} tables`} with ${tried.rows} changed rows, compared for a try`,
      },
      {
        step: "sequences",
        seconds: 8 * trip + runner.sequences * 0.0002,
        basis: `${runner.sequences} sequences`,
      },
      {
        step: "constraints",
        seconds: 6 * trips.target + runner.owed * 0.005 + runner.bytes / CHECK_RATE,
        basis: `${runner.owed} constraints and triggers to be restored; they are validated after the opening`,
      },
      { step: "open", seconds: 8 * trip, basis: "positions and the last checks" },
    ];
    return {
      blockers,
      warnings,
      parts,
      fenceSeconds: parts.reduce((sum, part) => sum + part.seconds, 0),
    };
  });
}

/** What a database is whichever way leads to it. */
async function identityOf(connection: Connection): Promise<string> {
  const { identity } = await connection.row<{ identity: string }>(load("preflight/server"));
  return identity;
}

function checkStates(entries: readonly SyncTable[], blockers: Problem[]): void {
  for (const entry of entries) {
    if (entry.state === "following" || entry.state === "copied") continue;
    blockers.push({
      subject: tableLabel({ schema: entry.sourceSchema, name: entry.sourceName }),
      message: `is not copied yet (${entry.state})`,
      remedy: "replicate copy",
    });
  }
}

/** Tables without a key that will probably have to be read again while fenced. */
async function expectedReloads(
  source: Connection,
  entries: readonly SyncTable[],
  warnings: Problem[],
): Promise<Rehearsal["parts"][number][]> {
  const isRecent = ({ lastChangeAt, reloadSince }: SyncTable): boolean =>
    reloadSince !== null ||
    (lastChangeAt !== null && Date.now() - lastChangeAt.getTime() < RECENT_SECONDS * 1000);
  const expected = entries.filter((entry) => entry.isKeyless && isRecent(entry));
  if (expected.length === 0) return [];
  const tables = await describeTables(source, expected.map(({ sourceRelid }) => sourceRelid)); // prettier-ignore
  let bytes = 0;
  let seconds = 0;
  for (const table of tables) {
    const entry = expected.find(({ sourceRelid }) => sourceRelid === table.oid);
    const size = tableBytes(table);
    const rate = entry?.reloadSeconds && entry.reloadBytes ? entry.reloadBytes / entry.reloadSeconds / 2 : 0;
    const own = size / Math.max(rate, RELOAD_RATE);
    bytes += size;
    seconds += own;
    if (own > LONG_SECONDS) {
      warnings.push({
        subject: tableLabel(table),
        message: `has no key and changes: while fenced it is read again and compared as a whole, for about ${Math.ceil(own)} s`,
        remedy: "stop its writers some minutes before, or give it a key and run `replicate init`",
      });
    }
  }
  const basis = `${expected.length === 1 ? "one table" : `${expected.length} tables`} without a key, ${Math.ceil(bytes / 1024 ** 2)} MB`;
  return [{ step: "reload", seconds, basis }];
}

/** Without them the application could not write on the new side what it writes on the old one. */
async function checkPartitions(
  source: Connection,
  target: Connection,
  entries: readonly SyncTable[],
): Promise<Problem[]> {
  const [sources, targets] = await Promise.all([
    describeTables(source, entries.map(({ sourceRelid }) => sourceRelid)),
    describeTables(target, entries.map(({ targetRelid }) => targetRelid)),
  ]); // prettier-ignore
  return entries.flatMap((entry) => {
    const from = sources.find(({ oid }) => oid === entry.sourceRelid);
    const to = targets.find(({ oid }) => oid === entry.targetRelid);
    if (from === undefined || to === undefined || !keepsColumns(entry.mapping)) return [];
    const missing = missingPartitions(from, to, goneBounds(entry));
    return missing.map(({ subject, message, remedy }) => ({ subject, message, remedy }));
  });
}

interface Writing {
  readonly transactions: number;
  /** Of the longest, in seconds. */
  readonly longest: number;
}

/** Looks for a moment at who writes. The short ones are what the fence waits for; the others it is raised after. */
async function watchWriters(
  source: Connection,
  entries: readonly SyncTable[],
  signal: AbortSignal,
  blockers: Problem[],
  warnings: Problem[],
): Promise<Writing> {
  const relids = entries.map(({ sourceRelid }) => sourceRelid);
  const seen = new Map<string, { readonly writer: Writer; readonly since: number; seconds: number }>();
  for (let look = 0; look < LOOKS; look += 1) {
    if (look > 0) await sleep(LOOK_MS, signal);
    for (const writer of await findWriters(source, relids, null)) {
      const since = seen.get(writer.id)?.since ?? Date.now();
      const seconds = Math.max(writer.seconds ?? 0, (Date.now() - since) / 1000);
      seen.set(writer.id, { writer, since, seconds });
    }
  }
  const all = [...seen.values()];
  for (const { writer, seconds } of all) {
    const { pid, table, who } = writer;
    if (pid === null) {
      blockers.push({
        subject: table,
        message: "a prepared transaction has written to it: the fence has to wait for its end",
        remedy: "commit prepared '…' or rollback prepared '…';  -- see pg_prepared_xacts",
      });
    } else if (seconds > LONG_SECONDS) {
      warnings.push({
        subject: table,
        message: `pid ${pid} (${who}) has written to it and is open for ${Math.round(seconds)} s: the fence is raised after its end`,
        remedy: `select pg_terminate_backend(${pid});`,
      });
    }
  }
  const brief = all.map(({ seconds }) => seconds).filter((seconds) => seconds <= LONG_SECONDS);
  return { transactions: brief.length, longest: Math.max(0, ...brief) };
}

/** What it takes to keep the old side current afterwards. */
async function checkReverse(
  source: Connection,
  target: Connection,
  entries: readonly SyncTable[],
  blockers: Problem[],
): Promise<void> {
  const tables = await describeTables(target, entries.map(({ targetRelid }) => targetRelid)); // prettier-ignore
  const captures = await loadCaptures(source, entries.map(({ captureId }) => captureId)); // prettier-ignore
  const keyless = new Set(captures.filter(isKeyless).map(({ id }) => id));
  const goesWithout = (oid: number): boolean =>
    entries.some((entry) => entry.targetRelid === oid && keyless.has(entry.captureId));
  const { role } = await target.row<{ role: string }>(`select current_user::text as role`);
  for (const table of tables) {
    const subject = tableLabel(table);
    if (!table.isOwned) {
      blockers.push({
        subject,
        message: `is owned by ${table.owner} on the new side: its changes cannot be captured for the reverse replication`,
        remedy: `grant ${ident(table.owner)} to ${ident(role)};  -- or cut over without reverse replication: --no-reverse`,
      });
    }
    if (table.key === null && !goesWithout(table.oid)) {
      blockers.push({
        subject,
        message: "has no key on the new side: its changes cannot be captured for the reverse replication",
        remedy: `alter table ${tableSql(table)} add primary key (…);  -- or cut over without reverse replication: --no-reverse`,
      });
    }
  }
  const back = await describeTables(source, entries.map(({ sourceRelid }) => sourceRelid)); // prettier-ignore
  for (const table of back.filter((each) => hidingRelations(each).length > 0 || !each.isOwned)) {
    blockers.push({
      subject: tableLabel(table),
      message: "cannot be written to on the old side by this role, so reverse replication is not possible",
      remedy:
        "give the role the rights of the table's owner, or cut over without reverse replication: --no-reverse",
    });
  }
}

async function roundTrip(connection: Connection): Promise<number> {
  let best = Infinity;
  for (let n = 0; n < 3; n += 1) {
    const startedAt = performance.now();
    await connection.rows("select 1");
    best = Math.min(best, performance.now() - startedAt);
  }
  return best / 1000;
}

/** Throws PREFLIGHT_BLOCKED with everything that blocks. */
export function assertNotBlocked({ blockers }: Rehearsal): void {
  if (blockers.length === 0) return;
  throw new ReplicateError(
    "PREFLIGHT_BLOCKED",
    `${blockers.length === 1 ? "one finding" : `${blockers.length} findings`} must be settled before the switch`,
    { problems: blockers },
  );
}

/** What a hook has changed would come back to the old side as it is now. */
function transformed(config: ResolvedConfig, entries: readonly SyncTable[]): Problem[] {
  return entries
    .filter(({ sourceSchema, sourceName }) => isTransformed(config, sourceSchema, sourceName))
    .map(({ sourceSchema, sourceName }) => ({
      subject: tableLabel({ schema: sourceSchema, name: sourceName }),
      message: "has rows that are transformed on their way: reverse replication is not possible",
      remedy: "cut over without reverse replication: --no-reverse",
    }));
}
