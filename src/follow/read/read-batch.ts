/**
 * Reads one batch from the source: looks what the tables rest on, takes the snapshot, makes sure that nothing was
 * overlooked and that the tables still have the shape we know, reads rows, and makes sure that they came from there.
 */
import type { Connection } from "../../postgres/connect.ts";
import { runScript, type StatementResult } from "../../postgres/script.ts";
import { ident, literal, load } from "../../postgres/sql.ts";
import { applicationPathSql, OWN_PATH } from "../../catalog/search-path.ts";
import { fromSql, tableSql } from "../../catalog/table.ts";
import { failpoint } from "../../postgres/failpoint.ts";
import { unions, windowCountSql } from "../../catalog/delta.ts";
import { keepLeaseSql, leaseName, type Lease } from "../../state/lease.ts";
import { copyOutSql } from "./carry-rows.ts";
import {
  aloneSql, groundSql, groundsIn, lookSql, looksIn, movedTables, prepareGroundSql, type Grounds,
} from "./ground.ts"; // prettier-ignore
import type { Shape } from "../shape.ts";
import { isDirect, type TableMode } from "./table-mode.ts";

/** A capture whose delta tables hold something, applied or not. */
export interface Dirty {
  readonly id: number;
  readonly a: number;
  readonly b: number;
  readonly active: "a" | "b";
}

/** What the window of one capture holds. */
export interface Window {
  readonly id: number;
  readonly rows: number;
  /** Oids of truncated relations; 0 asks for the whole table. */
  readonly markers: readonly number[];
}

export interface Partition {
  readonly root: number;
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  readonly bound: string;
  /** [name, enabled, xmin] of our triggers on it, see catalog/partitions. */
  readonly triggers: string;
  readonly isCaptured: boolean;
}

/** What the batch's snapshot says before rows are read. */
export interface Examination {
  /** The snapshot: position of the target once the batch is applied. */
  readonly snapshot: string;
  /** False: the source does not keep deltas for this sync any more. */
  readonly isKept: boolean;
  readonly dirty: readonly Dirty[];
  readonly windows: ReadonlyMap<number, Window>;
  /** By source oid; a table that is gone is missing. */
  readonly fingerprints: ReadonlyMap<number, { readonly name: string; readonly text: string }>;
  readonly partitions: readonly Partition[];
  /** What the tables to read rested on before the snapshot was taken. */
  readonly grounds: Grounds;
  /** Oids of those that are locked since before the snapshot, and are read first. */
  readonly locked: ReadonlySet<number>;
  /** When the snapshot was taken, by our clock. */
  readonly takenAt: number;
}

/** Fixed for the life of a source session. */
export interface Reader {
  readonly source: Connection;
  readonly sync: string;
  /** On the source: what is said there of the sync, only its runner says. */
  readonly lease: Lease;
}

/** Prepares the queries that every batch repeats. Once per source session. */
export async function prepareReader(source: Connection, sync: string, token: string): Promise<Reader> {
  const inline = (path: string, types: string): string =>
    `prepare ${path.slice(path.indexOf("/") + 1)} ${types} as ${load(path)}`;
  await source.script(inline("capture/dirty", "(text, int[], text)"));
  await source.script(inline("catalog/fingerprint", "(oid[])"));
  await source.script(inline("catalog/partitions", "(oid[])"));
  await source.script(prepareGroundSql(source.version));
  return { source, sync, lease: { name: leaseName("reader", sync), token } };
}

const array = (values: readonly number[]): string => `'{${values.join(",")}}'`;

function snapshotSql(reader: Reader): string {
  return `select pg_catalog.txid_current_snapshot()::text as snapshot,
    exists (select 1 from replicate.source_sync where name = ${literal(reader.sync)}) as "isKept"`;
}

function dirtySql(reader: Reader, excluded: readonly number[], lastSnapshot: string | null): string {
  return `execute dirty(${literal(reader.sync)}, ${array(excluded)}, ${literal(lastSnapshot)})`;
}

function readSnapshot(result: StatementResult | undefined): Pick<Examination, "snapshot" | "isKept"> {
  const row = result?.rows[0];
  return { snapshot: row?.["snapshot"] ?? "", isKept: row?.["isKept"] === "t" };
}

function readDirty(result: StatementResult | undefined): Dirty[] {
  return (result?.rows ?? []).map((row) => ({
    id: Number(row["id"]),
    a: Number(row["a"]),
    b: Number(row["b"]),
    active: row["active"] === "b" ? "b" : "a",
  }));
}

/**
 * The cheap look: which captures hold deltas at all. Null when no transaction ended since `lastSnapshot`.
 * Its answer is a hint; `examine` looks again in the batch's snapshot.
 */
export async function look(
  reader: Reader,
  excluded: readonly number[],
  lastSnapshot: string | null,
): Promise<Pick<Examination, "snapshot" | "isKept" | "dirty">> {
  const results = await runScript(
    reader.source,
    `${snapshotSql(reader)}; ${dirtySql(reader, excluded, lastSnapshot)}`,
  );
  return { ...readSnapshot(results[0]), dirty: readDirty(results[1]) };
}

