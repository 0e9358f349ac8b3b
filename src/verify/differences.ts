/** From two sums that differ to the keys and columns that do, in the snapshots in which the sums were made. */
import type { Side } from "../events.ts";
import { fromText, toText } from "../catalog/text-form.ts";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { relayCopy } from "../postgres/copy-relay.ts";
import type { Checksum } from "./checksum.ts";
import { isParkedSql } from "../state/parked.ts";
import { eachKeySql, keyColumnsSql, keyMatchesSql, keyParametersSql } from "./key-sql.ts";
import type { Difference, DrillRequest, KeyValue, PartDifferences } from "./difference.ts";
import type { SideSql, TablePlan } from "./plan.ts";
import { rowsFrom } from "./ranges.ts";
import { DIFFERENCES, recordDifferences } from "./repair.ts";
import type { SessionPair } from "./session-pair.ts";
import { countUnpaired } from "./unpaired.ts";

/** Below this many rows all of them are compared one by one; above, by bucket first. */
const FEW_ROWS = 1000;
const MANY_ROWS = 4_000_000;

const SOURCE_KEYS = "replicate_source_key";

/**
 * Finds the rows of a part that differ. Both sessions are in the transactions of the comparison, which are
 * over afterwards if something was repaired.
 */
export async function findDifferences(pair: SessionPair, request: DrillRequest): Promise<PartDifferences> {
  const { plan, checksum, conditions, signal } = request;
  const { target } = pair;
  const buckets = await differingBuckets(pair, request);
  if (plan.key.length === 0) {
    return await countUnpaired(pair, request, {
      source: [...conditions.source, ...buckets.source],
      target: [...conditions.target, ...buckets.target],
    });
  }
  const rows = {
    source: rowsFrom(plan.source, [...conditions.source, ...buckets.source]),
    target: rowsFrom(plan.target, [...conditions.target, ...buckets.target]),
  };

  // The keys meet on the target, where they are compared as its key compares them.
  await target.script(
    `create temporary table ${SOURCE_KEYS} (${keyColumnsSql(plan.target.key, "s")}, hash bigint) on commit drop`,
  );
  await relayCopy(pair.source, target, {
    read: `copy (select ${eachKeySql(plan.source.key, (_, key) => key.value)}, ${checksum.hashRow(plan.source.fields)} from ${rows.source}) to stdout`,
    write: `copy pg_temp.${SOURCE_KEYS} from stdin`,
    signal,
  });
  const sides = (prefix: "s" | "t"): string => eachKeySql(plan.target.key, (n) => `${prefix}.${prefix}${n}`);
  await target.script(`
    create temporary table replicate_difference on commit drop as
    select ${sides("s")}, ${sides("t")},
           case when t.rows is null then 'missing' when s.hash is null or t.rows > 1 then 'extra' else 'changed' end as kind
    from (select ${eachKeySql(plan.target.key, (n, key) => `${key.value} as t${n}`)},
                 pg_catalog.count(*) as rows, pg_catalog.sum(${checksum.hashRow(plan.target.fields)}) as hash
          from ${rows.target} group by ${eachKeySql(plan.target.key, (_, key) => key.value)}) as t
    full join pg_temp.${SOURCE_KEYS} as s
      on ${plan.target.key.map(({ equals }, index) => `s.s${index + 1} ${equals} t.t${index + 1}`).join(" and ")}
    where s.hash is null or t.hash is null or s.hash::numeric <> t.hash`);
  const texts = `array[${plan.key.map((_, n) => toText(`coalesce(d.s${n + 1}, d.t${n + 1})`, plan.target.key[n]?.type ?? "text")).join(", ")}]`;
  const isParked = await isParkedSql(target, request.sync, plan.capture.id, texts);
  const { total, parked } = await target.row<{ total: string; parked: string }>(
    `select pg_catalog.count(*)::text as total, (pg_catalog.count(*) filter (where ${isParked}))::text as parked
     from ${DIFFERENCES} as d`,
  );
  if (Number(total) === 0) {
    throw new ReplicateError("INTERNAL", `the sums of ${plan.label} differ, but none of its rows does`);
  }
  const listed = await list(pair, request, isParked);
  const repaired = request.repair ? await recordDifferences(pair, plan, request.tracksTarget, signal) : 0;
  return { total: Number(total), parked: Number(parked), listed, repaired };
}

