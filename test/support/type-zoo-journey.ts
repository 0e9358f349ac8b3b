import type pg from "pg";

import { openSync, type SyncEvent } from "../../src/index.ts";
import { serverMajor } from "./admin.ts";
import type { Pair } from "./database.ts";
import { extensionSchema, type Feature, typeZoo, zooDefinitions } from "./type-zoo.ts";
import { createTable, isBinary, type Phase, phaseSql, type ZooTable, zooTables } from "./type-zoo-tables.ts";

// Takes the zoo through copy and through batches, while the application writes with settings that change how values are
// read and shown, and reports where the two sides are not the same to the last bit.

/** Of the application's sessions, and of the databases: whoever does not pin its own gets these. */
const oddSettings: Record<string, string> = {
  datestyle: "SQL, DMY",
  intervalstyle: "sql_standard",
  timezone: "Asia/Kathmandu",
  extra_float_digits: "0",
  bytea_output: "escape",
  xmlbinary: "hex",
  quote_all_identifiers: "on",
};

const otherOddSettings: Record<string, string> = {
  ...oddSettings,
  datestyle: "German",
  intervalstyle: "iso_8601",
  timezone: "America/St_Johns",
  array_nulls: "off",
  search_path: "forced",
};

export interface ZooReport {
  /** One line per table that is not the same, at any of the moments when it should be. */
  differences: string[];
  /** Rows compared at the end. */
  rows: number;
  tables: readonly ZooTable[];
  /** Types that these servers do not have. */
  missing: Feature[];
  /** COPY format by table. */
  formats: Record<string, string>;
  expectedFormats: Record<string, string>;
  verified: { equal: boolean; tables: number; different: string[] };
  events: SyncEvent[];
}

export async function takeZooThrough(pair: Pair): Promise<ZooReport> {
  const [source, target] = [await pair.source.client(), await pair.target.client()];
  const version = Math.min(await serverMajor(source), await serverMajor(target));
  const missing = [...(await missingFeatures(source)), ...(await missingFeatures(target))];
  const has = (feature: Feature): boolean => !missing.includes(feature);
  const tables = zooTables(typeZoo(version, has), version);
  for (const [client, side] of [
    [source, "source"],
    [target, "target"],
  ] as const) {
    await client.query(zooDefinitions(side, version, has));
    await client.query(tables.map((table) => createTable(table, side)).join(";\n"));
    const settings = side === "source" ? oddSettings : otherOddSettings;
    const database = client.escapeIdentifier(client.database ?? "");
    for (const [name, value] of Object.entries(settings)) {
      await client.query(`alter database ${database} set ${name} to ${value.split(", ").map((each) => client.escapeLiteral(each)).join(", ")}`); // prettier-ignore
    }
  }
  // Connected anew, with the settings of the database.
  const writer = await pair.source.client();
  await writer.query(`set search_path = zoo, ${extensionSchema}, public`);
  const write = async (phase: Phase): Promise<void> => {
    for (const table of tables) {
      await writer.query(phaseSql(table, phase)).catch((error: unknown) => {
        throw new Error(`${phase}, ${table.name}`, { cause: error });
      });
    }
  };
  const readSource = await imageReader(source, tables);
  const readTarget = await imageReader(target, tables);
  const differences: string[] = [];
  let rows = 0;
  const compare = async (moment: string): Promise<void> => {
    rows = 0;
    for (const table of tables) {
      const [ours, theirs] = await Promise.all([readSource(table), readTarget(table)]);
      rows += ours.length;
      const [missed, added] = [
        ours.filter((row) => !theirs.includes(row)),
        theirs.filter((row) => !ours.includes(row)),
      ];
      if (missed.length + added.length > 0 || ours.length !== theirs.length || ours.length === 0) {
        differences.push(
          `${moment}: ${table.name}: source has ${missed.join(" ")}, target has ${added.join(" ")}`,
        );
      }
    }
  };

  await write("load");
  const events: SyncEvent[] = [];
  await using sync = await openSync({
    source: pair.source.url,
    target: pair.target.url,
    env: {},
    tables: ["zoo.*", "forced.*", "keyed.*"],
    onEvent: (event) => events.push(event),
  });
  await sync.init();
  await write("before copy");
  const { plan } = await sync.copy({ dryRun: true });
  await sync.copy();
  const phases: Phase[] = ["insert and update", "change keys", "delete"];
  for (const phase of phases) {
    await write(phase);
    for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
    await compare(phase);
  }
  const verified = await sync.verify();
  return {
    differences,
    rows,
    tables,
    missing: [...new Set(missing)],
    formats: Object.fromEntries(plan.map(({ table, format }) => [table, format])),
    expectedFormats: Object.fromEntries(
      tables.map((table) => [table.name, isBinary(table) ? "binary" : "text"]),
    ),
    verified: {
      equal: verified.equal,
      tables: verified.tables.length,
      different: verified.tables.flatMap((each) =>
        each.differences.map((difference) => `${each.table} ${JSON.stringify(difference)}`),
      ),
    },
    events,
  };
}

