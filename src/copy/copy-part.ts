/** One part: read in a snapshot of its own, written and crossed out in one transaction. */
import { sentSql } from "../catalog/columns.ts";
import { mendKeys, UNREADABLE } from "../capture/unreadable-keys.ts";
import { changedKeysSql, deltaTables, isKeyless, keyMatchSql } from "../catalog/delta.ts";
import type { TableMapping } from "../catalog/mapping.ts";
import { ownColumns, rowsSql } from "../catalog/rows.ts";
import { applicationPathSql, asApplication } from "../catalog/search-path.ts";
import { missingPartitions } from "../catalog/missing-partitions.ts";
import { tableLabel, tableSql } from "../catalog/table.ts";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { relayCopy, RelayError, type RelayResult } from "../postgres/copy-relay.ts";
import { failpoint } from "../postgres/failpoint.ts";
import { ident, literal, load, qualified } from "../postgres/sql.ts";
import {
  asReplicateError, isConnectionFailure, isRejection, isRetryableConflict, lacksPartition, QUERY_CANCELED, sqlstateOf, UNDEFINED_TABLE,
} from "../postgres/sqlstate.ts"; // prettier-ignore
import { wantsPark } from "../parked/policy.ts";
import type { RejectedRow } from "../state/parked.ts";
import { asText, isTransformed, RowTransformer } from "../transform/transform-rows.ts";
import { transformCopy } from "./transform-part.ts";
import { storages, type PlannedPart, type Storage } from "./plan.ts";
import { keyRangeSql } from "./quantiles.ts";
import { canPark, prepareParking, parkingNames, parkRows } from "./park-part.ts";
import { columnsIn, type CopyRun, type CopyTable, type Flight } from "./run.ts";

/** A part of the ledger, with what it was planned for. */
export interface Part extends PlannedPart {
  readonly captureId: number;
  readonly number: number;
  /** The relation's physical file. */
  readonly file: string | null;
  /** The shape of the table. */
  readonly fingerprint: string;
  readonly mapping: TableMapping | null;
}

/** The part cannot be read now: somebody holds the table, or waits for it behind us. Later it can; `isAtOnce`: now, in another way. */
export class PartGivenBack extends Error {
  override readonly name = "PartGivenBack";
  readonly isAtOnce: boolean;

  constructor(message: string, { cause, isAtOnce = false }: { cause?: unknown; isAtOnce?: boolean } = {}) {
    super(message, { cause });
    this.isAtOnce = isAtOnce;
  }
}

/** The source's table is not the one the part was planned for: rewritten, truncated, altered, or renamed. */
export class PlanOutdated extends Error {
  override readonly name = "PlanOutdated";
}

/** What went into the target, and what was parked. */
export interface Loaded extends RelayResult {
  readonly parked: readonly RejectedRow[];
}

/**
 * Copies the rows of a part. `target` is in the transaction that holds the part and that `finish` completes: never
 * another session, in which the rows would be committed by themselves. Meanwhile the source's transaction ends, so that
 * its snapshot is never older than the reading. A part that the target has rejected is given back, and then read by way of
 * park-part. Throws PartGivenBack, PlanOutdated, ROW_REFUSED, HOOK_FAILED, ABORTED, and errors of connections as they are.
 */