/** Conditions that keep the rows in differing buckets; none where there is little to gain. */
async function differingBuckets(
  pair: SessionPair,
  { plan, checksum, conditions, rows }: DrillRequest,
): Promise<{ source: string[]; target: string[] }> {
  if (rows <= FEW_ROWS) return { source: [], target: [] };
  const count = rows > MANY_ROWS ? 16_384 : 1024;
  const bucket = {
    source: bucketSql(plan, "source", checksum, count),
    target: bucketSql(plan, "target", checksum, count),
  };
  const sums = async (side: Side): Promise<Map<number, string>> => {
    const found = await pair[side].rows<{ bucket: number; rows: string; sum: string }>(
      checksum.bucketsSql(plan[side].fields, bucket[side], rowsFrom(plan[side], conditions[side])),
    );
    return new Map(found.map((row) => [row.bucket, `${row.rows} ${row.sum}`]));
  };
  const [onSource, onTarget] = await pair.both(sums("source"), sums("target"));
  const differing = [...new Set([...onSource.keys(), ...onTarget.keys()])].filter(
    (each) => onSource.get(each) !== onTarget.get(each),
  );
  if (differing.length > count / 2) return { source: [], target: [] };
  const within = (expression: string): string[] => [
    `${expression} = any ('{${differing.join(",")}}'::integer[])`,
  ];
  return { source: within(bucket.source), target: within(bucket.target) };
}

/** The bucket of a row, from its key: from the number itself where the key is one. */
function bucketSql(plan: TablePlan, side: Side, checksum: Checksum, count: number): string {
  const [first, ...more] = plan.key;
  const isWhole = [first?.source, first?.target].every((column) =>
    ["smallint", "integer", "bigint"].includes(column?.isBuiltin === true ? column.baseType : ""),
  );
  if (isWhole && more.length === 0)
    return `(${plan[side].key[0]?.value} operator(pg_catalog.&) ${count - 1})::integer`;
  const { keyFields, fields } = plan[side];
  return checksum.bucket(keyFields.length === 0 ? fields : keyFields, count);
}

async function list(pair: SessionPair, request: DrillRequest, isParked: string): Promise<Difference[]> {
  const { plan } = request;
  const most = request.maxListed();
  if (most <= 0) return [];
  const n = plan.key.length;
  const result = await pair.target.client.query<string[]>({
    rowMode: "array",
    text: `select d.kind, (${isParked})::text, ${eachKeySql(plan.target.key, (i, { type }) => toText(`d.s${i}`, type))}, ${eachKeySql(plan.target.key, (i, { type }) => toText(`d.t${i}`, type))}
           from ${DIFFERENCES} as d
           order by ${eachKeySql(plan.target.key, (i) => `coalesce(d.s${i}, d.t${i})`)} limit ${most}`,
  });
  const found = result.rows.map(([kind, parked, ...keys]) => ({
    kind: kind as Difference["kind"],
    isParked: parked === "true",
    source: keys.slice(0, n),
    target: keys.slice(n),
  }));
  const changed = found.filter(({ kind }) => kind === "changed");
  const [onSource, onTarget] = await pair.both(
    columnHashes(pair.source, plan.source, request.checksum, changed.map(({ source }) => source)),
    columnHashes(pair.target, plan.target, request.checksum, changed.map(({ target }) => target)),
  ); // prettier-ignore
  const columns = new Map(
    changed.map((difference, index) => {
      const [a, b] = [onSource.get(index + 1), onTarget.get(index + 1)];
      return [difference, a && b ? plan.columns.filter((_, column) => a[column] !== b[column]) : []];
    }),
  );
  return found.map((difference) => ({
    key: keyOf(plan, difference.kind === "extra" ? difference.target : difference.source),
    kind: difference.kind,
    columns: columns.get(difference) ?? [],
    ...(difference.isParked ? { parked: true as const } : {}),
  }));
}

/** Hashes of each column of the rows with these keys, by the key's number from 1. */
async function columnHashes(
  connection: Connection,
  side: SideSql,
  checksum: Checksum,
  keys: readonly (readonly (string | undefined)[])[],
): Promise<Map<number, readonly string[]>> {
  if (keys.length === 0) return new Map();
  const found = await connection.rows<{ n: number; hashes: string[] }>(
    `select x.n::integer as n, array[${side.fields.map((field) => checksum.hashRow([field])).join(", ")}]::text[] as hashes
     from ${keyParametersSql(side.key)}
     join ${side.rows} as t on ${keyMatchesSql(side.key, (n, { type }) => fromText(`x.k${n}`, type))}`,
    side.key.map((_, column) => keys.map((key) => key[column])),
  );
  return new Map(found.map((row) => [row.n, row.hashes]));
}

function keyOf(plan: TablePlan, texts: readonly (string | undefined)[]): Record<string, KeyValue> {
  return Object.fromEntries(
    plan.key.map(({ name, source }, index) => [
      name,
      keyValue(source.isBuiltin ? source.baseType : "", texts[index] ?? ""),
    ]),
  );
}

function keyValue(type: string, text: string): KeyValue {
  if (type === "boolean") return text === "true";
  const number = Number(text);
  return ["smallint", "integer", "bigint", "oid"].includes(type) && Number.isSafeInteger(number)
    ? number
    : text;
}
