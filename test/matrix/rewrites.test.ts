import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";

import { freePair, type Database } from "../support/database.ts";

// What tells a rewrite that may have changed values from one that cannot: new versions of the columns' rows in pg_attribute, on
// every version of the server. `moves`: the rows are in another file; `writes`: the columns' rows were written.

interface Command {
  sql: string;
  before?: string;
  moves: boolean;
  writes: boolean;
  since?: number;
  until?: number;
}

const values: readonly Command[] = [
  { sql: "alter table {t} alter column a type text using lower(a)", moves: true, writes: true },
  { sql: "alter table {t} alter column n type bigint", moves: true, writes: true },
  { sql: "alter table {t} alter column v type varchar(5)", moves: true, writes: true },
  { sql: "alter table {t} add column x float8 default random()", moves: true, writes: true },
  { sql: "alter table {t} add column x serial", moves: true, writes: true },
  { sql: "alter table {t} add column x int default 5", moves: true, writes: true, until: 10 },
  { sql: "alter table {t} add column x int default 5", moves: false, writes: true, since: 11 },
  { sql: "alter table {t} add column x timestamptz default now()", moves: false, writes: true, since: 11 },
  { sql: "alter table {t} add column x int generated always as (n * 2) stored", moves: true, writes: true, since: 12 },
  { sql: "alter table {t} alter column g set expression as (n * 3)", before: "alter table {t} add column g int generated always as (n * 2) stored", moves: true, writes: true, since: 17 },
  { sql: "alter table {t} alter column n type oid", moves: false, writes: true },
  { sql: "alter table {t} alter column v type text", moves: false, writes: true },
  { sql: "alter table {t} alter column v type varchar(20)", moves: false, writes: true },
  { sql: "alter table {t} drop column a", moves: false, writes: false },
  { sql: "alter table {t} rename column a to b", moves: false, writes: true },
]; // prettier-ignore

const others: readonly Command[] = [
  { sql: "vacuum full {t}", moves: true, writes: false },
  // The values go into the rows, and the catalogue forgets them: taken for a rewrite, which costs a reading.
  { sql: "vacuum full {t}", before: "alter table {t} add column x int default 5", moves: true, writes: true, since: 11 },
  { sql: "vacuum full {t}", before: "alter table {t} add column x int default 5", moves: true, writes: false, until: 10 },
  { sql: "cluster {t} using {t}_pkey", moves: true, writes: false },
  { sql: "truncate {t}", moves: true, writes: false },
  { sql: "alter table {t} set unlogged", moves: true, writes: false },
  { sql: "alter table {t} set logged", before: "alter table {t} set unlogged", moves: true, writes: false },
  { sql: "alter table {t} set with oids", moves: true, writes: false, until: 11 },
  { sql: "alter table {t} set access method heap", moves: false, writes: false, since: 15 },
  // As pg_repack swaps files.
  { sql: "update pg_class set relfilenode = (select relfilenode from pg_class where relname = '{t}_copy') where relname = '{t}'", before: "create table {t}_copy as table {t}", moves: true, writes: false },
  { sql: "reindex table {t}", moves: false, writes: false },
  { sql: "analyze {t}", moves: false, writes: false },
  { sql: "vacuum freeze {t}", moves: false, writes: false },
  { sql: "update {t} set n = n + 1", moves: false, writes: false },
  { sql: "alter table {t} add check (n > 0)", moves: false, writes: false },
  { sql: "alter table {t} drop constraint {t}_n", before: "alter table {t} add constraint {t}_n check (n > 0)", moves: false, writes: false },
  { sql: "comment on column {t}.a is 'x'", moves: false, writes: false },
  { sql: "alter table {t} replica identity full", moves: false, writes: false },
  { sql: "grant select on {t} to public", moves: false, writes: false },
  { sql: "grant select (a) on {t} to public", moves: false, writes: true },
  { sql: "alter table {t} alter column a set statistics 5", moves: false, writes: true },
  { sql: "alter table {t} alter column a set storage external", moves: false, writes: true },
  { sql: "alter table {t} alter column a set compression pglz", moves: false, writes: true, since: 14 },
  { sql: "alter table {t} alter column a set default 'q'", moves: false, writes: true },
  { sql: "alter table {t} alter column n drop default", moves: false, writes: true },
  { sql: "alter table {t} alter column a set not null", moves: false, writes: true },
]; // prettier-ignore

const fingerprint = readFileSync(new URL("../../sql/catalog/fingerprint.sql", import.meta.url), "utf8");

async function look(
  side: Database,
  table: string,
): Promise<{ versions: string; files: string; all: string }> {
  const [row] = await side.sql<{ fingerprint: string }>(fingerprint, [
    (await side.sql<{ oid: number }>("select $1::regclass::oid", [table])).map(({ oid }) => oid),
  ]);
  const { rows } = JSON.parse(row?.fingerprint ?? "{}") as { rows: { versions: string; files: object } };
  return { versions: rows.versions, files: JSON.stringify(rows.files), all: row?.fingerprint ?? "" };
}

describe.each(["10", "11", "12", "13", "14", "15", "16", "17", "18"])("version %s", (version) => {
  test("commands, and what they leave in the catalogue", { timeout: 3 * 60_000 }, async () => {
    await using pair = await freePair({ source: version, target: version });
    const side = pair.source;
    const known = [...values, ...others].filter(
      ({ since = 10, until = 99 }) => Number(version) >= since && Number(version) <= until,
    );
    const found: string[] = [];
    const wanted: string[] = [];
    for (const [n, { sql, before, moves, writes }] of known.entries()) {
      for (const kind of ["plain", "partitioned"] as const) {
        if (kind === "partitioned" && !values.some((each) => each.sql === sql)) continue;
        const name = `${kind}_${n}`;
        const columns = "id int not null, a text, n int default 3, v varchar(10)";
        await side.sql(
          kind === "plain"
            ? `create table ${name} (${columns}, primary key (id))`
            : `create table ${name} (${columns}) partition by range (id);
               create table ${name}_1 partition of ${name} for values from (0) to (100)`,
        );
        await side.sql(`insert into ${name} select g, 'A' || g, g, 'v' from generate_series(1, 10) g`);
        if (before !== undefined) await side.sql(before.replaceAll("{t}", name));
        const was = await look(side, name);
        expect((await look(side, name)).all).toBe(was.all);
        await side.sql(sql.replaceAll("{t}", name));
        const is = await look(side, name);
        const show = (a: boolean, b: boolean): string => `${sql} (${kind}): moves ${a}, writes ${b}`;
        found.push(show(was.files !== is.files, was.versions !== is.versions));
        wanted.push(show(moves, writes));
      }
    }
    expect(found).toEqual(wanted);
  });
});
