import { expect, test } from "vitest";

import { openSync } from "../../src/index.ts";
import { freePair } from "../support/database.ts";

// Tables WITH OIDS, which servers before 12 have: the hidden column is no key and is not replicated, and that is said.

test.for([
  ["10", "18"],
  ["11", "15"],
  ["11", "11"],
] as const)("%s to %s", async ([source, target]) => {
  await using pair = await freePair({ source, target });
  await pair.source
    .sql(`create table doc (id int primary key, v text) with oids; create unique index on doc (oid);
    create table leaf (v text) with oids; create unique index on leaf (oid);
    insert into doc select g, 'v' from generate_series(1, 50) g; insert into leaf select 'w' from generate_series(1, 5)`);
  await pair.target.sql("create table doc (id int primary key, v text); create table leaf (v text)");
  const options = { source: pair.source.url, target: pair.target.url, env: {} };
  {
    await using sync = await openSync(options);
    const { findings } = await sync.preflight();
    const said = findings.filter(({ message }) => message.includes("WITH OIDS"));
    expect(said.map(({ subject, severity }) => [subject, severity])).toEqual([
      ["public.doc", "warning"],
      ["public.leaf", "warning"],
    ]);
    expect(findings.filter(({ severity }) => severity === "blocking")).toMatchObject([
      { subject: "public.leaf", message: expect.stringContaining("has no key") as string },
    ]);
    // Servers from 12 on would refuse it.
    expect(findings.filter(({ remedy }) => /index .*\(oid\)/i.test(remedy ?? ""))).toEqual([]);
    await expect(sync.init()).rejects.toMatchObject({ code: "PREFLIGHT_BLOCKED" });
  }
  await using sync = await openSync({ ...options, keyless: "reload" });
  await sync.init();
  await sync.copy();
  await pair.source.sql(
    "update doc set v = 'x' where id < 10; delete from leaf where oid = (select min(oid) from leaf)",
  );
  for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
  for (const query of ["select id, v from doc order by id", "select v from leaf"])
    expect(await pair.target.sql(query)).toEqual(await pair.source.sql(query));
});

// What is made on the hidden column is left out with its reason, and what needs that; all else comes.
test.for([
  ["10", "18"],
  ["11", "15"],
] as const)("a schema of %s for %s", async ([source, target]) => {
  await using pair = await freePair({ source, target });
  await pair.source.sql(`create table doc (id int primary key, v text) with oids;
    create unique index doc_oid on doc (oid); create index doc_both on doc (v, oid); create index doc_v on doc (v);
    create index doc_expression on doc ((oid::text)); create index doc_some on doc (v) where oid > '5';
    create table leaf (v text) with oids; alter table leaf add constraint leaf_key unique (oid);
    create table part (id int primary key, leaf_oid oid, constraint part_leaf foreign key (leaf_oid) references leaf (oid));
    create view numbered as select oid as number, v from doc; create view upon as select number from numbered;
    create view plain as select v from doc;
    create policy few on doc using (oid > '5'); create policy many on doc using (id > 5);
    create function nothing() returns trigger language plpgsql as 'begin return null; end';
    create trigger noted after update on doc for each row when (new.oid > '5') execute procedure nothing()`);
  await using sync = await openSync({ source: pair.source.url, target: pair.target.url, env: {} });
  const { leftOut } = await sync.schema();
  const left = leftOut.filter(({ object }) => /public\./.test(object));
  expect(
    left
      .map(({ object }) => object.replace(/^(?:index|view|constraint|fk constraint|policy|trigger) /, ""))
      .sort(),
  ).toEqual(
    [
      "public.doc_oid",
      "public.doc_both",
      "public.doc_expression",
      "public.doc_some",
      "leaf_key on public.leaf",
      "part_leaf on public.part",
      "public.numbered",
      "public.upon",
      "few on public.doc",
      "noted on public.doc",
    ].sort(),
  );
  for (const { object, reason } of left) {
    if (object.includes("upon") || object.includes("part_leaf")) continue;
    expect(reason).toMatch(/^uses the hidden column oid of public\.(doc|leaf), which is not replicated/);
  }
  const names = await pair.target.sql(
    "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'i', 'v') order by 1",
  );
  expect(names).toEqual(
    ["doc", "doc_pkey", "doc_v", "leaf", "part", "part_pkey", "plain"].map((relname) => ({ relname })),
  );
});
