import { expect } from "vitest";

import { openFollowed, type Followed } from "./follow-setup.ts";
import { freePair, type Pair } from "./database.ts";

// What happens to tables of both sides while they are followed, and whether rows that nobody has written to are the same for
// sure afterwards. All cases are tables of one database, each a plain one and a partitioned one, and both sides are compared row
// by row.

export interface OldRowsCase {
  what: string;
  /** On the target, before rows are written and applied once more. */
  first?: string;
  /** The same after that, before others are written and applied. */
  second?: string;
  /** `{t}` is the table. */
  source: string;
  /** The source's unless given. */
  target?: string;
  reread: boolean;
  /** Of the source, and of the target: the first version that knows the statements. */
  since?: number;
  until?: number;
  only?: "plain" | "partitioned";
}

const oldRowsCases: readonly OldRowsCase[] = [
  { what: "nothing", source: "", reread: false },
  { what: "column added, null", source: "alter table {t} add column x int", reread: false },
  { what: "column added, one default", source: "alter table {t} add column x int not null default 5", reread: false, since: 11 },
  { what: "column added by a rewrite", source: "alter table {t} add column x int not null default 5", reread: true, until: 10 },
  { what: "column added as Django does", source: "alter table {t} add column x int default 0 not null; alter table {t} alter column x drop default", reread: false, since: 11 },
  { what: "column added, other default", source: "alter table {t} add column x int default 5", target: "alter table {t} add column x int default 6", reread: true },
  { what: "column added, default here alone", source: "alter table {t} add column x int default 5", target: "alter table {t} add column x int", reread: true },
  { what: "column added, default there alone", source: "alter table {t} add column x int", target: "alter table {t} add column x int default 5", reread: true },
  { what: "column added, the moment of it", source: "alter table {t} add column x timestamptz not null default clock_timestamp()", reread: true },
  { what: "column added, the time of the transaction", source: "alter table {t} add column x timestamptz not null default now()", reread: true },
  { what: "column added, random", source: "alter table {t} add column x float8 not null default random()", reread: true },
  { what: "column added, a serial", source: "alter table {t} add column x serial", target: "alter table {t} add column x serial; update {t} set x = -id", reread: true },
  { what: "column added, texts that are alike", source: "alter table {t} add column x text default 'null'", target: "alter table {t} add column x text", reread: true },
  { what: "column added, an enum", source: "alter table {t} add column x mood_{t} default 'b'", reread: false, since: 11 },
  { what: "column added there earlier, null", first: "alter table {t} add column x int", source: "alter table {t} add column x int", target: "", reread: true },
  { what: "column added there earlier, its default gone since", first: "alter table {t} add column x int default 5", second: "alter table {t} alter column x drop default", source: "alter table {t} add column x int default 5", target: "", reread: true, since: 11 },
  { what: "column written to there", first: "alter table {t} add column x int; update {t} set x = 7", source: "alter table {t} add column x int", target: "", reread: true },
  { what: "column dropped and added again", source: "alter table {t} drop column amount, add column amount numeric(8,2)", reread: false },
  { what: "column dropped and added again here", source: "alter table {t} drop column amount, add column amount numeric(8,2)", target: "", reread: true },
  { what: "column dropped and added again there", source: "", target: "alter table {t} drop column amount, add column amount numeric(8,2)", reread: true },
  { what: "columns that swap their names", source: "alter table {t} rename column n to z; alter table {t} rename column m to n; alter table {t} rename column z to m", reread: false },
  { what: "columns that swap their names here", source: "alter table {t} rename column n to z; alter table {t} rename column m to n; alter table {t} rename column z to m", target: "", reread: true },
  { what: "columns that swap their names there", source: "", target: "alter table {t} rename column n to z; alter table {t} rename column m to n; alter table {t} rename column z to m", reread: true },
  { what: "renamed", source: "alter table {t} rename column amount to price", reread: false },
  { what: "renamed and back", source: "alter table {t} rename column n to z; alter table {t} rename column z to n", target: "", reread: false },
  { what: "using, alike on both sides", source: "alter table {t} alter column name type varchar(10) using lower(name)", reread: true },
  { what: "using, here alone", source: "alter table {t} alter column name type varchar(10) using lower(name)", target: "", reread: true },
  { what: "using, there alone", source: "", target: "alter table {t} alter column name type varchar(10) using lower(name)", reread: true },
  { what: "using, then vacuum full", source: "alter table {t} alter column name type varchar(10) using lower(name); vacuum full {t}", target: "", reread: true, since: 11 },
  { what: "using and back to the old type", source: "alter table {t} alter column amount type numeric(8,0); alter table {t} alter column amount type numeric(8,2)", target: "", reread: true },
  { what: "using with rows", source: "begin; update {t} set n = 8 where id = 5; alter table {t} alter column name type varchar(10) using lower(name); update {t} set n = 9 where id = 6; commit", target: "", reread: true },
  { what: "wider text", source: "alter table {t} alter column name type varchar(20)", reread: false },
  { what: "text of any length", source: "alter table {t} alter column name type text", reread: false },
  { what: "wider number", source: "alter table {t} alter column amount type numeric(10,2)", reread: false },
  { what: "another scale", source: "alter table {t} alter column amount type numeric(8,1)", reread: true },
  { what: "bigint", source: "alter table {t} alter column n type bigint", reread: true },
  { what: "a type of the same bytes", source: "alter table {t} alter column n type oid", reread: true },
  { what: "another collation", source: 'alter table {t} alter column name type varchar(10) collate "C"', reread: false },
  { what: "enum value renamed", source: "alter type mood_{t} rename value 'a' to 'aa'", reread: true },
  { what: "enum value added", source: "alter type mood_{t} add value 'c'", reread: false },
  { what: "vacuum full", source: "vacuum full {t}", reread: false, since: 11 },
  { what: "vacuum full there", source: "", target: "vacuum full {t}", reread: false, since: 11 },
  { what: "cluster", source: "cluster {t} using {t}_pkey", target: "", reread: false, only: "plain" },
  { what: "set logged", source: "alter table {t} set unlogged; alter table {t} set logged", target: "", reread: false, only: "plain" },
  { what: "truncated", source: "truncate {t}; insert into {t} (id, name) values (1, 'new')", target: "", reread: false },
  { what: "with oids", source: "alter table {t} set with oids", target: "", reread: false, until: 11, only: "plain" },
  { what: "statistics, storage, rights, comment", source: "alter table {t} alter column name set statistics 5; alter table {t} alter column name set storage external; grant select (name) on {t} to public; comment on column {t}.name is 'x'; analyze {t}; reindex table {t}", target: "", reread: false, only: "plain" },
  { what: "default, not null, check", source: "alter table {t} alter column n set default 9; alter table {t} alter column n set not null; alter table {t} add check (n < 100000); alter table {t} alter column amount drop default", reread: false },
  { what: "default there alone", source: "", target: "alter table {t} alter column n set default 77", reread: false },
  { what: "added, dropped, added", source: "alter table {t} add column x int default 3; alter table {t} drop column x; alter table {t} add column x int default 4", target: "alter table {t} add column x int default 4", reread: false, since: 11 },
  { what: "generated, then ordinary", source: "alter table {t} alter column twice drop expression", reread: true, since: 13, only: "plain" },
  { what: "rewritten while detached", source: "alter table {t} detach partition {t}_2; alter table {t}_2 alter column name type varchar(10) using lower(name); alter table {t} attach partition {t}_2 for values from (100) to (1000)", target: "", reread: true, only: "partitioned" },
  { what: "partition added and another gone", source: "alter table {t} detach partition {t}_2; drop table {t}_2; create table {t}_3 partition of {t} for values from (1000) to (2000); alter table {t} add column x int default 4; insert into {t} (id) values (1500)", target: "create table {t}_3 partition of {t} for values from (1000) to (2000); alter table {t} add column x int default 4", reread: false, only: "partitioned", since: 11 },
]; // prettier-ignore

