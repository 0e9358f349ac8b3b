import { expect, it } from "vitest";

import { mapTables } from "../../../src/catalog/mapping.ts";
import { rowsSql } from "../../../src/catalog/rows.ts";
import { describeTables } from "../../../src/catalog/table.ts";
import { connect } from "../../../src/postgres/connect.ts";
import { resolveConnection } from "../../../src/postgres/conninfo.ts";
import { freePair } from "../../support/database.ts";

// What a mapping adds must not keep the server from reading a part by its pages and a row by its key.
it.each(["13", "18"])("mapped rows are read by page and by key: version %s", async (version) => {
  await using pair = await freePair({ source: version, target: version });
  await pair.source.sql(`
    create table users (id int primary key, email text, deleted_at timestamptz);
    insert into users select n, 'user' || n from generate_series(1, 20000) n;
    analyze users`);
  const settings = resolveConnection(pair.source.url, { HOME: "/nonexistent" });
  await using source = await connect(settings, { side: "source", purpose: "test" });
  const { oid } = await source.row<{ oid: string }>("select 'public.users'::regclass::oid::bigint as oid");
  const [table] = await describeTables(source, [Number(oid)]);
  if (table === undefined) throw new Error("no table");
  const mapping = {
    where: "deleted_at is null",
    columns: {
      email: { to: "email", as: "md5(email)" },
      deleted_at: { to: null, as: null },
      of: { to: "of", as: "1" },
    },
    discriminator: {},
  };
  const [mapped] = await mapTables(source, [{ source: table, target: table, mapping }]);
  const rows = rowsSql(mapped?.source ?? table);
  const explain = async (query: string): Promise<string> =>
    (await source.rows<{ "QUERY PLAN": string }>(`explain (costs off) ${query}`))
      .map((row) => row["QUERY PLAN"])
      .join("\n");

  const pages = await explain(
    `select t.email from ${rows} as t where t.ctid >= '(1,0)'::tid and t.ctid < '(9,0)'::tid`,
  );
  expect(pages).not.toContain("Subquery");
  if (version === "18") expect(pages).toContain("Tid Range Scan on users");

  // As a batch reads the keys that changed.
  await source.script(
    "set enable_hashjoin = off; set enable_mergejoin = off; create temporary table d (k1 int)",
  );
  const keys = await explain(`
    select coalesce(t.id, d.k1), t.tableoid is not null, t.email, t.of
    from (select distinct * from pg_temp.d) as d left join ${rows} as t on (t.id)::integer operator(pg_catalog.=) d.k1`);
  expect(keys).toContain("Index Scan using users_pkey on users");
  expect(keys).not.toContain("Subquery Scan on t");
});
