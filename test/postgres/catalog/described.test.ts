import { expect, test } from "vitest";
import { DescribedTables } from "../../../src/catalog/described.ts";
import { describeTables } from "../../../src/catalog/table.ts";
import { connect } from "../../../src/postgres/connect.ts";
import { resolveConnection } from "../../../src/postgres/conninfo.ts";
import { freePair } from "../../support/database.ts";

// What was described beforehand is taken under the lock only where nothing has changed that a description tells of.

const schema = `
  create schema other;
  create table it (id int primary key, a int not null, b text collate "C" default 'x');
  create unique index it_a on it (a);
  create table unrelated (id int);
  create table parted (id int primary key, n int) partition by range (id);
  create table parted_1 partition of parted for values from (0) to (10)`;

const changes = [
  "alter table public.it drop constraint it_pkey",
  "alter table public.it drop constraint it_pkey, add primary key (a)",
  "alter table public.it rename to its",
  "alter table public.it rename column id to key",
  "alter table public.it rename constraint it_pkey to it_key",
  "alter table public.it alter column id type bigint",
  "alter table public.it alter column b type text collate \"POSIX\"",
  "alter table public.it add column c int",
  "alter table public.it drop column b",
  "alter table public.it drop column id",
  "alter table public.it drop constraint it_pkey, alter column a drop not null",
  "alter table public.it set schema other",
  "alter table public.it enable row level security",
  "alter table public.it replica identity using index it_a",
  "create table public.parted_2 partition of public.parted for values from (10) to (20)",
  "alter table public.parted detach partition public.parted_1",
  "drop table public.it",
]; // prettier-ignore

test.each(["13", "18"])("version %s: a table that has changed is described anew", async (version) => {
  await using pair = await freePair({ source: version, target: version });
  await pair.source.sql(schema);
  const settings = resolveConnection(pair.source.url, {});
  await using source = await connect(settings, { side: "source", purpose: "test" });
  const oids = await source.rows<{ oid: number }>(
    `select oid::bigint::float8 as oid from pg_class where relname in ('it', 'unrelated', 'parted') order by relname`,
  );
  const described = await DescribedTables.of(source, oids.map(({ oid }) => oid)); // prettier-ignore
  for (const change of ["select", ...changes]) {
    await source.script(`begin; ${change}`);
    for (const { oid } of oids) {
      const [table] = await describeTables(source, [oid]);
      expect({ change, table: await described.now(oid) }).toEqual({ change, table });
    }
    await source.script("rollback");
  }
});