export async function loadPart(
  run: CopyRun,
  source: Connection,
  target: Connection,
  table: CopyTable,
  part: Part,
  finish: (result: RelayResult) => Promise<void>,
): Promise<Loaded> {
  const storage = storages(table.source).find((each) => each.oid === part.sourceRelid);
  if (storage === undefined) throw new PlanOutdated("a partition is gone");
  const hasDeltas = await openSnapshot(source, table, part, storage);
  await failpoint("copy.part.snapshot");

  const flight: Flight = {
    captureId: part.captureId,
    label: table.label,
    sourcePid: source.pid,
    plannedBytes: part.bytes,
    bytes: 0,
    rows: 0,
    giveBack: new AbortController(),
  };
  run.flights.add(flight);
  const partName = `${part.captureId}.${part.number}`;
  const attempt = run.rejected.get(partName);
  const isParking = attempt !== undefined;
  try {
    const names = isParking ? parkingNames(table) : table.columns.columns.map((pair) => pair.source.name);
    const transformer = transformerOf(run, table);
    const read =
      transformer === undefined && !isParking ? table : { ...table, columns: asText(table.columns) };
    const relay: typeof relayCopy =
      transformer === undefined ? relayCopy : async (...given) => await transformCopy(...given, transformer);
    const relayed = await relay(source, target, {
      read: readSql(read, names, part, storage, hasDeltas),
      write: isParking ? await asTarget(prepareParking(target, table)) : writeSql(read, part),
      // When the run is stopped, both sessions are cut.
      signal: flight.giveBack.signal,
      onProgress: (bytes, rows) => {
        flight.bytes += bytes;
        flight.rows += rows;
      },
    });
    // What frames the rows is none of theirs.
    const result = relayed.rows === 0 ? { ...relayed, bytes: 0 } : relayed;
    await failpoint("copy.part.loaded");
    if (!isParking) {
      await Promise.all([source.script("commit"), finish(result)]);
      return { ...result, parked: [] };
    }
    // Nobody has to wait for the source's locks any more.
    await source.script("commit");
    const parked = await asTarget(parkRows(run, target, table, targetName(table, part), attempt));
    if (parked === "retry") {
      run.rejected.set(partName, attempt + 1);
      throw new PartGivenBack("a hook wants another try", { isAtOnce: true });
    }
    const loaded = { ...result, rows: result.rows - parked.length };
    await finish(loaded);
    run.rejected.delete(partName);
    return { ...loaded, parked };
  } catch (error) {
    // Its transaction must not outlive the part, and after a broken COPY the session is of no use.
    source.destroy();
    if (flight.giveBack.signal.aborted && !run.signal.aborted) {
      throw new PartGivenBack("somebody waits for a lock on the table", { cause: error });
    }
    if (!(error instanceof RelayError)) throw error;
    if (attempt === undefined && error.side === "target" && canPark(run, table, error.cause)) {
      run.rejected.set(partName, 1);
      throw new PartGivenBack("the target rejects some of its rows", { cause: error, isAtOnce: true });
    }
    if (error.side === "source" && isRejection(error.cause) && (await mends(run, table)))
      throw new PartGivenBack("a noted key cannot be read any more", { cause: error, isAtOnce: true });
    throw rejection(run, error, table);
  } finally {
    run.flights.delete(flight);
  }
}

/** Has `follow` read the table again where keys that were recorded cannot be read: they are in the way here as well. */
async function mends({ context }: CopyRun, { capture, label }: CopyTable): Promise<boolean> {
  await using source = await context.source("copy");
  if ((await mendKeys(source, capture)) === 0) return false;
  context.emit({ type: "table-reread", table: label, reason: UNREADABLE });
  return true;
}

/** Has what the target says count as its error, as one of a COPY does. */
async function asTarget<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw error instanceof ReplicateError ? error : new RelayError("target", error);
  }
}

/** For after the commit. */
export function emitParked(run: CopyRun, { parked }: Loaded): void {
  const [first] = parked;
  if (first === undefined) return;
  const { table, key, message } = first;
  run.context.emit({ type: "rows-parked", table, rows: parked.length, key, message });
}

/** Where the rows of the table go through the hook. */
function transformerOf(run: CopyRun, table: CopyTable): RowTransformer | undefined {
  const { config } = run.context;
  const { source, target, label, capture } = table;
  const { transformRow } = run.hooks;
  if (transformRow === undefined || !isTransformed(config, source.schema, source.name)) return undefined;
  const fields = table.columns.columns.map((pair) => pair.source.name);
  const keys = [...capture.keyColumns.map(({ name }) => name), ...ownColumns(target)];
  return new RowTransformer({ table: label, fields, keys }, transformRow);
}

/**
 * Locks the relation, takes the snapshot, and looks whether the table is the one the part was planned for. The lock comes
 * first: a rewrite or TRUNCATE that commits between the snapshot and the reading would leave us with no rows at all.
 * Returns whether any change is recorded, in the snapshot.
 */
async function openSnapshot(
  source: Connection,
  table: CopyTable,
  part: Part,
  storage: Storage,
): Promise<boolean> {
  const name = qualified(storage.schema, storage.name);
  const deltas = deltaTables(table.capture.id);
  const fingerprint = load("catalog/fingerprint").replaceAll("$1", literal(`{${table.source.oid}}`));
  let checked: { oid: number; file: string; fingerprint: string | null; hasDeltas: boolean } | undefined;
  try {
    const results = await source.script(
      `begin isolation level repeatable read read only;
       lock table only ${name}, ${deltas[0]}, ${deltas[1]} in access share mode;
       select ${literal(name)}::pg_catalog.regclass::oid::bigint::float8 as "oid",
              coalesce(pg_catalog.pg_relation_filenode(${part.sourceRelid}), 0)::text as "file",
              (select f.fingerprint from (${fingerprint}) as f) as "fingerprint",
              exists (select 1 from ${deltas[0]} where truncated is null)
                or exists (select 1 from ${deltas[1]} where truncated is null) as "hasDeltas"`,
    );
    checked = results.at(-1)?.rows[0] as typeof checked;
  } catch (error) {
    if (!source.isBroken) await source.script("rollback").catch(() => source.destroy());
    if (isConnectionFailure(error)) throw error;
    if (isRetryableConflict(error) || sqlstateOf(error) === QUERY_CANCELED) {
      throw new PartGivenBack("the table is locked", { cause: error });
    }
    if (sqlstateOf(error) === UNDEFINED_TABLE)
      throw new PlanOutdated("it was renamed or dropped", { cause: error });
    throw asReplicateError(error, `cannot read ${table.label} on the source`, [table.source]);
  }
  const reason = outdated(checked, part);
  if (reason === null) return checked?.hasDeltas ?? false;
  await source.script("rollback");
  throw new PlanOutdated(reason);
}