export interface BatchRequest {
  readonly excluded: readonly number[];
  /** Tables to read. */
  readonly shapes: readonly Shape[];
  /** Oids of those that were changed under an earlier attempt: locked before the snapshot is taken. */
  readonly restless: ReadonlySet<number>;
  /** Captures known to hold deltas, to be counted in the snapshot. */
  readonly known: readonly number[];
  /** Position of a table before this batch. */
  readonly positionOf: (captureId: number) => string | null;
  /** Continues the condition on the deltas of a table, see `foreignSql`. */
  readonly conditionOf: (captureId: number) => string;
  /** Partitioned roots of the sync, whose partitions are checked in every batch. */
  readonly roots: readonly number[];
}

function countSql(request: BatchRequest): string[] {
  const ids = [...new Set([...request.known, ...request.shapes.map((shape) => shape.capture.id)])];
  return unions(ids.map((id) => windowCountSql(id, request.positionOf(id), request.conditionOf(id))));
}

/** Statements that open the batch's transaction and examine it; `parse` turns their results into an Examination. */
function examineScript(
  reader: Reader,
  request: BatchRequest,
): { text: string; count: number; parse(results: readonly StatementResult[]): Examination } {
  const counts = countSql(request);
  const restless = request.shapes.filter(({ source }) => request.restless.has(source.oid));
  const statements = [
    "begin",
    groundSql(request.shapes),
    "commit",
    "begin isolation level repeatable read",
    restless.length === 0 ? "select 1 where false" : "savepoint restless",
    restless.length === 0
      ? "select 1 where false"
      : `lock table ${restless.map(({ source }) => fromSql(source)).join(", ")} in access share mode`,
    snapshotSql(reader),
    groundSql(restless),
    dirtySql(reader, request.excluded, null),
    `execute fingerprint(${array(request.shapes.map((shape) => shape.source.oid))})`,
    request.roots.length === 0 ? "select 1 where false" : `execute partitions(${array(request.roots)})`,
    ...(counts.length > 1 ? counts.flatMap((count) => aloneSql([count])) : counts),
  ];
  return {
    text: statements.join(";\n"),
    count: statements.length,
    parse: (results) => {
      const [, grounds, , , , , snapshot, locked, dirty, fingerprints, partitions, ...windows] = results;
      return {
        ...readSnapshot(snapshot),
        dirty: readDirty(dirty),
        grounds: new Map([...groundsIn(grounds), ...groundsIn(locked)]),
        locked: new Set(restless.map(({ source }) => source.oid)),
        windows: new Map(
          windows
            .slice(0, statements.length - 11)
            .flatMap(({ rows }) => rows.map((row) => [Number(row["id"]), readWindow(row)])),
        ),
        fingerprints: new Map(
          (fingerprints?.rows ?? []).map((row) => [
            Number(row["relid"]),
            {
              name: tableSql({ schema: row["schema"] ?? "", name: row["name"] ?? "" }),
              text: row["fingerprint"] ?? "",
            },
          ]),
        ),
        partitions: (partitions?.rows ?? []).map(readPartition),
        takenAt: Date.now(),
      };
    },
  };
}

function readPartition(row: Readonly<Record<string, string | null>>): Partition {
  return {
    root: Number(row["root"]),
    oid: Number(row["oid"]),
    schema: row["schema"] ?? "",
    name: row["name"] ?? "",
    bound: row["bound"] ?? "",
    triggers: row["triggers"] ?? "",
    isCaptured: row["isCaptured"] === "t",
  };
}

/** The leaf partitions of these roots as they are now. */
export async function readPartitions(reader: Reader, roots: readonly number[]): Promise<Partition[]> {
  const [result] = await runScript(reader.source, `execute partitions(${array(roots)})`);
  return (result?.rows ?? []).map(readPartition);
}

function readWindow(row: Readonly<Record<string, string | null>>): Window {
  const markers = (row["markers"] ?? "{}").slice(1, -1);
  return {
    id: Number(row["id"]),
    rows: Number(row["n"]),
    markers: markers === "" ? [] : markers.split(",").map(Number),
  };
}

/**
 * Fails unless the columns that are cast or compared have the types that their statements were written for: what a cast
 * from another type runs is for the table's owner to say. Of the moment, in any snapshot, and so for a table that is locked.
 */
function checkTypesSql({ source, capture }: Shape): string {
  const isMapped = source.where !== undefined || source.columns.some(({ mapped }) => mapped !== undefined);
  const columns = (isMapped ? source.columns : capture.keyColumns).filter(({ typeOid }) => typeOid !== 0);
  if (columns.length === 0) return "select 1";
  const checks = columns.map(
    ({ name, typeOid }) =>
      `pg_catalog.pg_typeof((null::${tableSql(source)}).${ident(name)})::oid = ${typeOid}::oid`,
  );
  return `select 1 / (${checks.join(" and ")})::int4`;
}

/** Opens the batch's transaction and examines it. The transaction stays open. */
export async function examine(reader: Reader, request: BatchRequest): Promise<Examination> {
  const script = examineScript(reader, request);
  return script.parse(await runScript(reader.source, script.text));
}