interface CaseTable {
  name: string;
  kind: "plain" | "partitioned";
  each: OldRowsCase;
}

function createSql({ name, kind }: CaseTable, version: number): string {
  const generated = version >= 12 ? ", twice int generated always as (id * 2) stored" : "";
  const columns = `id int, name varchar(10) default 'New', amount numeric(8,2) default 1.25, n int default -3, m int default 4,
    mood mood_${name} default 'a'${kind === "plain" ? generated : ""}`;
  const type = `create type mood_${name} as enum ('a', 'b');`;
  if (kind === "plain") return `${type} create table ${name} (${columns}, primary key (id));`;
  const leaves = [[0, 100], [100, 1000]].map(([low, high], n) =>
    `create table ${name}_${n + 1} partition of ${name} for values from (${low}) to (${high});
     ${version >= 11 ? "" : `alter table ${name}_${n + 1} add primary key (id);`}`).join(""); // prettier-ignore
  return `${type} create table ${name} (${columns}) partition by range (id); ${leaves}
    ${version >= 11 ? `alter table ${name} add primary key (id);` : ""}`;
}

/** Takes a pair through all cases, and looks at both sides with other eyes. */
export async function takeThroughOldRows(versions: { source: string; target: string }): Promise<void> {
  await using pair = await freePair(versions);
  const [from, to] = [Number(versions.source), Number(versions.target)];
  const tables = oldRowsCases
    .filter(({ since = 10, until = 99 }) => Math.min(from, to) >= since && Math.max(from, to) <= until)
    .flatMap((each, n) =>
      (["plain", "partitioned"] as const)
        .filter((kind) => each.only === undefined || each.only === kind)
        .map((kind): CaseTable => ({ name: `${kind}_${n}`, kind, each })),
    );
  for (const side of ["source", "target"] as const) {
    for (const table of tables) await pair[side].sql(createSql(table, side === "source" ? from : to));
    await pair[side].sql(tables.map(({ name }) => fillSql(name)).join(""));
  }
  await using followed = await openFollowed(pair, { schemaChanges: "stop" });
  await followed.drain();
  for (const step of ["first", "second"] as const) {
    for (const { name, each } of tables) await run(pair, "target", each[step], name);
    await pair.source.sql(
      tables.map(({ name }) => `insert into ${name} (id) values (${step === "first" ? 61 : 62});`).join(""),
    );
    await followed.drain();
  }
  expect(followed.events.filter(({ type }) => type === "table-reread")).toEqual([]);
  for (const { name, each } of tables) {
    await run(pair, "source", each.source, name);
    await run(pair, "target", each.target ?? each.source, name);
  }
  // One row of each, so that a batch is about it.
  await pair.source.sql(tables.map(({ name }) => `update ${name} set name = 'last' where id = 1;`).join(""));
  await drainAndCompare(followed);
  const reread = new Set(
    followed.events.flatMap((event) => (event.type === "table-reread" ? [event.table] : [])),
  );
  const found = tables.map(
    ({ name, each: { what } }) => `${what} (${name}): ${reread.has(`public.${name}`)}`,
  );
  expect(found).toEqual(tables.map(({ name, each: { what, reread: is } }) => `${what} (${name}): ${is}`));
  // What was read again once is not read again and again.
  const before = followed.events.length;
  await pair.source.sql(tables.map(({ name }) => `update ${name} set name = 'again' where id = 1;`).join(""));
  await drainAndCompare(followed);
  expect(followed.events.slice(before).filter(({ type }) => type === "table-reread")).toEqual([]);
}

async function drainAndCompare(followed: Followed): Promise<void> {
  expect(await followed.differences()).toEqual([]);
}

function fillSql(name: string): string {
  return `insert into ${name} (id, name, amount, n, m) select g, 'Name' || g, g + 0.25, -g, g from generate_series(1, 120) g where g not between 50 and 100;`;
}

/** Statement by statement: some cannot be in a transaction. */
async function run(
  pair: Pair,
  side: "source" | "target",
  text: string | undefined,
  name: string,
): Promise<void> {
  if (text === undefined || text === "") return;
  const sql = text.replaceAll("{t}", name);
  if (sql.startsWith("begin")) return void (await pair[side].sql(sql));
  for (const statement of sql.split("; ")) await pair[side].sql(statement);
}