function outdated(
  found: { oid: number; file: string; fingerprint: string | null } | undefined,
  part: Part,
): string | null {
  if (found === undefined || found.fingerprint === null || found.oid !== part.sourceRelid) {
    return "it was renamed or dropped";
  }
  if (found.file !== part.file) return "it was rewritten or truncated";
  if (columnsIn(found.fingerprint) !== columnsIn(part.fingerprint)) return "its columns changed";
  return null;
}

function readSql(
  table: CopyTable,
  names: readonly string[],
  part: Part,
  storage: Storage,
  hasDeltas: boolean,
): string {
  const columns = names.map((name) => {
    const attnum = table.source.columns.find((column) => column.name === name)?.attnum ?? 0;
    return sentSql(table.columns, attnum, `t.${ident(name)}`);
  });
  const conditions: string[] = [];
  if (part.split === "pages") {
    // Number and tuple 0 do not exist: page bounds need no tuple.
    if (part.low !== null) conditions.push(`t.ctid >= '(${String(part.low)},0)'::pg_catalog.tid`);
    if (part.high !== null) conditions.push(`t.ctid < '(${String(part.high)},0)'::pg_catalog.tid`);
  } else if (part.split === "keys") {
    conditions.push(
      keyRangeSql(table.capture, part.low as readonly string[] | null, part.high as readonly string[] | null),
    );
  }
  if (hasDeltas && table.capture.keyColumns.length > 0) {
    // A row that moved between the snapshots of two parts would be copied twice, or not at all. It has a delta,
    // so `follow` brings it; here it is left out.
    conditions.push(
      `not exists (select 1 from (${changedKeysSql(table.capture, "true")}) as d where ${keyMatchSql(table.capture, "t", "d")})`,
    );
  }
  const where = conditions.length === 0 ? "" : ` where ${conditions.join(" and ")}`;
  const copy = `copy (select ${columns.join(", ")} from ${rowsSql(table.source, storage)} as t${where}) to stdout`;
  const format = table.columns.binary ? " with (format binary)" : "";
  return `${applicationPathSql(table.source)}; ${copy}${format}`;
}

/** Where the rows of the part go: the table, or one of its partitions. */
function targetName({ target }: CopyTable, part: Part): string {
  return tableSql(target.leaves.find((each) => each.oid === part.targetRelid) ?? target);
}

function writeSql(table: CopyTable, part: Part): string {
  const columns = table.columns.columns.map((pair) => ident(pair.target.name));
  const into = targetName(table, part);
  const list = columns.length === 0 ? "" : ` (${columns.join(", ")})`;
  const copy = `copy ${into}${list} from stdin${table.columns.binary ? " with (format binary)" : ""}`;
  return asApplication(table.target, [copy]).join("; ");
}

/** What a failed COPY means. */
function rejection(run: CopyRun, error: RelayError, table: CopyTable): Error {
  const { cause } = error;
  const sqlstate = sqlstateOf(cause);
  if (isConnectionFailure(cause) && sqlstate === undefined) return cause as Error;
  if (isRetryableConflict(cause) || sqlstate === QUERY_CANCELED) {
    return new PartGivenBack(`the ${error.side} interrupted the copy`, { cause });
  }
  if (error.side === "source")
    return asReplicateError(cause, `cannot read ${table.label} on the source`, [table.source]);
  const into = tableLabel(table.target);
  const what = `the target rejected a row of ${table.label}${into === table.label ? "" : ` for ${into}`}`;
  if (lacksPartition(cause)) {
    return new ReplicateError("TABLE_SHAPE_CHANGED", asReplicateError(cause, what).message, {
      cause,
      problems: missingPartitions(table.source, table.target).map(({ subject, message, remedy }) => ({
        subject,
        message,
        remedy,
      })),
      hint: "Create the partition on the target, then run the command again.",
    });
  }
  if (isRejection(cause)) {
    const said = asReplicateError(cause, what);
    const isLost = isKeyless(table.capture) && wantsPark(run.context.config, run.hooks, table.source);
    return new ReplicateError("ROW_REFUSED", said.message, {
      cause: said.cause,
      ...(sqlstate === undefined ? {} : { sqlstate }),
      ...(isLost
        ? {
            hint: "The table has no key, so that a row cannot be parked: repair it, or the target's table, then run the command again.",
          }
        : {}),
    });
  }
  return asReplicateError(cause, `cannot write ${into} on the target`, [table.target]);
}