export interface ReadRequest {
  readonly reads: readonly { readonly shape: Shape; readonly mode: TableMode; readonly rows: number }[];
  readonly positionOf: (captureId: number) => string | null;
  readonly conditionOf: (captureId: number) => string;
  /** A condition on the keys that are read, or "". */
  readonly exceptOf: (shape: Shape) => string;
  /** What is written on the source in the batch's transaction, see `acknowledgeSql`. */
  readonly acknowledge: string;
  /** Called with each row of COPY data, in the order of `reads`. */
  readonly onData: (read: number, payload: Buffer) => void;
}

/** Below this share of a table, its rows are looked up by key; above, the planner chooses. */
const LOOKUP_SHARE = 0.05;

/**
 * Statements that read and end the batch's transaction; `moved` tells from their results of which tables the rows are not
 * those of its snapshot.
 */
function readScript(
  { source: { version } }: Reader,
  request: ReadRequest,
  locked: ReadonlySet<number> = new Set(),
): {
  text: string;
  moved(before: Grounds, results: readonly StatementResult[]): number[];
} {
  const shapes = request.reads.map(({ shape }) => shape);
  // Their locks go as soon as they are read, whatever takes long after them.
  const last = request.reads.findLastIndex(({ shape }) => locked.has(shape.source.oid));
  const unlock = ["rollback to savepoint restless", "release savepoint restless"];
  const copies = request.reads.flatMap(({ shape, mode, rows }, index) => {
    // Delta tables have no statistics; a plan that scans the table for a handful of keys would ruin the source.
    const isLookup =
      mode.kind !== "reread" && !isDirect(mode) && rows < LOOKUP_SHARE * shape.source.estimatedRows;
    const setting = isLookup ? "off" : "on";
    const statements = aloneSql([
      `lock table ${fromSql(shape.source)} in access share mode`,
      checkTypesSql(shape),
      `set local enable_hashjoin = ${setting}; set local enable_mergejoin = ${setting}`,
      applicationPathSql(shape.source),
      copyOutSql(shape, request.positionOf(shape.capture.id), request.conditionOf(shape.capture.id), mode, request.exceptOf(shape)),
      OWN_PATH,
      ...lookSql(shape, version),
    ]); // prettier-ignore
    return index === last ? [...statements, ...unlock] : statements;
  });
  return {
    text: [...copies, request.acknowledge, "commit", groundSql(shapes)].join(";\n"),
    moved: (before, results) => {
      const { grounds, strange } = looksIn(results);
      const moved = movedTables(before, grounds.slice(0, -1), grounds.at(-1) ?? new Map(), locked);
      return [...new Set([...moved, ...strange])];
    },
  };
}

/**
 * Reads the rows of an examined batch and commits on the source. Returns the oids of tables whose rows are not those of the
 * batch's snapshot, because they were changed meanwhile: the batch has to be begun anew.
 */
export async function read(
  reader: Reader,
  { grounds, locked }: Examination,
  request: ReadRequest,
): Promise<number[]> {
  const script = readScript(reader, request, locked);
  const results = await runScript(reader.source, script.text, { onCopyData: request.onData });
  await failpoint("batch.read");
  return script.moved(grounds, results);
}

/**
 * Examines and reads in one round trip, on the assumption that the batch touches the tables that the last one did.
 * The caller checks the examination and throws the rows away if it was wrong, or if a table has `moved`.
 */
export async function examineAndRead(
  reader: Reader,
  request: BatchRequest,
  reading: ReadRequest,
): Promise<Examination & { readonly moved: readonly number[] }> {
  const script = examineScript(reader, request);
  const rest = readScript(reader, reading);
  const results = await runScript(reader.source, `${script.text};\n${rest.text}`, {
    onCopyData: reading.onData,
  });
  await failpoint("batch.read");
  const found = script.parse(results);
  return { ...found, moved: rest.moved(found.grounds, results.slice(script.count)) };
}

/** Oids of tables that have changed since the batch was examined. Outside of its transaction. */
export async function movedSince(
  reader: Reader,
  { grounds }: Examination,
  shapes: readonly Shape[],
): Promise<number[]> {
  const [result] = await runScript(reader.source, groundSql(shapes));
  const now = groundsIn(result);
  return movedTables(grounds, [now], now);
}

/**
 * Marks on the source, in the transaction that reads a batch: a new token, the position that the target has
 * reached, and that tables which follow need not be held back any more.
 */
export function acknowledgeSql(
  reader: Reader,
  token: string,
  nextToken: string,
  position: string | null,
  joined: readonly number[],
): string {
  const sync = literal(reader.sync);
  const release =
    joined.length === 0
      ? ""
      : `update replicate.subscription set is_pinned = false where sync = ${sync} and is_pinned and capture_id = any (${array(joined)});`;
  return `${keepLeaseSql(reader.lease)}; ${release} update replicate.source_sync set token = ${literal(nextToken)}, previous_token = ${literal(token)}, position = ${literal(position)},
      acknowledged_at = pg_catalog.clock_timestamp()
    where name = ${sync} and ${literal(token)} in (token, previous_token)`;
}