async function missingFeatures(client: pg.Client): Promise<Feature[]> {
  const probes: Record<Feature, string> = {
    icu: "create collation probe (provider = icu, locale = 'und')",
    xml: "select '<a/>'::xml",
    hstore: "create extension hstore",
    citext: "create extension citext",
    ltree: "create extension ltree",
    cube: "create extension cube",
  };
  const missing: Feature[] = [];
  for (const [feature, probe] of Object.entries(probes)) {
    await client.query("begin");
    await client.query(probe).catch(() => missing.push(feature as Feature));
    await client.query("rollback");
  }
  return missing;
}

/** Reads tables as rows of text in which no bit of a value is lost. */
async function imageReader(
  client: pg.Client,
  tables: readonly ZooTable[],
): Promise<(table: ZooTable) => Promise<string[]>> {
  await client.query(
    "set search_path = pg_catalog; set timezone = 'UTC'; set datestyle = 'ISO, MDY'; set intervalstyle = 'postgres'; set extra_float_digits = 3; set bytea_output = 'hex'",
  );
  const { rows } = await client.query<ColumnType>(
    `with recursive base as (
       select a.attrelid, a.attname, t.oid, t.typbasetype, t.typsend, t.typelem
         from pg_attribute a join pg_type t on t.oid = a.atttypid
        where a.attrelid = any ($1::regclass[]) and a.attnum > 0
       union all
       select b.attrelid, b.attname, t.oid, t.typbasetype, t.typsend, t.typelem
         from base b join pg_type t on t.oid = b.typbasetype
     )
     select n.nspname || '.' || c.relname as "table", attname::text as "column", b.oid::regtype::text as type,
            typsend::text as send, b.oid < 10000 and typelem < 10000 as "isBuiltin"
       from base b join pg_class c on c.oid = b.attrelid join pg_namespace n on n.oid = c.relnamespace
      where typbasetype = 0`,
    [tables.map(({ name }) => name)],
  );
  const types = new Map(rows.map((row) => [`${row.table}.${row.column}`, row]));
  const imageOf = (table: ZooTable, column: "value" | "list"): string => {
    const type = types.get(`${table.name}.${column}`);
    if (type === undefined) throw new Error(`${table.name} has no column ${column}`);
    return imageSql(table, column, type);
  };
  return async (table) => {
    const parts =
      table.kind === "keyed"
        ? ["quote_nullable(note)", "seen::text", imageOf(table, "value")]
        : ["id::text", imageOf(table, "value"), ...(table.hasList ? [imageOf(table, "list")] : [])];
    const columns = parts.map((part) => `coalesce(${part}, 'null')`).join(", ");
    const result = await client.query<{ row: string }>(
      `select concat_ws('|', ${columns}) as row from ${table.name} order by 1`,
    );
    return result.rows.map(({ row }) => row);
  };
}

interface ColumnType {
  table: string;
  column: string;
  type: string;
  send: string;
  isBuiltin: boolean;
}

/** What the type says, else the binary form where it names no oids, else the text form. */
function imageSql({ type: { image } }: ZooTable, column: "value" | "list", type: ColumnType): string {
  if (image === undefined) {
    return type.isBuiltin
      ? `encode(${type.send}(${column}::${type.type}), 'hex')`
      : `quote_nullable(${column}::text)`;
  }
  if (column === "value") return image.replaceAll("%", column);
  return `(array_dims(${column}) || array(select ${image.replaceAll("%", "e")} from unnest(${column}) as e)::text)`;
}
