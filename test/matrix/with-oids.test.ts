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
